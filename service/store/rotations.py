"""The one rotation of a webhook subscription that is under way, so that it can go on wherever it was broken off."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis import Redis

from service.core.errors import ReceiverError
from service.store.scripts import PREFIX

_ROTATION = f"{PREFIX}rotation"
_KEYS = f"{PREFIX}subscriptions"
_RUNNING = f"{PREFIX}rotation:running"
_KEPT = timedelta(days=30)
_LEASE_MS = 60_000
_BUSY = "another `webhooks rotate` is running, or was killed within the last minute"


@dataclass(frozen=True, slots=True)
class Rotation:
    """`old` is being replaced by `new`, both ids of subscriptions; "" until the secret of the new one was shown.

    `others` are all that were there before, `keys` the fingerprints of the keys that were, `key` that of the new one,
    `old_key` that of the old one where it is known. `saves`: secrets are to be written into `.env`.
    """

    old: str
    others: tuple[str, ...]
    keys: tuple[str, ...]
    new: str = ""
    key: str = ""
    old_key: str = ""
    saves: bool = False


def read(redis: Redis) -> Rotation | None:
    found: Any = redis.hgetall(_ROTATION)
    if not found:
        return None
    kept = {name.decode(): json.loads(value) for name, value in found.items()}
    return Rotation(**(kept | {"others": tuple(kept["others"]), "keys": tuple(kept["keys"])}))


def write(redis: Redis, rotation: Rotation) -> None:
    fields: dict[Any, Any] = {
        name: json.dumps(getattr(rotation, name))
        for name in ("old", "others", "keys", "new", "key", "old_key", "saves")
    }
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.hset(_ROTATION, mapping=fields)
        pipeline.expire(_ROTATION, _KEPT)
        pipeline.execute()


def forget(redis: Redis) -> None:
    redis.delete(_ROTATION)


def note_key(redis: Redis, subscription_id: str, key: str) -> None:
    """The secret of this subscription has the key of this fingerprint; an empty one: it has none any more."""
    if key:
        redis.hset(_KEYS, subscription_id, key)
    else:
        redis.hdel(_KEYS, subscription_id)


def keys(redis: Redis) -> dict[str, str]:
    """The fingerprint of each subscription's key, as far as it was made from here."""
    found: Any = redis.hgetall(_KEYS)
    return {name.decode(): value.decode() for name, value in found.items()}


@contextlib.contextmanager
def alone(redis: Redis) -> Iterator[Callable[[], None]]:
    """Nobody else rotates within the block, as long as what it yields is called every minute. Raises ReceiverError."""

    mine = uuid.uuid4().hex

    def still_here() -> None:
        if redis.get(_RUNNING) not in (None, mine.encode()):
            raise ReceiverError(_BUSY)
        redis.set(_RUNNING, mine, px=_LEASE_MS)

    if not redis.set(_RUNNING, mine, nx=True, px=_LEASE_MS):
        raise ReceiverError(_BUSY)
    try:
        yield still_here
    finally:
        if redis.get(_RUNNING) == mine.encode():
            redis.delete(_RUNNING)
