"""When JARAI was heard last, and with which key it signed: by this the silence is noticed, and a rotation goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.store.scripts import NOTE_HEARD, PREFIX, moment

_HEARD = f"{PREFIX}heard"
REFUSED = "refused"  # stands where a key's fingerprint would: signed with none of ours


@dataclass(frozen=True, slots=True)
class Heard:
    """`by_key`: fingerprint of a signing key -> when a webhook signed with it came last (to a second or two)."""

    by_key: Mapping[str, datetime]
    refused_at: datetime | None

    @property
    def last_at(self) -> datetime | None:
        return max(self.by_key.values(), default=None)


async def note(redis: AsyncRedis, names: Collection[str]) -> None:
    """Webhooks came just now, signed with the keys of these fingerprints, or REFUSED."""
    await NOTE_HEARD.run_async(redis, *names)


def read(redis: Redis) -> Heard:
    """A time that has not come is the work of a clock that was wrong, and left out."""
    found: Any = redis.hgetall(_HEARD)
    seconds, _ = redis.time()
    latest_ms = (int(seconds) + 5) * 1000
    moments = {name.decode(): moment(int(ms)) for name, ms in found.items() if int(ms) <= latest_ms}
    refused_at = moments.pop(REFUSED, None)
    return Heard(moments, refused_at)
