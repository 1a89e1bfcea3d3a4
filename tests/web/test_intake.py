"""Group commit in one process: what waits too long, or behind a batch that failed, is refused; what is kept is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest
from redis import Redis

from service import jobs
from service.core.errors import StoreUnavailable
from service.store import inbox
from service.store.connection import connect, connect_async
from service.store.inbox import Arrival, Kept, arrival
from service.web import intake as module
from service.web.intake import Intake
from tests.store.making import asynchronous, event, keep, logged, new_id, server

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


def with_intake(redis: Redis, use: Callable[[Intake], Awaitable[T]], bells: Redis | None = None) -> T:
    """In an event loop of its own, and what came of it."""

    async def used() -> T:
        async with asynchronous(redis) as client:
            intake = Intake(client, bells or redis)
            done = await use(intake)
            await intake.stop()
            return done

    return asyncio.run(used())


def new() -> Arrival:
    """The first event of a production."""
    return arrival(event(new_id(), 1))


def url_of(redis: Redis) -> str:
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


@contextmanager
def unreachable(redis: Redis) -> Iterator[Redis]:
    """Nobody answers there."""
    client = connect(f"{url_of(redis)}.gone", timeout_seconds=0.4)
    yield client
    client.close()


@contextmanager
def hanging() -> Iterator[Redis]:
    """A server that takes connections and says nothing."""
    with server() as redis:
        os.kill(int(redis.info("server")["process_id"]), signal.SIGSTOP)
        yield redis


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
        redis.client_pause(600)
        futures = []
        for _ in range(11):
            futures.append(intake.hand_in(new()))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*futures)

    keep(redis, event(new_id(), 1))
    redis.config_resetstat()
    assert {one.verdict for one in with_intake(redis, trickle)} == {"accepted"}
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2, "the first alone, then all that had gathered"


def test_whoever_waits_behind_a_batch_that_failed_is_refused_with_it(redis: Redis) -> None:
    arrivals = [new() for _ in range(600)]
    with unreachable(redis) as nobody, logged() as said:
        found = refusals(nobody, arrivals)
    assert set(found) == {"Redis does not answer: ConnectionError"}
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["times"] for line in lines if line["event"] == "webhook.unavailable"] == [344, 256]


def test_what_has_waited_too_long_for_an_answer_in_time_is_not_even_tried(redis: Redis) -> None:
    assert refusals(redis, [new()], block_seconds=0.9) == ["Redis is too slow"]
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
        futures = [intake.hand_in(new()) for _ in range(3000)]
        await intake.stop()
        return futures

    assert {one.done() and one.result().verdict for one in with_intake(redis, begin_and_end)} == {"accepted"}


def test_a_second_batch_goes_once_sixteen_wait_for_it(redis: Redis) -> None:
    async def crowd(intake: Intake) -> None:
        redis.client_pause(600)
        futures = [intake.hand_in(new())]
        await asyncio.sleep(0.02)
        for count in (15, 1):
            futures += [intake.hand_in(new()) for _ in range(count)]
            await asyncio.sleep(0.02)
        await asyncio.gather(*futures)

    keep(redis, event(new_id(), 1))
    redis.config_resetstat()
    with_intake(redis, crowd)
    assert redis.info("stats")["total_connections_received"] == 2


def test_a_batch_has_no_more_bytes_than_it_may(redis: Redis) -> None:
    keep(redis, b"no event")  # so that the server knows the script
    redis.config_resetstat()
    large = [Arrival(b"%d" % number + b"x" * 5 * _MEBI, None, "no event") for number in range(4)]
    assert set(refusals(redis, large)) == {""}
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 2


def test_a_connection_that_is_lost_with_a_batch_on_its_way_costs_no_event(redis: Redis) -> None:
    async def killed(intake: Intake) -> Kept:
        redis.client_pause(200, all=False)
        future = intake.hand_in(new())
        await asyncio.sleep(0.05)
        redis.client_kill_filter(_type="normal", skipme=True)
        return await future

    assert with_intake(redis, killed).verdict == "accepted"


def test_all_connections_may_be_dead_at_once_and_no_event_is_refused(redis: Redis) -> None:
    async def dead(intake: Intake) -> list[Kept]:
        await asyncio.gather(*(intake.hand_in(new()) for _ in range(600)))
        redis.client_kill_filter(_type="normal", skipme=True)
        return await asyncio.gather(*(intake.hand_in(new()) for _ in range(600)))  # nobody has seen their end yet

    assert {one.verdict for one in with_intake(redis, dead)} == {"accepted"}


def test_a_redis_that_hangs_is_given_up_in_time_also_while_connecting() -> None:
    async def refused(url: str, bells: Redis) -> float:
        async with connect_async(url, timeout_seconds=0.7) as client:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="TimeoutError"):  # it did not come to the end of a second try
                await Intake(client, bells).hand_in(new())
            return time.monotonic() - started

    with hanging() as redis:
        assert asyncio.run(refused(url_of(redis), redis)) < 2


def test_a_defect_in_keeping_refuses_and_the_next_event_is_kept(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> list[Kept | Exception]:
        monkeypatch.setattr(module, "keep", inbox.keep)
        raise LookupError("a defect of ours")

    async def two(intake: Intake) -> Kept:
        with pytest.raises(StoreUnavailable, match="unexpected LookupError"):
            await asyncio.wait_for(intake.hand_in(new()), 5)
        return await asyncio.wait_for(intake.hand_in(new()), 5)

    monkeypatch.setattr(module, "keep", broken)
    assert with_intake(redis, two).verdict == "accepted"


def test_a_defect_behind_an_answer_is_in_the_log(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a defect of ours")

    monkeypatch.setattr(Intake, "_say", broken)
    with logged() as said:
        assert refusals(redis, [new()]) == [""]
    assert "a defect of ours" in said.getvalue()


def test_a_sender_that_has_gone_leaves_the_others_their_answers(redis: Redis) -> None:
    async def one_goes(intake: Intake) -> list[Kept]:
        gone, *others = [intake.hand_in(new()) for _ in range(3)]
        gone.cancel()
        return await asyncio.wait_for(asyncio.gather(*others), 5)

    assert [one.verdict for one in with_intake(redis, one_goes)] == ["accepted"] * 2


def test_many_new_productions_are_rung_for_with_more_than_one_bell(redis: Redis) -> None:
    assert set(refusals(redis, [new() for _ in range(40)])) == {""}
    assert redis.llen(jobs.queue_key("advance")) == 3


def test_bells_that_can_not_be_rung_hold_nothing_back_and_nobody_up(redis: Redis) -> None:
    async def work(intake: Intake) -> float:
        for _ in range(100):
            await intake.hand_in(new())
        started = time.monotonic()
        await intake.stop()
        return time.monotonic() - started

    with hanging() as silent, logged() as said, connect(url_of(silent), timeout_seconds=0.5) as bells:
        assert with_intake(redis, work, bells) < 2
    events = [json.loads(line)["event"] for line in said.getvalue().splitlines()]
    assert events.count("webhook.accepted") == 100
    assert set(events) == {"webhook.accepted", "bell.failed"}
