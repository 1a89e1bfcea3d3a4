"""Notes in Redis that webhooks arrive, about once a second while they do and never when nothing comes."""

from __future__ import annotations

import asyncio
import contextlib

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.store import heard

_SECONDS_BETWEEN_NOTES = 1.0


class Hearing:
    """What the endpoint has heard and Redis does not know yet. Used from one event loop."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._names: set[str] = set()
        self._note: asyncio.Task[None] | None = None

    def heard(self, name: str) -> None:
        """A webhook came, signed with the key of this fingerprint, or heard.REFUSED."""
        self._names.add(name)
        if self._note is None:
            self._note = asyncio.get_running_loop().create_task(self._soon())

    async def close(self) -> None:
        """Note what has not been noted yet."""
        if self._note is not None:
            self._note.cancel()
            await self._write()

    async def _soon(self) -> None:
        await asyncio.sleep(_SECONDS_BETWEEN_NOTES)
        self._note = None
        await self._write()

    async def _write(self) -> None:
        names, self._names = self._names, set()
        with contextlib.suppress(RedisError):  # the intake says so; the next webhook notes itself
            await heard.note(self._redis, names)
