"""Connections to Redis, and what has to hold there so that nothing accepted gets lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from service.core.errors import StoreUnavailable


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A client that gives up after `timeout_seconds` and never repeats a command by itself.

    `redis+sentinel://[:password@]host:port,host:port/name/db` asks Sentinels for the master called `name`.
    """
    client: Redis = _connect(Redis, Sentinel, Retry(NoBackoff(), 0), url, timeout_seconds)
    return client


def connect_async(url: str, *, timeout_seconds: float) -> AsyncRedis:
    """The same for the event loop in which it is first used."""
    client: AsyncRedis = _connect(AsyncRedis, AsyncSentinel, AsyncRetry(NoBackoff(), 0), url, timeout_seconds)
    return client


def _connect(client: Any, sentinels: Any, retry: object, url: str, timeout_seconds: float) -> Any:
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": retry,
        "health_check_interval": 0,
    }
    if not url.startswith("redis+sentinel://"):
        return client.from_url(url, **options)
    parts = urlsplit(url)
    hosts = [host.rpartition(":") for host in parts.netloc.rpartition("@")[2].split(",")]
    name, _, database = parts.path.strip("/").partition("/")
    addresses = [(host or port, int(port) if host else 26379) for host, _, port in hosts]
    each_seconds = timeout_seconds / len(hosts)  # one that hangs leaves the others their turn
    asking = options | {"socket_timeout": each_seconds, "socket_connect_timeout": each_seconds}
    sentinel = sentinels(addresses, sentinel_kwargs=asking, **options)
    password = unquote(parts.netloc.rpartition("@")[0].rpartition(":")[2]) or None
    return sentinel.master_for(name or "mymaster", db=int(database or 0), password=password, **options)


def safety_problems(redis: Redis) -> list[str]:
    """Each reason why this Redis may lose an accepted event, with the setting to change. Empty: it is sound.

    Raises StoreUnavailable when Redis does not answer.
    """
    try:
        persistence: Mapping[str, Any] = redis.info("persistence")
        memory: Mapping[str, Any] = redis.info("memory")
        replication: Mapping[str, Any] = redis.info("replication")
        appendfsync = _config(redis, "appendfsync")
    except RedisError as error:
        raise StoreUnavailable(f"Redis does not answer: {type(error).__name__}") from None
    problems = []
    if replication.get("role") != "master":
        problems.append("it is a replica and takes no writes: point REDIS_URL at the master")
    if not persistence.get("aof_enabled"):
        problems.append("it keeps no append-only file: set `appendonly yes`")
    elif persistence.get("aof_last_write_status") != "ok":
        problems.append("its append-only file can't be written: look at its disk")
    if appendfsync == "no":
        problems.append("it never syncs its append-only file: set `appendfsync always` (or at least `everysec`)")
    policy = memory.get("maxmemory_policy")
    if policy != "noeviction" and memory.get("maxmemory", 0):
        problems.append(f"it evicts keys when memory runs out ({policy}): set `maxmemory-policy noeviction`")
    return problems


def _config(redis: Redis, name: str) -> str:
    """A setting of the server; empty where the server hides its settings (managed Redis)."""
    try:
        return str(redis.config_get(name).get(name, ""))
    except RedisError:
        return ""
