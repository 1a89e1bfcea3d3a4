"""`jarai-receiver worker`: a launcher that keeps RQ workers alive, each on one queue (more could lose a job)."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested

from service import jobs, log, runtime
from service.core.errors import SettingsError
from service.jobs import QUEUES, QueueName
from service.settings import Settings
from service.store import deployment
from service.store.connection import connect
from workers import advance, shutdown
from workers.processes import Processes

DEFAULT_PROCESSES: Mapping[str, int] = {"advance": 1, "download": 3, "notify": 1}
_LISTENS_SECONDS = 20.0
_BEAT_SECONDS = 10.0
_WAIT_SECONDS = 30  # for a bell, between two signs of life


def launch(settings: Settings, queues: Sequence[str], processes: Mapping[str, int] = DEFAULT_PROCESSES) -> None:
    """Start the workers of these queues and keep them alive until SIGTERM or Ctrl-C.

    Raises SettingsError when there is nobody to notify and nothing else to do.
    """
    queues = served(settings, queues)
    if not queues:
        raise SettingsError("NOTIFY_URL is not set: there is nothing to do on the queue notify.")
    kept = Processes()
    signal.signal(signal.SIGTERM, lambda *_: kept.stop())
    signal.signal(signal.SIGINT, lambda *_: kept.stop())
    add(kept, queues, processes, {"REDIS_URL": runtime.redis_url(settings)})
    kept.run()


def served(settings: Settings, queues: Sequence[str]) -> list[str]:
    """Those that have something to do: nobody is notified without an address."""
    return [queue for queue in queues if queue != "notify" or settings.notify_url]


def add(kept: Processes, queues: Sequence[str], processes: Mapping[str, int], environment: Mapping[str, str]) -> None:
    """The workers of these queues among other processes."""
    for queue in queues:
        for number in range(processes[queue]):
            kept.add(f"{queue}-{number + 1}", ["workers.worker", queue], environment)


class _Worker(SimpleWorker):
    """Runs jobs in this process: they are doorbells, and isolation would cost four times the work itself.

    A signal is only noted, and breaks off the wait for a bell: RQ would speak to Redis in its handler, and raise
    wherever the code happens to be.
    """

    _has_worked = False
    _waits = False
    broken_off = False  # in its wait for a bell: one may have been on its way

    def handle_warm_shutdown_request(self) -> None:
        shutdown.request()

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        if self._has_worked and timeout is not None and self.queue_names() == ["advance"]:
            with contextlib.suppress(RedisError):  # RQ knows what to do then
                self._listen()
        self._has_worked = True  # by the next time
        self._waits = True
        try:
            return None if self._stop_requested else super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        finally:
            self._waits = False

    def _listen(self) -> None:
        """Work without jobs for as long as there is something to do every few seconds."""
        quiet_at = beat_at = time.monotonic()
        quiet_at += _LISTENS_SECONDS
        while (now := time.monotonic()) < quiet_at and not self._stop_requested:
            if now >= beat_at:
                self.heartbeat()
                beat_at = now + _BEAT_SECONDS
            self._waits = True
            try:
                rung = jobs.listen(self.connection)
            finally:
                self._waits = False
            if rung:
                advance.run()
                quiet_at = time.monotonic() + _LISTENS_SECONDS
            elif self.connection.llen(jobs.queue_key("advance")):
                break
        jobs.listen_no_more(self.connection)
        advance.run()

    def _shutdown(self) -> None:
        self._stop_requested = True
        if self._waits:
            self.broken_off = True
            raise StopRequested

    def teardown(self) -> None:
        with contextlib.suppress(RedisError):  # its registration runs out by itself
            super().teardown()  # type: ignore[no-untyped-call]


def work(queue: QueueName) -> None:
    """Be one RQ worker until SIGTERM. Ends with exit code 1 when Redis stays away; the launcher starts another."""
    here = runtime.current(f"worker {queue}")
    redis = connect(runtime.redis_url(here.settings), timeout_seconds=_WAIT_SECONDS + 10)
    _wait_for(redis)
    try:
        if queue == "download" and not deployment.recognise(redis, here.settings.state_dir):
            log.get()("store.emptied")
        worker = _Worker(
            [Queue(queue, connection=redis, serializer="json")],
            connection=redis,
            serializer="json",
            worker_ttl=_WAIT_SECONDS + 15,  # RQ waits so much shorter
            log_job_description=False,
        )
        worker.work(logging_level="WARNING")
        if worker.broken_off:  # Redis may have handed a bell out already: for the others it is rung again
            with contextlib.suppress(RedisError):  # the sweep does it within a second
                jobs.listen_no_more(redis)
                jobs.ring(redis, queue)
    except RedisError as error:
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")
        sys.exit(1)
    log.get()("service.stopped", process=f"worker {queue}")


def _wait_for(redis: Redis) -> None:
    """Redis may come up after us; RQ would give up at once."""
    said = False
    while True:
        try:
            redis.ping()
        except RedisError as error:
            if not said:
                log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")
            said = True
            time.sleep(1)
        else:
            return


if __name__ == "__main__":
    work(next(queue for queue in QUEUES if queue == sys.argv[1]))
