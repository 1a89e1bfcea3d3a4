"""Processes end, in good order and otherwise, and nothing is lost, doubled or fetched twice."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from tests.deployment import Deployment, eventually
from workers.simulator.running import Running

BIG = 12_000_000
SLOW = {"rate": 1.0, "value": 4_000_000}
VIDEO = {"deliverables": [{"type": "Video", "bytes": BIG}]}


def _partial_bytes(deployment: Deployment) -> int:
    return sum(path.stat().st_size for path in (deployment.folder / "state" / "partial").glob("*.part"))


def _amid_a_download(deployment: Deployment, simulator: Running) -> str:
    simulator.set_faults(blob_slow=SLOW)
    deployment.start_all(WEBHOOK_SILENCE_SECONDS="30")
    identity = simulator.produce(VIDEO)
    eventually(lambda: _partial_bytes(deployment) > 2_000_000, what="the download")
    return identity


def _fetched_once(simulator: Running) -> None:
    """Every byte went over the wire about once: what followed a break began where it broke."""
    requests: list[dict[str, Any]] = simulator.truth()["blobRequests"]
    assert len(requests) >= 2
    assert all(request["range"] for request in requests[1:])
    assert sum(request["bytes"] for request in requests) < BIG + 4_000_000


def test_a_worker_that_is_asked_to_end_gives_its_download_back_and_the_next_goes_on_from_there(
    deployment: Deployment, simulator: Running
) -> None:
    identity = _amid_a_download(deployment, simulator)
    started = time.monotonic()
    assert deployment.end("worker") == 0
    assert time.monotonic() - started < 10
    assert 0 < _partial_bytes(deployment) < BIG
    simulator.set_faults(blob_slow=0)
    deployment.start("worker")
    deployment.settled(identity, seconds=10)
    _fetched_once(simulator)


def test_a_worker_that_is_killed_in_a_download_leaves_what_it_has_to_the_next(
    deployment: Deployment, simulator: Running
) -> None:
    identity = _amid_a_download(deployment, simulator)
    children = psutil.Process(deployment.processes["worker"].pid).children()
    deployment.end("worker", signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "what a killed launcher started ends with it"
    simulator.set_faults(blob_slow=0)
    deployment.start("worker")
    deployment.settled(identity, seconds=45)
    _fetched_once(simulator)


def test_everything_may_be_stopped_half_way_and_started_again(deployment: Deployment, simulator: Running) -> None:
    simulator.set_faults(loss=0.2)
    deployment.start_all()
    ids = [simulator.produce({"stepSeconds": 0.3}) for _ in range(6)]
    for identity in ids:
        deployment.call("POST", f"/productions/{identity}/track")
    eventually(lambda: deployment.log("production.status_changed"), what="the first change")
    for name in ("poller", "worker", "web"):
        assert deployment.end(name) in (0, -signal.SIGTERM)
    for name in ("web", "worker", "poller"):
        deployment.start(name)
    deployment.wait_until_ready()
    deployment.settled(*ids)
    truth = {one["productionId"]: one["status"] for one in simulator.truth()["productions"]}
    assert {identity: (deployment.production(identity) or {})["status"] for identity in ids} == truth


def test_a_bell_that_is_lost_is_rung_again_within_two_seconds(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    """The queue of bells is emptied behind the back of everybody; the event is processed all the same."""
    deployment.start("web")
    deployment.wait_until_ready()
    simulator.subscribe(f"{deployment.url}/webhooks/jarai", simulator.settings.webhook_secret)
    identity = simulator.produce({"hold": "Queued"})
    eventually(lambda: deployment.log("webhook.accepted"), what="the event")
    eventually(lambda: redis.llen("rq:queue:advance"), what="the bell")
    redis.delete("rq:queue:advance")
    deployment.start("worker")
    eventually(lambda: redis.scard("rq:workers") == 4, what="the workers' listening")
    assert deployment.production(identity) is None
    deployment.start("poller")
    eventually(lambda: "service.started" in _events(deployment, "poller"), what="the poller")
    eventually(lambda: deployment.production(identity), 2, "the event")


def _events(deployment: Deployment, name: str) -> str:
    return Path(deployment.folder / f"{name}.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_stops_everything_that_it_started(deployment: Deployment, number: signal.Signals) -> None:
    process = deployment.start("up", REDIS_URL="")
    deployment.wait_until_ready()
    running = psutil.Process(process.pid)
    started = {child.pid for child in running.children(recursive=True)}
    assert len(started) == 7, "Redis, web, four workers and a poller"
    assert deployment.end("up", number, seconds=15) == 0
    assert not [pid for pid in started if psutil.pid_exists(pid)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"HOST": "256.1.1.1"}, "HOST"), ({"STORAGE_URL": "/proc/nowhere"}, "/proc/nowhere"), ({"PORT": "taken"}, "PORT")],
)
def test_up_starts_nothing_where_it_could_not_work(deployment: Deployment, wrong: dict[str, str], named: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = deployment.command("up", REDIS_URL="", **{name: port if value == "taken" else value
                                                         for name, value in wrong.items()})  # fmt: skip
    assert done.returncode == 1
    assert named in done.stderr
    assert "process.started" not in done.stdout


def test_a_demo_runs_after_one_that_was_killed(deployment: Deployment) -> None:
    deployment.start("demo")
    note = deployment.folder / "state" / "demo" / "redis" / "url"
    eventually(note.exists, what="the demo's Redis")
    deployment.end("demo", signal.SIGKILL)
    done = deployment.command("demo", "--seconds", "1")
    assert "differs" in done.stdout, done.stdout + done.stderr  # it ran, if only for a second


def test_the_demo_ends_well(deployment: Deployment) -> None:
    done = deployment.command("demo", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12, all settled" in done.stdout
    assert "all equal" in done.stdout


def test_the_demo_says_so_when_something_differs(deployment: Deployment) -> None:
    done: subprocess.CompletedProcess[str] = deployment.command("demo", "--seed", "3", "--seconds", "1")
    assert done.returncode == 1
    assert "not settled" in done.stdout or "here" in done.stdout
