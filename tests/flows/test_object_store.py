"""A deployment of real processes that keeps its files in a bucket: hosts come and go, and have nothing in common."""

from __future__ import annotations

import hashlib
import signal
from typing import Any

import pytest

from tests.deployment import Deployment, eventually
from tests.workers.places import Objects

MEBI = 1024 * 1024
WORKER = ("worker", "--advance", "1", "--download", "1")


@pytest.fixture
def place(azurite: Any, deployment: Deployment) -> Objects:
    place = Objects(azurite.container())
    deployment.environment |= place.bucket.environment
    return place


def test_a_film_that_one_host_began_another_one_finishes_and_no_log_holds_the_key(
    deployment: Deployment, place: Objects
) -> None:
    deployment.simulator.set_faults(blob_slow={"next": 1, "value": 8 * MEBI})
    deployment.start("web")
    deployment.start("poller")
    deployment.start("one", *WORKER, STATE_DIR=str(deployment.folder / "one"))
    deployment.wait_until_ready()
    deployment.simulator.subscribe(f"{deployment.url}/webhooks/jarai", deployment.simulator.settings.webhook_secret)
    film = {"type": "Video", "bytes": 40 * MEBI, "checksum": "sha256"}
    identity = deployment.simulator.produce({"steps": 0, "deliverables": [film]})
    eventually(lambda: any("/00000" in name for name in place.left_over()), what="the first chunk")
    assert deployment.end("one", signal.SIGTERM) == 0
    assert [name for name in place.seen() if not name.endswith("/manifest.json")] == []
    deployment.start("two", *WORKER, STATE_DIR=str(deployment.folder / "two"))
    deployment.settled(identity)
    [truth] = deployment.simulator.truth()["productions"][0]["deliverables"]
    [name] = [name for name in place.seen() if not name.endswith("/manifest.json")]
    assert hashlib.sha256(place.content(name)).hexdigest() == truth["sha256"]
    assert sum(one["bytes"] for one in deployment.simulator.truth()["blobRequests"]) < 55 * MEBI, (
        "what was sent and never read included"
    )
    eventually(lambda: place.left_over() == [], what="clearing up")
    checked = deployment.command("check")
    assert (checked.returncode, f"{place.settings.storage_url} takes files" in checked.stdout) == (0, True)
    logs = "".join(path.read_text() for path in deployment.folder.glob("*.jsonl"))
    assert place.bucket.environment["AZURE_STORAGE_ACCOUNT_KEY"] not in logs
