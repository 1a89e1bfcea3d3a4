"""The door: how many events a second are accepted, and how long the slow ones take when half of it is idle."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import SubprocessError
from typing import Any
from uuid import uuid4

from tests.bench import install
from tests.bench.field import BARE, FASTAPI_CELERY, FASTIFY_BULLMQ, FLASK_RQ, OURS, STARLETTE_RQ, Contestant
from tests.bench.lab import CONTESTANTS_CORES, OTHER_CORES, Lab, Program, pin, progress
from tests.bench.load import event, request
from tests.bench.table import Absent, Sample
from tests.deployment import free_port
from tests.servers.fixtures import Nginx

# Each with the ratio that ours has to reach.
REFERENCES = {BARE: 1.0, FASTIFY_BULLMQ: 1.4, FASTAPI_CELERY: 10, FLASK_RQ: 10, STARLETTE_RQ: 10}
_WARM_UP_EVENTS = 2000
_ROUND_SECONDS = 2
_MOST_EVENTS = 40_000
_LATENCY_SECONDS = 3
_SHARE_OF_MAXIMUM = 0.3


class Unfit(Exception):
    """A contestant that does not do the job; why."""


# AssertionError: it never answered; SubprocessError: the load generator met what is no 2xx.
_FAILURES = (Unfit, AssertionError, OSError, SubprocessError)


@dataclass(frozen=True, slots=True)
class _Running:
    contestant: Contestant
    program: Program
    events: int


def intake(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    """Events a second, as many as 64 connections bring; then p99 at 30 % of what the slower serious one takes."""
    with Lab.open(folder) as lab, ExitStack() as stack:
        yield _ceiling(lab)
        running: list[_Running] = []
        for contestant in (OURS, *REFERENCES):
            why = contestant.absent()
            try:
                if why:
                    raise Unfit(why)
                program = stack.enter_context(lab.web(contestant))
                check(lab, contestant, program.port)
                running.append(_Running(contestant, program, _warm_up(lab, program)))
            except _FAILURES as error:
                yield _absent(contestant, error)
        speeds: dict[str, list[float]] = {one.contestant.name: [] for one in running}
        for number in range(2 * rounds):
            for one in _in_turn(running, number):
                try:
                    speeds[one.contestant.name].append(_send(lab, one, one.events)["per_second"])
                except _FAILURES as error:
                    yield _absent(one.contestant, error)
                    running.remove(one)
            mine = speeds[OURS.name][-1]
            for one in running[1:]:
                name, goal = one.contestant.name, REFERENCES[one.contestant]
                yield Sample("intake", "events/s", mine, name, speeds[name][-1], at_least=goal)
        yield from _latency(lab, running, speeds, rounds)


def _absent(contestant: Contestant, error: Exception) -> Absent:
    """Whoever can't do the job is not measured. That ours can't is a defect of ours."""
    if contestant is OURS:
        raise error
    return Absent(f"intake of {contestant.name}", str(error))


def _ceiling(lab: Lab) -> Sample | Absent:
    """What the load generator itself is able to bring, to a server that does nothing."""
    what = "the load generator's ceiling"
    why = install.nginx_is_absent()
    if why:
        return Absent(what, why)
    nginx = Nginx(lab.folder, free_port())
    config = f"keepalive_requests 1000000; server {{ listen 127.0.0.1:{nginx.port}; return 202 accepted; }}"
    pin(CONTESTANTS_CORES)
    with nginx.running(config):
        pin(OTHER_CORES)
        return Sample(what, "requests/s", lab.load(nginx.port, _MOST_EVENTS)["per_second"])


def check(lab: Lab, contestant: Contestant, port: int) -> None:
    """Raises Unfit when it accepts a forgery, keeps a double, or loses what it accepted."""
    lab.clear()
    body = event(str(uuid4()), 1)
    if _post(port, request(body, b"another key")) != 401:
        raise Unfit("it does not answer 401 to a wrong signature")
    for number in (1, 1, 2):
        answered = _post(port, request(body if number == 1 else event(str(uuid4()), number)))
        if not 200 <= answered < 300:
            raise Unfit(f"it answers {answered} to an event")
    if contestant.kept is not None and contestant.kept(lab.redis) != 2:
        raise Unfit(f"it keeps {contestant.kept(lab.redis)} events of two and a double")


def _post(port: int, whole: bytes) -> int:
    head, _, body = whole.partition(b"\r\n\r\n")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    connection.request("POST", "/webhooks/jarai", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def _warm_up(lab: Lab, program: Program) -> int:
    """Until the just-in-time compilers have seen it all; how many events a round of three seconds takes."""
    speed = lab.load(program.port, _WARM_UP_EVENTS)["per_second"]
    speed = lab.load(program.port, min(_MOST_EVENTS, int(2 * speed)))["per_second"]
    return min(_MOST_EVENTS, int(_ROUND_SECONDS * speed))


def _in_turn(running: Sequence[_Running], number: int) -> list[_Running]:
    """Another one first in every round."""
    first = number % len(running)
    return [*running[first:], *running[:first]]


def _send(lab: Lab, one: _Running, events: int, rate: float = 0.0) -> dict[str, Any]:
    """Raises Unfit when not every event is there afterwards."""
    lab.clear()
    before = one.program.cpu_seconds(), lab.server.cpu_seconds()
    found = lab.load(one.program.port, events, rate)
    seconds = events / found["per_second"]
    busy = (one.program.cpu_seconds() - before[0]) / seconds, (lab.server.cpu_seconds() - before[1]) / seconds
    kept = one.contestant.kept(lab.redis) if one.contestant.kept else events
    if kept != events:
        raise Unfit(f"it kept {kept} of {events} events")
    progress(
        f"intake, {one.contestant.name}: {found['per_second']:,.0f} events/s, p50 {found['p50_ms']:.2f} ms, "
        f"p99 {found['p99_ms']:.2f} ms; busy: server {busy[0]:.0%}, Redis {busy[1]:.0%}, load {found['busy']:.0%}"
    )
    return found


def _latency(
    lab: Lab, running: Sequence[_Running], speeds: dict[str, list[float]], rounds: int
) -> Iterator[Sample | Absent]:
    serious = [one for one in running if one.contestant in (OURS, FASTIFY_BULLMQ)]
    rate = _SHARE_OF_MAXIMUM * min(median(speeds[one.contestant.name]) for one in serious)
    for number in range(2 * rounds):  # a disk that stutters once must not decide
        found = {
            one.contestant.name: _send(lab, one, int(_LATENCY_SECONDS * rate), rate)
            for one in _in_turn(serious, number)
        }
        other = found.get(FASTIFY_BULLMQ.name)
        for figure, goal in (("p50", None), ("p99", 1.0)):
            yield Sample(
                f"intake at 30 %, {figure}", "ms", found[OURS.name][f"{figure}_ms"],
                FASTIFY_BULLMQ.name if other else "", other[f"{figure}_ms"] if other else None,
                at_most=goal if other else None,
            )  # fmt: skip
