"""A production: all that is known of one, and what may follow from learning more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from service.core.deliverables import Deliverable, current_files
from service.core.events import STATUSES
from service.core.observations import MANIFEST, ManifestFound

# CONTRACT [docs]: the states in the order of a life, with those that are final and [seed] those that have files.
LIFE = STATUSES
TERMINAL = frozenset({"Published", "Failed", "Cancelled"})
FAILED = frozenset({"Failed", "Cancelled"})
WITH_FILES = frozenset({"AwaitingApproval", "Distributing", "Published"})
EXPIRED = "PRODUCTION_EXPIRED"
Source = Literal["webhook", "poll", "manifest"]


@dataclass(frozen=True)  # no slots: `changed` copies it as a whole
class Production:
    """All that is known of one production. Instants are aware UTC."""

    production_id: str
    created_at: datetime
    version: int = 0
    account_id: str | None = None
    status: str | None = None
    source: Source | None = None
    sandbox: bool = False
    error_code: str | None = None
    error_message: str | None = None
    expires_at: datetime | None = None
    updated_at: datetime | None = None
    # evidence: how new is what we know
    sequence: int = -1
    status_sequence: int = -1
    polled_as_of: datetime | None = None
    missing: tuple[tuple[int, int], ...] = ()
    excused_sequence: int = -1
    unknown_sequence: int = -1
    hole_at: datetime | None = None
    last_event_at: datetime | None = None
    longest_gap_seconds: float = 0.0  # between two of its events, with nothing missing between them, in this status
    # asking JARAI
    last_asked_at: datetime | None = None
    last_failed_at: datetime | None = None
    ask_failures: int = 0
    quiet_polls: int = 0
    refused: str | None = None
    buried_questions: tuple[str, ...] = ()
    refresh_wanted: bool = False
    status_at: datetime | None = None
    # triggering it again, should it expire
    trigger_body: str = ""  # as it was sent; only as long as it may be needed
    retries_left: int = 0
    retry_of: str | None = None  # the first of those that were triggered in its place
    retried_as: str | None = None
    retry_blocked: bool = False  # JARAI refused, or nobody knows: a person has to look
    retry_round: int = 0  # how often a person has looked, and had it tried once more
    retry_at: datetime | None = None
    # deliverables
    deliverables: tuple[Deliverable, ...] = ()
    folder: str | None = None
    list_wanted: bool = False
    ready_sequence: int = -1  # the newest event that told of a list without bringing it whole
    event_listed_sequence: int = -1  # the newest event that brought a list whole
    events_list_parts: bool = False  # such events have turned out not to list everything
    listed_sequence: int | None = None  # what JARAI's last answer with a list knew of
    listed_as_of: datetime | None = None
    list_excused_sequence: int = -1  # was before that answer, by JARAI's clock or its finality
    answered_as_of: datetime | None = None
    last_listed_at: datetime | None = None
    list_attempts: int = 0
    list_refused: str | None = None
    list_at: datetime | None = None
    remade_sequence: int | None = None  # from this event on it was made again, and has not been listed since
    manifest_revision: int = 0
    manifest_written: int = 0
    manifest_at: datetime | None = None
    settled: bool = False
    settled_as: str = ""  # the digest of its files when that was said last
    failure_told: str | None = None  # the status with which that was said last

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def phase(self) -> str | None:
        """Its status, but for one whose deliverables are ready: that is made, and waits. CONTRACT [seed]."""
        ready = max(self.ready_sequence, self.event_listed_sequence) > self.status_sequence
        return "AwaitingApproval" if ready and self.status in (None, "Queued", "Producing") else self.status

    @property
    def has_files(self) -> bool:
        """Whether JARAI can be asked for deliverables in this status. CONTRACT [seed]."""
        return self.status in WITH_FILES

    @property
    def asks_now(self) -> bool:
        """Whether a person, or an event of a type we don't know, wants JARAI asked for the status at once."""
        return self.refresh_wanted or (not self.terminal and self.unknown_sequence > self.excused_sequence)

    @property
    def is_to_be_retried(self) -> bool:
        """CONTRACT [docs]: what JARAI did not pick up in time can be triggered again at once."""
        expired = self.status == "Failed" and self.error_code == EXPIRED
        possible = self.trigger_body != "" and self.retries_left > 0 and self.retried_as is None
        return expired and possible and not self.retry_blocked

    @property
    def tells_much(self) -> bool:
        """Whether there is more than suspicion to ask about.

        That nothing is known yet, a wish, an unknown event, a list, a hole, an expiry, or that it is to be tried again.
        """
        nothing_known = self.status is None and self.last_asked_at is None
        expired = self.status_at is not None and self.expires_at is not None and self.status_at >= self.expires_at
        expires = self.status == "Queued" and expired
        waits = self.list_at is not None or self.hole_at is not None or self.retry_at is not None
        return self.asks_now or waits or expires or nothing_known

    @property
    def lacks_address(self) -> bool:
        return any(one.state == "wanted" and one.link_expires_at is None for one in self.deliverables)

    @property
    def asks_list_now(self) -> bool:
        """Whether an address is missing, or an event said that there is a list without bringing it whole."""
        answered = -1 if self.listed_sequence is None else self.listed_sequence
        return self.list_wanted or self.lacks_address or self.ready_sequence > answered

    @property
    def list_covers(self) -> int:
        """The sequence number up to which nothing about deliverables can have been missed; -1: never listed.

        CONTRACT [docs]: an event that is not truncated brings the list, so it covers what came before it.
        """
        answered = max(-1 if self.listed_sequence is None else self.listed_sequence, self.list_excused_sequence)
        return answered if self.events_list_parts else max(answered, self.event_listed_sequence)

    @property
    def needs_list(self) -> bool:
        """Whether the list is missing, lacks an address, or may have changed: in an event that was lost, or remade."""
        if self.asks_list_now:
            return True
        if not self.has_files:
            return False
        unlisted = self.listed_sequence is None and self.event_listed_sequence < 0
        return unlisted or self.remade_sequence is not None or any(last > self.list_covers for _, last in self.missing)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do but to write it down: final, listed, and every file stored."""
        refused = self.list_refused is not None and self.status != "Published"
        if not self.terminal or (self.needs_list and not refused):
            return False
        return all(one.state == "stored" for one in self.deliverables)

    def predecessor(self, one: Deliverable) -> Deliverable | None:
        """The newest stored version that is older than this one."""
        family = (each for each in self.deliverables if each.first == one.first and each.version < one.version)
        return max((each for each in family if each.state == "stored"), key=lambda each: each.version, default=None)

    @property
    def small_downloads(self) -> frozenset[str]:
        """Those that are fetched in next to no time, and that no larger one keeps waiting."""
        return frozenset((MANIFEST, *(one.key for one in self.deliverables if one.small)))

    @property
    def files_digest(self) -> str:
        """Stands for the files that lie there, by their names and bytes."""
        current = current_files(self.deliverables)
        files = sorted(f"{one.file} {one.sha256}" for one in self.deliverables if one.key in current)
        return hashlib.blake2b("\n".join(files).encode(), digest_size=8).hexdigest()

    @property
    def due_to_ask_at(self) -> datetime | None:
        """When the poller has to look at this production next."""
        return min((at for at in (self.status_at, self.list_at, self.retry_at) if at is not None), default=None)

    @property
    def due_downloads(self) -> dict[str, datetime]:
        """The key of each file that is to be fetched (and of the manifest that is to be written), with its time."""
        due = {one.key: one.next_at for one in self.deliverables if one.next_at is not None}
        return due if self.manifest_at is None else {**due, MANIFEST: self.manifest_at}


_NAMES = frozenset(field.name for field in fields(Production))


def changed(production: Production, **values: Any) -> Production:
    """As `dataclasses.replace`, at a tenth of its price: it is called ten times for each observation."""
    if not values.keys() <= _NAMES:
        raise TypeError(f"a production has no {sorted(values.keys() - _NAMES)}")
    copy = object.__new__(Production)
    vars(copy).update(vars(production), **values)
    return copy


# The name of everything that `advance` can tell, of what its commit adds, and of what becomes of its notices: for the
# metrics.
FACTS = (
    "production.status_changed",
    "production.settled",
    "production.rebuilt",
    "production.retried",
    "poll.recovered",
    "deliverables.listed",
    "deliverable.stored",
    "deliverable.retrying",
    "deliverable.compared",
    "deliverable.damaged",
    "manifest.failed",
    "notice.delivered",
    "notice.retrying",
    "deadletter.added",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, for the log and the metrics. `name` is in the log's catalogue."""

    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """What other systems are told without having asked. The same fact has the same `id`, however often it is told."""

    id: str
    type: Literal["production.settled", "production.failed"]
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Work that was given up. `key` makes it the same dead letter when it happens again.

    A question that JARAI refused to answer is resolved, and forgotten, when JARAI answers it after all.
    """

    kind: Literal["deliverable", "question"]
    key: str
    reason: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A deliverable's address: a secret, kept apart from everything else and only as long as it is valid."""

    key: str
    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """What follows from the observations, to be committed in one step.

    A timeline entry that is an int stands for the event of that sequence number. `replaces_last`: the first entry
    takes the place of the timeline's last one (polls that tell nothing new are counted, not listed). `worked_on`: the
    files that were reported on, and are due again if that changed nothing.
    """

    production: Production
    timeline: tuple[Mapping[str, Any] | int, ...] = ()
    replaces_last: bool = False
    links: tuple[Link, ...] = ()
    facts: tuple[Fact, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    resolved: tuple[str, ...] = ()
    worked_on: frozenset[str] = frozenset()
    notices: tuple[Notice, ...] = ()


def adoptable(production: Production, found: ManifestFound) -> tuple[Deliverable, ...]:
    """The files of a manifest that this production does not know to be stored, and that nothing speaks against."""
    known = {one.key: one for one in production.deliverables}

    def fits(one: Deliverable, mine: Deliverable | None) -> bool:
        if mine is None:
            return True
        said = ((mine.bytes, one.bytes), (mine.sha256, one.sha256), (mine.file, one.file))
        return mine.state != "stored" and all(announced in (None, is_) for announced, is_ in said)

    adopted = []
    for one in found.deliverables:
        mine = known.get(one.key)
        if fits(one, mine):
            adopted.append(one if mine is None else replace(one, place=mine.place, listed_at=mine.listed_at))
    return tuple(adopted)


_JSON: TypeAdapter[Production] = TypeAdapter(Production)


def to_json(production: Production) -> bytes:
    """The state as it is kept; fields that say nothing are left out."""
    return _JSON.dump_json(production, exclude_defaults=True)


def from_json(data: bytes) -> Production:
    """The state as it was kept, also by an older version that had fewer fields."""
    return _JSON.validate_json(data)
