"""What is true at the simulated JARAI: accounts, productions, events, files. No clock, no network here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from random import Random

from workers.simulator.contents import EXTENSIONS, OTHER, Content
from workers.simulator.plans import TERMINAL, DeliverablePlan, Moment, Plan
from workers.simulator.settings import Settings

NIL = str(uuid.UUID(int=0))
UNKNOWN_EVENT = "simulated.status_changed"
_CONTENT_TYPES = dict(EXTENSIONS.values())
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def iso(instant: datetime, timespec: str = "milliseconds") -> str:
    return instant.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Account:
    account_id: str
    avatar_id: str


@dataclass(frozen=True, slots=True)
class Deliverable:
    """`blob_name` is the last part of its address; `file_name` may be anything."""

    deliverable_id: str
    type: str
    file_name: str
    blob_name: str
    content_type: str
    content: Content
    checksum: str
    version: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; a subscription gets it under an `eventId` of its own."""

    event_type: str
    production_id: str
    account_id: str
    timestamp: datetime
    sequence_number: int
    correlation_id: str
    data: Mapping[str, object]
    truncated: bool = False


@dataclass(slots=True)
class Production:
    production_id: str
    account_id: str
    plan: Plan
    expires_at: datetime
    topic: str = ""
    status: str = "Queued"
    error: tuple[str, str] | None = None
    terminal_at: datetime | None = None
    deliverables: list[Deliverable] = field(default_factory=list)
    replaced: list[Deliverable] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


class World:
    """All productions. The same seed and the same order of creation give the same ids and the same files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dice = Random(settings.seed)
        self.partner_id = self._new_id()
        self.accounts = tuple(Account(self._new_id(), self._new_id()) for _ in range(2))
        self.productions: dict[str, Production] = {}
        self.outside = Production(NIL, NIL, Plan(), datetime.fromtimestamp(0, UTC))  # holds webhook.test

    def create(self, plan: Plan, account_id: str, now: datetime, topic: str = "") -> Production:
        waits = plan.phase_seconds if plan.outcome == "Expired" else self._settings.queue_seconds
        expires_at = now + timedelta(seconds=waits)
        production = Production(self._new_id(), account_id or self.accounts[0].account_id, plan, expires_at, topic)
        self.productions[production.production_id] = production
        return production

    def advance(self, production: Production, moment: Moment, now: datetime) -> None:
        """Take the status, error and files of this moment; its event is recorded by the caller."""
        production.status, production.error = moment.status, moment.error
        if production.is_terminal and production.terminal_at is None:
            production.terminal_at = now
        if moment.status == "AwaitingApproval" and not production.deliverables:
            for number, wanted in enumerate(production.plan.deliverables, start=1):
                production.deliverables.append(self._deliverable(production, wanted, number, now))

    def event_type(self, moment: Moment, before: str) -> str:
        """The moment's event type; "" when it is a change of status that is not announced."""
        if moment.event_type or moment.status == before:
            return moment.event_type
        return UNKNOWN_EVENT if moment.status in self._settings.unknown_events else ""

    def record(
        self,
        production: Production,
        event_type: str,
        data: Mapping[str, object],
        now: datetime,
        truncated: bool = False,
    ) -> Event:
        number = len(production.events) + 1
        event = Event(
            event_type,
            production.production_id,
            production.account_id,
            now,
            number,
            f"sim-{production.production_id[:8]}-{number}",
            data,
            truncated,
        )
        production.events.append(event)
        return event

    def replace(self, production: Production, deliverable_id: str, size_bytes: int | None, now: datetime) -> None:
        """List a deliverable (without an id the first) again with new content at its old address; KeyError."""
        found = [d for d in production.deliverables if deliverable_id in ("", d.deliverable_id)]
        if not found:
            raise KeyError(deliverable_id)
        old = found[0]
        version = old.version + 1
        size = old.content.size_bytes if size_bytes is None else size_bytes
        new = Deliverable(
            old.deliverable_id,
            old.type,
            old.file_name,
            old.blob_name,
            old.content_type,
            Content(self._content_key(production, old.deliverable_id, version), size, old.content.kind),
            old.checksum,
            version,
            now,
        )
        production.replaced.append(old)
        production.deliverables[production.deliverables.index(old)] = new

    def _deliverable(self, production: Production, wanted: DeliverablePlan, number: int, now: datetime) -> Deliverable:
        kind = PurePosixPath(wanted.file_name).suffix[1:].lower()
        if kind not in _CONTENT_TYPES:
            kind = EXTENSIONS.get(wanted.type, OTHER)[0]
        file_name = wanted.file_name or f"{wanted.type.lower()}-{number}.{kind}"
        taken = {deliverable.blob_name for deliverable in production.deliverables}
        plain = _PLAIN_NAME.fullmatch(file_name) and file_name not in taken
        deliverable_id = str(uuid.uuid5(uuid.UUID(production.production_id), str(number)))
        return Deliverable(
            deliverable_id,
            wanted.type,
            file_name,
            file_name if plain else f"{number:04}.{kind}",
            _CONTENT_TYPES.get(kind, OTHER[1]),
            Content(self._content_key(production, deliverable_id, 1), wanted.size_bytes, kind),
            wanted.checksum,
            1,
            now,
        )

    def _content_key(self, production: Production, deliverable_id: str, version: int) -> str:
        return f"{self._settings.seed}:{production.production_id}:{deliverable_id}:{version}"

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
