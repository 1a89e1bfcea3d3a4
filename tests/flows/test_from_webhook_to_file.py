"""The whole way, with real processes: from a signed webhook to a verified file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from service.log import CATALOGUE
from tests.deployment import ADMIN_TOKEN, Deployment
from workers.simulator.running import Running

FILES = [
    {"type": "Video", "bytes": 3_000_000, "fileName": "The film.mp4"},
    {"type": "Video", "bytes": 1_000_000, "fileName": "The film.mp4"},
    {"type": "ClosedCaptions", "bytes": 4_000, "fileName": "../../captions.vtt"},
    {"type": "Transcript", "bytes": 0},
]


def _equal_to_truth(deployment: Deployment, truth: dict[str, Any]) -> None:
    """Status, list, manifest and every byte are JARAI's."""
    known = deployment.production(truth["productionId"])
    assert known is not None
    assert known["status"] == truth["status"]
    assert known["settled"]
    if truth["status"] != "Published":
        return
    manifest = deployment.manifest(known)
    listed = {one["id"]: one for one in manifest["deliverables"]}
    assert set(listed) == {one["deliverableId"] for one in truth["deliverables"]}
    assert len({one["file"].lower() for one in listed.values()}) == len(listed)
    folder = deployment.folder / "deliverables" / known["folder"]
    for file in truth["deliverables"]:
        entry = listed[file["deliverableId"]]
        content = (folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (file["bytes"], file["sha256"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert {path.name for path in folder.iterdir()} == {one["file"] for one in listed.values()} | {"manifest.json"}


def _nothing_left_behind(deployment: Deployment) -> None:
    assert list((deployment.folder / "state" / "partial").iterdir()) == []


def test_productions_whose_webhooks_all_arrive_cost_no_request_and_each_file_is_fetched_once(
    deployment: Deployment, simulator: Running
) -> None:
    deployment.start_all(WEBHOOK_SILENCE_SECONDS="30")
    ids = [simulator.produce({"deliverables": FILES}) for _ in range(4)]
    ids.append(simulator.produce({"outcome": "Failed"}))
    deployment.settled(*ids)
    truth = simulator.truth()
    for production in truth["productions"]:
        _equal_to_truth(deployment, production)
    assert truth["apiRequests"] == []
    fetched = [request["path"] for request in truth["blobRequests"]]
    assert len(fetched) == len(set(fetched)) == 4 * len(FILES)
    _nothing_left_behind(deployment)


def test_productions_settle_although_webhooks_are_lost_doubled_and_late(
    deployment: Deployment, simulator: Running
) -> None:
    simulator.set_faults(loss=0.3, double=0.2, late={"rate": 0.3, "value": 1.0})
    deployment.start_all()
    outcomes = ["Published"] * 7 + ["Failed", "Cancelled", "Expired"]
    ids = [simulator.produce({"outcome": outcome}) for outcome in outcomes * 2]
    for identity in ids:
        assert deployment.call("POST", f"/productions/{identity}/track").status == 202
    deployment.settled(*ids)
    truth = simulator.truth()
    assert {one["status"] for one in truth["productions"]} == {"Published", "Failed", "Cancelled"}
    for production in truth["productions"]:
        _equal_to_truth(deployment, production)
    assert deployment.log("poll.recovered"), "with a third of the webhooks lost, polling has found something"
    acknowledged = {
        (event["sequenceNumber"], production["productionId"])
        for production in truth["productions"]
        for event in production["events"]
        if any(delivery["acknowledged"] for delivery in event["deliveries"])
    }
    for identity in ids:
        timeline = deployment.get(f"/productions/{identity}/timeline")["timeline"]
        numbers = [entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event"]
        assert sorted(numbers) == sorted(number for number, one in acknowledged if one == identity)


def test_the_log_says_what_happened_in_catalogued_words_and_holds_no_secret(
    deployment: Deployment, simulator: Running, tmp_path: Path
) -> None:
    simulator.set_faults(loss=0.5)
    deployment.start_all()
    ids = [simulator.produce() for _ in range(3)]
    for identity in ids:
        deployment.call("POST", f"/productions/{identity}/track")
    deployment.settled(*ids)
    for name in list(deployment.processes):
        deployment.end(name)
    entries = deployment.log()
    for entry in entries:
        assert list(entry)[:3] == ["timestamp", "level", "event"]
        assert entry["level"] == CATALOGUE[entry["event"]].level
    assert {entry["event"] for entry in entries} >= {
        "webhook.accepted",
        "production.status_changed",
        "deliverable.stored",
        "production.settled",
    }
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl")]
    settings = simulator.settings
    for path in written:
        text = path.read_text()
        for secret in (settings.api_key, settings.webhook_secret, ADMIN_TOKEN, "sig="):
            assert secret not in text, path
