"""A Redis that may lose what it accepted is told apart from one that does not, on real servers."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.core.errors import StoreUnavailable
from service.store.connection import connect, connect_async, safety_problems
from tests.deployment import eventually, free_port
from tests.store.making import server
from workers.redis_server import find_binary

_SOUND = ("--appendonly", "yes", "--save", "")


def test_the_server_that_up_runs_is_sound(redis: Redis) -> None:
    assert safety_problems(redis) == []


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("--save", ""), "`appendonly yes`"),
        (("--appendonly", "no", "--save", "60", "1"), "`appendonly yes`"),
        ((*_SOUND, "--appendfsync", "no"), "`appendfsync always`"),
        ((*_SOUND, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "`maxmemory-policy noeviction`"),
        ((*_SOUND, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"), "`maxmemory-policy noeviction`"),
        ((*_SOUND, "--replicaof", "127.0.0.1", "1"), "replica"),
    ],
)
def test_an_unsafe_server_is_named_with_the_setting_to_change(arguments: tuple[str, ...], setting: str) -> None:
    with server(*arguments) as redis:
        [problem] = safety_problems(redis)
        assert setting in problem


def test_a_server_without_a_limit_evicts_nothing_whatever_its_policy() -> None:
    with server(*_SOUND, "--maxmemory-policy", "allkeys-lru") as redis:
        assert safety_problems(redis) == []


def test_syncing_every_second_is_sound_enough() -> None:
    with server(*_SOUND, "--appendfsync", "everysec") as redis:
        assert safety_problems(redis) == []


def test_several_problems_are_all_named() -> None:
    arguments = ("--save", "", "--appendfsync", "no", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-random")
    with server(*arguments) as redis:
        assert len(safety_problems(redis)) == 3


def test_a_server_that_hides_its_settings_is_judged_by_what_it_tells() -> None:
    with server("--rename-command", "CONFIG", "") as redis:
        [problem] = safety_problems(redis)
        assert "appendonly" in problem


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with (
        connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=0.5) as redis,
        pytest.raises(StoreUnavailable, match="does not answer"),
    ):
        safety_problems(redis)


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_sentinels_that_are_gone_are_given_up_in_time(in_a_loop: bool) -> None:
    url = "redis+sentinel://" + ",".join(f"127.0.0.1:{free_port()}" for _ in range(3)) + "/films"

    async def asked() -> None:
        async with connect_async(url, timeout_seconds=0.6) as client:
            await client.ping()

    started = time.monotonic()
    with pytest.raises(RedisError):
        asyncio.run(asked()) if in_a_loop else connect(url, timeout_seconds=0.6).ping()
    assert time.monotonic() - started < 2


def test_sentinels_are_asked_for_the_master_with_and_without_an_event_loop(tmp_path: Path) -> None:
    master, sentinel = free_port(), free_port()
    url = f"redis+sentinel://127.0.0.1:{sentinel}/films/3"
    (tmp_path / "conf").write_text(f"port {sentinel}\nsentinel monitor films 127.0.0.1 {master} 1\n")

    async def found() -> object:
        async with connect_async(url, timeout_seconds=2) as client:
            value = await client.get("who")
        for asked in client.connection_pool.sentinel_manager.sentinels:  # type: ignore[attr-defined]
            await asked.aclose()
        return value

    def answers() -> bool:
        try:
            return bool(connect(url, timeout_seconds=2).set("who", "the master"))
        except RedisError:
            return False

    with (
        server("--port", str(master), "--bind", "127.0.0.1"),
        subprocess.Popen([find_binary(), tmp_path / "conf", "--sentinel"], stdout=subprocess.DEVNULL) as sentinels,
    ):
        try:
            eventually(answers, what="the sentinel's knowing its master")
            assert asyncio.run(found()) == b"the master"
            with Redis(port=master, db=3) as redis:
                assert redis.get("who") == b"the master"
        finally:
            sentinels.terminate()
