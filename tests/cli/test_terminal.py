"""What a person at a terminal reads: local and relative times, sandbox marks, why something waits, help by example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.shell_completion import ShellComplete
from redis import Redis

from service import operator
from service.cli import main
from service.cli.screen import clock, moment
from service.core.budget import Budget, day
from service.core.observations import StatusAnswered
from service.store import inbox, productions, requests, triggers
from service.store.scripts import PREFIX
from service.store.triggers import Intent
from tests.cli.conftest import Command, failed
from tests.store.making import event, keep, listing, new_id, take_in

NOW = datetime(2026, 4, 3, 14, 30, tzinfo=UTC)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, one in group.commands.items():
        yield (*path, name), one
        if isinstance(one, click.Group):
            yield from commands(one, (*path, name))


EVERY = dict(commands(main))
# Groups, what has examples of its own, and productions one by one: what starts processes says it all in its options.
TAUGHT = [
    path
    for path, one in EVERY.items()
    if isinstance(one, click.Group) or path[0] in ("productions", "partners", "accounts", "check", "completion")
]


@pytest.mark.parametrize("path", TAUGHT, ids=" ".join)
def test_help_teaches_by_example(command: Command, path: tuple[str, ...]) -> None:
    done = command(*path, "--help")
    assert done.exit_code == 0
    assert f"  jarai-receiver {path[0]}" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-200, "14:26:40, 3 min ago"), (0, "14:30:00, 0 s ago"), (20, "14:30:20, in 20 s"),
     (-86_400, "2026-04-02 14:30, 24.0 h ago")],
)  # fmt: skip
def test_a_time_is_local_and_relative(seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    then = NOW + timedelta(seconds=seconds)
    offset = (then.astimezone().utcoffset() or timedelta(0)).total_seconds()
    assert offset == 0, "the tests run in UTC"
    assert moment(then, NOW) == moment(then.isoformat(), NOW) == said
    assert clock(then, NOW) == said.partition(",")[0]
    assert moment(None, NOW) == ""


def test_a_listing_says_when_and_marks_what_was_made_up_for_a_test(command: Command, redis: Redis) -> None:
    real, made_up = new_id(), new_id()
    take_in(redis, event(real, 1, "production.failed"))
    take_in(redis, event(made_up, 1))
    now = productions.now(redis)
    inbox.observe(redis, made_up, StatusAnswered(now, now, 1, "Producing", sandbox=True))
    take_in(redis)
    lines = {line.split()[0]: line for line in command("productions", "list").stdout.splitlines()}
    assert "s ago" in lines[real]
    assert "Failed" in lines[real]
    assert "SANDBOX" not in lines[real]
    assert "Producing (SANDBOX)" in lines[made_up]
    assert "Producing (SANDBOX)" in command("productions", "show", made_up).stdout
    assert "SANDBOX" in command("productions", "why", made_up).stdout


def test_a_typing_error_in_a_status_is_seen(command: Command) -> None:
    assert "JARAI's are Queued" in command("productions", "list", "--status", "Nonsense").stdout
    assert "JARAI's are" not in command("productions", "list", "--status", "Failed").stdout


def test_what_is_in_doubt_is_listed_with_what_may_be_it_and_can_be_settled(command: Command, redis: Redis) -> None:
    account, intent = new_id(), "0f3c9a1e"
    assert "nothing is in doubt" in command("productions", "doubts").stdout
    triggers.intend(redis, Intent(intent, "t", account, "Bees"), again=False)
    identity = new_id()
    take_in(redis, event(identity, 1, accountId=account))
    operator.track(redis, identity)
    take_in(redis)
    shown = command("productions", "doubts").stdout
    assert all(word in shown for word in (intent, "Bees", "s ago", identity)), "also when it is followed by hand"
    [told] = json.loads(command("productions", "doubts", "--json").stdout)["doubts"]
    assert (told["id"], told["accountId"], told["maybe"]) == (intent, account, [identity])
    failed(command("productions", "doubts", "--settle", "other"), "nothing is in doubt under other")
    assert command("productions", "doubts", "--settle", intent).exit_code == 0
    assert json.loads(command("productions", "doubts", "--json").stdout) == {"doubts": []}


def test_why_says_what_it_waits_for_and_where_it_knows_things_from(command: Command, redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 6, "production.step.complete"), event(identity, 7, "production.step.complete"))
    spent = Budget(limit=10, today=day(requests.now(redis)), spent_today=54)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(spent))
    said = command("productions", "why", identity).stdout
    assert "one before the last is missing (1 to 5)" in said
    assert "asks JARAI for its status at " in said
    assert "41 of 100 requests left today" in said
    assert "(webhook 6)" in said or "(webhook 7)" in said
    told = json.loads(command("productions", "why", identity, "--json").stdout)
    assert told["productionId"] == identity
    assert len(told["waitingFor"]) >= 2
    assert any(f"{datetime.now(UTC):%Y-%m-%dT}" in sentence for sentence in told["known"])


def test_why_tells_of_files_of_things_not_taken_in_and_of_a_missing_key(command: Command, redis: Redis) -> None:
    identity = new_id()
    data = listing("https://a.blob.core.windows.net/film.mp4?sig=SeCrEt")
    take_in(redis, event(identity, 1, "deliverable.ready", data=data))
    keep(redis, event(identity, 2, "production.step.complete"))
    said = command("productions", "why", identity, JARAI_API_KEY="").stdout
    assert "1 thing(s) that were learnt are not taken in yet" in said
    assert "waits for a worker on the queue download" in said
    assert "JARAI_API_KEY, without which nobody can ask" in said
    assert "SeCrEt" not in said


def test_why_of_what_nobody_knows_is_one_sentence(command: Command) -> None:
    failed(command("productions", "why", new_id()), "productions track")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_taught_to_complete(command: Command, shell: str) -> None:
    done = command("completion", shell)
    assert done.exit_code == 0
    assert "_JARAI_RECEIVER_COMPLETE" in done.stdout


def test_ids_statuses_and_commands_are_completed(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    identity = new_id()
    take_in(redis, event(identity, 1))

    def completed(words: str) -> str:
        *before, incomplete = words.split(" ")[1:]
        found = ShellComplete(main, {}, "jarai-receiver", "_X").get_completions(before, incomplete)
        return " ".join(one.value for one in found)

    assert identity in completed(f"jarai-receiver productions why {identity[:4]}")
    assert identity not in completed("jarai-receiver productions why zzz")
    assert "Producing" in completed("jarai-receiver productions list --status Pro")
    assert "webhooks" in completed("jarai-receiver web")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert completed("jarai-receiver productions why ") == "", "without Redis there is nothing to complete"
