"""Notices that wait to be delivered, and the stream of facts that has them all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis

from service.core.notices import Verdict
from service.store import deadletters
from service.store.scripts import CLAIM_NOTICE, KEEP_NOTICE, NOTICE_DELIVERED, NOTICE_FAILED, PREFIX, moment

FACTS = f"{PREFIX}facts"
LEASE_MS = 30_000
_INDEX = f"{PREFIX}notify"
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class NoticeClaim:
    """A notice to send. `attempts` and `receiver_failures`: failures in a row so far; `claims`: how often in a row,
    this time included, it was taken on without a word of what came of it. `account_id` may be empty."""

    id: str
    token: str
    now: datetime
    production_id: str
    account_id: str
    type: str
    body: str
    attempts: int
    claims: int
    receiver_failures: int


def claim(redis: Redis, token: str) -> NoticeClaim | None:
    """The notice that is due first; nobody else gets it for half a minute. None as well while the receiver rests."""
    now, *row = CLAIM_NOTICE.run(redis, token, LEASE_MS)
    if not row:
        return None
    identity, production_id, account_id, kind, body = (raw.decode() for raw in row[:5])
    return NoticeClaim(identity, token, moment(now), production_id, account_id, kind, body, *row[5:])


def delivered(redis: Redis, claimed: NoticeClaim) -> bool:
    """It has arrived. False: somebody else has said so."""
    return bool(NOTICE_DELIVERED.run(redis, claimed.id, letter_id(claimed.id)))


def failed(redis: Redis, claimed: NoticeClaim, verdict: Verdict, error: str) -> bool:
    """It has not arrived: it is due again when the verdict says, or a dead letter. False: another has the claim."""
    again_ms = -1 if verdict.again_in is None else _ms(verdict.again_in.total_seconds())
    letter = deadletters.fields(
        "notice",
        error,
        production_id=claimed.production_id,
        body=claimed.body.encode(),
        notice_id=claimed.id,
        type=claimed.type,
        account_id=claimed.account_id,
        attempts=claimed.attempts + 1,
    )
    pause_ms = _ms(verdict.others_wait.total_seconds())
    return bool(NOTICE_FAILED.run(redis, claimed.token, claimed.id, pause_ms, again_ms, letter_id(claimed.id), *letter))


def letter_id(notice_id: str) -> str:
    """The id of the dead letter that a notice becomes."""
    return deadletters.letter_id("notice", notice_id)


def keep_again(redis: Redis, letter: deadletters.DeadLetter) -> None:
    """Have a notice that was given up sent again, under its id, byte for byte."""
    told = letter.details
    account = told.get("account_id", "")
    KEEP_NOTICE.run(redis, told["notice_id"], letter.production_id or "", account, told["type"], letter.body or b"")


def waiting(redis: Redis) -> int:
    """How many are not delivered yet, whenever their next attempt is."""
    return int(redis.zcard(_INDEX))


def oldest_at(redis: Redis) -> datetime | None:
    """Since when the oldest of them has been waiting; of very many, of those that are due first."""
    ids: Any = redis.zrange(_INDEX, 0, _MOST_LOOKED_AT - 1)
    with redis.pipeline(transaction=False) as pipeline:
        for one in ids:
            pipeline.hget(f"{PREFIX}notice:{one.decode()}", "at")
        since = [int(at) for at in pipeline.execute() if at is not None]
    return moment(min(since)) if since else None


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
