"""What a deployment costs that has nothing to do, and what its processes hold in memory before and after a burst."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import urllib3
from redis import Redis

from service.jobs import QUEUES, queue_key
from service.store.scripts import PREFIX
from tests.bench.load import EVENTS_PER_PRODUCTION, KEY
from tests.bench.table import Absent, Sample
from tests.deployment import eventually, free_port
from workers import redis_server

SECONDS = 20  # as long as the slowest of what is done at intervals takes to come round
EVENTS = 20_000
_WORKERS = 5
_SETTLING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What all processes have spent so far."""

    at: float
    commands: int
    cpu_seconds: float
    wake_ups: int


def idle(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    """Redis, web, poller and the workers with their launcher; nobody to poll, somebody to notify. Once: it is slow."""
    folder.mkdir()
    with redis_server.running(folder) as url:
        port = free_port()
        with _deployment(folder, url, port), Redis.from_url(url) as redis:
            eventually(lambda: redis.scard("rq:workers") == _WORKERS and _is_ready(port), 40, "the deployment's start")
            _settle(redis)
            yield from _spent(redis, "nothing tracked")
            rest = dict(_memory())
            load = [sys.executable, "-m", "tests.bench.load", str(port), str(EVENTS)]
            subprocess.run(load, check=True, timeout=120, stdout=subprocess.DEVNULL)
            eventually(lambda: redis.zcard(f"{PREFIX}dirty") + _due(redis, "download") == 0, 90, "the end of the work")
            _settle(redis)
            tracked = f"{EVENTS // EVENTS_PER_PRODUCTION:,} under way"
            yield from _spent(redis, tracked)
            for process, (pss, peak) in _memory():
                yield Sample(f"memory of {process} after {EVENTS:,} events (PSS)", "MiB", pss, "at rest",
                             rest[process][0])  # fmt: skip
                yield Sample(f"memory of {process}, the most (RSS)", "MiB", peak, "until then", rest[process][1])


def _settle(redis: Redis) -> None:
    """A worker of `advance` that has started or worked listens for twenty seconds: three commands a second more."""
    calm_since = time.monotonic()
    while time.monotonic() - calm_since < _SETTLING_SECONDS:
        if redis.exists(f"{PREFIX}listening", *map(queue_key, QUEUES)):
            calm_since = time.monotonic()
        time.sleep(0.2)


def _spent(redis: Redis, when: str) -> Iterator[Sample | Absent]:
    """Within so many seconds, those of the look itself left out."""
    began = _look(redis)
    time.sleep(SECONDS)
    ended = _look(redis)
    seconds = ended.at - began.at
    commands = ended.commands - began.commands - 1
    yield Sample(f"idle, {when}: Redis commands", "a second", commands / seconds, at_most=5)
    yield Sample(f"idle, {when}: all processes", "% of a core",
                 100 * (ended.cpu_seconds - began.cpu_seconds) / seconds, at_most=1)  # fmt: skip
    if sys.platform == "linux":
        yield Sample(f"idle, {when}: wake-ups", "a second", (ended.wake_ups - began.wake_ups) / seconds)
    else:
        yield Absent(f"idle, {when}: wake-ups", "they are read from /proc, which is Linux's")


def _look(redis: Redis) -> _Look:
    info: dict[str, Any] = redis.info("stats")  # counts what is called within scripts, too
    processes = _processes()
    cpu, wake_ups = sum(map(_cpu_seconds, processes)), sum(map(_wake_ups, processes))
    return _Look(time.monotonic(), int(info["total_commands_processed"]), cpu, wake_ups)


def _processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _cpu_seconds(process: psutil.Process) -> float:
    """By the scheduler's count, where there is one: the usual one, in hundredths, takes little for much or nothing."""
    counts = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat")]
    return sum(int(one.split()[0]) for one in counts) / 1e9 if counts else sum(process.cpu_times()[:2])


def _wake_ups(process: psutil.Process) -> int:
    """How often a thread of it has gone to sleep of its own accord."""
    folders = Path(f"/proc/{process.pid}/task").glob("*/status")
    lines = (line for folder in folders for line in folder.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _memory() -> Iterator[tuple[str, tuple[float, float]]]:
    """In MiB, by the name of the process (of several alike the largest): what is its share now, and the most ever."""
    found: dict[str, tuple[float, float]] = {}
    for process in _processes():
        command = process.cmdline()
        name = "redis" if "-m" not in command else {"worker": "launcher"}.get(command[-1], command[-1])
        info = process.memory_full_info()
        found[name] = max(found.get(name, (0.0, 0.0)), (getattr(info, "pss", info.rss) / 2**20, _peak(process) / 2**20))
    yield from found.items()


def _peak(process: psutil.Process) -> int:
    """Bytes; where the system does not tell, what it has now."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


def _due(redis: Redis, what: str) -> int:
    return int(redis.zcount(f"{PREFIX}{what}", "-inf", time.time() * 1000 + 60_000))


@contextlib.contextmanager
def _deployment(folder: Path, url: str, port: int) -> Iterator[None]:
    environment = {
        **os.environ,
        "REDIS_URL": url,
        "PORT": str(port),
        "JARAI_WEBHOOK_SECRETS": base64.urlsafe_b64encode(KEY).decode(),
        "NOTIFY_URL": "http://127.0.0.1:9/",
        "NOTIFY_SECRET": "whsec_" + base64.b64encode(KEY).decode(),
        "STATE_DIR": str(folder / "state"),
        "STORAGE_URL": str(folder / "deliverables"),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "error",
    }
    started = [
        subprocess.Popen([sys.executable, "-m", "service.cli", name], env=environment, stdout=subprocess.DEVNULL)
        for name in ("web", "worker", "poller")
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(15)


def _is_ready(port: int) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}/readyz", retries=False, timeout=2)
        return bool(json.loads(answer.data)["ready"])
    return False
