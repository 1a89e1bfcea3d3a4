"""Group commit: requests hand in what arrived, and all that has gathered is made durable in one go.

A busy Redis thus pays one fsync for many events. An answer leaves only after Redis has the event. Where much arrives,
a second batch goes while Redis syncs the first. All of it happens in the event loop: a thread for it and the loop would
wake each other for every batch, and take turns at one interpreter.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service import jobs, log
from service.core.errors import StoreUnavailable
from service.store.deadletters import event_key, letter_id
from service.store.inbox import Arrival, Kept, keep

_MOST_UNDER_WAY = 2
_WORTH_A_SECOND = 16  # so many that wait; a batch costs as much as several events
_LARGEST_BATCH = 256
_LARGEST_BATCH_BYTES = 8 * 1024 * 1024
_MOST_HELD_BYTES = 64 * 1024 * 1024
_LONGEST_WAIT_SECONDS = 0.8
_LONGEST_COMMIT_SECONDS = 1.0


class _Waiting(NamedTuple):
    arrival: Arrival
    future: asyncio.Future[Kept]
    since: float


class Intake:
    """The queue between the endpoint and Redis, used from one event loop. `counts` counts verdicts for the metrics.

    `bells` is for waking workers, which RQ does without an event loop.
    """

    def __init__(self, redis: AsyncRedis, bells: Redis) -> None:
        self._redis, self._bells = redis, bells
        self._waiting: deque[_Waiting] = deque()
        self._held_bytes = 0
        self._under_way = 0
        self._commits: set[asyncio.Task[None]] = set()
        self._to_ring = 0  # productions that have something to do, and nobody has been told
        self._ringing = False
        self._store_down = False
        self._log = log.get()
        self.counts: Counter[str] = Counter()

    async def stop(self) -> None:
        """Finish what was handed in."""
        while self._waiting or self._commits:
            self._commit_waiting()
            await asyncio.wait(self._commits)

    def hand_in(self, arrival: Arrival) -> asyncio.Future[Kept]:
        """Resolves once the arrival is durable. Raises StoreUnavailable at once when too much waits already, and
        through the future when Redis can't keep it."""
        if self._held_bytes + len(arrival.body) > _MOST_HELD_BYTES:
            self.counts["unavailable"] += 1
            raise StoreUnavailable("more is arriving than Redis takes")
        self._held_bytes += len(arrival.body)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Kept] = loop.create_future()
        self._waiting.append(_Waiting(arrival, future, monotonic()))
        if len(self._waiting) in (1, _WORTH_A_SECOND):
            loop.call_soon(self._commit_waiting)  # with whatever else arrives in this turn
        return future

    def _commit_waiting(self) -> None:
        while self._is_worth_it():
            batch: list[_Waiting] = []
            size = 0
            while self._waiting and len(batch) < _LARGEST_BATCH and size < _LARGEST_BATCH_BYTES:
                one = self._waiting.popleft()
                batch.append(one)
                size += len(one.arrival.body)
            self._under_way += 1
            commit = asyncio.get_running_loop().create_task(self._commit(batch))
            self._commits.add(commit)
            commit.add_done_callback(self._ended)

    def _is_worth_it(self) -> bool:
        most = _MOST_UNDER_WAY if len(self._waiting) >= _WORTH_A_SECOND else 1
        return bool(self._waiting) and self._under_way < most

    def _ended(self, commit: asyncio.Task[None]) -> None:
        self._commits.discard(commit)
        commit.result()  # what is wrong behind an answer is said by the loop

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        now = monotonic()
        late = sum(now - one.since > _LONGEST_WAIT_SECONDS for one in batch)  # they came first
        results: list[Kept | StoreUnavailable] = [StoreUnavailable("Redis is too slow")] * late
        fails = None
        try:
            results += await self._kept([one.arrival for one in batch[late:]])
        except RedisError as error:
            fails = StoreUnavailable(f"Redis does not answer: {type(error).__name__}")
            self._note_store(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for an answer in vain
            fails = StoreUnavailable(f"unexpected {type(error).__name__}")
        if fails is not None:  # whoever waits behind it would wait for the same
            batch = [*batch, *self._waiting]
            self._waiting.clear()
            results += [fails] * (len(batch) - late)
        self._under_way -= 1
        self._answer(batch, results)
        self._commit_waiting()
        for _ in range(2):  # the answers are on their way before anything is said about them
            await asyncio.sleep(0)
        with log.together():
            for waiting, result in zip(batch, results, strict=True):
                if isinstance(result, Kept):
                    self._to_ring += result.wakes
                    self._say(waiting.arrival, result)
        await self._ring()

    async def _kept(self, arrivals: Sequence[Arrival]) -> list[Kept | StoreUnavailable]:
        """What became of each. Raises RedisError when Redis does not answer."""
        if not arrivals:
            return []
        try:
            async with asyncio.timeout(_LONGEST_COMMIT_SECONDS):  # with whatever it takes to connect
                try:
                    results = await keep(self._redis, arrivals)
                except RedisConnectionError:  # Redis has closed it meanwhile, and others: keeping twice is harmless
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
                    results = await keep(self._redis, arrivals)
        except TimeoutError:
            raise RedisTimeoutError("Redis takes too long") from None
        refused = [str(result) for result in results if isinstance(result, Exception)]
        self._note_store(refused[0] if refused else None)
        return [StoreUnavailable(f"Redis refuses: {one}") if isinstance(one, Exception) else one for one in results]

    def _answer(self, batch: Sequence[_Waiting], results: Sequence[Kept | StoreUnavailable]) -> None:
        refused = [result for result in results if isinstance(result, StoreUnavailable)]
        if refused:  # one line for all: a Redis that is down under load must not drown the log
            self.counts["unavailable"] += len(refused)
            self._log("webhook.unavailable", reason=str(refused[0]), times=len(refused))
        for waiting, result in zip(batch, results, strict=True):
            self._held_bytes -= len(waiting.arrival.body)
            if waiting.future.done():  # the sender has gone
                continue
            if isinstance(result, StoreUnavailable):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)

    async def _ring(self) -> None:
        """One call at a time: what becomes worth a bell meanwhile is rung for with the next."""
        if self._ringing:
            return
        self._ringing = True
        try:
            while self._to_ring:
                productions, self._to_ring = self._to_ring, 0
                await asyncio.to_thread(jobs.ring, self._bells, "advance", bells=1 + productions // 16)
        except RedisError as error:  # the sweep rings within a second
            self._log("bell.failed", error=type(error).__name__)
        finally:
            self._ringing = False

    def _say(self, arrival: Arrival, kept: Kept) -> None:
        self.counts[kept.verdict] += 1
        fields: dict[str, object] = {}
        if arrival.envelope is not None:
            envelope = arrival.envelope
            fields = {
                "production_id": envelope.production_id,
                "account_id": envelope.account_id,
                "event_id": envelope.event_id,
                "event_type": envelope.event_type,
                "sequence_number": envelope.sequence_number,
                "correlation_id": envelope.correlation_id,
            }
        if kept.verdict == "quarantined":
            fields |= {"reason": kept.reason, "deadletter_id": letter_id("event", event_key(arrival.body))}
        self._log(f"webhook.{kept.verdict}", **fields)

    def _note_store(self, problem: str | None) -> None:
        if problem is not None and not self._store_down:
            self._log("store.unavailable", error=problem)
        if problem is None and self._store_down:
            self._log("store.available")
        self._store_down = problem is not None
