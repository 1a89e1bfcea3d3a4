"""A receiver without processes: a test takes each step itself, and pauses are cut short."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from service.core.deliverables import Deliverable
from service.core.observations import ManifestWritten
from service.core.production import Production, to_json
from service.jarai import Jarai
from service.settings import Settings
from service.store import deadletters, inbox, productions
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import event, take_in
from workers.download import Downloader
from workers.poller import Asker
from workers.simulator.running import Running


@dataclass
class Bench:
    """A receiver without processes: a test takes each step itself, and pauses are cut short."""

    redis: Redis
    simulator: Running
    settings: Settings

    def published(self, *files: dict[str, Any]) -> str:
        """A production at JARAI with these files, which this receiver has a list of."""
        plan = {"steps": 0, "stepSeconds": 0, "phaseSeconds": 0, "deliverables": list(files)}
        identity = self.simulator.produce(plan)
        eventually(lambda: self.truth(identity)["status"] == "Published")
        ready = event(identity, 999, "deliverable.ready", truncated=True, data={})
        take_in(self.redis, ready, event(identity, 1000, "production.published"))
        self.ask()
        revision = self.known(identity).manifest_revision
        inbox.observe(self.redis, identity, ManifestWritten(productions.now(self.redis), revision))
        take_in(self.redis)
        return identity

    def truth(self, identity: str) -> dict[str, Any]:
        productions: list[dict[str, Any]] = self.simulator.truth()["productions"]
        return next(one for one in productions if one["productionId"] == identity)

    def hurry(self, *lists: str) -> None:
        """Whatever waits in these lists is due now."""
        for name in lists:
            members: Any = self.redis.zrange(f"{PREFIX}{name}", 0, -1)
            for member in members:
                self.redis.zadd(f"{PREFIX}{name}", {member: 0}, xx=True)
        asking: Any = self.redis.keys(f"{PREFIX}asking:*")
        self.redis.delete(f"{PREFIX}budget", f"{PREFIX}storage:try", *asking)

    def ask(self) -> None:
        """Ask JARAI once about each production for which that is due at any time."""
        identities: Any = self.redis.zrange(f"{PREFIX}ask", 0, -1)
        for raw in identities:
            waiting = self.known(raw.decode())
            if waiting.list_at is not None:
                state = to_json(replace(waiting, list_at=waiting.created_at))
                self.redis.set(f"{PREFIX}production:{raw.decode()}", b"%d\n%s" % (waiting.version, state))
        self.hurry("ask")
        jarai = Jarai(self.simulator.api_url, self.simulator.settings.api_key)
        while Asker(self.redis, jarai, self.settings).ask_once():
            pass
        take_in(self.redis)

    def fetch(self) -> int:
        """One attempt at whatever waits for one."""
        self.hurry("download")
        done = Downloader(self.redis, self.settings).drain()
        take_in(self.redis)
        return done

    def until_quiet(self, most: int = 20) -> None:
        for _ in range(most):
            if not self.redis.zcard(f"{PREFIX}download") and not self.redis.zcard(f"{PREFIX}ask"):
                return
            self.ask()
            self.fetch()
        raise AssertionError("it goes on for ever")

    def known(self, identity: str) -> Production:
        found = productions.read(self.redis, identity)
        assert found is not None
        return found

    def only(self, identity: str) -> Deliverable:
        [one] = self.known(identity).deliverables
        return one

    def blob_requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.simulator.truth()["blobRequests"]
        return found

    def is_stored(self, identity: str) -> None:
        """Every file lies there, is JARAI's to the byte, and nothing is left over."""
        truth = {one["deliverableId"]: one for one in self.truth(identity)["deliverables"]}
        known = self.known(identity)
        assert known.settled
        for one in known.deliverables:
            content = (self.settings.storage_dir / (known.folder or "") / one.file).read_bytes()
            assert hashlib.sha256(content).hexdigest() == one.sha256 == truth[one.id]["sha256"]
        assert list((self.settings.state_dir / "partial").iterdir()) == []
        assert deadletters.count(self.redis) == 0
