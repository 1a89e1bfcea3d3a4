"""Two webs, three pollers and ten workers on one Redis: each thing is done once, and idling is cheap."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually, free_port
from workers import redis_server
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

ADVANCERS, DOWNLOADERS, POLLERS, WEBS = 4, 6, 3, 2
PROCESSES = ADVANCERS + DOWNLOADERS + POLLERS + WEBS
ANSWER_SECONDS = 0.3
FILES: list[dict[str, object]] = [
    {"type": "Video", "bytes": 300_000},
    {"type": "ClosedCaptions", "bytes": 4_000},
    {"type": "Transcript"},
]
IDLE_COMMANDS_PER_POLLER = 8  # a second: whether there is news, a sweep and a look at the webhooks now and then
IDLE_COMMANDS_PER_WORKER = 1  # a second: a heartbeat now and then


@pytest.fixture(scope="module")
def simulator() -> Iterator[Running]:
    """A JARAI that loses a third of its webhooks, and takes its time for each answer."""
    with run_in_thread(SimulatorSettings(seed=1, steps=3, step_seconds=0.05, phase_seconds=0.1)) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(simulator: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("replicas")
    with (
        redis_server.running(folder / "redis") as url,
        Deployment.prepare(simulator, url, folder) as deployment,
        Redis.from_url(url) as redis,
    ):
        ports = [int(deployment.environment["PORT"]), free_port()]
        for number, port in enumerate(ports):
            deployment.start(f"web-{number}", "web", PORT=str(port))
        for number in range(POLLERS):
            deployment.start(f"poller-{number}", "poller")
        deployment.start("advance", "worker", "--queues", "advance", "--advance", str(ADVANCERS))
        deployment.start("download", "worker", "--queues", "download", "--download", str(DOWNLOADERS))
        deployment.wait_until_ready()
        eventually(lambda: redis.scard("rq:workers") == ADVANCERS + DOWNLOADERS, 40, "the workers' listening")
        eventually(lambda: _started(deployment) >= WEBS + POLLERS, 40, "webs and pollers")
        for port in ports:
            simulator.subscribe(f"http://127.0.0.1:{port}/webhooks/jarai", simulator.settings.webhook_secret)
        yield deployment


@pytest.fixture
def store(replicas: Deployment) -> Iterator[Redis]:
    with Redis.from_url(replicas.environment["REDIS_URL"]) as client:
        yield client


def _started(deployment: Deployment) -> int:
    return sum(entry["process"].startswith(("web", "poller")) for entry in deployment.log("service.started"))


def _jobs(redis: Redis) -> int:
    """How many bells have been answered, by all workers together."""
    workers: Any = redis.smembers("rq:workers")
    return sum(int(redis.hget(worker.decode(), "successful_job_count") or 0) for worker in workers)


def _commands(redis: Redis) -> Counter[str]:
    stats: dict[str, dict[str, Any]] = redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(one["calls"]) for name, one in stats.items()})


def _once(names: list[Any]) -> bool:
    return bool(names) and len(names) == len(set(names))


@pytest.mark.timeout(120)
def test_many_of_every_process_do_each_thing_once(replicas: Deployment, simulator: Running, store: Redis) -> None:
    """Each event comes to both webs, under an id of its own for each; a third of them is lost on the way to either."""
    simulator.set_faults(loss=0.3, double=0.2, api_slow={"rate": 1.0, "value": ANSWER_SECONDS})
    before = _jobs(store)
    ids = [simulator.produce({"deliverables": FILES}) for _ in range(10)]
    ids += [simulator.produce({"outcome": outcome}) for outcome in ("Failed", "Cancelled")]
    for identity in ids:
        assert replicas.call("POST", f"/productions/{identity}/track").status == 202
    replicas.settled(*ids, seconds=60)
    eventually(lambda: simulator.counters()["pending"] == 0, what="the last webhook")
    eventually(lambda: store.zcard(f"{PREFIX}dirty") == 0, what="its being taken in")

    truth = simulator.truth()
    fetched = [one["path"] for one in truth["blobRequests"] if one["complete"]]  # a busy machine may break a line
    assert _once(fetched)
    assert len(fetched) == 10 * len(FILES)
    for production in truth["productions"]:
        _each_event_once(replicas, production)
        _equal(replicas, production)
    assert _once([entry["production_id"] for entry in replicas.log("production.settled")])
    stored = [(entry["production_id"], entry["deliverable_id"]) for entry in replicas.log("deliverable.stored")]
    assert _once(stored)
    assert len(stored) == 10 * len(FILES)
    changes = [(one["production_id"], one["to_status"]) for one in replicas.log("production.status_changed")]
    assert _once(changes)
    assert list((replicas.folder / "state" / "partial").iterdir()) == []
    arrived = len([*replicas.log("webhook.accepted"), *replicas.log("webhook.duplicate")])
    occasions = arrived + len(truth["apiRequests"]) + 2 * len(stored) + len(ids)
    bells = _jobs(store) - before
    print(f"{bells} bells for {occasions} occasions; {len(truth['apiRequests'])} requests")
    assert bells <= 2 * occasions, "nobody is woken for nothing, or nearly"


def _each_event_once(deployment: Deployment, production: dict[str, Any]) -> None:
    timeline = deployment.get(f"/productions/{production['productionId']}/timeline")["timeline"]
    numbers = [entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event"]
    assert sorted(numbers) == [
        one["sequenceNumber"]
        for one in production["events"]
        if any(delivery["acknowledged"] for delivery in one["deliveries"])
    ]


def _equal(deployment: Deployment, production: dict[str, Any]) -> None:
    shown = deployment.production(production["productionId"])
    assert shown is not None
    assert (shown["status"], shown["settled"]) == (production["status"], True)
    if production["status"] != "Published":
        return
    here = {one["id"]: one for one in shown["deliverables"]}
    folder = Path(deployment.environment["STORAGE_URL"]) / shown["folder"]
    for file in production["deliverables"]:
        content = (folder / here[file["deliverableId"]]["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]


@pytest.mark.timeout(120)
def test_many_of_every_process_with_nothing_to_do_leave_redis_alone(replicas: Deployment, store: Redis) -> None:
    """Measured while each poller asks for news six times or so; a bound for each process, and no bell."""
    due = [f"{PREFIX}{name}" for name in ("dirty", "download", "ask", "rung")]
    for queue in ("advance", "download"):  # what waits, what is on its way, what is being run
        due += [f"rq:queue:{queue}", f"rq:queue:{queue}:intermediate", f"rq:wip:{queue}"]
    eventually(lambda: not store.exists(*due), 40, "the end of all work")
    bells, before, began = _jobs(store), _commands(store), _seconds(store)
    eventually(lambda: _commands(store)["mget"] >= before["mget"] + 6 * POLLERS, what="the looks")
    spent = _commands(store) - before
    seconds = _seconds(store) - began
    ours = sum(spent.values()) - spent["info"]
    print(f"{ours / seconds:.1f} commands a second by {PROCESSES} processes: {spent}")
    assert ours / seconds <= IDLE_COMMANDS_PER_POLLER * POLLERS + IDLE_COMMANDS_PER_WORKER * (PROCESSES - POLLERS)
    assert _jobs(store) == bells, "nobody was woken"


def _seconds(redis: Redis) -> float:
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


@pytest.mark.timeout(120)
def test_an_event_amid_a_question_does_not_have_it_asked_twice_at_one_time(
    replicas: Deployment, simulator: Running, store: Redis
) -> None:
    """What arrives makes its production due to be asked about at once; the answer that is on its way comes first."""
    simulator.set_faults(loss=1, double=0, api_slow={"rate": 1.0, "value": 2.0})
    identity = simulator.produce({"hold": "Producing"})
    assert replicas.call("POST", f"/productions/{identity}/track").status == 202
    eventually(lambda: store.zcard(f"{PREFIX}requests:flying"), what="the question")
    simulator.set_faults(loss=0)
    simulator.emit({"eventType": "production.mystery", "productionId": identity})
    eventually(lambda: replicas.production(identity), what="the event")
    path = f"/v1/partner/productions/{identity}"
    eventually(lambda: len(_answered(simulator, path)) >= 2, what="the second question")
    answered = _answered(simulator, path)
    simulator.set_faults(api_slow=0)
    simulator.release(identity)
    replicas.settled(identity, seconds=40)
    for earlier, later in pairwise(answered):
        assert (later - earlier).total_seconds() >= 1.9, "the answers to two at one time lie closer together"


def _answered(simulator: Running, path: str) -> list[datetime]:
    return [datetime.fromisoformat(one["at"]) for one in simulator.truth()["apiRequests"] if one["path"] == path]


@pytest.mark.timeout(120)
def test_one_event_wakes_one_worker_of_many(replicas: Deployment, simulator: Running, store: Redis) -> None:
    """And not all that listen: a bell for the event, one for the manifest, one for what came of that.

    Where a machine is slow to answer a bell the sweep may ring once more; a herd would be all workers each time.
    """
    simulator.set_faults(loss=0, double=0, api_slow=0)
    eventually(lambda: store.zcard(f"{PREFIX}download") + store.zcard(f"{PREFIX}ask") == 0, 40, "the end of all work")
    bells = _jobs(store)
    identity = simulator.produce({"outcome": "Expired", "phaseSeconds": 0})
    replicas.settled(identity)
    eventually(lambda: simulator.counters()["pending"] == 0, what="the last webhook")
    eventually(lambda: not (store.llen("rq:queue:advance") or store.llen("rq:queue:download")), what="quiet")
    woken = _jobs(store) - bells
    print(f"{woken} bells for two events")
    herd = 2 * (ADVANCERS + DOWNLOADERS + ADVANCERS)
    assert 1 <= woken < herd / 2
