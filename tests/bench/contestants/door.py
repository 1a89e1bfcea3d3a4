"""What the contestants in Python have in common: the check of the signature, and the Redis that refuses doubles."""

from __future__ import annotations

import hmac
import os

from redis import Redis

PORT = int(os.environ["PORT"])
REDIS_SOCKET = os.environ["REDIS_SOCKET"]
_SECRET = os.environ["SECRET"].encode()
_DAY_SECONDS = 24 * 3600


def connect() -> Redis:
    """A pool: each thread of a server takes a connection of its own."""
    return Redis(unix_socket_path=REDIS_SOCKET)


def is_authentic(body: bytes, header: str | None) -> bool:
    expected = "sha256=" + hmac.digest(_SECRET, body, "sha256").hex()
    return hmac.compare_digest(expected.encode(), (header or "").encode())


def is_new(redis: Redis, production: str, number: int) -> bool:
    """Whether nobody has claimed this event before; it is claimed with that."""
    return bool(redis.set(f"seen:{production}:{number}", 1, nx=True, ex=_DAY_SECONDS))
