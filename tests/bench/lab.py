"""Where contestants are measured: a real Redis that syncs every write, real processes, and who runs on which core.

The first core belongs to the contestant alone, the others to Redis, the load generator and the bench itself: so what is
measured is the contestant's own work, and neither waits for the other's turn. With a single core nobody is pinned.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import urllib3
from redis import Redis

from tests.bench import install
from tests.bench.field import Contestant
from tests.bench.load import KEY
from tests.deployment import eventually, free_port
from workers import redis_server
from workers.processes import ending_with_parent

ROOT = Path(__file__).parents[2]
_ALL = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
CONTESTANTS_CORES, OTHER_CORES = (_ALL[:1], _ALL[1:]) if len(_ALL) > 1 else ([], [])
_QUEUE_DECLARATIONS = b"_kombu.binding."  # Celery makes them once and would lose every event without


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Program:
    """A running process, with those that it started."""

    process: psutil.Process
    port: int = 0

    def ended(self) -> bool:
        return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE

    def cpu_seconds(self) -> float:
        times = [one.cpu_times() for one in self._all()]
        return float(sum(one.user + one.system for one in times))

    def halt(self) -> None:
        for one in self._all():
            one.suspend()

    def go_on(self) -> None:
        for one in self._all():
            one.resume()

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class Lab:
    """`redis` is the bench's own connection to the Redis that all contestants use."""

    folder: Path
    url: str
    redis: Redis
    server: Program

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Lab]:
        folder.mkdir()
        before = os.sched_getaffinity(0) if OTHER_CORES else set()
        pin(OTHER_CORES)
        try:
            with redis_server.running(folder) as url, Redis.from_url(url) as redis:
                redis.config_set("auto-aof-rewrite-percentage", 0)  # would come in the middle of somebody's turn
                pid = int(redis.info("server")["process_id"])
                yield cls(folder, url, redis, Program(psutil.Process(pid)))
        finally:
            pin(sorted(before))

    @contextmanager
    def web(self, contestant: Contestant) -> Iterator[Program]:
        """Its server, from its first answer on. Raises AssertionError when there comes none, with what it said last."""
        port, name = free_port(), contestant.name
        with self._running(name, contestant.web, port) as program:
            eventually(lambda: _answers(port) or program.ended(), what=f"an answer of {name}")
            said = (self.folder / f"{name}.log").read_text(errors="replace").strip()
            assert not program.ended(), f"{name} has ended: {said.rpartition(chr(10))[2]}"
            yield program

    @contextmanager
    def worker(self, contestant: Contestant) -> Iterator[Program]:
        with self._running(f"{contestant.name} worker", contestant.worker, 0) as program:
            yield program

    @contextmanager
    def _running(self, name: str, command: Sequence[str], port: int) -> Iterator[Program]:
        """Its output goes to a file on the same disk."""
        log = self.folder / f"{name}.log"
        with open(log, "wb") as output:
            process = psutil.Popen(
                [part.format(port=port) for part in command], env=self._environment(port), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, preexec_fn=_beginning(),
            )  # fmt: skip
        try:
            yield Program(process, port)
        finally:
            process.terminate()
            try:
                process.wait(12)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self, port: int) -> Mapping[str, str]:
        return {
            **os.environ,
            "PORT": str(port),
            "REDIS_URL": self.url,
            "REDIS_SOCKET": unquote(self.url.removeprefix("unix://")),
            "SECRET": KEY.decode(),
            "JARAI_WEBHOOK_SECRETS": base64.urlsafe_b64encode(KEY).decode(),
            "JARAI_API_KEY": "bench",
            "LOG_FORMAT": "json",
            "STATE_DIR": str(self.folder / "state"),
            "PYTHONPATH": str(ROOT),
            "NODE_ENV": "production",
            "NODE_PATH": str(install.node_modules()),
        }

    def clear(self) -> None:
        """As before the first event."""
        for keys in _batches(self.redis):
            self.redis.unlink(*keys)

    def load(self, port: int, events: int, rate: float = 0.0) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.bench.load", str(port), str(events), "--rate", str(rate)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120, cwd=ROOT)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _beginning() -> Callable[[], None]:
    arrange_end = ending_with_parent()

    def begin() -> None:
        arrange_end()
        pin(CONTESTANTS_CORES)

    return begin


def pin(cores: Sequence[int]) -> None:
    """This process and what it starts from now on."""
    if cores:
        os.sched_setaffinity(0, cores)


def _batches(redis: Redis) -> Iterator[list[bytes]]:
    keys = [key for key in redis.scan_iter(count=5000) if not key.startswith(_QUEUE_DECLARATIONS)]
    for first in range(0, len(keys), 1000):
        yield keys[first : first + 1000]


def _answers(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/healthz", retries=False, timeout=1).status > 0
    except urllib3.exceptions.HTTPError:
        return False
