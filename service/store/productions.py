"""Productions as they are kept: claiming, committing, reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import from_json, to_json
from redis import Redis

from service.core import events, notices, observations, production
from service.core.errors import UnreadableState
from service.core.observations import EventArrived, Observation
from service.core.production import Change, Production
from service.core.view import Progress, instant
from service.store import deadletters
from service.store.scripts import CLAIM, COMMIT, FAILED, FORGET, PREFIX, REPLAY, REVIVE, moment, run_all

STORED_BYTES = "stored_bytes"  # in jarai:counts, beside the facts
_LEASE_MS = 3000
_MOST_OBSERVATIONS = 200
_MOST_BYTES = 8 * 1024 * 1024
_SHORTEST_LINK_MS = 60_000
_LONGEST_LINK_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A production with what has to be taken in. `entries` are the inbox's, as they lie there."""

    production_id: str
    attempts: int
    now: datetime
    state: bytes
    entries: tuple[bytes, ...]
    bodies: tuple[bytes, ...]

    @property
    def before(self) -> Production:
        """The state as read, or a new production."""
        if not self.state:
            return Production(production_id=self.production_id, created_at=self.now)
        return production.from_json(self.state.partition(b"\n")[2])

    def observations(self) -> Iterator[Observation]:
        """Raises MalformedEvent or ValueError for an entry that can't be read: that is a defect of ours."""
        for entry, body in zip(self.entries, self.bodies, strict=True):
            if entry[:1] in (b"e", b"r"):
                yield EventArrived(events.parse(body), moment(int(entry.split()[1])), replayed=entry[:1] == b"r")
            else:
                yield observations.from_json(entry)


def claim(redis: Redis, most: int) -> list[Claim]:
    """Take up to `most` productions whose inbox is due. Nobody else gets them for three seconds."""
    now, *rows = CLAIM.run(redis, most, _LEASE_MS, _MOST_OBSERVATIONS, _MOST_BYTES)
    return [Claim(row[0].decode(), row[1], moment(now), row[2], tuple(row[3]), tuple(row[4])) for row in rows]


def commit(
    redis: Redis, changes: Sequence[tuple[Claim, Production, Change]], retention: timedelta, *, notify: bool = False
) -> list[int | Exception]:
    """Write each change whole or not at all. For each: observations left in its inbox; -1, somebody was faster.

    `notify`: its notices are to be delivered, too. They stand in the stream of facts in any case.
    """
    return run_all(redis, [(COMMIT, _commit_args(*change, retention, notify)) for change in changes])


def failed(redis: Redis, claimed: Claim, pause: timedelta, most_attempts: int, reason: str) -> None:
    """Note that taking in raised: the production is tried again after `pause`, or parked under dead letters."""
    letter = deadletters.letter_id("production", claimed.production_id)
    what = deadletters.fields("production", reason, production_id=claimed.production_id, attempts=claimed.attempts)
    FAILED.run(redis, claimed.production_id, int(pause.total_seconds() * 1000), most_attempts, letter, *what)


def revive(redis: Redis, production_id: str) -> None:
    """Take up a parked production again."""
    REVIVE.run(redis, production_id)


def replay(redis: Redis, production_id: str, wish: observations.OperatorAsked) -> None:
    """Have all kept events taken in once more, behind the wish that says so."""
    REPLAY.run(redis, production_id, observations.to_json(wish))


def forget(redis: Redis, most: int) -> list[str]:
    """Drop settled productions whose retention has run out; files stay where they are."""
    return [raw.decode() for raw in FORGET.run(redis, most)]


def now(redis: Redis) -> datetime:
    """The time by Redis's clock, which all processes share."""
    seconds, microseconds = redis.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def read(redis: Redis, production_id: str) -> Production | None:
    """The production as last committed, or None."""
    return parse_state(redis.get(f"{PREFIX}production:{production_id}"))


def parse_state(state: Any) -> Production | None:
    """A production from what lies in Redis; None for nothing. Raises UnreadableState."""
    try:
        return production.from_json(state.partition(b"\n")[2]) if state else None
    except ValueError:
        raise UnreadableState("what is kept of this production can't be read") from None


def newest(
    redis: Redis, limit: int, after: str | None = None, naming: Iterable[str | None] = ()
) -> tuple[list[Production], str | None]:
    """A page of productions, the newest first, and the id to go on after (None: that was all).

    `naming`: only those whose state has each of these values anywhere. The others are not even parsed: that takes ten
    times as long as to look.
    """
    values = [to_json(value) for value in naming if value is not None]
    start = 0
    if after is not None:
        rank: Any = redis.zrevrank(f"{PREFIX}index", after)
        if rank is None:
            return [], None
        start = rank + 1
    found_ids: Any = redis.zrevrange(f"{PREFIX}index", start, start + limit - 1)
    ids = [raw.decode() for raw in found_ids]
    states = redis.mget([f"{PREFIX}production:{one}" for one in ids]) if ids else []
    found = []
    for state in states:
        if state is None or not all(value in state for value in values):
            continue
        with suppress(UnreadableState):  # one of them must not hide the others
            found += [one for one in (parse_state(state),) if one is not None]
    return found, ids[-1] if len(ids) == limit else None


def progress(redis: Redis, one: Production) -> dict[str, Progress]:
    """Of each file that is on its way, by its key."""
    keys = [deliverable.key for deliverable in one.deliverables if deliverable.state == "wanted"]
    if not keys:
        return {}
    values: Any = redis.hmget(f"{PREFIX}progress", [f"{one.production_id}:{key}" for key in keys])
    return {
        key: Progress(*map(int, value.split())) for key, value in zip(keys, values, strict=True) if value is not None
    }


def waiting(redis: Redis, production_id: str) -> int:
    """How many things that were learnt about it are not taken in yet."""
    length: Any = redis.llen(f"{PREFIX}inbox:{production_id}")
    return int(length)


def downloads(redis: Redis) -> list[Progress]:
    """How far each file has come that is on its way."""
    values: Any = redis.hvals(f"{PREFIX}progress")
    return [Progress(*map(int, value.split())) for value in values]


def timeline(redis: Redis, production_id: str) -> list[dict[str, Any]]:
    """Everything that happened to a production, oldest first, as JSON to show."""
    entries: Any = redis.lrange(f"{PREFIX}timeline:{production_id}", 0, -1)
    numbers = [entry[1:].split()[0] for entry in entries if entry.startswith(b"e")]
    bodies = iter(redis.hmget(f"{PREFIX}events:{production_id}", numbers) if numbers else [])
    return [_event_entry(entry, next(bodies)) if entry.startswith(b"e") else json.loads(entry) for entry in entries]


def kept_events(redis: Redis, production_id: str) -> list[EventArrived]:
    """Every event that was taken in, in that order. Addresses have lost their queries by then."""
    entries: Any = redis.lrange(f"{PREFIX}timeline:{production_id}", 0, -1)
    references = [entry[1:].split() for entry in entries if entry.startswith(b"e")]
    bodies: Any = redis.hmget(f"{PREFIX}events:{production_id}", [number for number, _ in references] or [b""])
    return [
        EventArrived(events.parse(body), moment(int(received)))
        for (_, received), body in zip(references, bodies, strict=False)
        if body is not None
    ]


def _event_entry(entry: bytes, body: Any) -> dict[str, Any]:
    number, received = entry[1:].split()
    shown: dict[str, Any] = {
        "at": instant(moment(int(received))),
        "kind": "event",
        "sequenceNumber": int(number),
    }
    if body is not None:
        event = events.parse(body)
        shown |= {
            "eventId": str(event.event_id),
            "eventType": event.event_type,
            "timestamp": instant(event.timestamp),
            "correlationId": event.correlation_id,
            "data": from_json(to_json(event.data, inf_nan_mode="strings")),
        }
    return shown


def _commit_args(
    claimed: Claim, before: Production, change: Change, retention: timedelta, notify: bool
) -> tuple[Any, ...]:
    after = change.production
    references = {entry[1:].split()[0]: entry.decode() for entry in claimed.entries if entry.startswith(b"e")}
    due = after.due_to_ask_at
    effects = {
        "timeline": [
            references[b"%d" % entry] if isinstance(entry, int) else to_json(entry).decode()
            for entry in change.timeline
        ],
        "replaces": change.replaces_last,
        "bodies": _without_addresses(claimed),
        "links": [[link.key, link.url, _link_ms(link.expires_at, claimed.now)] for link in change.links],
        "ask": _ms(due) if due is not None else False,
        "telling": after.tells_much,
        "settles": not before.settled_as and after.settled_as != "",
        "downloads": _changed_downloads(before, change),
        "forget": _ms(claimed.now + retention) if after.settled else False,
        "dead": [
            [
                deadletters.letter_id(letter.kind, f"{after.production_id}-{letter.key}"),
                deadletters.fields(
                    letter.kind, letter.reason, production_id=after.production_id, key=letter.key, **letter.fields
                ),
            ]
            for letter in change.dead_letters
        ],
        "resolved": [deadletters.letter_id("question", f"{after.production_id}-{key}") for key in change.resolved],
        "counts": _counts(change),
        "account": after.account_id or "",
        "notices": [[notice.id, notice.type, notices.body(notice)] for notice in change.notices],
        "notify": notify,
    }
    state = b"%d\n" % after.version + production.to_json(after)
    return after.production_id, before.version, state, len(claimed.entries), json.dumps(effects)


def _without_addresses(claimed: Claim) -> dict[str, str]:
    """The archived bodies that hold addresses, as they may be kept for good."""
    kept = {}
    for entry, body in zip(claimed.entries, claimed.bodies, strict=True):
        if entry.startswith(b"e") and (b"sasUrl" in body or b"sig=" in body or b"\\u" in body):
            kept[entry[1:].split()[0].decode()] = events.without_addresses(body).decode()
    return kept


def _changed_downloads(before: Production, change: Change) -> Mapping[str, tuple[int, bool] | bool]:
    """When, and whether it may take long. Only what changed or was reported on: a file that somebody is fetching
    right now keeps its claim."""
    was, will = before.due_downloads, change.production.due_downloads
    small = change.production.small_downloads
    changed: dict[str, tuple[int, bool] | bool] = {
        key: (_ms(at), key not in small) for key, at in will.items() if was.get(key) != at or key in change.worked_on
    }
    return changed | dict.fromkeys(was.keys() - will.keys(), False)


def _counts(change: Change) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for fact in change.facts:
        counts[fact.name] = counts.get(fact.name, 0) + 1
        if fact.name == "deliverable.stored":
            counts[STORED_BYTES] = counts.get(STORED_BYTES, 0) + int(fact.fields["bytes"])
    return counts


def _link_ms(expires_at: datetime, now: datetime) -> int:
    """How long an address is kept: at least a try, at most what JARAI promises. CONTRACT [seed]: one hour."""
    return max(_SHORTEST_LINK_MS, min(_LONGEST_LINK_MS, _ms(expires_at) - _ms(now)))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
