"""The worker behind the door: how fast what has piled up becomes state, how soon one event does, and what it costs.

The reference is BullMQ's worker, which does one update of one hash for each event: no timeline, no due times, and no
order among the events of a production.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from tests.bench.field import FASTIFY_BULLMQ, OURS, Contestant
from tests.bench.lab import Lab, Program, progress
from tests.bench.load import EVENTS_PER_PRODUCTION, event, request
from tests.bench.table import Absent, Sample

_EVENTS = 20_000
_WARM_UP_EVENTS = 2000
_LONGEST_SECONDS = 60.0
_LOOK_SECONDS = 0.002

_COST_RATE = 500
_COST_EVENTS = 2500

_SINGLE_PRODUCTIONS = 10
_PAUSE_SECONDS = 0.03  # RQ is busy with its own book-keeping for 10 ms after a job
_LOOK_AGAIN_SECONDS = 0.0002
_LONGEST_LATENCY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Running:
    """A contestant with both of its processes."""

    contestant: Contestant
    web: Program
    worker: Program


@contextmanager
def _both(folder: Path) -> Iterator[tuple[Lab, list[_Running], str]]:
    """Ours and the reference, warm, or ours alone and why."""
    with Lab.open(folder) as lab, ExitStack() as stack:
        why = FASTIFY_BULLMQ.absent()
        running = []
        for contestant in (OURS,) if why else (OURS, FASTIFY_BULLMQ):
            web = stack.enter_context(lab.web(contestant))
            one = _Running(contestant, web, stack.enter_context(lab.worker(contestant)))
            running.append(one)
            lab.load(web.port, _WARM_UP_EVENTS)
            _until_applied(lab, one)
        yield lab, running, why


def _until_applied(lab: Lab, one: _Running) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while one.contestant.open(lab.redis):
        if time.monotonic() > deadline:
            raise AssertionError(f"{one.contestant.name} has not applied everything within {_LONGEST_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)


def _productions(lab: Lab, one: _Running) -> int:
    return sum(1 for _ in lab.redis.scan_iter(one.contestant.states, count=5000))


def backlog(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    """Events a second. They come in by the contestant's own door while its worker is halted, then it goes on."""
    with _both(folder) as (lab, running, why):
        if why:
            yield Absent(f"backlog of {FASTIFY_BULLMQ.name}", why)
        for number in range(rounds):
            found = {one.contestant.name: _apply(lab, one) for one in _turn(running, number)}
            yield _sample("backlog, applied to state", "events/s", found, at_least=1.5)


def _apply(lab: Lab, one: _Running) -> float:
    lab.clear()
    one.worker.halt()
    try:
        lab.load(one.web.port, _EVENTS)
        started = time.perf_counter()
    finally:
        one.worker.go_on()
    _until_applied(lab, one)
    speed = _EVENTS / (time.perf_counter() - started)
    kept = _productions(lab, one)
    assert kept == _EVENTS // EVENTS_PER_PRODUCTION, f"{one.contestant.name} has the state of {kept} productions"
    progress(f"backlog, {one.contestant.name}: {speed:,.0f} events/s")
    return speed


def cost(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    """CPU seconds for a thousand events all the way, at a rate that both can keep up with."""
    with _both(folder) as (lab, running, why):
        if why:
            yield Absent(f"cost of {FASTIFY_BULLMQ.name}", why)
        for number in range(rounds):
            found = {one.contestant.name: _spend(lab, one) for one in _turn(running, number)}
            for part in ("web", "worker", "Redis", "in all"):
                spent = {name: costs[part] for name, costs in found.items()}
                yield _sample(f"CPU for 1,000 events, {part}", "s", spent)


def _spend(lab: Lab, one: _Running) -> dict[str, float]:
    lab.clear()
    programs = {"web": one.web, "worker": one.worker, "Redis": lab.server}
    before = {part: program.cpu_seconds() for part, program in programs.items()}
    lab.load(one.web.port, _COST_EVENTS, _COST_RATE)
    _until_applied(lab, one)
    spent = {part: (program.cpu_seconds() - before[part]) * 1000 / _COST_EVENTS for part, program in programs.items()}
    spent["in all"] = sum(spent.values())
    progress(f"cost, {one.contestant.name}: " + ", ".join(f"{part} {value:.3f} s" for part, value in spent.items()))
    return spent


def visible(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    """From the 2xx until the new state can be read, one event at a time and nothing else going on."""
    with _both(folder) as (lab, running, why):
        if why:
            yield Absent(f"visible state of {FASTIFY_BULLMQ.name}", why)
        for number in range(rounds):
            found = {one.contestant.name: sorted(_latencies(lab, one)) for one in _turn(running, number)}
            middle = {name: 1000 * median(latencies) for name, latencies in found.items()}
            late = {name: 1000 * latencies[int(0.99 * len(latencies))] for name, latencies in found.items()}
            for name in found:
                progress(f"visible, {name}: p50 {middle[name]:.2f} ms, p99 {late[name]:.2f} ms")
            yield _sample("2xx → visible state, p50", "ms", middle, at_most=1.3)
            yield Sample("2xx → visible state, p99", "ms", late[OURS.name], at_most=10)
            if not why:
                yield _sample("2xx → visible state, p99", "ms", late)


def _latencies(lab: Lab, one: _Running) -> Iterator[float]:
    """In seconds. Who looks for the state sleeps a fifth of a millisecond in between, so as not to keep Redis busy."""
    lab.clear()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", one.web.port, timeout=10)) as connection:
        connection.connect()
        for _ in range(_SINGLE_PRODUCTIONS):
            production, account = str(uuid4()), str(uuid4())
            for number in range(1, EVENTS_PER_PRODUCTION + 1):
                before = one.contestant.state(lab.redis, production)
                answered_at = _deliver(connection, request(event(production, number, account)))
                while one.contestant.state(lab.redis, production) == before:
                    if time.perf_counter() - answered_at > _LONGEST_LATENCY_SECONDS:
                        raise AssertionError(f"{one.contestant.name} does not show event {number} of {production}")
                    time.sleep(_LOOK_AGAIN_SECONDS)
                yield time.perf_counter() - answered_at
                time.sleep(_PAUSE_SECONDS)


def _deliver(connection: http.client.HTTPConnection, whole: bytes) -> float:
    """When the answer was there. The bytes go out as one, past http.client, which would send the head by itself."""
    connection.sock.sendall(whole)
    answer = http.client.HTTPResponse(connection.sock, method="POST")
    answer.begin()
    answer.read()
    at = time.perf_counter()
    assert 200 <= answer.status < 300, answer.status
    return at


def _turn(running: list[_Running], number: int) -> list[_Running]:
    return running if number % 2 == 0 else running[::-1]


def _sample(what: str, unit: str, found: dict[str, float], **goal: Any) -> Sample:
    """The goal is a ratio: without a reference there is none."""
    theirs = found.get(FASTIFY_BULLMQ.name)
    if theirs is None:
        return Sample(what, unit, found[OURS.name])
    return Sample(what, unit, found[OURS.name], FASTIFY_BULLMQ.name, theirs, **goal)
