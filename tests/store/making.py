"""What the tests of the store, the web and the workers put in: events as JARAI sends them, and servers of their own."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import logging
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from service import log
from service.core.schedule import Intervals
from service.core.signature import decode_secret
from service.store import heard, inbox
from service.store.inbox import Kept, arrival
from tests.deployment import eventually
from workers.advance import drain
from workers.redis_server import find_binary

ACCOUNT = "5b0f7c3e-0f4e-4c59-9c3b-9a3c2f6c1a01"
RETENTION = timedelta(days=30)
T = TypeVar("T")


def new_id() -> str:
    return str(uuid.uuid4())


def event(production: str, number: int, kind: str = "production.step.complete", **fields: Any) -> bytes:
    """A body as JARAI sends it; `fields` replace those of the envelope."""
    envelope = {
        "eventId": new_id(),
        "eventType": kind,
        "productionId": production,
        "accountId": ACCOUNT,
        "timestamp": datetime.now(UTC).isoformat(),
        "sequenceNumber": number,
        "correlationId": f"c-{number}",
        "data": {},
    }
    return json.dumps(envelope | fields).encode()


def other_delivery(body: bytes) -> bytes:
    """The same event as another subscription brings it."""
    return json.dumps(json.loads(body) | {"eventId": new_id(), "correlationId": "another"}).encode()


def listing(*urls: str) -> dict[str, Any]:
    """The data of a `deliverable.ready`."""
    return {
        "deliverables": [
            {"deliverableId": f"d{place}", "type": "Video", "fileName": f"film{place}.mp4", "sasUrl": url}
            for place, url in enumerate(urls)
        ]
    }


def signed(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.digest(decode_secret(secret), body, "sha256").hex()


def asynchronous(redis: Redis) -> AsyncRedis:
    """A client of the same server for an event loop."""
    return AsyncRedis.from_url(f"unix://{redis.connection_pool.connection_kwargs['path']}")


def awaited(redis: Redis, work: Callable[[AsyncRedis], Awaitable[T]]) -> T:
    """What comes of it, in an event loop of its own."""

    async def done() -> T:
        async with asynchronous(redis) as client:
            return await work(client)

    return asyncio.run(done())


def keep(redis: Redis, *bodies: bytes) -> list[Kept | Exception]:
    return awaited(redis, lambda client: inbox.keep(client, [arrival(body) for body in bodies]))


def hear(redis: Redis, *names: str) -> None:
    """Webhooks came just now, signed with the keys of these fingerprints."""
    awaited(redis, lambda client: heard.note(client, names))


def verdicts(redis: Redis, *bodies: bytes) -> list[str]:
    return [kept.verdict if isinstance(kept, Kept) else type(kept).__name__ for kept in keep(redis, *bodies)]


def take_in(redis: Redis, *bodies: bytes) -> None:
    """Keep these, and let everything that is due be taken in."""
    keep(redis, *bodies)
    drain(redis, Intervals(), RETENTION)


def values_of(redis: Redis) -> dict[str, str]:
    """Everything that lies in this Redis, whatever its type, as text by its key."""
    readers: dict[str, Any] = {
        "string": redis.get,
        "list": lambda key: redis.lrange(key, 0, -1),
        "hash": redis.hgetall,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "set": redis.smembers,
        "stream": redis.xrange,
    }
    keys: list[bytes] = list(redis.scan_iter())
    kinds: dict[bytes, Any] = {key: redis.type(key) for key in keys}
    return {key.decode(): str(readers[kinds[key].decode()](key)) for key in keys}


@contextlib.contextmanager
def logged(level: str = "info") -> Iterator[io.StringIO]:
    """What this process logs within the block, as the deployment would write it."""
    handlers, stream = logging.getLogger().handlers[:], io.StringIO()
    log.configure("json", level, (), stream)
    try:
        yield stream
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[Redis]:
    """A Redis server of the test's own, with these settings, ended with the block."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        socket = Path(folder) / "s"
        process = subprocess.Popen(
            [find_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", folder, *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            with Redis.from_url(f"unix://{socket}", socket_timeout=5) as client:
                eventually(lambda: _answers(client), what="the server's start")
                yield client
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
