"""Notices that wait to be delivered: claiming, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis

from service.store import deadletters
from service.store.scripts import (
    CLAIM_NOTICE,
    DELIVERED,
    GIVE_UP_NOTICE,
    POSTPONE_NOTICE,
    PREFIX,
    REVIVE_NOTICE,
)

_LEASE_MS = 30_000


@dataclass(frozen=True, slots=True)
class NoticeClaim:
    """A notice to send. `attempts`: how often that failed before."""

    id: str
    type: str
    body: str
    production_id: str
    attempts: int
    token: str


def claim(redis: Redis, token: str) -> NoticeClaim | None:
    """The notice that is due first; nobody else gets it for half a minute. None also while the address rests."""
    row = CLAIM_NOTICE.run(redis, token, _LEASE_MS)
    if len(row) == 1:
        return None
    return NoticeClaim(row[1].decode(), row[2].decode(), row[3].decode(), row[4].decode(), row[5], token)


def delivered(redis: Redis, claim: NoticeClaim) -> bool:
    """It is done with. False: the claim has run out, and somebody else may send it once more, under the same id."""
    return bool(DELIVERED.run(redis, claim.id, claim.token))


def postpone(redis: Redis, claim: NoticeClaim, attempts: int, pause: timedelta, endpoint_pause: timedelta) -> None:
    """Send it again after `pause`, and nothing at all before `endpoint_pause` is over."""
    pauses = (int(one.total_seconds() * 1000) for one in (pause, endpoint_pause))
    POSTPONE_NOTICE.run(redis, claim.id, claim.token, attempts, *pauses)


def give_up(redis: Redis, claim: NoticeClaim, reason: str, attempts: int) -> bool:
    """Put it under dead letters, from where a person can have it sent after all. True when that is news."""
    what = deadletters.fields(
        "notice", reason, production_id=claim.production_id, notice_id=claim.id, type=claim.type, attempts=attempts
    )
    return bool(GIVE_UP_NOTICE.run(redis, claim.id, claim.token, deadletters.letter_id("notice", claim.id), *what))


def revive(redis: Redis, notice_id: str) -> bool:
    """Send it again, under the same id. False: there is nothing to send any more."""
    return bool(REVIVE_NOTICE.run(redis, notice_id))


def discard(redis: Redis, notice_id: str) -> None:
    """What was given up is not to be sent any more."""
    redis.delete(f"{PREFIX}notice:{notice_id}")


def waiting(redis: Redis) -> tuple[int, datetime | None]:
    """How many wait, and when the first of them is to be sent."""
    first: Any = redis.zrange(f"{PREFIX}notify", 0, 0, withscores=True)
    at = datetime.fromtimestamp(first[0][1] / 1000, UTC) if first else None
    return int(redis.zcard(f"{PREFIX}notify")), at
