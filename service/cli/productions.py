"""`jarai-receiver productions …`"""

from __future__ import annotations

from typing import Any

import click
from redis import Redis

from service import operator
from service.cli.screen import AS_JSON, plain, print_json, runtime_here, table
from service.cli.triggering import cancel, trigger
from service.core.errors import ReceiverError
from service.core.production import Production
from service.core.view import describe
from service.store import productions as kept


@click.group()
def productions() -> None:
    """What is known of productions."""


productions.add_command(trigger)
productions.add_command(cancel)


@productions.command("list")
@click.option("--status", help="Only those in this status.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 500))
@AS_JSON
def list_productions(status: str | None, limit: int, as_json: bool) -> None:
    """The newest productions first."""
    redis = runtime_here().redis
    found: list[Production] = []
    after = None
    while len(found) < limit:
        page, after = kept.newest(redis, 200, after)
        found += [one for one in page if status in (None, one.status)]
        if after is None:
            break
    rows = [describe(one) for one in found[:limit]]
    if as_json:
        print_json({"productions": rows})
        return
    table(
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
@AS_JSON
def show(production_id: str, as_json: bool) -> None:
    """One production: its state, its files and everything that happened to it."""
    redis = runtime_here().redis
    production = _production(redis, production_id)
    identity = production.production_id
    shown = describe(production, kept.progress(redis, production)) | {"timeline": kept.timeline(redis, identity)}
    if as_json:
        print_json(shown)
        return
    for name in ("productionId", "accountId", "status", "source", "settled", "updatedAt", "error", "refused",
                 "nextPollAt", "folder"):  # fmt: skip
        click.echo(f"{name:<14}{plain(shown[name])}")
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
        click.echo(f"{entry['at']}  {entry['kind']:<20} " + "  ".join(f"{k}={plain(v)}" for k, v in more.items()))


@productions.command()
@click.argument("production_id")
@click.option("--account", help="Its account's id, where you know it: names the folder of its files.")
def track(production_id: str, account: str | None) -> None:
    """Follow a production that was triggered elsewhere."""
    account_id = operator.production_id(account) if account else None
    identity = operator.production_id(production_id)
    operator.track(runtime_here().redis, identity, account_id)
    click.echo(f"following {identity}")


@productions.command()
@click.argument("production_id")
def refresh(production_id: str) -> None:
    """Ask JARAI about a production now."""
    redis = runtime_here().redis
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
    redis = runtime_here().redis
    production = _production(redis, production_id)
    files = operator.redownload(redis, production, file)
    click.echo(f"{files} file(s) of {production.production_id} are fetched again and compared")


@productions.command()
@click.argument("production_id")
@click.option("--dry-run", is_flag=True, help="Only show what the events tell otherwise than what is stored.")
@AS_JSON
def replay(production_id: str, dry_run: bool, as_json: bool) -> None:
    """Make a production's state anew from its kept events, then ask JARAI. Stored files stay stored."""
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
