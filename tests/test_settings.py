"""Settings: what is wrong is said in one sentence that names the variable, and never shows a secret."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from service.core.budget import Limits
from service.core.errors import SettingsError
from service.core.schedule import Intervals
from service.settings import Settings, Watcher, load

NAMES = sorted(str(field.alias) for field in Settings.model_fields.values() if field.alias)


def test_without_any_setting_the_defaults_hold() -> None:
    settings = load({}, None)
    assert settings.jarai_api_url == "https://api.jarai.studio/v1/partner"
    assert (settings.jarai_api_key, settings.webhook_secrets, settings.admin_token, settings.redis_url) == (
        "",
        (),
        "",
        "",
    )
    assert (settings.storage_dir, settings.state_dir) == (Path("var/deliverables"), Path("var"))
    assert (settings.host, settings.port, settings.max_body_bytes) == ("127.0.0.1", 8000, 2**20)
    assert settings.download_hosts == ("*.blob.core.windows.net",)
    assert settings.intervals == Intervals()
    assert settings.limits == Limits()
    assert (settings.retention_days, settings.log_format, settings.log_level) == (30, "", "info")


def test_every_setting_that_is_promised_is_read() -> None:
    promised = """
        ADMIN_TOKEN DOWNLOAD_HOSTS HOST JARAI_API_KEY JARAI_API_URL JARAI_WEBHOOK_SECRETS LOG_FORMAT LOG_LEVEL
        MAX_BODY_BYTES NOTIFY_SECRET NOTIFY_URL POLL_PRODUCING_SECONDS POLL_QUEUED_SECONDS POLL_WAITING_SECONDS PORT
        RATE_LIMIT_PER_DAY RATE_LIMIT_PER_MINUTE REDIS_URL RETENTION_DAYS STATE_DIR STORAGE_URL WEBHOOK_SILENCE_SECONDS
    """
    assert set(promised.split()) <= set(NAMES)


def test_settings_are_read_as_written() -> None:
    settings = load(
        {
            "JARAI_API_URL": "https://apim.example/v1/",
            "JARAI_WEBHOOK_SECRETS": " SmVmZQ , ,-_8= ",
            "STORAGE_URL": "file:///srv/deliverables",
            "DOWNLOAD_HOSTS": "*.Example.COM, 127.0.0.1",
            "POLL_QUEUED_SECONDS": "0.5",
            "WEBHOOK_SILENCE_SECONDS": "0",
            "RATE_LIMIT_PER_MINUTE": "10",
            "RATE_LIMIT_PER_DAY": "100",
            "LOG_LEVEL": "WARNING",
            "PORT": "0",
            "SOMETHING_ELSE": "x",
        },
        None,
    )
    assert settings.jarai_api_url == "https://apim.example/v1"
    assert settings.webhook_keys == (b"Jefe", b"\xfb\xff")
    assert settings.storage_dir == Path("/srv/deliverables")
    assert settings.download_hosts == ("*.example.com", "127.0.0.1")
    assert (settings.intervals.queued, settings.intervals.silence) == (timedelta(seconds=0.5), timedelta(0))
    assert settings.limits == Limits(per_minute=10, per_day=100)
    assert (settings.log_level, settings.port) == ("warning", 0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://localhost/v1", "http://[::1]:9/v1"])
def test_only_towards_this_machine_may_jarai_be_plain_http(url: str) -> None:
    assert load({"JARAI_API_URL": url}, None).jarai_api_url == url
    with pytest.raises(SettingsError):
        load({"JARAI_API_URL": "http://api.example/v1"}, None)


@pytest.mark.parametrize(
    "url",
    ["redis://h:6379/0", "rediss://u:p@h/1", "unix:///run/redis.sock", "redis+sentinel://:p@a:26379,b:26379/name"],
)
def test_redis_may_be_reached_in_each_promised_way(url: str) -> None:
    assert load({"REDIS_URL": url}, None).redis_url == url


WRONG = [
    ("JARAI_API_URL", "api.jarai.studio"),
    ("JARAI_API_URL", "http://api.jarai.studio/v1"),
    ("JARAI_API_URL", "ftp://api.jarai.studio"),
    ("JARAI_API_URL", "https://"),
    ("JARAI_API_URL", "https://api.jarai.studio/?key=geheim"),
    ("JARAI_API_URL", "https://geheim@api.jarai.studio"),
    ("JARAI_API_URL", "https://:geheim@api.jarai.studio"),
    ("JARAI_API_URL", "https://[geheim"),
    ("JARAI_API_URL", "https://api.jarai.studio:geheim/v1"),
    ("JARAI_API_KEY", "geheim geheim"),
    ("JARAI_API_KEY", "geheim\n"),
    ("JARAI_API_KEY", "gehéim"),
    ("JARAI_WEBHOOK_SECRETS", "geheim+geheim"),
    ("JARAI_WEBHOOK_SECRETS", "SmVmZQ,geheim/"),
    ("JARAI_WEBHOOK_SECRETS", "gehei"),
    ("ADMIN_TOKEN", "geheim\tgeheim"),
    ("REDIS_URL", "127.0.0.1:6379"),
    ("REDIS_URL", "http://:geheim@127.0.0.1"),
    ("REDIS_URL", "redis://:ge[geheim]heim@127.0.0.1"),
    ("REDIS_URL", "redis://:geheim℀@127.0.0.1"),
    ("REDIS_URL", "redis://:geheim@127.0.0.1:port/0"),
    ("REDIS_URL", "redis://:geheim/geheim@127.0.0.1:6379/0"),
    ("STORAGE_URL", "ftp://geheim"),
    ("STORAGE_URL", "s3://"),
    ("STORAGE_URL", "s3:///geheim"),
    ("STORAGE_URL", "s3://key:geheim@bucket/films"),
    ("STORAGE_URL", "az://container/films?sig=geheim"),
    ("STORAGE_URL", "az://container/films#geheim"),
    ("STORAGE_URL", "gs://bucket/../geheim"),
    ("STORAGE_URL", "gs://bucket//geheim"),
    ("NOTIFY_URL", "partner.example/geheim"),
    ("NOTIFY_URL", "ftp://partner.example/geheim"),
    ("NOTIFY_URL", "https:///geheim"),
    ("NOTIFY_URL", "https://geheim:geheim@partner.example"),
    ("NOTIFY_URL", "https://partner.example/#geheim"),
    ("NOTIFY_URL", "https://partner.example/ge heim"),
    ("NOTIFY_URL", "https://partner.example:geheim/"),
    ("NOTIFY_SECRET", "geheim"),
    ("NOTIFY_SECRET", "whsec_"),
    ("NOTIFY_SECRET", "whsec_geheim!"),
    ("NOTIFY_SECRET", "whsec_Z2VoZWlt"),
    ("NOTIFY_SECRET", "Z2VoZWltZ2VoZWltZ2VoZWltZ2VoZWlt"),
    ("PORT", "http"),
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("MAX_BODY_BYTES", "1"),
    ("MAX_BODY_BYTES", "1 MiB"),
    ("POLL_QUEUED_SECONDS", "0"),
    ("POLL_PRODUCING_SECONDS", "nan"),
    ("POLL_WAITING_SECONDS", "soon"),
    ("WEBHOOK_SILENCE_SECONDS", "-1"),
    ("WEBHOOK_SILENCE_SECONDS", "inf"),
    ("RATE_LIMIT_PER_MINUTE", "0"),
    ("RATE_LIMIT_PER_DAY", "many"),
    ("RETENTION_DAYS", "0"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_one_sentence_that_names_the_variable_and_no_secret(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load({name: value}, None)
    sentence = str(refusal.value)
    assert sentence.startswith(f"{name} is wrong: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "geheim" not in sentence
    assert refusal.value.__cause__ is None


def test_the_secret_that_is_wrong_is_told_by_its_place() -> None:
    with pytest.raises(SettingsError, match=r"^JARAI_WEBHOOK_SECRETS is wrong: secret 2 is not base64url\.$"):
        load({"JARAI_WEBHOOK_SECRETS": "SmVmZQ,a+b/"}, None)


@given(st.sampled_from(NAMES), st.text(min_size=1))
@examples(derandomize=True, database=None, deadline=None)
def test_any_value_is_taken_or_refused_in_one_sentence(name: str, value: str) -> None:
    try:
        refused = "" if load({name: value}, None).secrets is not None else "?"
    except SettingsError as refusal:
        refused = str(refusal)
    assert not refused or refused.startswith(f"{name} is wrong: ")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert load({name: ""}, None) == load({}, None)


def test_the_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("# mine\nexport HOST=0.0.0.0\nPORT=9000\nADMIN_TOKEN='a${b}$c'\nLOG_LEVEL=\n")
    settings = load({"PORT": "9001"}, dotenv)
    assert (settings.host, settings.port, settings.admin_token, settings.log_level) == (
        "0.0.0.0",
        9001,
        "a${b}$c",
        "info",
    )
    assert load({}, tmp_path / "absent").port == 8000


def test_an_empty_variable_leaves_what_the_env_file_says(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=9000\n")
    assert load({"PORT": ""}, dotenv).port == 9000


def test_an_env_file_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes("ADMIN_TOKEN=grüße".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"\.env"):
        load({}, dotenv)


def test_a_wrong_value_in_the_env_file_is_named_as_well(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=geheim\n")
    with pytest.raises(SettingsError, match=r"^PORT is wrong: "):
        load({}, dotenv)


def test_who_is_notified_needs_a_secret_to_know_us_by() -> None:
    with pytest.raises(SettingsError, match=r"^NOTIFY_SECRET is wrong: has to be set where NOTIFY_URL is\.$"):
        load({"NOTIFY_URL": "https://partner.example/hook"}, None)


def test_of_the_address_that_is_notified_only_the_host_is_ever_shown() -> None:
    hook = {"NOTIFY_URL": "https://partner.example:8443/services/T000/geheim-geheim?key=geheim-key",
            "NOTIFY_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}  # fmt: skip
    settings = load(hook, None)
    assert settings.notify_place == "https://partner.example:8443"
    assert {"/services/T000/geheim-geheim", "key=geheim-key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} <= set(settings.secrets)  # fmt: skip
    assert "geheim" not in repr(settings)
    short = load(hook | {"NOTIFY_URL": "http://internal/hook"}, None)
    assert "/hook" not in short.secrets, "else every text with that word in it would be spoilt"


SECRET = {
    "JARAI_API_KEY": "jarai_live_geheim",
    "JARAI_WEBHOOK_SECRETS": "Z2VoZWlt,Z2VoZWltMg",
    "ADMIN_TOKEN": "geheim-token",
    "REDIS_URL": "redis://:geheim-passwort@127.0.0.1:6379/0",
}


def test_every_secret_is_known_to_the_log() -> None:
    assert set(load(SECRET, None).secrets) == {
        "jarai_live_geheim",
        "Z2VoZWlt",
        "Z2VoZWltMg",
        "geheim-token",
        "geheim-passwort",
    }


def test_a_password_is_known_as_written_and_as_it_is_sent() -> None:
    assert {"p%40ss%2Fwort", "p@ss/wort"} <= set(load({"REDIS_URL": "redis://:p%40ss%2Fwort@127.0.0.1"}, None).secrets)


def test_no_secret_shows_when_settings_are_printed() -> None:
    shown = repr(load(SECRET, None)) + str(load(SECRET, None))
    assert "geheim" not in shown
    assert "Z2VoZWlt" not in shown


def test_changed_secrets_are_noticed_once_and_a_broken_file_is_said_once(tmp_path: Path) -> None:
    path, current = tmp_path / ".env", load({"PORT": "9000"}, None)
    watcher = Watcher(path)
    assert watcher.look(current) is None
    path.write_text("JARAI_WEBHOOK_SECRETS=SmVmZQ\nPORT=9999\n")
    found = watcher.look(current)
    assert found is not None
    assert (found.webhook_keys, found.port) == ((b"Jefe",), 9000), "everything else needs a restart"
    assert watcher.look(found) is None
    path.write_text("JARAI_WEBHOOK_SECRETS=SmVmZQ\nJARAI_API_KEY=jarai_live_another\n")
    renewed = watcher.look(found)
    assert renewed is not None
    assert renewed.jarai_api_key == "jarai_live_another"
    path.write_text("PORT=eighty-eight\n")
    with pytest.raises(SettingsError):
        watcher.look(renewed)
    assert watcher.look(renewed) is None
    path.write_text("JARAI_WEBHOOK_SECRETS=SmVmZQ\nJARAI_API_KEY=jarai_live_another\n# no more\n")
    assert watcher.look(renewed) is None, "nothing that counts has changed"
