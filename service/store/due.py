"""The due lists: what has to be done next, and who has taken it on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redis import Redis

from service.core.deliverables import Deliverable
from service.core.errors import UnreadableState
from service.core.production import Production
from service.store.productions import parse_state
from service.store.scripts import (
    CLAIM_ASK,
    CLAIM_DOWNLOAD,
    DROP_DOWNLOAD,
    GIVE_BACK_ASK,
    PREFIX,
    RENEW_DOWNLOAD,
    STORAGE_FAILED,
    STORAGE_WORKS,
    SWEEP,
    TAKE_BANDWIDTH,
    moment,
)

ASK_LEASE_MS = 20_000
DOWNLOAD_LEASE_MS = 30_000
STORAGE_PAUSE_MS = 10_000
_STORAGE_MEMORY_MS = 900_000  # should no file as large ever be tried again
_PATIENCE_MS = 300  # a production that became due just now has been rung for by whoever made it so


@dataclass(frozen=True, slots=True)
class Due:
    """What is due and how many bells are waiting for it. `next_at`: when the next thing falls due.

    `set_back_seconds`: so far the clock has been set back since the last look; what was due has moved along.
    `deployment` is empty in a Redis that no deployment has been at home in, or that was emptied. `news`: as long as it
    stays the same, nothing falls due before `next_at`.
    """

    now: datetime
    advance: int
    advance_bells: int
    download: int
    download_bells: int
    ask: int
    next_at: datetime | None
    set_back_seconds: float
    deployment: str
    notify: int
    notify_bells: int
    news: bytes

    @property
    def quiet(self) -> bool:
        """Whether nothing is due, worked on or not."""
        return self.next_at is None or self.next_at > self.now


@dataclass(frozen=True, slots=True)
class AskClaim:
    """A production to ask JARAI about. `tries`: claims in a row, this one included, that came to nothing."""

    production: Production
    now: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class DownloadClaim:
    """A file to fetch, or the manifest to write (`key` is then observations.MANIFEST). `url` is a secret.

    `tries`: claims in a row, this one included, that ended without a word and without a byte gained.
    """

    member: str
    production_id: str
    key: str
    token: str
    production: Production
    url: str
    now: datetime
    tries: int

    @property
    def deliverable(self) -> Deliverable | None:
        return next((one for one in self.production.deliverables if one.key == self.key), None)


def sweep(redis: Redis, *, asks: bool = True) -> Due:
    """One look at all due lists; without `asks`, at all but that of the questions to JARAI."""
    row = SWEEP.run(redis, _PATIENCE_MS, int(asks))
    next_at = moment(row[6]) if row[6] >= 0 else None
    return Due(moment(row[0]), row[1], row[2], row[3], row[4], row[5], next_at,
               row[7] / 1000, row[8].decode(), row[9], row[10], row[11] + row[8])  # fmt: skip


def news(redis: Redis) -> bytes:
    """Another one than before when something may have fallen due that the last sweep did not foresee.

    The name is part of it: the count begins anew when Redis was emptied.
    """
    found: Any = redis.mget(f"{PREFIX}news", f"{PREFIX}deployment")
    return b"".join(one or b"" for one in found)


def claim_ask(redis: Redis) -> AskClaim | None:
    """The production to ask JARAI about; nobody else gets it for twenty seconds.

    Raises UnreadableState; nobody gets that one so long either.
    """
    row = CLAIM_ASK.run(redis, ASK_LEASE_MS)
    if len(row) == 1:
        return None
    production = parse_state(row[2])
    if production is None:  # forgotten meanwhile
        redis.zrem(f"{PREFIX}ask", row[1])
        return None
    return AskClaim(production, moment(row[0]), row[3])


def give_back_ask(redis: Redis, production_id: str, until: datetime | None = None) -> None:
    """The question was not answered, through no fault of the production's, and is due again: at once, or `until`."""
    GIVE_BACK_ASK.run(redis, production_id, 0 if until is None else int(until.timestamp() * 1000))


def oldest_waiting(redis: Redis) -> timedelta | None:
    """For how long the oldest event has waited for a worker, or None where none waits."""
    head: Any = redis.zrange(f"{PREFIX}dirty", 0, 0, withscores=True)
    if not head:
        return None
    entry: Any = redis.lindex(f"{PREFIX}inbox:{head[0][0].decode()}", 0)
    received = entry.split()[1] if entry and entry[:1] in (b"e", b"r") else b"%d" % int(head[0][1])
    seconds, microseconds = redis.time()
    return timedelta(seconds=max(0.0, int(seconds) + int(microseconds) / 1e6 - int(received) / 1000))


def watched(redis: Redis, most: int = 200) -> list[Production]:
    """Productions that JARAI will have to be asked about: so many that are due first, and as many that are due last.

    What can't be read is left out.
    """
    first: Any = redis.zrange(f"{PREFIX}ask", 0, most - 1)
    last: Any = redis.zrange(f"{PREFIX}ask", -most, -1)
    ids = list(dict.fromkeys([*first, *last]))
    states: Any = redis.mget([f"{PREFIX}production:{one.decode()}" for one in ids]) if ids else []
    found: list[Production] = []
    for state in states:
        with suppress(UnreadableState):
            found += filter(None, [parse_state(state)])
    return found


def asked(redis: Redis, production_id: str) -> None:
    """The answer lies in the inbox: whatever has to be asked next may be asked."""
    redis.delete(f"{PREFIX}asking:{production_id}")


def claim_download(
    redis: Redis, token: str, *, most_per_host: int = 0, small_only: bool = False
) -> DownloadClaim | None:
    """A file to fetch. The claim holds for half a minute and has to be renewed with the same `token`.

    `most_per_host`: no more than so many at a time from one host, by all workers together; 0: as many as there are.
    Raises UnreadableState; nobody gets that one for half a minute either.
    """
    row = CLAIM_DOWNLOAD.run(redis, token, DOWNLOAD_LEASE_MS, STORAGE_PAUSE_MS, most_per_host, int(small_only))
    if len(row) == 1:
        return None
    member = row[1].decode()
    production_id, _, key = member.partition(":")
    production = parse_state(row[2])
    if production is None:
        DROP_DOWNLOAD.run(redis, member)
        return None
    return DownloadClaim(member, production_id, key, token, production, row[3].decode(), moment(row[0]), row[4])


def renew_download(redis: Redis, claim: DownloadClaim, bytes_so_far: int, bytes_per_second: int = 0) -> int | None:
    """Keep the claim for another half minute; None when it went to somebody else: stop at once.

    Else whether a small file is due and waits for somebody.
    """
    waiting = RENEW_DOWNLOAD.run(redis, claim.token, DOWNLOAD_LEASE_MS, claim.member, bytes_so_far, bytes_per_second)
    return None if waiting < 0 else int(waiting)


def take_bandwidth(redis: Redis, taken_bytes: int, bytes_per_second: int) -> float:
    """So many bytes came, of a line that all workers share; the seconds to wait before the next."""
    return float(TAKE_BANDWIDTH.run(redis, taken_bytes, bytes_per_second)) / 1000


def drop_download(redis: Redis, claim: DownloadClaim) -> None:
    """Nobody wants this file any more."""
    DROP_DOWNLOAD.run(redis, claim.member)


def storage_failed(redis: Redis, needed_bytes: int) -> bool:
    """Downloads pause, but for one try every ten seconds. True when that is news."""
    return bool(STORAGE_FAILED.run(redis, needed_bytes, STORAGE_PAUSE_MS, _STORAGE_MEMORY_MS))


def storage_fails(redis: Redis) -> bool:
    """Whether the storage took no file when it was last tried."""
    return bool(redis.exists(f"{PREFIX}storage"))


def storage_works(redis: Redis, stored_bytes: int) -> bool:
    """A file lies in its place. True when that is news: one as large had found no room, and downloads go on."""
    return bool(STORAGE_WORKS.run(redis, stored_bytes))
