"""Runs every measurement a few times, references in between, and prints medians and ratios."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import urllib3
from redis import Redis

from service import log
from service.core.schedule import Intervals
from service.store import inbox
from tests.bench import polling, table
from tests.bench.downloads import downloads
from tests.bench.load import EVENTS_PER_PRODUCTION, KEY
from tests.deployment import eventually, free_port
from workers import advance, redis_server

ROUNDS = 3
EVENTS = 20_000
FILE_BYTES = 2 * 1024 * 1024 * 1024
DAY = timedelta(days=1)


@contextmanager
def _server(arguments: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: _answers(port), what="the server")
        yield
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/healthz", retries=False, timeout=1).status > 0
    except urllib3.exceptions.HTTPError:
        return False


def _load(port: int, events: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load", str(port), str(events)], capture_output=True, check=True, timeout=120
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def intake(redis_url: str) -> Iterator[tuple[str, float, float]]:
    """Events accepted a second, fsync always, 64 connections, against an endpoint that keeps nothing."""
    ours, bare = free_port(), free_port()
    environment = {
        "REDIS_URL": redis_url,
        "PORT": str(ours),
        "JARAI_WEBHOOK_SECRETS": base64.urlsafe_b64encode(KEY).decode(),
        "LOG_FORMAT": "json",
    }
    with (
        _server(["service.cli", "web"], ours, environment),
        _server(["tests.bench.bare", str(bare)], bare, {}),
        Redis.from_url(redis_url) as redis,
    ):
        for port in (ours, bare):
            _load(port, EVENTS // 4)
        for _ in range(ROUNDS):
            mine, reference = _load(ours, EVENTS), _load(bare, EVENTS)
            redis.flushall()
            yield "intake, events/s", mine["per_second"], reference["per_second"]
            yield "intake, p99 in ms at saturation", mine["p99_ms"], reference["p99_ms"]


def backlog(redis: Redis) -> Iterator[tuple[str, float, float]]:
    """Events a second from 1,000 full inboxes into state, timeline and due times, against one HSET for each event."""
    for _ in range(ROUNDS):
        redis.flushall()
        arrivals = [inbox.arrival(body) for body in _bodies(EVENTS)]
        for first in range(0, EVENTS, 256):
            inbox.keep(redis, arrivals[first : first + 256])
        mine = _per_second(lambda: advance.drain(redis, Intervals(), DAY), EVENTS)
        reference = _per_second(lambda: [redis.hset("reference", str(n), b"x" * 500) for n in range(EVENTS)], EVENTS)
        yield "backlog, events/s", mine, reference


def _bodies(count: int) -> Iterator[bytes]:
    production = account = ""
    for number in range(count):
        if number % EVENTS_PER_PRODUCTION == 0:
            production, account = str(uuid4()), str(uuid4())
        event: dict[str, Any] = {
            "eventId": str(uuid4()),
            "eventType": "production.step.complete",
            "productionId": production,
            "accountId": account,
            "timestamp": "2026-04-03T14:30:00Z",
            "sequenceNumber": number % EVENTS_PER_PRODUCTION + 1,
            "data": {"detail": hashlib.sha256(str(number).encode()).hexdigest() * 4},
        }
        yield json.dumps(event).encode()


def _per_second(work: Callable[[], object], amount: int) -> float:
    started = time.perf_counter()
    work()
    return amount / (time.perf_counter() - started)


def main() -> None:
    log.configure("json", "error", ())
    figures: dict[str, list[tuple[float, float]]] = {}
    with (
        tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as name,
        redis_server.running(Path(name)) as url,
        Redis.from_url(url) as redis,
    ):
        for measured in (intake(url), backlog(redis)):
            for what, mine, reference in measured:
                figures.setdefault(what, []).append((mine, reference))
        found = list(downloads(Path(name), FILE_BYTES, ROUNDS))
    print(f"{'':<34}{'ours':>10}{'reference':>12}{'ratio':>8}{'min':>7}{'max':>7}")
    for what, pairs in figures.items():
        ratios = [mine / reference for mine, reference in pairs]
        ours, theirs = median(mine for mine, _ in pairs), median(reference for _, reference in pairs)
        print(f"{what:<34}{ours:>10,.1f}{theirs:>12,.1f}{median(ratios):>8.2f}{min(ratios):>7.2f}{max(ratios):>7.2f}")
    print(table.markdown(table.rows(found)))
    print()
    polling.main()


if __name__ == "__main__":
    main()
