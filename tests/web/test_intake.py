"""Group commit in one process: what waits too long, or behind a batch that failed, is refused; what is kept is kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest
from redis import Redis

from service.core.errors import StoreUnavailable
from service.store.connection import connect
from service.store.inbox import Arrival, Kept, arrival
from service.web.intake import Intake
from tests.store.making import asynchronous, event, keep, logged, new_id

_MEBI = 1024 * 1024
T = TypeVar("T")


def refusals(redis: Redis, arrivals: Sequence[Arrival], block_seconds: float = 0.0) -> list[str]:
    """Why each was refused; empty for what is kept. For so long the loop is kept from doing anything else."""

    async def handed_in(intake: Intake) -> list[Kept | BaseException]:
        futures = [intake.hand_in(one) for one in arrivals]
        time.sleep(block_seconds)
        return await asyncio.gather(*futures, return_exceptions=True)

    found = with_intake(redis, handed_in)
    assert all(isinstance(one, Kept | StoreUnavailable) for one in found)
    return [str(one) if isinstance(one, StoreUnavailable) else "" for one in found]


def with_intake(redis: Redis, use: Callable[[Intake], Awaitable[T]]) -> T:
    """In an event loop of its own, and what came of it."""

    async def used() -> T:
        async with asynchronous(redis) as client:
            intake = Intake(client, redis)
            done = await use(intake)
            await intake.stop()
            return done

    return asyncio.run(used())


@contextmanager
def unreachable(redis: Redis) -> Iterator[Redis]:
    """Nobody answers there."""
    client = connect(f"unix://{redis.connection_pool.connection_kwargs['path']}.gone", timeout_seconds=0.4)
    yield client
    client.close()


def test_all_that_has_gathered_is_kept_in_a_few_calls(redis: Redis) -> None:
    identity = new_id()
    arrivals = [arrival(event(identity, number)) for number in range(1, 601)]
    redis.config_resetstat()
    assert set(refusals(redis, arrivals)) == {""}
    inbox = redis.lrange(f"jarai:inbox:{identity}", 0, -1)
    assert sorted(int(entry.split()[0][1:]) for entry in inbox) == [*range(1, 601)]
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] <= 4


def test_what_trickles_in_while_redis_is_busy_goes_in_one_call(redis: Redis) -> None:
    async def trickle(intake: Intake) -> list[Kept]:
        redis.client_pause(300)
        futures = []
        for _ in range(11):
            futures.append(intake.hand_in(arrival(event(new_id(), 1))))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*futures)

    keep(redis, event(new_id(), 1))
    redis.config_resetstat()
    assert {one.verdict for one in with_intake(redis, trickle)} == {"accepted"}
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2, "the first alone, then all that had gathered"


def test_whoever_waits_behind_a_batch_that_failed_is_refused_with_it(redis: Redis) -> None:
    arrivals = [arrival(event(new_id(), 1)) for _ in range(600)]
    with unreachable(redis) as nobody, logged() as said:
        found = refusals(nobody, arrivals)
    assert set(found) == {"Redis does not answer: ConnectionError"}
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["times"] for line in lines if line["event"] == "webhook.unavailable"] == [344, 256]


def test_what_has_waited_too_long_for_an_answer_in_time_is_not_even_tried(redis: Redis) -> None:
    assert refusals(redis, [arrival(event(new_id(), 1))], block_seconds=0.9) == ["Redis is too slow"]
    assert not redis.exists("jarai:dirty")


def test_more_than_there_is_room_for_is_refused_at_once_and_room_comes_back(redis: Redis) -> None:
    async def crowd(intake: Intake) -> None:
        large = Arrival(b"x" * 8 * _MEBI, None, "too large to be an event")
        held = [intake.hand_in(large) for _ in range(8)]
        with pytest.raises(StoreUnavailable):
            intake.hand_in(large)
        await asyncio.gather(*held, return_exceptions=True)  # a busy machine may take too long for the last ones
        assert (await intake.hand_in(large)).verdict == "quarantined"

    with_intake(redis, crowd)


def test_what_was_handed_in_is_finished_before_it_ends(redis: Redis) -> None:
    async def begin_and_end(intake: Intake) -> list[asyncio.Future[Kept]]:
        futures = [intake.hand_in(arrival(event(new_id(), 1))) for _ in range(600)]
        await intake.stop()
        return futures

    assert {one.done() and one.result().verdict for one in with_intake(redis, begin_and_end)} == {"accepted"}
