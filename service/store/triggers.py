"""Requests to start a production whose outcome nobody knows yet: noted before they go out, so that none goes twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from redis import Redis

from service.core import observations
from service.core.observations import OperatorAsked, Retriggered
from service.store import productions
from service.store.scripts import INTEND, PREFIX, RELENT, TRIGGERED, moment

_KEPT = timedelta(days=7)
_MOST_LOOKED_AT = 500
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Intent:
    """One request. `digest` is the same for the same wish, `token` is its own."""

    digest: str
    token: str
    account_id: str
    topic: str


@dataclass(frozen=True, slots=True)
class Open:
    """An earlier request for the same whose outcome is not known. `now` is by the same clock as `at`."""

    at: datetime
    now: datetime


def intend(redis: Redis, intent: Intent, *, again: bool) -> Open | None:
    """Note durably that this is going to be asked for. An Open: nothing was noted, since the same may be under way."""
    now, *other = _keep(redis, intent, again, "sent")
    return Open(moment(int(other[0])), moment(now)) if other else None


def doubt(redis: Redis, intent: Intent) -> datetime:
    """Nobody knows whether it was started; since when that is so."""
    _keep(redis, intent, True, "unknown")
    at: Any = redis.hget(f"{PREFIX}trigger:{intent.digest}", "at")
    return moment(int(at))


def relent(redis: Redis, intent: Intent) -> None:
    """Certainly nothing was started by this request; idempotent."""
    RELENT.run(redis, intent.digest, intent.token)


def started(
    redis: Redis,
    production_id: str,
    intent: Intent,
    wish: OperatorAsked,
    expired: tuple[str, Retriggered] | None = None,
) -> None:
    """It was started: follow it, tell the one that had `expired`, and forget the intent, in one step."""
    other = () if expired is None else (expired[0], observations.to_json(expired[1]))
    TRIGGERED.run(redis, production_id, observations.to_json(wish), intent.digest, *other)


def unclaimed(redis: Redis, account_id: str, since: datetime) -> list[str]:
    """Productions of this account that were first seen since then, and that nobody here triggered."""
    ids: Any = redis.zrangebyscore(
        f"{PREFIX}index", since.timestamp() * 1000, "+inf", start=0, num=_MOST_LOOKED_AT
    )  # fmt: skip
    states: Any = redis.mget([f"{PREFIX}production:{raw.decode()}" for raw in ids]) if ids else []
    found = [raw.decode() for raw, state in zip(ids, states, strict=True) if account_id.encode() in (state or b"")]
    return [one for one in found if not _triggered(redis, one)][:_MOST_NAMED]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A request whose outcome nobody knows. `digest` tells it from others."""

    digest: str
    at: datetime
    account_id: str
    topic: str


def doubts(redis: Redis) -> list[Doubt]:
    """All that are open, the oldest first."""
    found = []
    for key in redis.scan_iter(f"{PREFIX}trigger:*", count=1000):
        fields: Any = redis.hmget(key, ["at", "account", "topic"])
        if fields[0] is not None:
            digest = key.decode().rpartition(":")[2]
            found.append(Doubt(digest, moment(int(fields[0])), *(value.decode() for value in fields[1:])))
    return sorted(found, key=lambda one: one.at)


def settle(redis: Redis, digest: str) -> bool:
    """A person knows what has become of it; False where none is open."""
    return bool(redis.delete(f"{PREFIX}trigger:{digest}"))


def _triggered(redis: Redis, production_id: str) -> bool:
    return any(entry.get("triggered") for entry in productions.timeline(redis, production_id))


def _keep(redis: Redis, intent: Intent, again: bool, state: Literal["sent", "unknown"]) -> Any:
    kept_ms = int(_KEPT.total_seconds() * 1000)
    return INTEND.run(
        redis, intent.digest, intent.token, int(again), kept_ms, intent.account_id, intent.topic, state
    )  # fmt: skip
