"""Moves the world forward in real time: lets productions live, announces their events, lists their files."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from workers.simulator.blobs import Signer
from workers.simulator.contents import DigestCache
from workers.simulator.delivery import Sender
from workers.simulator.faults import Faults
from workers.simulator.journal import Journal
from workers.simulator.limits import TIERS, Budget
from workers.simulator.plans import WITH_DELIVERABLES, Moment, Plan, life
from workers.simulator.settings import Settings
from workers.simulator.world import Deliverable, Production, World, iso

MOST_IN_AN_EVENT = 100  # [docs]


class Simulation:
    """Everything that one running simulator owns. All of it belongs to one event loop."""

    def __init__(self, settings: Settings, public_url: str) -> None:
        self.settings = settings
        self.public_url = public_url
        self.world = World(settings)
        self.faults = Faults(settings)
        self.sender = Sender(settings, self.faults)
        self.budget = Budget(TIERS[settings.tier])
        self.digests = DigestCache()
        self.signer = Signer(secrets.token_bytes(32))
        self.journal = Journal()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._released: dict[str, asyncio.Event] = {}

    def start(self, plan: Plan, account_id: str = "", topic: str = "") -> Production:
        """A new production, queued; the rest of its life follows by itself."""
        production = self.world.create(plan, account_id, datetime.now(UTC), topic)
        self._released[production.production_id] = asyncio.Event()
        self._emit(
            production,
            "production.queued",
            {"status": "Queued", "expiresAt": iso(production.expires_at)},
        )
        task = asyncio.get_running_loop().create_task(self._live(production))
        self._lives[production.production_id] = task
        task.add_done_callback(lambda _: self._lives.pop(production.production_id, None))
        return production

    def release(self, production: Production) -> None:
        """Let it leave the status that its plan holds it in, now or when it gets there."""
        self._released[production.production_id].set()

    async def cancel(self, production: Production) -> None:
        """Not for a terminal one: the caller has looked."""
        life_task = self._lives.pop(production.production_id, None)
        if life_task is not None:
            life_task.cancel()
        await self._apply(production, Moment(after_seconds=0, status="Cancelled"))

    async def relist(self, production: Production, deliverable_id: str, size_bytes: int | None) -> None:
        """List a file again with new content, and announce the list; KeyError without such a file."""
        self.world.replace(production, deliverable_id, size_bytes, datetime.now(UTC))
        await self._announce_deliverables(production)

    def emit(self, production: Production, event_type: str, data: Mapping[str, object]) -> None:
        self._emit(production, event_type, data)

    async def listing(self, production: Production) -> list[dict[str, object]]:
        """The files with fresh addresses, which live as long as the settings say."""
        expires_at = datetime.now(UTC) + timedelta(seconds=self.settings.sas_lifetime_seconds)
        return [await self._listed(production, each, expires_at) for each in production.deliverables]

    async def close(self) -> None:
        lives = list(self._lives.values())
        for task in lives:
            task.cancel()
        self.digests.close()
        await asyncio.gather(*lives, return_exceptions=True)
        await self.sender.close()

    async def _live(self, production: Production) -> None:
        for moment in life(production.plan):
            await asyncio.sleep(moment.after_seconds)
            if moment.status != production.status == production.plan.hold:
                await self._released[production.production_id].wait()
            await self._apply(production, moment)

    async def _apply(self, production: Production, moment: Moment) -> None:
        event_type = self.world.event_type(moment, production.status)
        self.world.advance(production, moment, datetime.now(UTC))
        if event_type == "deliverable.ready":
            await self._announce_deliverables(production)
        elif event_type:
            self._emit(production, event_type, _data(production, moment))
        for deliverable in production.deliverables:
            self.digests.begin(deliverable.content)

    async def _announce_deliverables(self, production: Production) -> None:
        listed = await self.listing(production)
        data = {"deliverables": listed[:MOST_IN_AN_EVENT]}
        self._emit(production, "deliverable.ready", data, truncated=len(listed) > MOST_IN_AN_EVENT)

    def _emit(
        self,
        production: Production,
        event_type: str,
        data: Mapping[str, object],
        truncated: bool = False,
    ) -> None:
        event = self.world.record(production, event_type, data, datetime.now(UTC), truncated)
        self.sender.announce(event)

    async def _listed(
        self, production: Production, deliverable: Deliverable, expires_at: datetime
    ) -> dict[str, object]:
        path = blob_path(production, deliverable)
        url = f"{self.public_url}{path}?{self.signer.query(path, expires_at)}"
        if self.settings.bare_deliverables:
            return {"type": deliverable.type, "sasUrl": url}
        return {
            "deliverableId": deliverable.deliverable_id,
            "type": deliverable.type,
            "fileName": deliverable.file_name,
            "contentType": deliverable.content_type,
            "sizeBytes": deliverable.content.size_bytes,
            "sasUrl": url,
            "expiresAt": iso(expires_at),
            **await self._checksum(deliverable),
        }

    async def _checksum(self, deliverable: Deliverable) -> dict[str, object]:
        if not deliverable.checksum:
            return {}
        if deliverable.checksum == "wrong":
            return {"sha256": "0" * 64}
        digests = await self.digests.of(deliverable.content)
        return {deliverable.checksum: (digests.md5 if deliverable.checksum == "md5" else digests.sha256).hex()}


def blob_path(production: Production, deliverable: Deliverable) -> str:
    return f"/blobs/{production.account_id}/{production.production_id}/{deliverable.blob_name}"


def has_deliverables(production: Production) -> bool:
    return production.status in WITH_DELIVERABLES


def _data(production: Production, moment: Moment) -> dict[str, object]:
    """An event's `data`: most of it is [open], so there is little in it."""
    if moment.event_type == "production.step.complete":
        return {"step": moment.step, "totalSteps": production.plan.steps}
    if moment.error is not None:
        return {"errorCode": moment.error[0], "errorMessage": moment.error[1]}
    return {}
