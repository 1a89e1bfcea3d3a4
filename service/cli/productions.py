"""`jarai-receiver productions …`"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from redis import Redis

from service import operator, pacing
from service.cli.screen import AS_JSON, PRODUCTION, clock, moment, plain, print_json, relative, runtime_here, table
from service.cli.triggering import cancel, doubts, trigger
from service.core.budget import per_day
from service.core.errors import ReceiverError
from service.core.production import LIFE, Production
from service.core.schedule import held_until
from service.core.view import describe, instant
from service.core.why import Circumstances, known_from, waiting_for
from service.runtime import Runtime
from service.store import due
from service.store import productions as kept

_ONLY_IN_JSON = ("at", "kind", "data", "eventId", "correlationId", "timestamp", "sha256")


@click.group()
def productions() -> None:
    """What is known of productions, and what JARAI is to do.

    \b
    jarai-receiver productions list --status Producing
    jarai-receiver productions why 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11      what is it waiting for?
    jarai-receiver productions trigger --help
    """


productions.add_command(trigger)
productions.add_command(cancel)
productions.add_command(doubts)


@productions.command("list")
@click.option("--status", help="Only those in this status.", shell_complete=lambda *_: list(LIFE))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500))
@AS_JSON
def list_productions(status: str | None, limit: int, as_json: bool) -> None:
    """The newest productions first.

    \b
    jarai-receiver productions list
    jarai-receiver productions list --status Failed --limit 10
    jarai-receiver productions list --json | jq -r '.productions[] | select(.settled | not) | .productionId'
    """
    redis = runtime_here().redis
    found: list[Production] = []
    after = None
    while len(found) < limit:
        page, after = kept.newest(redis, 500, after, naming=(status,))
        found += [one for one in page if status in (None, one.status)]
        if after is None:
            break
    rows = [describe(one) for one in found[:limit]]
    if as_json:
        print_json({"productions": rows})
        return
    now = datetime.now(UTC)
    other = "" if status in (None, *LIFE) else f" (JARAI's are {', '.join(LIFE)})"
    table(
        ("production", "status", "by", "files", "settled", "updated"),
        [
            (
                one["productionId"],
                _status(one),
                one["source"],
                _files(one),
                "yes" if one["settled"] else "",
                relative(one["updatedAt"], now),
            )
            for one in rows
        ],
        f"no productions in status {status}{other}"
        if status
        else "no productions yet: they appear with their first webhook, or with `productions track ID`",
    )


@productions.command()
@PRODUCTION
@AS_JSON
def show(production_id: str, as_json: bool) -> None:
    """One production: its state, its files and everything that happened to it.

    \b
    jarai-receiver productions show 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11
    … --json | jq .timeline
    """
    redis = runtime_here().redis
    production = _production(redis, production_id)
    identity = production.production_id
    shown = describe(production, kept.progress(redis, production)) | {"timeline": kept.timeline(redis, identity)}
    if as_json:
        print_json(shown)
        return
    now = datetime.now(UTC)
    lines = {
        "production": identity,
        "account": shown["accountId"],
        "status": _status(shown),
        "news from": shown["source"],
        "updated": moment(shown["updatedAt"], now),
        "settled": "yes" if shown["settled"] else "no: see `productions why`",
        "error": " ".join(filter(None, (shown["error"] or {}).values())),
        "refused": shown["refused"],
        "next poll": moment(shown["nextPollAt"], now),
        "expires": moment(shown["expiresAt"], now),
        "in place of": shown["retryOf"],
        "followed by": shown["retriedAs"],
        "folder": shown["folder"],
    }
    for name, value in lines.items():
        if value:
            click.echo(f"{name:<14}{plain(value)}")
    if shown["deliverables"]:
        click.echo()
    table(
        ("deliverable", "state", "bytes", "file", "tried", "next attempt", "last error"),
        [
            (
                one["type"],
                _state(one),
                _bytes(one),
                one["file"],
                one["attempts"] or "",
                moment(one["nextAttemptAt"], now),
                one["error"],
            )
            for one in shown["deliverables"]
        ],
        "",
    )
    click.echo()
    for entry in shown["timeline"]:
        more = {key: value for key, value in entry.items() if key not in _ONLY_IN_JSON and value is not None}
        at = clock(datetime.fromisoformat(entry["at"]), now)
        click.echo(f"{at}  {entry['kind']:<20} " + "  ".join(f"{k}={plain(v)}" for k, v in more.items()))


@productions.command()
@PRODUCTION
@AS_JSON
def why(production_id: str, as_json: bool) -> None:
    """What is it waiting for, and where does each thing that is known of it come from?

    \b
    jarai-receiver productions why 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11
    """
    here = runtime_here()
    production = _production(here.redis, production_id)
    around = _circumstances(here, production)
    now = around.now
    written = (lambda at: instant(at) or "") if as_json else (lambda at: clock(at, now))
    waits, knows = waiting_for(production, around, written), known_from(production, around, written)
    if as_json:
        print_json({"productionId": production.production_id, "waitingFor": waits, "known": knows})
        return
    click.echo(f"{production.production_id} waits for")
    for sentence in waits:
        click.echo(f"  {plain(sentence)}")
    click.echo("What is known")
    for sentence in knows or ("nothing yet",):
        click.echo(f"  {plain(sentence)}")


@productions.command()
@PRODUCTION
@click.option("--account", help="Its account's id, where you know it: names the folder of its files.")
def track(production_id: str, account: str | None) -> None:
    """Follow a production that was triggered elsewhere.

    \b
    jarai-receiver productions track 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11 --account 7d3c1f0a-1111-4222-8333-444455556666
    """
    account_id = operator.production_id(account) if account else None
    identity = operator.production_id(production_id)
    operator.track(runtime_here().redis, identity, account_id)
    click.echo(f"following {identity}")


@productions.command()
@PRODUCTION
def refresh(production_id: str) -> None:
    """Ask JARAI about a production now, as far as the budget goes.

    \b
    jarai-receiver productions refresh 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11
    """
    redis = runtime_here().redis
    identity = _production(redis, production_id).production_id
    operator.refresh(redis, identity)
    click.echo(f"JARAI is asked about {identity} as soon as the budget allows")


@productions.command()
@PRODUCTION
@click.option("--file", default="", help="Only this one, by its file's name or its id.")
def redownload(production_id: str, file: str) -> None:
    """Fetch stored files again and compare them with what lies there.

    What JARAI has changed is kept beside the old version, what is damaged is mended, the rest stays as it is.

    \b
    jarai-receiver productions redownload 3f2c8c1e-… --file Video_the-film_3f9a0c51d2b7e846.mp4
    """
    redis = runtime_here().redis
    production = _production(redis, production_id)
    files = operator.redownload(redis, production, file)
    click.echo(f"{files} file(s) of {production.production_id} are fetched again and compared")


@productions.command()
@PRODUCTION
@click.option("--dry-run", is_flag=True, help="Only show what the events tell otherwise than what is stored.")
@AS_JSON
def replay(production_id: str, dry_run: bool, as_json: bool) -> None:
    """Make a production's state anew from its kept events, then ask JARAI. Stored files stay stored.

    \b
    jarai-receiver productions replay 3f2c8c1e-… --dry-run      only shows what would differ
    """
    redis = runtime_here().redis
    production = _production(redis, production_id)
    identity = production.production_id
    events, found = operator.replay_dry(redis, production)
    if not dry_run:
        operator.replay(redis, identity)
    if as_json:
        shown = [{"field": one.field, "stored": one.stored, "fromEvents": one.replayed} for one in found]
        print_json({"productionId": identity, "events": events, "dryRun": dry_run, "differences": shown})
        return
    table(
        ("field", "stored", "from the events"),
        [(one.field, one.stored, one.replayed) for one in found],
        f"{events} kept event(s) tell what is stored",
    )
    if found:
        click.echo(f"({events} kept event(s); the stored status came from a {production.source})")
    if not dry_run:
        click.echo(f"{identity} is made anew from its events, then JARAI is asked")


def _production(redis: Redis, production_id: str) -> Production:
    identity = operator.production_id(production_id)
    found = kept.read(redis, identity)
    if found is None:
        raise ReceiverError(f"no production {identity} is known here; follow it with: productions track {identity}")
    return found


def _circumstances(here: Runtime, production: Production) -> Circumstances:
    pace = pacing.read(here.redis, here.settings)
    budget = pace.budget

    def ahead(seconds: float) -> datetime | None:
        return datetime.fromtimestamp(seconds, UTC) if seconds > pace.now else None

    return Circumstances(
        now=pace.moment,
        inbox=kept.waiting(here.redis, production.production_id),
        patience=pace.intervals.patience(production),
        held_until=held_until(production, pace.spread),
        paused_until=ahead(budget.paused_until),
        down_until=ahead(budget.down_until),
        left_today=pace.left_today,
        per_day=per_day(budget, pace.limits, pace.now),
        has_key=bool(here.settings.jarai_api_key),
        storage_fails=due.storage_fails(here.redis),
        progress=kept.progress(here.redis, production),
    )


def _status(one: dict[str, Any]) -> str:
    retried = ", triggered again" if one["retriedAs"] else ""
    return f"{one['status'] or '?'}{retried}{' (SANDBOX)' if one['sandbox'] else ''}"


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
