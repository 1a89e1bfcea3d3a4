"""The one rotation of a webhook subscription that is under way, so that it can go on wherever it was broken off."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis import Redis

from service.core.errors import ReceiverError
from service.store.scripts import PREFIX

_ROTATION = f"{PREFIX}rotation"
_RUNNING = f"{PREFIX}rotation:running"
_KEPT = timedelta(days=30)
_LEASE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Rotation:
    """`old` is being replaced by `new`, both ids of subscriptions; "" until the secret of the new one was shown.

    `others` are all that were there before, `keys` the fingerprints of the keys that were, `key` that of the new one.
    """

    old: str
    others: tuple[str, ...]
    keys: tuple[str, ...]
    new: str = ""
    key: str = ""


def read(redis: Redis) -> Rotation | None:
    found: Any = redis.hgetall(_ROTATION)
    if not found:
        return None
    kept = {name.decode(): json.loads(value) for name, value in found.items()}
    return Rotation(kept["old"], tuple(kept["others"]), tuple(kept["keys"]), kept["new"], kept["key"])


def write(redis: Redis, rotation: Rotation) -> None:
    fields: dict[Any, Any] = {
        name: json.dumps(getattr(rotation, name)) for name in ("old", "others", "keys", "new", "key")
    }
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.hset(_ROTATION, mapping=fields)
        pipeline.expire(_ROTATION, _KEPT)
        pipeline.execute()


def forget(redis: Redis) -> None:
    redis.delete(_ROTATION)


@contextlib.contextmanager
def alone(redis: Redis) -> Iterator[Callable[[], None]]:
    """Nobody else rotates within the block, as long as what it yields is called every minute. Raises ReceiverError."""

    def still_here() -> None:
        redis.pexpire(_RUNNING, _LEASE_MS)

    if not redis.set(_RUNNING, 1, nx=True, px=_LEASE_MS):
        raise ReceiverError("another `webhooks rotate` is running, or was killed within the last minute")
    try:
        yield still_here
    finally:
        redis.delete(_RUNNING)
