"""The due lists: what has to be done next, and who has taken it on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from redis import Redis

from service.core.production import Production
from service.store.productions import parse_state
from service.store.scripts import CLAIM_ASK, CLAIM_DOWNLOAD, PREFIX, RENEW_DOWNLOAD, SWEEP

ASK_LEASE_MS = 30_000
DOWNLOAD_LEASE_MS = 30_000
_PATIENCE_MS = 300  # a production that became due just now has been rung for by whoever made it so


@dataclass(frozen=True, slots=True)
class Due:
    """What is due and how many bells are waiting for it. `next_at`: when the next thing falls due."""

    now: datetime
    advance: int
    advance_bells: int
    download: int
    download_bells: int
    ask: int
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class DownloadClaim:
    """A file to fetch, or the manifest to write (`key` is then observations.MANIFEST). `url` is a secret."""

    member: str
    production_id: str
    key: str
    token: str
    production: Production
    url: str
    now: datetime


def sweep(redis: Redis) -> Due:
    """One look at all due lists."""
    row = SWEEP.run(redis, _PATIENCE_MS)
    return Due(_moment(row[0]), row[1], row[2], row[3], row[4], row[5], _moment(row[6]) if row[6] >= 0 else None)


def claim_ask(redis: Redis) -> tuple[Production, datetime] | None:
    """The production to ask JARAI about, and the time; nobody else gets it for half a minute.

    Raises UnreadableState; nobody gets that one for half a minute either.
    """
    row = CLAIM_ASK.run(redis, ASK_LEASE_MS)
    if len(row) == 1:
        return None
    production = parse_state(row[2])
    if production is None:  # forgotten meanwhile
        redis.zrem(f"{PREFIX}ask", row[1])
        return None
    return production, _moment(row[0])


def give_back_ask(redis: Redis, production_id: str) -> None:
    """The question was not answered and is due again at once."""
    redis.zadd(f"{PREFIX}ask", {production_id: 0}, xx=True)


def claim_download(redis: Redis, token: str) -> DownloadClaim | None:
    """A file to fetch. The claim holds for half a minute and has to be renewed with the same `token`.

    Raises UnreadableState; nobody gets that one for half a minute either.
    """
    row = CLAIM_DOWNLOAD.run(redis, token, DOWNLOAD_LEASE_MS)
    if len(row) == 1:
        return None
    member = row[1].decode()
    production_id, _, key = member.partition(":")
    production = parse_state(row[2])
    if production is None:
        redis.zrem(f"{PREFIX}download", member)
        return None
    return DownloadClaim(member, production_id, key, token, production, row[3].decode(), _moment(row[0]))


def renew_download(redis: Redis, claim: DownloadClaim, bytes_so_far: int) -> bool:
    """Keep the claim for another half minute; False when it went to somebody else: stop at once."""
    return bool(RENEW_DOWNLOAD.run(redis, claim.token, DOWNLOAD_LEASE_MS, claim.member, bytes_so_far))


def drop_download(redis: Redis, claim: DownloadClaim) -> None:
    """Nobody wants this file any more."""
    redis.zrem(f"{PREFIX}download", claim.member)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
