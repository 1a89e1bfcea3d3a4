"""Group commit: requests hand in what arrived, one thread makes all that has gathered durable in one go.

A busy Redis thus pays one fsync for many events. An answer leaves only after Redis has the event. The thread gets its
next batch when it has done with the last: two threads that wake each other for every event do little else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service import jobs, log
from service.core.errors import StoreUnavailable
from service.store.deadletters import event_key, letter_id
from service.store.inbox import Arrival, Kept, keep

_LARGEST_BATCH = 256
_LARGEST_BATCH_BYTES = 8 * 1024 * 1024
_MOST_HELD_BYTES = 64 * 1024 * 1024
_LONGEST_WAIT_SECONDS = 0.8


class _Waiting(NamedTuple):
    arrival: Arrival
    future: asyncio.Future[Kept]
    since: float


Batch = Sequence[_Waiting]


class Intake:
    """The queue between the endpoint and Redis. `counts` counts verdicts for the metrics."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: deque[_Waiting] = deque()
        self._held_bytes = 0
        self._busy = False  # the committer has a batch, or is to get one in this turn of the loop
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store_down = False
        self._log = log.get()
        self.counts: Counter[str] = Counter()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Has to be called in the event loop that will hand arrivals in."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was handed in."""
        while self._busy:
            await asyncio.sleep(0.01)
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)

    def hand_in(self, arrival: Arrival) -> asyncio.Future[Kept]:
        """Resolves once the arrival is durable. Raises StoreUnavailable at once when too much waits already, and
        through the future when Redis can't keep it."""
        assert self._loop is not None
        if self._held_bytes + len(arrival.body) > _MOST_HELD_BYTES:
            self.counts["unavailable"] += 1
            raise StoreUnavailable("more is arriving than Redis takes")
        self._held_bytes += len(arrival.body)
        future: asyncio.Future[Kept] = self._loop.create_future()
        self._waiting.append(_Waiting(arrival, future, monotonic()))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next_batch)  # with whatever else arrives in this turn
        return future

    def _next_batch(self) -> None:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < _LARGEST_BATCH and size < _LARGEST_BATCH_BYTES:
            one = self._waiting.popleft()
            batch.append(one)
            size += len(one.arrival.body)
        self._busy = bool(batch)
        if batch:
            self._batches.put(batch)

    def _answer(self, batch: Batch, results: Sequence[Kept | StoreUnavailable], fails: StoreUnavailable | None) -> None:
        if fails is not None:  # whoever waits behind a batch that failed has waited long enough
            batch, results = [*batch, *self._waiting], [*results, *[fails] * len(self._waiting)]
            self._waiting.clear()
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
        self._next_batch()

    # --- the committer's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._loop is not None
        while (batch := self._batches.get()) is not None:
            now = monotonic()
            late = sum(now - one.since > _LONGEST_WAIT_SECONDS for one in batch)  # they came first
            results: list[Kept | StoreUnavailable] = [StoreUnavailable("Redis is too slow")] * late
            fails = None
            try:
                results += self._kept([one.arrival for one in batch[late:]])
            except RedisError as error:
                fails = StoreUnavailable(f"Redis does not answer: {type(error).__name__}")
                self._note_store(str(error))
            except Exception as error:  # noqa: BLE001 - this thread has to outlive every defect
                fails = StoreUnavailable(f"unexpected {type(error).__name__}")
            if fails is not None:
                results += [fails] * (len(batch) - late)
            self._loop.call_soon_threadsafe(self._answer, batch, results, fails)
            try:
                self._ring(sum(isinstance(one, Kept) and one.wakes for one in results))
                with log.together():
                    for waiting, result in zip(batch, results, strict=True):
                        if isinstance(result, Kept):
                            self._say(waiting.arrival, result)
            except Exception as error:  # noqa: BLE001 - everybody has an answer: the loop says what it was
                self._loop.call_soon_threadsafe(_raise, error)

    def _kept(self, arrivals: Sequence[Arrival]) -> list[Kept | StoreUnavailable]:
        """What became of each. Raises RedisError when Redis does not answer."""
        if not arrivals:
            return []
        try:
            results = keep(self._redis, arrivals)
        except RedisConnectionError:  # a connection that Redis closed meanwhile: keeping twice is harmless
            results = keep(self._redis, arrivals)
        refused = [str(result) for result in results if isinstance(result, Exception)]
        self._note_store(refused[0] if refused else None)
        return [StoreUnavailable(f"Redis refuses: {one}") if isinstance(one, Exception) else one for one in results]

    def _ring(self, productions: int) -> None:
        if not productions:
            return
        try:
            jobs.ring(self._redis, "advance", bells=1 + productions // 16)
        except RedisError as error:  # the sweep rings within a second
            self._log("bell.failed", error=type(error).__name__)

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


def _raise(error: Exception) -> None:
    raise error
