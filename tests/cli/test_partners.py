"""Becoming a partner: each step says what comes next, and a key is shown once and never anywhere else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from redis import Redis

from tests.cli.conftest import Command, failed
from tests.store.making import values_of
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings

WHO = ("--organisation", "Harbour Films", "--email", "ops@harbour.example", "--name", "Ada Byron")


def mailed(simulator: Running) -> list[str]:
    answer = urllib3.request("GET", f"{simulator.url}/_simulator/mails", retries=False)
    tokens: list[str] = answer.json()["verificationTokens"]
    return tokens


def asked(simulator: Running) -> list[str]:
    return [f"{one['method']} {one['path'].removeprefix('/v1/partner')}" for one in simulator.truth()["apiRequests"]]


def test_a_newcomer_gets_a_working_key_without_key_and_redis(
    command: Command, simulator: Running, no_redis: str, tmp_path: Path
) -> None:
    nothing = {"JARAI_API_KEY": "", "REDIS_URL": no_redis}
    registered = command("partners", "register", *WHO, **nothing)
    assert registered.exit_code == 0
    assert "ops@harbour.example" in registered.stdout
    assert "partners verify TOKEN" in registered.stdout
    verified = command("partners", "verify", *mailed(simulator), "--save", **nothing)
    assert verified.exit_code == 0
    key = verified.stdout.strip()
    assert (tmp_path / ".env").read_text() == f"JARAI_API_KEY={key}\n"
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert key not in verified.stderr
    listed = command("accounts", **nothing)
    assert listed.exit_code == 0
    assert "Simulated account 1" in listed.stdout
    assert '"connectedPlatforms"' in command("accounts", "--json", **nothing).stdout


def test_without_save_nothing_is_written(command: Command, simulator: Running, tmp_path: Path) -> None:
    command("partners", "register", *WHO)
    done = command("partners", "verify", *mailed(simulator))
    assert done.stdout.startswith("jarai_live_")
    assert "once" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_token_works_once_and_a_wrong_one_is_one_sentence(command: Command, simulator: Running) -> None:
    command("partners", "register", *WHO)
    [token] = mailed(simulator)
    assert command("partners", "verify", token).exit_code == 0
    again = command("partners", "verify", token)
    failed(again, "INVALID_REQUEST", "correlation id")
    assert token not in again.stderr


def test_rotating_the_key_shows_the_new_one_once_and_says_what_to_do(
    command: Command, simulator: Running, redis: Redis, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("# mine\nJARAI_API_KEY=old\nPORT=8001\n")
    assert command("partners", "rotate-key", input="n\n").exit_code == 1
    assert asked(simulator) == []
    done = command("partners", "rotate-key", "--save", input="y\n")
    assert done.exit_code == 0
    key = done.stdout.strip()
    assert (tmp_path / ".env").read_text() == f"# mine\nJARAI_API_KEY={key}\nPORT=8001\n"
    assert "24 hours" in done.stderr
    assert "also set in the environment, which wins" in done.stderr
    assert key not in done.stderr + str(values_of(redis))
    assert command("accounts", JARAI_API_KEY=key).exit_code == 0


def test_an_answer_that_gets_lost_says_what_may_have_happened(command: Command, simulator: Running) -> None:
    command("partners", "register", *WHO)
    simulator.set_faults(api_garbage={"next": 2, "match": "/partners/"})
    failed(command("partners", "rotate-key", "--yes"), "works for 24 hours", "run this again")
    failed(command("partners", "verify", *mailed(simulator)), "may be used up")


def test_where_nothing_can_be_saved_no_key_is_asked_for(command: Command, simulator: Running, tmp_path: Path) -> None:
    (tmp_path / ".env").symlink_to(tmp_path / "none" / "env")
    failed(command("partners", "rotate-key", "--yes", "--save"), ".env", "can't be written")
    assert simulator.truth()["apiRequests"] == []


def test_a_key_that_can_not_be_saved_was_shown_all_the_same(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    done = command("partners", "rotate-key", "--yes", "--save")
    assert done.exit_code == 1
    assert done.stdout.startswith("jarai_live_")
    assert "set JARAI_API_KEY there yourself" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_a_key_that_can_not_be_shown_was_saved_all_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    """A full disk behind stdout, or a pipe that nobody reads: the key is told once, and must not be lost."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "partners", "rotate-key", "--yes", "--save"],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "JARAI_API_KEY=jarai_live_" in (tmp_path / ".env").read_text()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("partners", "register", *WHO[:3], "nobody", *WHO[4:]), "--email"),
        (("partners", "register", "--organisation", " ", *WHO[2:]), "--organisation"),
        (("partners", "verify", " "), "TOKEN"),
    ],
)
def test_wrong_input_is_wrong_usage_and_is_not_sent(
    command: Command, simulator: Running, arguments: tuple[str, ...], option: str
) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert option in done.stderr
    assert asked(simulator) == []


def test_without_a_key_the_sentence_says_how_to_get_one(command: Command) -> None:
    failed(command("accounts", JARAI_API_KEY=""), "JARAI_API_KEY", "partners verify")
    failed(
        command("accounts", JARAI_API_KEY="jarai_live_wrong"), "UNAUTHORIZED", "check JARAI_API_KEY", "correlation id"
    )


def test_a_budget_that_is_used_up_says_when_it_is_not(command: Command, environment: dict[str, str]) -> None:
    with run_in_thread(Settings(seed=1, tier="free")) as free:
        environment |= {"JARAI_API_URL": free.api_url, "JARAI_API_KEY": free.settings.api_key}
        outcomes = [command("accounts") for _ in range(11)]
        assert [one.exit_code for one in outcomes] == [0] * 10 + [1]
        failed(outcomes[-1], "No request to JARAI is left this minute; again in")
        assert len(asked(free)) == 10
