"""What settled productions have taught, how many webhooks were missed each day, and what has been said about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from redis import Redis

from service.core import experience
from service.core.experience import Experience
from service.store.scripts import PREFIX, TAKE_UNACCOUNTED, moment

PAUSE_MS = 600_000  # after it settled: what was only late has come by then
_RADAR = f"{PREFIX}radar"
EXPERIENCE = f"{PREFIX}experience"
_DAYS = 40
COUNTS = ("received", "missed", "unsubscribed", "ends_missed")


def take_settled(redis: Redis, most: int) -> list[str]:
    """Ids of productions whose webhooks are to be counted; nobody else gets them."""
    return [one.decode() for one in TAKE_UNACCOUNTED.run(redis, PAUSE_MS, most)]


def read_experience(redis: Redis) -> Experience:
    """What is known; nothing where what is kept can't be read."""
    return parse_experience(redis.get(EXPERIENCE))


def parse_experience(raw: Any) -> Experience:
    try:
        return experience.from_json(raw) if raw else Experience()
    except ValueError:
        return Experience()


def keep_experience(redis: Redis, known: Experience) -> None:
    """Of two who learn at the same time one may be forgotten: it is an estimate."""
    redis.set(EXPERIENCE, experience.to_json(known))


def count(redis: Redis, day: str, **numbers: int) -> None:
    """Add to what is known of a day (`YYYY-MM-DD`), by the names of COUNTS, and to the totals of all days."""
    with redis.pipeline(transaction=True) as pipeline:
        for name, number in numbers.items():
            pipeline.hincrby(_RADAR, f"{day} {name}", number)
            pipeline.hincrby(_RADAR, f"all {name}", number)
        pipeline.execute()


def read_day(redis: Redis, day: str = "all") -> Mapping[str, int]:
    values: Any = redis.hmget(_RADAR, [f"{day} {name}" for name in COUNTS])
    return {name: int(value or 0) for name, value in zip(COUNTS, values, strict=True)}


def forget_days(redis: Redis, today: str) -> None:
    """Keep the newest days."""
    fields: Any = redis.hkeys(_RADAR)
    days = sorted({one.decode().partition(" ")[0] for one in fields} - {"all", today})
    for old in days[:-_DAYS]:
        redis.hdel(_RADAR, *(f"{old} {name}" for name in COUNTS))


def is_first(redis: Redis, what: str, seconds: float) -> bool:
    """Whether nobody of this deployment has said so for that long; now somebody has."""
    return bool(redis.set(f"{PREFIX}told:{what}", 1, nx=True, px=int(seconds * 1000)))


def take_back(redis: Redis, what: str) -> bool:
    """It is over; True when it had been said."""
    return bool(redis.delete(f"{PREFIX}told:{what}"))


def since(redis: Redis, what: str, now: datetime | None) -> datetime | None:
    """Since when it has been so without a pause; `now` while it is, None while it is not."""
    key = f"{PREFIX}told:{what}"
    if now is None:
        redis.delete(key)
        return None
    redis.set(key, int(now.timestamp() * 1000), nx=True)
    begun: Any = redis.get(key)
    return now if begun is None else min(now, moment(int(begun)))


def recovered(redis: Redis, now: datetime, heard_at: datetime | None) -> tuple[int, datetime]:
    """How often a poll has found what no webhook had said, since a webhook was heard last, and since when that is."""
    key, mark = f"{PREFIX}told:recovered", b"%d" % (0 if heard_at is None else int(heard_at.timestamp() * 1000))
    total: Any = redis.hget(f"{PREFIX}counts", "poll.recovered") or 0
    known: Any = (redis.get(key) or b"").split()
    if len(known) != 3 or known[0] != mark:
        redis.set(key, b"%s %d %d" % (mark, int(total), int(now.timestamp() * 1000)))
        return 0, now
    return int(total) - int(known[1]), min(now, moment(int(known[2])))


def replace_told(redis: Redis, what: str, value: int) -> int | None:
    """Note the number that is said now, and what it was when it was said last."""
    before: Any = redis.set(f"{PREFIX}told:{what}", value, get=True)
    return None if before is None else int(before)
