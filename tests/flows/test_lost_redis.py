"""Somebody emptied Redis: it is said, and what manifests, webhooks and JARAI know comes back without fetching twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.deployment import Deployment, eventually
from workers.simulator.running import Running

FILES = {"deliverables": [{"type": "Video", "bytes": 300_000}, {"type": "Transcript"}]}


def _fetched(simulator: Running) -> list[str]:
    return [request["path"] for request in simulator.truth()["blobRequests"]]


def _asked(simulator: Running) -> list[str]:
    return [request["path"] for request in simulator.truth()["apiRequests"]]


def _said(deployment: Deployment) -> int:
    return len(deployment.log("store.emptied"))


def test_an_emptied_redis_is_said_once_and_rebuilt_from_what_lies_in_the_folder(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    deployment.start_all(WEBHOOK_SILENCE_SECONDS="30")
    settled = [simulator.produce(FILES), simulator.produce({"outcome": "Failed"})]
    live = simulator.produce(FILES | {"hold": "Producing"})
    deployment.settled(*settled)
    eventually(lambda: (deployment.production(live) or {}).get("status") == "Producing")
    eventually(lambda: list(deployment.folder.glob(f"deliverables/*/{live}/manifest.json")), what="its manifest")
    before = {identity: deployment.production(identity) for identity in settled}
    fetched, asked = _fetched(simulator), _asked(simulator)
    redis.flushall()
    eventually(lambda: _said(deployment), 5, "the alarm")
    assert deployment.production(settled[0]) is None

    done = deployment.command("rebuild")
    assert (done.returncode, done.stdout) == (
        0,
        "3 production(s) brought back, 1 of them to be asked about; 0 known already\n",
    )
    deployment.settled(*settled)
    for identity in settled:
        again = deployment.production(identity)
        assert again is not None
        same = ("accountId", "status", "settled", "deliverables", "folder", "sandbox")
        assert {name: again[name] for name in same} == {name: (before[identity] or {})[name] for name in same}
    eventually(lambda: (deployment.production(live) or {}).get("status") == "Producing", what="a poll")
    simulator.release(live)
    deployment.settled(live)
    assert sorted(set(_fetched(simulator)) - set(fetched)) == sorted(_fetched(simulator)[len(fetched) :])
    assert len(_fetched(simulator)) == len(fetched) + 2, "only what had not been here"
    assert all(live in path for path in _asked(simulator)[len(asked) :])
    assert _said(deployment) == 1
    assert {line["production_id"] for line in deployment.log("production.rebuilt")} == {*settled, live}
    assert deployment.command("rebuild").stdout.startswith("0 production(s) brought back")


def test_webhooks_that_go_on_bring_a_production_back_and_its_files_are_recognised(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    """Nobody calls `rebuild`: its list comes anew, and what lies there whole is not fetched again."""
    deployment.start_all(WEBHOOK_SILENCE_SECONDS="1")
    identity = simulator.produce(FILES | {"hold": "AwaitingApproval"})

    def stored() -> bool:
        known = deployment.production(identity) or {"deliverables": []}
        return [one["state"] for one in known["deliverables"]] == ["stored", "stored"]

    eventually(stored, what="both files")
    eventually(lambda: len(_manifest(deployment, identity)["deliverables"]) == 2, what="the manifest")
    redis.flushall()
    simulator.release(identity)
    deployment.settled(identity)
    assert len(_fetched(simulator)) == 2


def _manifest(deployment: Deployment, identity: str) -> dict[str, Any]:
    [path] = deployment.folder.glob(f"deliverables/*/{identity}/manifest.json")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_a_redis_that_was_lost_while_everything_was_down_is_said_at_the_start(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    deployment.start_all()
    eventually(lambda: (deployment.folder / "state" / "deployment").exists(), what="the note")
    for name in list(deployment.processes):
        deployment.end(name)
    redis.flushall()
    deployment.start("worker")
    eventually(lambda: _said(deployment), what="the alarm")


@pytest.mark.parametrize("content", ["", "{}", '{"productionId": "../../etc"}'])
def test_what_is_no_manifest_is_named_and_the_others_come_back(
    deployment: Deployment, simulator: Running, redis: Redis, content: str
) -> None:
    folder = Path(deployment.folder) / "deliverables" / "some-account" / "some-production"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    done = deployment.command("rebuild")
    assert done.returncode == 1
    assert "some-account/some-production" in done.stderr
    assert "Traceback" not in done.stderr
    assert redis.keys("jarai:production:*") == []


def test_an_empty_folder_brings_nothing_back_and_says_so(deployment: Deployment) -> None:
    done = deployment.command("rebuild")
    assert (done.returncode, done.stdout) == (
        0,
        "0 production(s) brought back, 0 of them to be asked about; 0 known already\n",
    )
