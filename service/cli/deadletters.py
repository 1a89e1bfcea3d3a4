"""`jarai-receiver deadletters …`"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from service import operator
from service.cli.screen import AS_JSON, moment, print_json, runtime_here, table
from service.core.errors import ReceiverError
from service.runtime import Runtime
from service.store import deadletters as letters


@click.group("deadletters")
def dead_letters() -> None:
    """What could not be used or was given up.

    \b
    jarai-receiver deadletters list
    jarai-receiver deadletters show question-3f2c8c1e-…      why, and what it was
    jarai-receiver deadletters retry --all                   once the cause is mended
    """


@dead_letters.command("list")
@AS_JSON
def list_deadletters(as_json: bool) -> None:
    """The newest dead letters first."""
    shown = [letter.describe() for letter in letters.newest(runtime_here().redis, 500)]
    if as_json:
        print_json({"deadletters": shown})
        return
    now = datetime.now(UTC)
    table(
        ("id", "added", "production", "reason"),
        [(one["id"], moment(one["addedAt"], now), one["productionId"], one["reason"]) for one in shown],
        "no dead letters",
    )


@dead_letters.command("show")
@click.argument("letter_id")
def show_deadletter(letter_id: str) -> None:
    """One dead letter, whole."""
    print_json(_letter(runtime_here(), letter_id).describe())


@dead_letters.command("retry")
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def retry_deadletters(letter_ids: Sequence[str], everything: bool) -> None:
    """Try again what was given up, once its cause is mended."""
    if everything == bool(letter_ids):
        raise click.UsageError("name dead letters, or say --all")
    here = runtime_here()
    chosen = letters.newest(here.redis, 10_000) if everything else [_letter(here, one) for one in letter_ids]
    stuck = [letter.id for letter in chosen if not operator.retry(here.redis, letter)]
    click.echo(f"{len(chosen) - len(stuck)} tried again")
    if stuck:
        raise ReceiverError(f"still not usable: {', '.join(stuck)}")


@dead_letters.command("discard")
@click.argument("letter_id")
def discard_deadletter(letter_id: str) -> None:
    """Throw a dead letter away for good."""
    if not operator.discard(runtime_here().redis, letter_id):
        raise ReceiverError(f"no dead letter {letter_id}")
    click.echo(f"discarded {letter_id}")


def _letter(here: Runtime, identity: str) -> letters.DeadLetter:
    letter = letters.find(here.redis, identity)
    if letter is None:
        raise ReceiverError(f"no dead letter {identity}")
    return letter
