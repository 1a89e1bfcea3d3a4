"""Stored files, by the commands that a person has: shown, fetched again, verified and repaired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis import Redis

from tests.deployment import Deployment, eventually
from workers.simulator.running import Running

FILES: dict[str, Any] = {
    "steps": 0,
    "stepSeconds": 0,
    "phaseSeconds": 0,
    "deliverables": [{"type": "Video", "bytes": 300_000}, {"type": "ClosedCaptions", "bytes": 2_000}],
}


def stored_files(deployment: Deployment, identity: str) -> dict[str, Path]:
    known = deployment.production(identity)
    assert known is not None
    folder = deployment.folder / "deliverables" / known["folder"]
    return {one["type"]: folder / one["file"] for one in deployment.manifest(known)["deliverables"]}


def fetched_bytes(simulator: Running) -> int:
    return sum(one["bytes"] for one in simulator.truth()["blobRequests"])


def test_what_is_damaged_is_found_and_repaired_and_a_second_look_finds_nothing(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    deployment.start_all()
    identity = simulator.produce(FILES)
    deployment.settled(identity)
    video = stored_files(deployment, identity)["Video"]
    whole = video.read_bytes()
    video.write_bytes(b"\0" * len(whole))

    done = deployment.command("verify", "--wait", "30")
    assert done.returncode == 0, done.stderr
    assert "2 file(s) of 1 production(s) read, 1 damaged" in done.stdout
    assert "has other bytes than were stored" in done.stdout
    assert "repaired" in done.stdout
    assert video.read_bytes() == whole
    deployment.settled(identity)
    assert [line["problem"] for line in deployment.log("deliverable.damaged")] == ["has other bytes than were stored"]

    again = json.loads(deployment.command("verify", identity, "--json").stdout)
    assert (again["productions"], again["files"], again["damaged"]) == (1, 2, [])

    captions = stored_files(deployment, identity)["ClosedCaptions"]
    deployment.end("worker")
    captions.unlink()
    alone = deployment.command("verify", "--wait", "0")
    assert alone.returncode == 1
    assert "is gone" in alone.stdout
    assert "1 not repaired yet" in alone.stderr
    deployment.start("worker")
    eventually(captions.exists, what="the file, as soon as somebody works again")


def test_redownload_fetches_and_compares_and_show_tells_of_each_version(
    deployment: Deployment, simulator: Running
) -> None:
    deployment.start_all()
    identity = simulator.produce(FILES)
    deployment.settled(identity)
    before = fetched_bytes(simulator)
    done = deployment.command("productions", "redownload", identity)
    assert (done.returncode, done.stdout) == (0, f"2 file(s) of {identity} are fetched again and compared\n")
    eventually(lambda: len(deployment.log("deliverable.compared")) == 2, what="both comparisons")
    assert {line["outcome"] for line in deployment.log("deliverable.compared")} == {"same"}
    assert fetched_bytes(simulator) - before == 302_000
    deployment.settled(identity)

    listed = simulator.relist(identity, {"bytes": 100_000})
    assert listed["deliverables"]
    assert deployment.command("productions", "redownload", identity).returncode == 0
    eventually(lambda: [one for one in deployment.log("deliverable.stored") if one.get("version") == 2], what="it")
    deployment.settled(identity)
    shown = deployment.command("productions", "show", identity).stdout
    assert "stored (v2, current)" in shown
    known = deployment.production(identity)
    assert known is not None
    assert sorted((one["type"], one["version"], one["current"]) for one in known["deliverables"]) == [
        ("ClosedCaptions", 1, True),
        ("Video", 1, False),
        ("Video", 2, True),
    ]
    assert json.loads(deployment.command("verify", "--json").stdout)["files"] == 3
