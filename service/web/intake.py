"""Group commit: requests hand in what arrived, one thread makes all that has gathered durable in one go.

A busy Redis thus pays one fsync for many events. An answer leaves only after Redis has the event.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic

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


@dataclass(slots=True)
class _Waiting:
    arrival: Arrival
    future: asyncio.Future[Kept]
    since: float = field(default_factory=monotonic)
    answered: bool = False


class Intake:
    """The queue between the endpoint and Redis. `counts` counts verdicts for the metrics."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._held_bytes = 0
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

    def stop(self) -> None:
        """Finish what was handed in."""
        self._queue.put(None)
        self._thread.join()

    def hand_in(self, arrival: Arrival) -> asyncio.Future[Kept]:
        """Resolves once the arrival is durable. Raises StoreUnavailable at once when too much waits already, and
        through the future when Redis can't keep it."""
        assert self._loop is not None
        if self._held_bytes + len(arrival.body) > _MOST_HELD_BYTES:
            self.counts["unavailable"] += 1
            raise StoreUnavailable("more is arriving than Redis takes")
        self._held_bytes += len(arrival.body)
        waiting = _Waiting(arrival, self._loop.create_future())
        self._queue.put(waiting)
        return waiting.future

    # --- the committer's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            now = monotonic()
            late = [one for one in batch if now - one.since > _LONGEST_WAIT_SECONDS]
            if late:
                self._refuse(late, "Redis is too slow")
                batch = [one for one in batch if now - one.since <= _LONGEST_WAIT_SECONDS]
            if batch:
                try:
                    self._commit(batch)
                except Exception as error:  # noqa: BLE001 - this thread has to outlive every defect
                    self._refuse(batch, f"unexpected {type(error).__name__}")

    def _gather(self) -> tuple[list[_Waiting], bool]:
        batch: list[_Waiting] = []
        size = 0
        while len(batch) < _LARGEST_BATCH and size < _LARGEST_BATCH_BYTES:
            try:
                waiting = self._queue.get() if not batch else self._queue.get_nowait()
            except Empty:
                break
            if waiting is None:
                return batch, False
            batch.append(waiting)
            size += len(waiting.arrival.body)
        return batch, True

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            kept = self._keep([one.arrival for one in batch])
        except RedisError as error:
            self._refuse([*batch, *self._drain()], f"Redis does not answer: {type(error).__name__}")
            self._note_store(str(error))
            return
        refused = [str(result) for result in kept if isinstance(result, Exception)]
        self._note_store(refused[0] if refused else None)
        self._resolve(batch, kept)
        self._ring(sum(isinstance(one, Kept) and one.wakes for one in kept))
        for waiting, result in zip(batch, kept, strict=True):
            if isinstance(result, Kept):
                self._say(waiting.arrival, result)
        if refused:
            self._say_refused(refused[0], len(refused))

    def _keep(self, arrivals: Sequence[Arrival]) -> list[Kept | Exception]:
        try:
            return keep(self._redis, arrivals)
        except RedisConnectionError:  # a connection that Redis closed meanwhile: keeping twice is harmless
            return keep(self._redis, arrivals)

    def _drain(self) -> list[_Waiting]:
        """Whoever waits behind a batch that failed has waited long enough."""
        drained: list[_Waiting] = []
        for _ in range(self._queue.qsize()):
            waiting = self._queue.get_nowait()
            if waiting is None:
                self._queue.put(None)
                break
            drained.append(waiting)
        return drained

    def _refuse(self, batch: Sequence[_Waiting], reason: str) -> None:
        self._resolve(batch, [StoreUnavailable(reason)] * len(batch))
        self._say_refused(reason, len(batch))

    def _say_refused(self, reason: str, times: int) -> None:
        """One line for a whole batch: a Redis that is down under load must not drown the log."""
        self.counts["unavailable"] += times
        self._log("webhook.unavailable", reason=reason, times=times)

    def _resolve(self, batch: Sequence[_Waiting], results: Sequence[Kept | Exception]) -> None:
        assert self._loop is not None

        def answer() -> None:
            for waiting, result in zip(batch, results, strict=True):
                if waiting.answered:
                    continue
                waiting.answered = True
                self._held_bytes -= len(waiting.arrival.body)
                if waiting.future.done():  # the sender has gone
                    continue
                if isinstance(result, Kept):
                    waiting.future.set_result(result)
                else:
                    waiting.future.set_exception(StoreUnavailable(f"Redis refuses: {result}"))

        self._loop.call_soon_threadsafe(answer)

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
        if arrival.event is not None:
            event = arrival.event
            fields = {
                "production_id": arrival.production_id,
                "account_id": str(event.account_id),
                "event_id": str(event.event_id),
                "event_type": event.event_type,
                "sequence_number": event.sequence_number,
                "correlation_id": event.correlation_id,
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
