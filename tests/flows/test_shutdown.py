"""SIGTERM: what is under way is given back, and whoever comes next goes on from there, on another machine too."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually
from workers.simulator.running import Running

BIG = 12_000_000
SLOW = {"rate": 1.0, "value": 600_000}  # twenty seconds, in which another worker has to start
WORKERS = 4  # of one launcher: one for states, three for files


@pytest.fixture
def elsewhere(deployment: Deployment, simulator: Running, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment in another folder, that has Redis, STORAGE_URL and STATE_DIR in common with the first."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with Deployment.prepare(simulator, deployment.environment["REDIS_URL"], folder) as other:
        other.environment |= {name: deployment.environment[name] for name in ("STORAGE_URL", "STATE_DIR", "PORT")}
        other.url = deployment.url
        yield other


def _partial_bytes(deployment: Deployment) -> int:
    folder = Path(deployment.environment["STATE_DIR"]) / "partial"
    return sum(path.stat().st_size for path in folder.glob("*.part"))


def _blob_requests(simulator: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = simulator.truth()["blobRequests"]
    return found


def test_a_download_that_one_worker_gives_back_is_gone_on_with_by_another_at_once_and_from_the_same_byte(
    deployment: Deployment, elsewhere: Deployment, simulator: Running, redis: Redis
) -> None:
    """The other one listens already: it needs neither a poller nor the end of a claim to be told."""
    simulator.set_faults(blob_slow=SLOW)
    deployment.start("web")
    deployment.start("worker")
    deployment.wait_until_ready()
    simulator.subscribe(f"{deployment.url}/webhooks/jarai", simulator.settings.webhook_secret)
    identity = simulator.produce({"deliverables": [{"type": "Video", "bytes": BIG}]})
    eventually(lambda: _partial_bytes(deployment) > 500_000, what="the download")
    elsewhere.start("worker")
    eventually(lambda: redis.scard("rq:workers") == 2 * WORKERS, what="the other's listening")
    left = _partial_bytes(deployment)
    assert 500_000 < left < BIG, "it is still amid the download"
    simulator.set_faults(blob_slow=0)
    asked = datetime.now(UTC)
    ending = deployment.processes.pop("worker")
    ending.send_signal(signal.SIGTERM)
    eventually(lambda: len(_blob_requests(simulator)) == 2, what="the other's request")
    first, second = _blob_requests(simulator)
    assert (datetime.fromisoformat(second["at"]) - asked).total_seconds() < 3
    assert second["range"].startswith("bytes=")
    begun_at = int(second["range"].removeprefix("bytes=").rstrip("-"))
    assert left <= begun_at < BIG
    deployment.settled(identity)
    assert ending.wait(10) == 0
    assert second["status"] == 206
    assert _blob_requests(simulator)[1]["bytes"] == BIG - begun_at
    assert first["status"] == 200
    assert [entry["production_id"] for entry in elsewhere.log("deliverable.stored")] == [identity]
    _is_whole(deployment, simulator.truth()["productions"][0])


@pytest.mark.timeout(120)
def test_everything_is_stopped_at_once_with_much_to_do_and_loses_nothing(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    """Events arrive, downloads run, questions wait, and SIGTERM comes to all of them in the same moment."""
    simulator.set_faults(loss=0.2, blob_slow={"rate": 1.0, "value": 400_000}, api_slow={"rate": 1.0, "value": 0.2})
    deployment.start_all()
    files = [{"type": "Video", "bytes": 400_000}, {"type": "ClosedCaptions", "bytes": 4_000}]
    ids = [simulator.produce({"deliverables": files, "stepSeconds": 0.02}) for _ in range(12)]
    ids += [simulator.produce({"outcome": "Failed", "steps": 20, "stepSeconds": 0.1}) for _ in range(12)]
    for identity in ids:
        assert deployment.call("POST", f"/productions/{identity}/track").status == 202
    eventually(lambda: deployment.log("deliverable.stored"), what="the first file")
    for process in deployment.processes.values():
        process.send_signal(signal.SIGTERM)
    for name in list(deployment.processes):
        process = deployment.processes.pop(name)
        assert process.wait(12) in (0, -signal.SIGTERM), name
    assert {entry["process"] for entry in deployment.log("service.stopped")} >= {"web", "poller", "worker download"}
    assert not deployment.log("process.killed")
    assert redis.zcard(f"{PREFIX}download"), "files are left to fetch"
    assert redis.zcard(f"{PREFIX}ask"), "questions are left to ask"
    assert redis.hlen(f"{PREFIX}claims") <= redis.zcard(f"{PREFIX}download")
    before = _blob_requests(simulator)

    simulator.set_faults(loss=0, blob_slow=0, api_slow=0)
    for name in ("web", "worker", "poller"):
        deployment.start(name)
    deployment.wait_until_ready()
    deployment.settled(*ids, seconds=40)
    eventually(lambda: simulator.counters()["pending"] == 0, 40, "the last webhook")
    eventually(lambda: redis.zcard(f"{PREFIX}dirty") == 0, what="its being taken in")
    truth = simulator.truth()
    for production in truth["productions"]:
        _each_event_once(deployment, production)
        _is_whole(deployment, production)
    complete = {one["path"] for one in before if one["complete"]}
    again = [one["path"] for one in truth["blobRequests"][len(before) :] if not one["range"]]
    assert not complete & set(again), "a file that was there is not fetched again"
    assert len([path for path in again if path in {one["path"] for one in before}]) <= 3, "the rest is gone on with"
    assert list((Path(deployment.environment["STATE_DIR"]) / "partial").iterdir()) == []


def _each_event_once(deployment: Deployment, production: dict[str, Any]) -> None:
    timeline = deployment.get(f"/productions/{production['productionId']}/timeline")["timeline"]
    numbers = [entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event"]
    acknowledged = [
        one["sequenceNumber"]
        for one in production["events"]
        if any(delivery["acknowledged"] for delivery in one["deliveries"])
    ]
    assert len(numbers) == len(set(numbers))
    assert set(acknowledged) <= set(numbers) <= {one["sequenceNumber"] for one in production["events"]}


def _is_whole(deployment: Deployment, production: dict[str, Any]) -> None:
    """Status and every byte are JARAI's."""
    shown = deployment.production(production["productionId"])
    assert shown is not None
    assert (shown["status"], shown["settled"]) == (production["status"], True)
    here = {one["id"]: one for one in shown["deliverables"]}
    for file in production["deliverables"] if production["status"] == "Published" else []:
        path = Path(deployment.environment["STORAGE_URL"]) / shown["folder"] / here[file["deliverableId"]]["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
