"""A day offline: everything that happened meanwhile arrives at once, while every production waits to be asked about."""

from __future__ import annotations

import http.client
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually
from tests.store.making import event, signed
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

CONNECTIONS = 32
ENDED, UNFINISHED, PUBLISHED = 200, 12, 4
EVENTS = 12  # of each production
P99_SECONDS = 2.0
PER_MINUTE = 8  # of the ten that the smallest tier allows, two stay untouched


@pytest.fixture
def simulator() -> Iterator[Running]:
    """JARAI's smallest tier: ten requests a minute."""
    settings = SimulatorSettings(seed=1, steps=3, step_seconds=0.05, phase_seconds=0.1, tier="free")
    with run_in_thread(settings) as running:
        yield running


def _history(identity: str, ended: bool) -> list[bytes]:
    """What JARAI had to say of one production since yesterday; the last word of one that has not `ended` got lost."""
    steps = [event(identity, number) for number in range(2, EVENTS)]
    first = event(identity, 1, "production.queued")
    last = event(identity, EVENTS, "production.failed", data={"errorCode": "PIPELINE_STEP_FAILED"})
    return [first, *steps, *([last] if ended else [])]


def _post(port: int, secret: str, bodies: Sequence[bytes]) -> list[tuple[int, float]]:
    """One connection's share: the status of each answer and the seconds it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answers = []
    for body in bodies:
        signature = signed(body, secret)
        started = monotonic()
        connection.request("POST", "/webhooks/jarai", body, {"X-JARAI-Signature": signature})
        with connection.getresponse() as answer:
            answer.read()
            answers.append((answer.status, monotonic() - started))
    connection.close()
    return answers


@pytest.mark.timeout(180)
def test_a_day_of_events_in_one_burst_is_answered_quickly_and_settles_within_the_budget(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    """Every twentieth event comes twice, all in any order. 99 of 100 answers take less than two seconds."""
    begun = monotonic()
    for name in ("web", "worker", "poller"):
        deployment.start(name, WEBHOOK_SILENCE_SECONDS="30")
    ended = [simulator.produce({"outcome": "Failed", "steps": 0, "phaseSeconds": 0}) for _ in range(ENDED)]
    unfinished = [simulator.produce({"hold": "Producing"}) for _ in range(UNFINISHED)]
    deployment.wait_until_ready()
    for identity in (*ended, *unfinished):
        assert deployment.call("POST", f"/productions/{identity}/track").status == 202
    eventually(lambda: deployment.log("poll.paused"), what="the budget's end")
    eventually(
        lambda: redis.zcard(f"{PREFIX}ask") >= ENDED + UNFINISHED - PER_MINUTE, what="their waiting to be polled"
    )
    bodies = [body for identity in ended for body in _history(identity, ended=True)]
    bodies += [body for identity in unfinished for body in _history(identity, ended=False)]
    events = len(bodies)
    bodies += bodies[::20]
    random.Random(1).shuffle(bodies)
    simulator.subscribe(f"{deployment.url}/webhooks/jarai", simulator.settings.webhook_secret)
    published = [simulator.produce() for _ in range(PUBLISHED)]  # their webhooks come in between

    started = monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        post = partial(_post, int(deployment.environment["PORT"]), simulator.settings.webhook_secret)
        shares = list(pool.map(post, [bodies[first::CONNECTIONS] for first in range(CONNECTIONS)]))
    posted_seconds = monotonic() - started
    deployment.settled(*ended, *published, seconds=60)
    eventually(lambda: redis.zcard(f"{PREFIX}dirty") == 0, what="the last event's being taken in")
    settled_seconds = monotonic() - started

    answers = [answer for share in shares for answer in share]
    assert Counter(status for status, _ in answers) == {202: events, 200: len(bodies) - events}
    took = sorted(seconds for _, seconds in answers)
    p99_seconds = took[len(took) * 99 // 100]
    assert p99_seconds < P99_SECONDS
    for identity in ended:
        _is(deployment, identity, "Failed", EVENTS)
    for identity in unfinished:
        _is(deployment, identity, "Producing", EVENTS - 1)
        assert redis.zscore(f"{PREFIX}ask", identity) is not None, "what no event told is going to be asked for"
    truth = simulator.truth()
    for production in truth["productions"][-PUBLISHED:]:
        _is(deployment, production["productionId"], "Published", len(production["events"]))
    asked = [(one["path"], one["status"]) for one in truth["apiRequests"]]
    assert {status for _, status in asked} == {200}, "the budget was kept to: JARAI never had to refuse"
    assert len(asked) <= PER_MINUTE * (1 + int(monotonic() - begun) // 60)
    assert not [path for path, _ in asked if path.endswith("/deliverables")]
    assert deployment.get("/deadletters")["deadletters"] == []
    print(
        f"{len(bodies)} webhooks in {posted_seconds:.1f} s, p99 {1000 * p99_seconds:.0f} ms, "
        f"worst {1000 * took[-1]:.0f} ms; settled after {settled_seconds:.1f} s; {len(asked)} requests"
    )


def _is(deployment: Deployment, identity: str, status: str, events: int) -> None:
    """In this status, and each of its events is in the timeline once."""
    shown = deployment.production(identity)
    assert shown is not None
    assert (shown["status"], shown["settled"]) == (status, status != "Producing")
    timeline = deployment.get(f"/productions/{identity}/timeline")["timeline"]
    numbers = sorted(entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event")
    assert numbers == list(range(numbers[0], numbers[0] + events)), identity
