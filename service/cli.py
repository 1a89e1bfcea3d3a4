"""The command `jarai-receiver`. What runs and fetches lives in `workers` and is found by name, so that `service`
never imports it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

import click
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from service import __version__, jobs, log, operator, runtime
from service.core.errors import ReceiverError
from service.core.production import Production
from service.core.view import describe
from service.runtime import Runtime
from service.settings import load
from service.store import deadletters as letters
from service.store import productions as kept

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")


class _Group(click.Group):
    """Turns what went wrong into one plain sentence on stderr and exit code 1; wrong usage stays 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ReceiverError as error:
            raise click.ClickException(str(error)) from None
        except RedisError as error:
            raise click.ClickException(
                f"Redis does not answer at {_redis_place()} ({type(error).__name__}): start it, set REDIS_URL, "
                "or run this in the folder where `up` runs."
            ) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="jarai-receiver")
def main() -> None:
    """Receives JARAI's webhooks, follows productions and brings their deliverables home.

    \b
    jarai-receiver demo     watch it work against a simulated JARAI, nothing else needed
    jarai-receiver up       everything on this machine
    jarai-receiver check    is this deployment sound?

    Settings are environment variables or lines of a .env file; the README lists them.
    """


@main.command()
def web() -> None:
    """Run the HTTP endpoint (HOST, PORT)."""
    from service.web.app import serve

    serve(runtime.start("web"))


@main.command()
@click.option("--queues", default=",".join(jobs.QUEUES), show_default=True,
              help="Which work to do here; notify: nothing without NOTIFY_URL.")  # fmt: skip
@click.option("--advance", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes for states.")
@click.option("--download", default=3, show_default=True, type=click.IntRange(1, 64), help="Processes for files.")
def worker(queues: str, advance: int, download: int) -> None:
    """Move productions forward and download their deliverables."""
    names = [name.strip() for name in queues.split(",")]
    if not set(names) <= set(jobs.QUEUES):
        raise click.BadParameter(f"known queues are {', '.join(jobs.QUEUES)}", param_hint="--queues")
    here = runtime.start("worker")
    _workers("workers.worker:launch")(here.settings, names, {"advance": advance, "download": download, "notify": 1})


@main.command()
def poller() -> None:
    """Ask JARAI where a webhook may have been missed. Run as many as you like: they share the work."""
    _workers("workers.poller:run")(runtime.start("poller"))


@main.command()
def up() -> None:
    """Run everything on this machine: Redis (its own, if REDIS_URL is unset), web, workers, poller."""
    _workers("workers.up:run")(load())


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: Sequence[str]) -> None:
    """Watch it work against a simulated JARAI: productions run, webhooks get lost, files land."""
    _workers("workers.demo:command").main(list(arguments), prog_name="jarai-receiver demo")


@main.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: Sequence[str]) -> None:
    """A stand-in for JARAI, for development and your own CI."""
    _workers("workers.simulator.cli:command").main(list(arguments), prog_name="jarai-receiver simulator")


@main.command()
@_AS_JSON
def check(as_json: bool) -> None:
    """Is this deployment sound? Exit code 1 when something would be lost or not work."""
    lines = list(_workers("workers.check:examine")(_here()))
    if as_json:
        _print_json([{"part": line.part, "verdict": line.verdict, "says": line.says} for line in lines])
    else:
        marks = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "broken": "[red]broken [/]"}
        console = Console(soft_wrap=True, highlight=False)
        for line in lines:
            console.print(f"{marks[line.verdict]} {line.part:<13}", end="")
            console.print(_plain(line.says), markup=False)
    if any(line.verdict == "broken" for line in lines):
        sys.exit(1)


@main.command()
def rebuild() -> None:
    """Bring back, from the manifests in STORAGE_URL, what Redis knew before it was emptied."""
    outcome = _workers("workers.rebuild:rebuild")(_here())
    click.echo(
        f"{outcome.rebuilt} production(s) brought back, {outcome.asked} of them to be asked about; "
        f"{outcome.known} known already"
    )
    if outcome.unreadable:
        raise ReceiverError(f"no manifest of ours: {', '.join(map(_plain, outcome.unreadable[:20]))}")


@main.command()
@click.argument("production_id", required=False)
@click.option("--wait", "wait_seconds", default=60.0, show_default=True, type=click.FloatRange(0, 86400),
              help="Seconds to wait for what is damaged to be fetched again.")  # fmt: skip
@_AS_JSON
def verify(production_id: str | None, wait_seconds: float, as_json: bool) -> None:
    """Read stored files, all or those of one production, and repair what is damaged.

    A file that is gone, or has other bytes than its manifest says, is fetched again by the workers. Exit code 1 when
    something is still damaged in the end.
    """
    here = _here()
    check: Any = _workers("workers.verify:Verification")(here)
    check.run(operator.production_id(production_id) if production_id else None)
    left = check.wait(wait_seconds)
    if as_json:
        _print_json({"productions": check.productions, "files": check.files, "bytes": check.bytes,
                     "damaged": [one.describe() for one in check.damages]})  # fmt: skip
    else:
        _table(
            ("production", "file", "problem", "now"),
            [(one.production_id, one.file, one.problem, one.outcome) for one in check.damages],
            "",
        )
        click.echo(f"{check.files} file(s) of {check.productions} production(s) read, {len(check.damages)} damaged")
    if left:
        raise ReceiverError(f"{left} not repaired yet; see `productions show ID` and `deadletters list`")


@main.group()
def productions() -> None:
    """What is known of productions."""


@productions.command("list")
@click.option("--status", help="Only those in this status.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500))
@_AS_JSON
def list_productions(status: str | None, limit: int, as_json: bool) -> None:
    """The newest productions first."""
    redis = _here().redis
    found: list[Production] = []
    after = None
    while len(found) < limit:
        page, after = kept.newest(redis, 200, after)
        found += [one for one in page if status in (None, one.status)]
        if after is None:
            break
    rows = [describe(one) for one in found[:limit]]
    if as_json:
        _print_json({"productions": rows})
        return
    _table(
        ("production", "status", "news from", "files", "settled", "updated"),
        [
            (
                one["productionId"],
                one["status"],
                one["source"],
                _files(one),
                "yes" if one["settled"] else "",
                one["updatedAt"],
            )
            for one in rows
        ],
        f"no productions in status {status}"
        if status
        else "no productions yet: they appear with their first webhook, or with `productions track ID`",
    )


@productions.command()
@click.argument("production_id")
@_AS_JSON
def show(production_id: str, as_json: bool) -> None:
    """One production: its state, its files and everything that happened to it."""
    redis = _here().redis
    production = _production(redis, production_id)
    identity = production.production_id
    shown = describe(production, kept.progress(redis, production)) | {"timeline": kept.timeline(redis, identity)}
    if as_json:
        _print_json(shown)
        return
    for name in ("productionId", "accountId", "status", "source", "settled", "updatedAt", "error", "refused",
                 "nextPollAt", "folder"):  # fmt: skip
        click.echo(f"{name:<14}{_plain(shown[name])}")
    if shown["deliverables"]:
        click.echo()
    _table(
        ("deliverable", "state", "bytes", "file", "tried", "next attempt", "last error"),
        [
            (
                one["type"],
                _state(one),
                _bytes(one),
                one["file"],
                one["attempts"] or "",
                one["nextAttemptAt"],
                one["error"],
            )
            for one in shown["deliverables"]
        ],
        "",
    )
    click.echo()
    for entry in shown["timeline"]:
        more = {key: value for key, value in entry.items() if key not in ("at", "kind", "data") and value is not None}
        click.echo(f"{entry['at']}  {entry['kind']:<20} " + "  ".join(f"{k}={_plain(v)}" for k, v in more.items()))


@productions.command()
@click.argument("production_id")
@click.option("--account", help="Its account's id, where you know it: names the folder of its files.")
def track(production_id: str, account: str | None) -> None:
    """Follow a production that was triggered elsewhere."""
    account_id = operator.production_id(account) if account else None
    identity = operator.production_id(production_id)
    operator.track(_here().redis, identity, account_id)
    click.echo(f"following {identity}")


@productions.command()
@click.argument("production_id")
def refresh(production_id: str) -> None:
    """Ask JARAI about a production now."""
    redis = _here().redis
    identity = _production(redis, production_id).production_id
    operator.refresh(redis, identity)
    click.echo(f"JARAI is asked about {identity} as soon as the budget allows")


@productions.command()
@click.argument("production_id")
@click.option("--file", default="", help="Only this one, by its file's name or its id.")
def redownload(production_id: str, file: str) -> None:
    """Fetch stored files again and compare them with what lies there.

    What JARAI has changed is kept beside the old version, what is damaged is mended, the rest stays as it is.
    """
    redis = _here().redis
    production = _production(redis, production_id)
    files = operator.redownload(redis, production, file)
    click.echo(f"{files} file(s) of {production.production_id} are fetched again and compared")


@productions.command()
@click.argument("production_id")
@click.option("--dry-run", is_flag=True, help="Only show what the events tell otherwise than what is stored.")
@_AS_JSON
def replay(production_id: str, dry_run: bool, as_json: bool) -> None:
    """Make a production's state anew from its kept events, then ask JARAI. Stored files stay stored."""
    redis = _here().redis
    production = _production(redis, production_id)
    identity = production.production_id
    events, found = operator.replay_dry(redis, production)
    if not dry_run:
        operator.replay(redis, identity)
    if as_json:
        shown = [{"field": one.field, "stored": one.stored, "fromEvents": one.replayed} for one in found]
        _print_json({"productionId": identity, "events": events, "dryRun": dry_run, "differences": shown})
        return
    _table(
        ("field", "stored", "from the events"),
        [(one.field, one.stored, one.replayed) for one in found],
        f"{events} kept event(s) tell what is stored",
    )
    if found:
        click.echo(f"({events} kept event(s); the stored status came from a {production.source})")
    if not dry_run:
        click.echo(f"{identity} is made anew from its events, then JARAI is asked")


@main.group("deadletters")
def dead_letters() -> None:
    """What could not be used or was given up."""


@dead_letters.command("list")
@_AS_JSON
def list_deadletters(as_json: bool) -> None:
    """The newest dead letters first."""
    shown = [letter.describe() for letter in letters.newest(_here().redis, 500)]
    if as_json:
        _print_json({"deadletters": shown})
        return
    _table(
        ("id", "added", "production", "reason"),
        [(one["id"], one["addedAt"], one["productionId"], one["reason"]) for one in shown],
        "no dead letters",
    )


@dead_letters.command("show")
@click.argument("letter_id")
def show_deadletter(letter_id: str) -> None:
    """One dead letter, whole."""
    _print_json(_letter(_here(), letter_id).describe())


@dead_letters.command("retry")
@click.argument("letter_ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
def retry_deadletters(letter_ids: Sequence[str], everything: bool) -> None:
    """Try again what was given up, once its cause is mended."""
    if everything == bool(letter_ids):
        raise click.UsageError("name dead letters, or say --all")
    here = _here()
    chosen = letters.newest(here.redis, 10_000) if everything else [_letter(here, one) for one in letter_ids]
    stuck = [letter.id for letter in chosen if not operator.retry(here.redis, letter)]
    click.echo(f"{len(chosen) - len(stuck)} tried again")
    if stuck:
        raise ReceiverError(f"still not usable: {', '.join(stuck)}")


@dead_letters.command("discard")
@click.argument("letter_id")
def discard_deadletter(letter_id: str) -> None:
    """Throw a dead letter away for good."""
    if not operator.discard(_here().redis, letter_id):
        raise ReceiverError(f"no dead letter {letter_id}")
    click.echo(f"discarded {letter_id}")


def _here() -> Runtime:
    """The runtime for a command that answers a person: its log goes to stderr, and only where something is wrong."""
    settings = load()
    log.configure("console", "error", settings.secrets, sys.stderr)
    return Runtime(settings)


def _production(redis: Redis, production_id: str) -> Production:
    identity = operator.production_id(production_id)
    found = kept.read(redis, identity)
    if found is None:
        raise ReceiverError(f"no production {identity} is known here; follow it with: productions track {identity}")
    return found


def _letter(here: Runtime, identity: str) -> letters.DeadLetter:
    letter = letters.find(here.redis, identity)
    if letter is None:
        raise ReceiverError(f"no dead letter {identity}")
    return letter


def _workers(name: str) -> Any:
    """Something of `workers`, by its name."""
    found: Callable[..., Any] = resolve_name(name)
    return found


def _redis_place() -> str:
    from service.core.redaction import redact

    try:
        return redact(runtime.redis_url(load()))
    except ReceiverError:
        return "REDIS_URL"


def _print_json(value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))


def _files(one: dict[str, Any]) -> str:
    stored = sum(file["state"] == "stored" for file in one["deliverables"])
    return f"{stored}/{len(one['deliverables'])}" if one["deliverables"] else ""


def _state(one: dict[str, Any]) -> str:
    if one["version"] == 1 and one["current"] == (one["state"] == "stored"):
        return str(one["state"])
    return f"{one['state']} (v{one['version']}{', current' if one['current'] else ''})"


def _bytes(one: dict[str, Any]) -> str:
    """How large it is; of one that is on its way, how much is here and how fast it comes."""
    if one["state"] == "stored" or not one["receivedBytes"]:
        return str(one["bytes"] or "")
    whole = f" of {one['bytes']}" if one["bytes"] else ""
    rate = f", {one['bytesPerSecond'] / 1e6:.1f} MB/s" if one["bytesPerSecond"] else ""
    return f"{one['receivedBytes']}{whole}{rate}"


def _plain(value: object) -> str:
    """Text for a terminal: what came from outside can't move the cursor or forge a line."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    if not rows:
        if empty:
            click.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("production", "id"))
    for row in rows:
        table.add_row(*(_plain(cell).replace("[", r"\[") for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=250)
    console.print(table)


if __name__ == "__main__":
    main()
