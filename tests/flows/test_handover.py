"""A partner's system is told what has settled and what has failed, by whole processes, and is never asked."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually
from tests.partner import SECRET, receiving
from workers.simulator.running import Running

QUICK: dict[str, Any] = {"steps": 0, "stepSeconds": 0, "phaseSeconds": 0}


def test_what_settles_and_what_fails_is_told_by_webhook_and_in_the_stream(
    deployment: Deployment, simulator: Running, redis: Redis
) -> None:
    with receiving() as receiver:
        deployment.start_all(NOTIFY_URL=receiver.url, NOTIFY_SECRET=SECRET)
        published = simulator.produce(QUICK | {"deliverables": [{"type": "Video", "bytes": 200_000}]})
        failed = simulator.produce(QUICK | {"outcome": "Failed"})
        eventually(lambda: len(receiver.facts) == 2, 30, "both facts")
        told = {fact["data"]["productionId"]: fact for _, fact in receiver.facts}
        assert (told[published]["type"], told[failed]["type"]) == ("production.settled", "production.failed")
        known = deployment.production(published)
        assert known is not None
        assert told[published]["data"]["deliverables"] == deployment.manifest(known)["deliverables"]
        assert deployment.manifest(known)["settled"] is True, "what is told lies there"
        entries: Any = redis.xrange(f"{PREFIX}facts")
        assert sorted(entry[b"id"].decode() for _, entry in entries) == sorted(receiver.ids)
        assert len(deployment.log("notice.delivered")) == 2
        done = json.loads(deployment.command("check", "--json", NOTIFY_URL=receiver.url, NOTIFY_SECRET=SECRET).stdout)
        assert [line["verdict"] for line in done if line["part"] == "hand-over"] == ["ok"]
        log = "".join(path.read_text() for path in deployment.folder.glob("*.jsonl"))
        assert SECRET not in log
        assert "SeCrEt" not in log
