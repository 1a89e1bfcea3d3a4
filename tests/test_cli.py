"""The command, as a person or a script uses it: real processes, exit codes, plain sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from service.core.observations import DownloadFailed
from service.core.production import to_json
from service.store import deadletters, due, inbox, productions
from service.store.scripts import PREFIX
from tests.deployment import Deployment, free_port
from tests.store.making import event, keep, listing, new_id, take_in, values_of

COMMANDS = (
    "up",
    "demo",
    "web",
    "worker",
    "poller",
    "check",
    "productions",
    "deadletters",
    "rebuild",
    "verify",
    "simulator",
)
LISTINGS = (("productions", "list"), ("deadletters", "list"))


def one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 1 and nothing on stderr but one line that holds these words."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("asked", [("--help",), ("-h",)])
def test_help_names_every_command(deployment: Deployment, asked: tuple[str, ...]) -> None:
    done = deployment.command(*asked)
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed >= set(COMMANDS)


@pytest.mark.parametrize("command", ["productions", "deadletters", "worker", "demo", "simulator"])
def test_every_command_has_its_help(deployment: Deployment, command: str) -> None:
    done = deployment.command(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_version(deployment: Deployment) -> None:
    assert deployment.command("--version").stdout.startswith("jarai-receiver")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("productions", "show"),
        ("productions", "list", "--limit", "0"),
        ("worker", "--queues", "upload"),
        ("deadletters", "retry"),
        ("deadletters", "retry", "x", "--all"),
    ],
)
def test_wrong_usage_is_2(deployment: Deployment, arguments: tuple[str, ...]) -> None:
    done = deployment.command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("JARAI_WEBHOOK_SECRETS", "c2VjcmV0,not base64!"),
        ("JARAI_API_KEY", "jarai_live_key with spaces"),
        ("JARAI_API_URL", "http://api.jarai.studio/v1"),
        ("REDIS_URL", "http://127.0.0.1"),
        ("REDIS_URL", "redis://:word@127.0.0.1:notaport/0"),
        ("STORAGE_URL", "ftp://here"),
        ("POLL_QUEUED_SECONDS", "0"),
        ("MAX_BODY_BYTES", "lots"),
        ("RETENTION_DAYS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it_and_not_its_value(
    deployment: Deployment, name: str, value: str
) -> None:
    done = deployment.command("productions", "list", **{name: value})
    one_sentence(done, name)
    if name in ("JARAI_WEBHOOK_SECRETS", "JARAI_API_KEY", "REDIS_URL"):
        assert value not in done.stderr
        assert "word" not in done.stderr


@pytest.mark.parametrize("command", ["web", "worker", "poller", "up"])
def test_every_process_refuses_to_start_with_a_wrong_setting(deployment: Deployment, command: str) -> None:
    one_sentence(deployment.command(command, PORT="eighty"), "PORT")


def test_settings_are_read_from_a_file_and_the_environment_wins(deployment: Deployment) -> None:
    (deployment.folder / ".env").write_text("RETENTION_DAYS=wrong\n")
    one_sentence(deployment.command("productions", "list"), "RETENTION_DAYS")
    assert deployment.command("productions", "list", RETENTION_DAYS="3").returncode == 0


def test_a_settings_file_that_can_not_be_read_is_one_sentence(deployment: Deployment) -> None:
    (deployment.folder / ".env").write_bytes(b"ADMIN_TOKEN=\xff\xfe\n")
    one_sentence(deployment.command("productions", "list"), ".env")


def test_an_address_note_that_was_cut_short_is_no_traceback(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "state" / "redis").mkdir(parents=True)
    (tmp_path / "state" / "redis" / "url").write_text("")
    done = deployment.command("productions", "list", REDIS_URL="")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("productions", "list"),
        ("productions", "show", "3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"),
        ("productions", "track", "3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"),
        ("deadletters", "list", "--json"),
        ("deadletters", "retry", "--all"),
    ],
)
def test_a_redis_that_is_down_is_one_sentence(deployment: Deployment, arguments: tuple[str, ...]) -> None:
    url = f"redis://:Passw0rd@127.0.0.1:{free_port()}/0"
    done = deployment.command(*arguments, REDIS_URL=url)
    one_sentence(done, "Redis does not answer")
    assert "Passw0rd" not in done.stderr


@pytest.mark.parametrize("arguments", LISTINGS)
def test_an_empty_listing_says_so(deployment: Deployment, arguments: tuple[str, ...]) -> None:
    done = deployment.command(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no ")
    [(_, shown)] = json.loads(deployment.command(*arguments, "--json").stdout).items()
    assert shown == []


def test_productions_are_listed_and_shown(deployment: Deployment, redis: Redis) -> None:
    failed, running = new_id(), new_id()
    take_in(redis, event(failed, 1, "production.failed"))
    data = listing("https://a.blob.core.windows.net/film.mp4?sig=SeCrEt")
    take_in(redis, event(running, 1), event(running, 2, "deliverable.ready", data=data))
    table = deployment.command("productions", "list").stdout
    assert failed in table
    assert running in table
    only = json.loads(deployment.command("productions", "list", "--json", "--status", "Failed").stdout)
    assert [one["productionId"] for one in only["productions"]] == [failed]
    shown = deployment.command("productions", "show", running)
    assert "Producing" in shown.stdout
    assert "SeCrEt" not in shown.stdout
    whole = json.loads(deployment.command("productions", "show", "--json", running.upper()).stdout)
    assert (whole["productionId"], len(whole["timeline"])) == (running, len(productions.timeline(redis, running)))


def test_show_tells_how_far_a_download_has_come_how_often_it_was_tried_and_when_it_is_next(
    deployment: Deployment, redis: Redis
) -> None:
    identity = new_id()
    data = listing("https://a.blob.core.windows.net/film.mp4?sig=SeCrEt")
    take_in(redis, event(identity, 1, "deliverable.ready", data=data))
    claim = claimed_video(redis)
    due.renew_download(redis, claim, 5_000_000, 2_500_000)
    assert "5000000, 2.5 MB/s" in deployment.command("productions", "show", identity).stdout
    [one] = json.loads(deployment.command("productions", "show", "--json", identity).stdout)["deliverables"]
    assert (one["receivedBytes"], one["bytesPerSecond"]) == (5_000_000, 2_500_000)
    failed = DownloadFailed(productions.now(redis), claim.key, "transfer", "the line broke", progressed=True)
    inbox.observe(redis, identity, failed)
    take_in(redis)
    [one] = json.loads(deployment.command("productions", "show", "--json", identity).stdout)["deliverables"]
    assert (one["attempts"], one["error"]) == (1, "the line broke")
    assert one["nextAttemptAt"] is not None
    assert "the line broke" in deployment.command("productions", "show", identity).stdout


def claimed_video(redis: Redis) -> due.DownloadClaim:
    for _ in range(5):
        claim = due.claim_download(redis, "one")
        if claim is not None and claim.deliverable is not None:
            return claim
    raise AssertionError("no file is due")


def test_redownload_of_what_is_not_there_is_one_sentence(deployment: Deployment, redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1))
    one_sentence(deployment.command("productions", "redownload", identity), "no files")
    one_sentence(deployment.command("productions", "redownload", identity, "--file", "x.mp4"), "x.mp4")


def test_verify_of_an_empty_storage_says_so(deployment: Deployment) -> None:
    done = deployment.command("verify")
    assert (done.returncode, done.stdout) == (0, "0 file(s) of 0 production(s) read, 0 damaged\n")


@pytest.mark.parametrize("command", ["show", "refresh", "replay", "redownload"])
def test_an_unknown_production_is_one_sentence(deployment: Deployment, command: str) -> None:
    identity = new_id()
    one_sentence(deployment.command("productions", command, identity), identity)
    one_sentence(deployment.command("productions", command, "nonsense"), "UUID")


def test_a_dry_replay_shows_what_the_events_tell_otherwise_and_changes_nothing(
    deployment: Deployment, redis: Redis
) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1, "production.queued"), event(identity, 2))
    dry = deployment.command("productions", "replay", identity, "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "2 kept event(s) tell what is stored\n")
    spoilt = productions.read(redis, identity)
    assert spoilt is not None
    wrong = replace(spoilt, status="Failed", error_code="WRONG")
    redis.set(f"{PREFIX}production:{identity}", b"%d\n%s" % (wrong.version, to_json(wrong)))
    before = values_of(redis)
    shown = json.loads(deployment.command("productions", "replay", identity, "--dry-run", "--json").stdout)
    assert {one["field"]: (one["stored"], one["fromEvents"]) for one in shown["differences"]} == {
        "status": ("Failed", "Producing"), "error": ({"code": "WRONG", "message": None}, None),
    }  # fmt: skip
    assert "Failed" in deployment.command("productions", "replay", identity, "--dry-run").stdout
    assert values_of(redis) == before


def test_a_replay_makes_the_state_anew_and_has_jarai_asked(deployment: Deployment, redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1, "production.queued"), event(identity, 2))
    spoilt = productions.read(redis, identity)
    assert spoilt is not None
    wrong = replace(spoilt, status="Failed", sequence=99, status_sequence=99)
    redis.set(f"{PREFIX}production:{identity}", b"%d\n%s" % (wrong.version, to_json(wrong)))
    done = deployment.command("productions", "replay", identity)
    assert done.returncode == 0
    assert "made anew" in done.stdout
    take_in(redis)
    again = productions.read(redis, identity)
    assert again is not None
    assert (again.status, again.sequence, again.refresh_wanted) == ("Producing", 2, True)
    kinds = [entry["kind"] for entry in productions.timeline(redis, identity)]
    assert kinds.count("event") == 2


def test_track_and_refresh_reach_the_inbox(deployment: Deployment, redis: Redis) -> None:
    identity = new_id()
    assert deployment.command("productions", "track", identity).returncode == 0
    take_in(redis)
    assert deployment.command("productions", "refresh", identity).returncode == 0
    take_in(redis)
    wishes = [entry["wish"] for entry in productions.timeline(redis, identity)]
    assert wishes == ["track", "refresh"]
    one_sentence(deployment.command("productions", "track", identity, "--account", "x"))


def test_dead_letters_are_listed_shown_retried_and_discarded(deployment: Deployment, redis: Redis) -> None:
    keep(redis, b"no event")
    [letter] = deadletters.newest(redis, 9)
    assert letter.id in deployment.command("deadletters", "list").stdout
    assert json.loads(deployment.command("deadletters", "show", letter.id).stdout)["body"] == "no event"
    one_sentence(deployment.command("deadletters", "retry", letter.id), letter.id)
    assert deployment.command("deadletters", "discard", letter.id).returncode == 0
    for command in ("show", "retry", "discard"):
        one_sentence(deployment.command("deadletters", command, letter.id), letter.id)
    assert deployment.command("deadletters", "retry", "--all").returncode == 0


def test_control_characters_in_stored_text_do_not_reach_the_terminal(deployment: Deployment, redis: Redis) -> None:
    identity, nasty = new_id(), "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\u202e[red]"
    data = {
        "errorMessage": nasty,
        "deliverables": [{"type": nasty, "fileName": nasty, "sasUrl": "https://elsewhere.example/x"}],
    }
    take_in(redis, event(identity, 1, "production.failed", correlationId=nasty, data=data))
    keep(redis, nasty.encode(), b'{"eventType": "\x1b[2J\xc2\x9b31m"}')
    for letter in deadletters.newest(redis, 9):
        redis.hset(f"{PREFIX}deadletter:{letter.id}", "reason", nasty)
    letters = [letter.id for letter in deadletters.newest(redis, 9)]
    for arguments in (
        ("productions", "list"),
        ("productions", "show", identity),
        ("deadletters", "list"),
        *(("deadletters", "show", letter) for letter in letters),
    ):
        done = deployment.command(*arguments)
        assert done.returncode == 0
        shown = {character for character in done.stdout if not character.isprintable() and character != "\n"}
        assert shown == set(), arguments


def test_up_in_a_folder_that_can_not_be_made_is_one_sentence(deployment: Deployment) -> None:
    one_sentence(deployment.command("up", REDIS_URL="", STATE_DIR="/proc/nowhere"))


def test_a_reader_that_goes_away_is_no_traceback(deployment: Deployment, redis: Redis) -> None:
    take_in(redis, *(event(new_id(), 1) for _ in range(200)))
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "productions", "list", "--json"],
        env={**os.environ, **deployment.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    process.wait(20)
    assert "Traceback" not in said


def test_a_command_is_quick_enough_for_a_script(deployment: Deployment) -> None:
    started = time.monotonic()
    assert deployment.program("productions", "list").returncode == 0
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("productions", "list", "--status", "Failed"), {}),
        (("productions", "list", "--json"), {}),
        (("productions", "show", "nonsense"), {}),
        (("productions", "show"), {}),
        (("deadletters", "list"), {"PORT": "eighty"}),
        (("verify",), {}),
    ],
)
def test_the_commands_of_these_tests_are_those_of_a_person(
    deployment: Deployment, redis: Redis, arguments: tuple[str, ...], settings: dict[str, str]
) -> None:
    """Most are run in a process that has imported everything before; an interpreter of its own says the same."""
    take_in(redis, event(new_id(), 1))
    done, alone = deployment.command(*arguments, **settings), deployment.program(*arguments, **settings)
    assert (done.returncode, done.stdout, done.stderr) == (alone.returncode, alone.stdout, alone.stderr)
