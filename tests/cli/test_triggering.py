"""Triggering from the command line: never lost, never doubled, and what is wrong is said before anything is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.core.observations import OperatorAsked, from_json
from service.store import productions
from service.store.scripts import PREFIX
from tests.cli.conftest import Command, failed
from tests.deployment import eventually, free_port
from tests.store.making import event, new_id, take_in
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings


@pytest.fixture
def wish(command: Command) -> tuple[str, ...]:
    """`productions trigger` for the first account of the key, with all that has to be there."""
    first = json.loads(command("accounts", "--json").stdout)["accounts"][0]
    avatar = first["avatars"][0]["avatarId"]
    return ("productions", "trigger", "--account", first["accountId"], "--topic", "Harbours at night",
            "--language", new_id(), "--country", new_id(), "--avatar", avatar)  # fmt: skip


def account_of(wish: tuple[str, ...]) -> str:
    return wish[3]


def at_jarai(simulator: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = simulator.truth()["productions"]
    return found


def intents(redis: Redis) -> list[dict[bytes, bytes]]:
    found: Any = [redis.hgetall(key) for key in redis.scan_iter(f"{PREFIX}trigger:*")]
    return list(found)


def inbox(redis: Redis, identity: str) -> list[OperatorAsked]:
    entries: Any = redis.lrange(f"{PREFIX}inbox:{identity}", 0, -1)
    found = [from_json(entry) for entry in entries]
    return [one for one in found if isinstance(one, OperatorAsked)]


def test_a_triggered_production_is_followed_under_its_account(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis, tmp_path: Path
) -> None:
    (tmp_path / "brief.md").write_bytes(b"\xef\xbb\xbf# Brief\r\n")
    done = command(*wish, "--metadata", "brief.md", "--project-type", "social-video-30s", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    identity = json.loads(done.stdout)["productionId"]
    assert [one["productionId"] for one in at_jarai(simulator)] == [identity]
    [tracked] = inbox(redis, identity)
    assert (tracked.wish, tracked.account_id, tracked.body, tracked.retries_left) == ("track", account_of(wish), "", 0)
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.account_id == account_of(wish)
    assert intents(redis) == []


def test_what_is_to_be_tried_again_when_it_expires_is_passed_on(
    command: Command, wish: tuple[str, ...], redis: Redis
) -> None:
    one = command(*wish, "--retry-expired", "2", "--metadata", "-", input="# Brief").stdout.split()[1]
    other = command(*wish, RETRY_EXPIRED="3").stdout.split()[1]
    [first], [second] = inbox(redis, one), inbox(redis, other)
    assert (first.retries_left, second.retries_left) == (2, 3)
    assert json.loads(first.body)["metadataMD"] == "# Brief"


def test_what_a_test_key_triggers_is_marked_at_once(command: Command, wish: tuple[str, ...]) -> None:
    assert "SANDBOX" not in command(*wish).stdout
    key = "jarai_test_somebodys"
    with run_in_thread(Settings(seed=1, api_key=key)) as jarai:  # of the same seed: with the same accounts
        done = command(*wish, JARAI_API_URL=jarai.api_url, JARAI_API_KEY=key)
    assert "(SANDBOX: a test key publishes and bills nothing)" in done.stdout, done.stderr


def test_the_same_twice_after_a_success_is_two_productions(
    command: Command, wish: tuple[str, ...], simulator: Running
) -> None:
    assert [command(*wish).exit_code for _ in range(2)] == [0, 0]
    assert len(at_jarai(simulator)) == 2


def test_a_trigger_whose_answer_got_lost_is_not_sent_twice(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis
) -> None:
    simulator.set_faults(api_drop={"next": 1, "match": "/accounts/"})
    failed(command(*wish), "may or may not", "productions list", "--again")
    [intent] = intents(redis)
    assert {intent[name] for name in (b"state", b"account", b"topic")} == {
        b"unknown", account_of(wish).encode(), b"Harbours at night",
    }  # fmt: skip
    [key] = redis.scan_iter(f"{PREFIX}trigger:*")
    assert 6.9 < int(redis.ttl(key)) / 86400 <= 7
    failed(command(*wish), "The same was triggered at", "--again")
    assert len(at_jarai(simulator)) == 1
    different = command(*wish[:4], "--topic", "Other harbours", *wish[6:])
    assert different.exit_code == 0
    assert command(*wish, "--again").exit_code == 0
    assert (len(at_jarai(simulator)), intents(redis)) == (3, [])


def test_an_answer_that_can_not_be_read_still_says_where_its_production_is(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis
) -> None:
    simulator.set_faults(api_garbage={"next": 1, "match": "/accounts/"})
    done = command(*wish)
    assert done.stdout.split()[1] == at_jarai(simulator)[0]["productionId"]
    assert intents(redis) == []


def test_the_first_webhook_of_a_lost_trigger_shows_which_it_is(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis
) -> None:
    before, other, its = new_id(), new_id(), new_id()
    take_in(redis, event(before, 1, accountId=account_of(wish)))
    simulator.set_faults(api_drop={"next": 1, "match": "/accounts/"})
    command(*wish)
    take_in(redis, event(its, 1, accountId=account_of(wish)), event(other, 1))
    mine = command(*wish[:4], "--topic", "Mine", *wish[6:]).stdout.split()[1]
    take_in(redis, event(mine, 1, accountId=account_of(wish)))
    said = command(*wish).stderr
    assert [one in said for one in (its, before, other, mine)] == [True, False, False, False]


def test_a_trigger_that_is_broken_off_says_that_it_may_have_been_started(
    command: Command, wish: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while JARAI works: stood in for at the edge, where it would be waited for."""

    def broken_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("urllib3.PoolManager.request", broken_off)
        failed(command(*wish), "broken off", "may or may not have started it", "--again")
    failed(command(*wish), "The same was triggered at")


def test_a_command_that_was_killed_while_jarai_worked_is_not_repeated_blindly(
    command: Command,
    wish: tuple[str, ...],
    simulator: Running,
    redis: Redis,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    simulator.set_faults(api_slow={"next": 1, "value": 20, "match": "/accounts/"})
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *wish],
        env={**os.environ, **environment}, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: intents(redis), what="the intent")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert intents(redis)[0][b"state"] == b"sent"
    failed(command(*wish), "The same was triggered at", "--again")
    assert len(at_jarai(simulator)) == 0


@pytest.mark.parametrize(
    ("fault", "code", "advice"),
    [
        ("api_budget_gate", "BUDGET_GATE_1_FAILED", "account's own budget"),
        ("api_account_inactive", "ACCOUNT_NOT_ACTIVE", "`accounts`"),
        ("api_partner_inactive", "PARTNER_NOT_ACTIVE", "partners verify"),
        ("api_429", "RATE_LIMIT_EXCEEDED", "again in 1 s"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing_open(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis, fault: str, code: str, advice: str
) -> None:
    simulator.set_faults(**{fault: {"next": 1, "match": "/accounts/"}})
    failed(command(*wish), code, advice, "correlation id")
    assert intents(redis) == []


def test_a_refusal_of_another_try_leaves_the_doubt_about_the_first(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis
) -> None:
    simulator.set_faults(api_drop={"next": 1, "match": "/accounts/"})
    command(*wish)
    simulator.set_faults(api_budget_gate={"next": 1, "match": "/accounts/"})
    failed(command(*wish, "--again"), "BUDGET_GATE_1_FAILED")
    failed(command(*wish), "The same was triggered at")
    assert len(at_jarai(simulator)) == 1


def test_an_error_of_jarais_leaves_the_outcome_open(
    command: Command, wish: tuple[str, ...], simulator: Running, redis: Redis
) -> None:
    simulator.set_faults(api_500={"next": 1, "match": "/accounts/"})
    failed(command(*wish), "INTERNAL_ERROR", "may or may not", "correlation id")
    assert len(intents(redis)) == 1


def test_a_jarai_that_can_not_be_reached_has_started_nothing(
    command: Command, wish: tuple[str, ...], redis: Redis
) -> None:
    failed(command(*wish, JARAI_API_URL=f"http://127.0.0.1:{free_port()}/v1"), "nothing was sent")
    assert intents(redis) == []


def test_a_scope_that_is_missing_is_named(command: Command, wish: tuple[str, ...]) -> None:
    with run_in_thread(Settings(seed=1, scopes=frozenset({"accounts:read"}))) as narrow:
        settings = {"JARAI_API_URL": narrow.api_url, "JARAI_API_KEY": narrow.settings.api_key}
        failed(command(*wish, **settings), "INSUFFICIENT_SCOPE", "needs the scope productions:write")


def test_a_quota_of_productions_that_is_used_up_does_not_stop_the_pollers(
    command: Command, wish: tuple[str, ...], environment: dict[str, str]
) -> None:
    with run_in_thread(Settings(seed=1, tier="free")) as free:
        environment |= {"JARAI_API_URL": free.api_url, "JARAI_API_KEY": free.settings.api_key}
        assert [command(*wish).exit_code for _ in range(3)] == [0, 0, 0]
        failed(command(*wish), "RATE_LIMIT_EXCEEDED", "again ")
        assert command("accounts").exit_code == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--account", "x"),
        ("--topic", ""),
        ("--topic", "x" * 501),
        ("--language", "de"),
        ("--country", "DE"),
        ("--avatar", "Ada"),
        ("--project-type", " "),
        ("--retry-expired", "11"),
        ("--metadata", "long.md"),
        ("--metadata", "binary.md"),
        ("--metadata", "none.md"),
    ],
)
def test_a_wrong_value_names_its_option_and_is_not_sent(
    command: Command, wish: tuple[str, ...], simulator: Running, tmp_path: Path, option: str, value: str
) -> None:
    (tmp_path / "long.md").write_text("x" * 4097)
    (tmp_path / "binary.md").write_bytes(b"\xff")
    before = len(simulator.truth()["apiRequests"])
    done = command(*wish, option, value)
    assert done.exit_code == 2
    assert option in done.stderr.splitlines()[-1]
    assert len(simulator.truth()["apiRequests"]) == before


@pytest.mark.parametrize("what", ["trigger", "cancel"])
def test_without_redis_nothing_is_sent(
    command: Command, wish: tuple[str, ...], simulator: Running, no_redis: str, what: str
) -> None:
    before = len(simulator.truth()["apiRequests"])
    arguments = wish if what == "trigger" else ("productions", "cancel", new_id())
    failed(command(*arguments, REDIS_URL=no_redis), "Redis does not answer")
    assert len(simulator.truth()["apiRequests"]) == before


def test_cancelling_works_also_for_what_is_not_followed_here(
    command: Command, simulator: Running, redis: Redis
) -> None:
    identity = simulator.produce({"hold": "Queued"})
    assert command("productions", "cancel", identity.upper()).exit_code == 0
    assert [one["status"] for one in at_jarai(simulator)] == ["Cancelled"]
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.refresh_wanted
    failed(command("productions", "cancel", identity), "409", "correlation id")
    failed(command("productions", "cancel", new_id()), "404")
    failed(command("productions", "cancel", "nonsense"), "UUID")
