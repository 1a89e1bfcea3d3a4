"""The hand-over with real processes: what settles or fails is told, signed, and stands in the stream of facts."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from tests.deployment import Deployment, eventually
from tests.partner import SECRET, partner
from workers.simulator.running import Running


def facts(redis: Redis) -> dict[str, dict[str, Any]]:
    """By the production, as whoever reads the stream finds them."""
    entries: Any = redis.xrange("jarai:facts")
    read = [json.loads(fields[b"body"]) | {"id": fields[b"id"].decode()} for _, fields in entries]
    assert len({one["data"]["productionId"] for one in read}) == len(read)
    return {one["data"]["productionId"]: one for one in read}


def test_who_is_notified_finds_the_files_that_it_was_told_of(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    with partner() as listening:
        deployment.start_all(NOTIFY_URL=listening.url, NOTIFY_SECRET=SECRET)
        files = [{"type": "Video", "bytes": 300_000}, {"type": "Transcript", "bytes": 200}]
        published = simulator.produce({"deliverables": files})
        failed = simulator.produce({"outcome": "Failed"})
        eventually(lambda: len({one.id for one in listening.got}) == 2, what="both notices")
        deployment.settled(published, failed)
        told = {one["data"]["productionId"]: one for one in listening.notices}
        assert {told[published]["type"], told[failed]["type"]} == {"production.settled", "production.failed"}
        assert told[failed]["data"]["error"]["code"]
        data = told[published]["data"]
        root = deployment.folder / "deliverables"
        manifest = json.loads((root / data["manifest"]).read_text())
        assert (manifest["settled"], manifest["deliverables"]) == (True, data["deliverables"])
        assert sum((root / data["folder"] / one["file"]).stat().st_size for one in data["deliverables"]) == 300_200
        stream = facts(redis)
        assert {identity: one | {"id": stream[identity]["id"]} for identity, one in told.items()} == stream
        assert {one.id for one in listening.got} == {one["id"] for one in stream.values()}
        for name in list(deployment.processes):
            deployment.end(name)
    assert len(deployment.log("notice.delivered")) == 2
    assert {"notify-1"} <= {one["process"] for one in deployment.log("process.started")}
    for path in deployment.folder.glob("*.jsonl"):
        assert "geheim" not in path.read_text(), path
        assert SECRET not in path.read_text(), path
