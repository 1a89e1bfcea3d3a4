"""An event is processed within two seconds, whatever its production's job was doing when it arrived."""

from __future__ import annotations

import time
from itertools import count

import pytest
from redis import Redis

from service.store import productions
from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually
from tests.store.making import event, new_id, signed
from workers.simulator.running import Running

MOST_SECONDS = 2


@pytest.fixture
def running(deployment: Deployment) -> Deployment:
    """All but the downloads; JARAI is not asked."""
    deployment.start("web")
    deployment.start("worker", "worker", "--queues", "advance")
    deployment.start("poller", JARAI_API_KEY="")
    deployment.wait_until_ready()
    return deployment


def _send(deployment: Deployment, identity: str, number: int) -> None:
    body = event(identity, number)
    secret = deployment.simulator.settings.webhook_secret
    answer = deployment.call("POST", "/webhooks/jarai", body, **{"X-JARAI-Signature": signed(body, secret)})
    assert answer.status == 202


def _taken_in(redis: Redis, identity: str, number: int) -> bool:
    known = productions.read(redis, identity)
    return known is not None and known.sequence >= number


def test_events_that_arrive_at_any_moment_of_the_job_are_processed_in_time(
    running: Deployment, simulator: Running, redis: Redis
) -> None:
    """While it runs, between its claim and its commit, just after: each comes a little later than the one before."""
    identity, late = new_id(), []
    numbers = count(1)
    _send(running, identity, next(numbers))
    eventually(lambda: _taken_in(redis, identity, 1), what="the first event")
    for step in range(40):
        first, second = next(numbers), next(numbers)
        _send(running, identity, first)
        time.sleep(step / 10_000)  # a moment of the job, not a wait for anything
        _send(running, identity, second)
        started = time.monotonic()
        eventually(lambda number=second: _taken_in(redis, identity, number), MOST_SECONDS)  # type: ignore[misc]
        late.append(time.monotonic() - started)
    kept = productions.timeline(redis, identity)
    assert [entry["sequenceNumber"] for entry in kept if entry["kind"] == "event"] == list(range(1, next(numbers)))
    assert sorted(late)[len(late) // 2] < 0.5, "a bell wakes a worker; the sweep is for what went wrong"


def test_an_event_that_arrives_when_the_job_just_failed_is_processed_in_time(running: Deployment, redis: Redis) -> None:
    identity = new_id()
    redis.rpush(f"{PREFIX}inbox:{identity}", "unreadable")
    redis.zadd(f"{PREFIX}dirty", {identity: 0})
    eventually(lambda: running.log("production.advance_failed"), what="the failure")
    redis.lrem(f"{PREFIX}inbox:{identity}", 1, "unreadable")
    _send(running, identity, 1)
    eventually(lambda: _taken_in(redis, identity, 1), MOST_SECONDS, "the event")


def test_an_event_whose_bell_was_taken_by_a_worker_that_died_is_processed_in_time(
    running: Deployment, redis: Redis
) -> None:
    """The job is gone from its queue and nobody works on it: the sweep rings again."""
    running.end("worker")
    identity = new_id()
    _send(running, identity, 1)
    while redis.lpop("rq:queue:advance"):
        pass
    running.start("worker", "worker", "--queues", "advance")
    eventually(lambda: redis.scard("rq:workers"), what="the worker's listening")
    redis.delete("rq:queue:advance")
    eventually(lambda: _taken_in(redis, identity, 1), MOST_SECONDS, "the event")


def test_an_event_that_arrives_for_a_production_that_is_claimed_by_a_dead_worker_waits_for_its_lease_only(
    running: Deployment, redis: Redis
) -> None:
    identity = new_id()
    running.end("worker")
    _send(running, identity, 1)
    [claimed] = productions.claim(redis, 1)
    assert claimed.production_id == identity
    _send(running, identity, 2)
    running.start("worker", "worker", "--queues", "advance")
    eventually(lambda: redis.scard("rq:workers"), what="the worker's listening")
    eventually(lambda: _taken_in(redis, identity, 2), 3 + MOST_SECONDS, "both events")
