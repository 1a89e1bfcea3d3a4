"""`advance`: the only thing that moves a production forward.

JARAI is the authority, so no transition is illegal: newer evidence wins and a terminal status stays. What is newer is
told by JARAI's own sequence numbers and clock, never by ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from service.core import listing, notices, retry
from service.core.deliverables import Deliverable, Listed, newest_versions, next_version, read_list
from service.core.events import DELIVERABLE_READY, KNOWN_TYPES, LARGEST, Event, parse_instant
from service.core.evidence import told_by_then, without, without_future
from service.core.experience import Experience
from service.core.observations import (
    MANIFEST,
    AskFailed,
    DeliverablesAnswered,
    DownloadFailed,
    DownloadSame,
    DownloadStored,
    EventArrived,
    FileDamaged,
    ManifestFound,
    ManifestWritten,
    Observation,
    OperatorAsked,
    Retriggered,
    StatusAnswered,
    result_of,
)
from service.core.production import (
    FAILED,
    TERMINAL,
    WITH_FILES,
    Change,
    DeadLetter,
    Fact,
    Link,
    Notice,
    Production,
    Source,
    adoptable,
    changed,
)
from service.core.redaction import redact
from service.core.schedule import Intervals, next_list_at, next_retry_at, next_status_at

_MOST_HOLES = 100
RETRY = "retry"  # the key of the question whether what has expired can be triggered again


def advance(before: Production, observations: Iterable[Observation], now: datetime, intervals: Intervals) -> Change:
    """Take in what was observed, in the order of its arrival. Total: no observation makes it raise.

    Taking in the same event, answer or result twice changes nothing the second time.
    """
    step = _Step(without_future(before, now), intervals.experience)
    for observation in observations:
        step.take_in(observation, now)
    return step.close(now, intervals)


@dataclass(slots=True)
class _Step:
    """One call of `advance`, while it is being put together."""

    p: Production
    experience: Experience
    timeline: list[Mapping[str, Any] | int] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    worked_on: set[str] = field(default_factory=set)
    replaces_last: bool = False
    notices: list[Notice] = field(default_factory=list)
    told_complete: bool = field(init=False)
    status_before: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.told_complete, self.status_before = self.p.complete, self.p.status

    def take_in(self, observation: Observation, now: datetime) -> None:
        if key := result_of(observation):
            self.worked_on.add(key)
        match observation:
            case EventArrived():
                self._event(observation.event, observation.received_at, observation.replayed)
            case StatusAnswered():
                self._status_answer(observation)
            case DeliverablesAnswered():
                self._list_answer(observation)
            case AskFailed():
                self._ask_failed(observation)
            case DownloadStored():
                self._stored(observation)
            case DownloadSame():
                self._same(observation)
            case FileDamaged():
                self._damaged(observation)
            case DownloadFailed():
                self._download_failed(observation, now)
            case ManifestWritten():
                self._set(manifest_written=max(self.p.manifest_written, observation.revision), manifest_at=None)
            case ManifestFound():
                self._manifest_found(observation)
            case Retriggered():
                self._set(retried_as=observation.started_id, ask_failures=0)
                self._say("production.retried", at=observation.at, retried_as=observation.started_id)
            case _:
                self._operator(observation)

    def close(self, now: datetime, intervals: Intervals) -> Change:
        self._plan_downloads(now)
        if self.p.manifest_revision and self.p.complete != self.told_complete:
            self._set(manifest_revision=self.p.manifest_revision + 1)  # the manifest says which of the two it is
        self._plan_manifest(now)
        self._set(
            status_at=next_status_at(self.p, now, intervals),
            list_at=next_list_at(self.p, now, intervals),
            retry_at=next_retry_at(self.p, now),
        )
        settled = self.p.complete and self.p.manifest_written == self.p.manifest_revision
        # A late event may open a hole, and the list be asked for once more: without another file that is no news.
        if settled and self.p.settled_as != self.p.files_digest:
            self._set(settled_as=self.p.files_digest)
            self._say(
                "production.settled",
                at=now,
                status=self.p.status,
                files=len(self.p.deliverables),
                bytes=sum(one.bytes or 0 for one in self.p.deliverables),
            )
            if self.p.status == "Published":
                self.notices.append(notices.settled(self.p, now))
        self._notice_failure(now)
        if self.p.terminal and not (self.p.is_to_be_retried or self.p.retry_blocked or self.p.asks_now):
            self._set(trigger_body="")
        self._set(settled=settled, version=self.p.version + 1)
        return Change(
            production=self.p,
            timeline=tuple(self.timeline),
            replaces_last=self.replaces_last,
            links=tuple(self.links),
            facts=tuple(self.facts),
            dead_letters=tuple(self.dead_letters),
            resolved=tuple(self.resolved),
            worked_on=frozenset(self.worked_on),
            notices=tuple(self.notices),
        )

    def _notice_failure(self, now: datetime) -> None:
        """Told once for each way to fail: events that are taken in again, in steps of their own, end in the same."""
        status = self.p.status
        if status in FAILED and status not in (self.status_before, self.p.failure_told):
            self._set(failure_told=status)
            self.notices.append(notices.failed(self.p, self.p.updated_at or now))

    # --- what JARAI says -------------------------------------------------------------------------------------

    def _event(self, event: Event, received_at: datetime, replayed: bool) -> None:
        p = self.p
        if p.last_event_at is not None and event.sequence_number == p.sequence + 1:
            gap_seconds = round((received_at - p.last_event_at).total_seconds(), 1)
            self._set(longest_gap_seconds=max(p.longest_gap_seconds, gap_seconds))
        self._set(
            account_id=p.account_id or str(event.account_id),
            last_event_at=max(p.last_event_at or received_at, received_at),
            sandbox=p.sandbox or event.is_sandbox,
            refused=None,
        )
        if not replayed:
            self._record(event.sequence_number)
        self._excuse(event)
        if self.experience.always_missing_before(event.event_type):
            self._excuse_before(event)
        self._count(event.sequence_number, received_at)
        self._event_status(event, received_at)
        if event.event_type == "production.queued":
            self._set(expires_at=_instant(event.data, "expiresAt"))
        listed = read_list(event.data, event.timestamp)
        if event.event_type == DELIVERABLE_READY:
            self._ready(event, {one.key for one in listed})
        if listed and not replayed:  # the archive keeps addresses without what opens them
            whole = {one.first for one in p.deliverables} <= {one.key for one in listed} and not event.truncated
            self._list(listed, received_at, event.timestamp, event.sequence_number, whole)
        if event.event_type not in KNOWN_TYPES:  # CONTRACT: answered by asking for the status
            self._set(unknown_sequence=max(p.unknown_sequence, event.sequence_number))

    def _ready(self, event: Event, keys: set[str]) -> None:
        if not keys or event.truncated:  # its list has to be asked for, by a question that knows of it
            self._set(ready_sequence=max(self.p.ready_sequence, event.sequence_number), list_refused=None)
            return
        parts = self.p.events_list_parts or any(one.key not in keys for one in self.p.deliverables)
        covers = max(self.p.event_listed_sequence, event.sequence_number)
        self._set(event_listed_sequence=covers, events_list_parts=parts, list_refused=None)

    def _count(self, number: int, at: datetime) -> None:
        """Keep account of the sequence numbers that have not been seen: CONTRACT [docs] they count without holes."""
        p = self.p
        missing = p.missing
        if number > p.sequence:
            first = p.sequence + 1 if p.sequence >= 0 else 1  # numbering starts at 0 or 1 [open]
            if number > first:
                missing = (*missing, (first, number - 1))[-_MOST_HOLES:]
        else:
            missing = tuple(without(missing, number))
        self._set(sequence=max(p.sequence, number), missing=missing)
        self._look_for_holes(at)

    def _excuse(self, event: Event) -> None:
        """What happened before JARAI last answered, that answer knew: a hole below it need not be asked for again."""
        p, number = self.p, event.sequence_number
        if p.answered_as_of is not None and event.timestamp < p.answered_as_of:
            self._set(excused_sequence=max(p.excused_sequence, number))
        if p.listed_as_of is not None and event.timestamp < p.listed_as_of:
            self._set(list_excused_sequence=max(p.list_excused_sequence, number))

    def _excuse_before(self, event: Event) -> None:
        """The subscription lacks an event type: something is missing before each such event.

        The status needs not be asked for; the list neither, where exactly as much is missing as always is.
        """
        before = event.sequence_number - 1
        self._set(excused_sequence=max(self.p.excused_sequence, before))
        if self.experience.is_always_so(event.event_type, before - max(self.p.sequence, 0)):
            self._set(list_excused_sequence=max(self.p.list_excused_sequence, before))

    def _look_for_holes(self, at: datetime) -> None:
        hole = any(last > self.p.excused_sequence for _, last in self.p.missing)
        self._set(hole_at=(self.p.hole_at or at) if hole else None)

    def _event_status(self, event: Event, at: datetime) -> None:
        p = self.p
        if event.status is None or p.terminal:
            return
        if event.status not in TERMINAL:
            if event.sequence_number <= p.status_sequence:
                return
            if p.polled_as_of is not None and told_by_then(event, p.polled_as_of, p.status):
                return
        self._become(event.status, "webhook", at, event)
        self._set(status_sequence=max(event.sequence_number, self.p.status_sequence), polled_as_of=None)
        if event.status == "Failed":
            data = event.data or {}
            self._set(error_code=_safe(data.get("errorCode")), error_message=_safe(data.get("errorMessage")))
            if self.p.error_code is None and self.p.retries_left:  # whether it has expired is not told
                self._set(refresh_wanted=True)

    def _status_answer(self, answer: StatusAnswered) -> None:
        p = self.p
        self._set(
            account_id=p.account_id or answer.account_id,
            sandbox=p.sandbox or answer.sandbox,
            last_asked_at=max(p.last_asked_at or answer.at, answer.at),
            excused_sequence=max(p.excused_sequence, answer.knew_sequence),
            answered_as_of=max(p.answered_as_of or answer.as_of, answer.as_of),
            refresh_wanted=False,
            refused=None,
            ask_failures=0,
        )
        self._look_for_holes(answer.at)
        self._resolve("status")
        older = answer.at < (p.last_asked_at or answer.at)  # asked before one that has been taken in
        overtaken = answer.status not in TERMINAL and (older or p.status_sequence > answer.knew_sequence)
        news = answer.status != p.status and not p.terminal and not overtaken
        self._poll_entry(answer, news)
        if overtaken or (p.terminal and (answer.status != p.status or p.error_code)):
            return
        self._become(answer.status, "poll", answer.at, answer)
        self._set(
            status_sequence=max(p.status_sequence, answer.knew_sequence),
            polled_as_of=answer.as_of,
            expires_at=answer.expires_at or p.expires_at,
            error_code=_safe(answer.error_code),
            error_message=_safe(answer.error_message) or (p.error_message if p.terminal else None),
        )

    def _poll_entry(self, answer: StatusAnswered, news: bool) -> None:
        """Polls in a row that told nothing new share one timeline entry that counts them."""
        quiet = 0 if news else self.p.quiet_polls + 1
        if quiet > 1 and self.timeline:
            self.timeline.pop()
        elif quiet > 1:
            self.replaces_last = True
        times = {"times": quiet} if quiet > 1 else {}
        self._record({"at": answer.at, "kind": "poll", "status": answer.status, **times})
        self._set(quiet_polls=quiet)

    def _become(self, status: str, source: Source, at: datetime, told_by: Event | StatusAnswered) -> None:
        before = self.p.status
        self._set(status=status, source=source)
        if status == before:
            return
        self._set(updated_at=at, longest_gap_seconds=0.0)
        if status in WITH_FILES:  # what was refused before may be granted now
            self._set(list_refused=None, list_attempts=0)
        elif before in WITH_FILES and status not in TERMINAL:
            self._set(remade_sequence=told_by.sequence_number if isinstance(told_by, Event) else told_by.knew_sequence)
        if self.p.manifest_revision:
            self._set(manifest_revision=self.p.manifest_revision + 1)
        self._record({"at": at, "kind": "status", "from": before, "to": status, "source": source})
        fields: dict[str, Any] = {"correlation_id": told_by.correlation_id}
        if isinstance(told_by, Event):
            fields |= {
                "event_id": str(told_by.event_id),
                "event_type": told_by.event_type,
                "sequence_number": told_by.sequence_number,
            }
        self._fact("production.status_changed", from_status=before, to_status=status, source=source, **fields)
        if source == "poll":
            self._fact("poll.recovered", from_status=before, to_status=status, **fields)

    def _list_answer(self, answer: DeliverablesAnswered) -> None:
        as_of = answer.as_of or answer.at
        listed = [replace(one, link_expires_at=one.link_expires_at + (answer.at - as_of)) for one in answer.listed]
        self._set(
            listed_sequence=max(self.p.listed_sequence or 0, answer.knew_sequence),
            list_excused_sequence=LARGEST if answer.knew_terminal else self.p.list_excused_sequence,
            listed_as_of=max(self.p.listed_as_of or as_of, as_of),
            last_listed_at=answer.at,
            sandbox=self.p.sandbox or answer.sandbox,
            list_wanted=False,
            list_refused=None,
        )
        self._resolve("list")
        told_sequence = answer.knew_sequence if answer.knew_sequence >= self.p.status_sequence else -2
        self._list(listed, answer.at, as_of, told_sequence, whole=True)
        self._record({"at": answer.at, "kind": "deliverables", "listed": len(answer.listed)})
        self._fact("deliverables.listed", listed=len(answer.listed), correlation_id=answer.correlation_id)
        empty = not self.p.deliverables
        self._set(list_attempts=self.p.list_attempts + 1 if empty or self.p.lacks_address else 0)
        if empty and (not self.p.terminal or self.p.list_attempts < retry.MOST_EMPTY_LISTS):
            self._set(list_wanted=True)  # the files may not be listed yet
        if self.p.list_attempts >= retry.MOST_LIST_ATTEMPTS:
            self._give_up_unlisted("JARAI no longer lists it", answer.at)

    def _list(self, listed: Sequence[Listed], at: datetime, told_at: datetime, told_sequence: int, whole: bool) -> None:
        """`told_sequence`: whoever made the list knew of this event. `whole`: it lists everything that there is."""
        p = self.p
        remade = p.remade_sequence is not None and p.has_files and told_sequence >= p.remade_sequence
        outcome = listing.take_in(self.p.deliverables, listed, told_at, remade=remade)
        for one in outcome.news:
            version = {"version": one.version} if one.version > 1 else {}
            self._record({"at": at, "kind": "listed", "id": one.id, "type": one.type, **version})
        self.links += outcome.links
        self._set(deliverables=outcome.deliverables, remade_sequence=None if remade and whole else p.remade_sequence)
        if outcome.deliverables:
            self._open_folder()

    def _ask_failed(self, failure: AskFailed) -> None:
        p = self.p
        self._record(
            {
                "at": failure.at,
                "kind": "ask_failed",
                "question": failure.question,
                "code": failure.code,
                "message": failure.message,
            }
        )
        if failure.question == "trigger" and failure.final:
            self._set(retry_blocked=True)
            self._bury_question(RETRY, f"It has expired and is not triggered again: {failure.message}", failure)
            return
        if not failure.final:
            if failure.question != "deliverables":
                self._set(ask_failures=p.ask_failures + 1, last_failed_at=failure.at)
            else:
                self._set(list_attempts=p.list_attempts + 1, last_listed_at=failure.at)
            return
        if failure.question == "status":
            self._set(refused=failure.message, refresh_wanted=False)
            self._bury_question("status", f"JARAI refuses to tell the status: {failure.message}", failure)
        elif p.terminal or p.list_attempts + 1 >= retry.MOST_LIST_ATTEMPTS:
            self._set(list_refused=failure.message, list_wanted=False)
            self._give_up_unlisted(f"JARAI refuses to list it: {failure.message}", failure.at)
            if p.status == "Published":
                self._bury_question("list", f"JARAI refuses to list the deliverables: {failure.message}", failure)
        else:  # the status may not be what it was: ask for it, and for the list again later
            self._set(refresh_wanted=True, list_attempts=p.list_attempts + 1, last_listed_at=failure.at)

    # --- what our own hands report ---------------------------------------------------------------------------

    def _stored(self, result: DownloadStored) -> None:
        deliverable = self._find(result.key)
        if deliverable is None or deliverable.state == "stored":
            return
        changed = listing.has_changed(result, deliverable)
        stored = replace(
            deliverable,
            state="stored",
            bytes=result.bytes,
            sha256=result.sha256,
            md5=result.md5 or (None if changed else deliverable.md5),
            etag=result.etag,
            stored_at=result.at,
            link_expires_at=None,
            next_at=None,
            error=None,
            compare="",
            listed_at=result.listed_at or deliverable.listed_at,
            place=result.place or deliverable.place,
        )
        self._put(stored)
        if changed:
            self._set(deliverables=(*self.p.deliverables, next_version(stored, "head")))
        self._set(manifest_revision=self.p.manifest_revision + 1)
        self._say(
            "deliverable.stored",
            at=result.at,
            deliverable_id=deliverable.id,
            type=deliverable.type,
            file=deliverable.file,
            bytes=result.bytes,
            sha256=result.sha256,
            seconds=round(result.seconds, 3),
            version=deliverable.version if deliverable.version > 1 else None,
        )

    def _same(self, result: DownloadSame) -> None:
        """What was fetched, or looked at, only to be compared leaves nothing but what is known of its place now."""
        looked_at = self._find(result.key)
        kept = None if looked_at is None else self.p.predecessor(looked_at)
        if looked_at is None or kept is None or looked_at.state != "wanted":
            return
        place = looked_at.place or kept.place
        etag = result.etag or (kept.etag if place == kept.place else None)
        self._put(replace(kept, place=place, listed_at=looked_at.listed_at, etag=etag))
        self._drop(looked_at, at=result.at, outcome="repaired" if result.repaired else "same")

    def _damaged(self, found: FileDamaged) -> None:
        """A file is fetched again; an older version can't be: JARAI lists another by now."""
        if found.key == MANIFEST:
            self._set(manifest_revision=self.p.manifest_revision + 1)
            self._say("deliverable.damaged", at=found.at, type="manifest", problem=found.problem)
            return
        one = self._find(found.key)
        if one is None or one.state != "stored":
            return
        newest = newest_versions(self.p.deliverables)[one.first]
        fields = {"deliverable_id": one.id, "type": one.type, "file": one.file, "problem": found.problem}
        if newest.key == one.key:
            lost = replace(one, state="wanted", stored_at=None, etag=None, error=found.problem)
            self._put(replace(lost, attempts=0, corrupted=0, expired=0))
            self._set(list_attempts=0, list_refused=None)
        else:
            self._set(deliverables=tuple(each for each in self.p.deliverables if each.key != one.key))
        self._set(manifest_revision=self.p.manifest_revision + 1)
        self._say("deliverable.damaged", at=found.at, **fields, fetched_again=newest.key == one.key)

    def _drop(self, one: Deliverable, at: datetime, outcome: str) -> None:
        """A version that there was no need for: it is forgotten, as if it had never been listed."""
        self._set(deliverables=tuple(each for each in self.p.deliverables if each.key != one.key))
        self._say("deliverable.compared", at=at, deliverable_id=one.id, type=one.type, outcome=outcome)

    def _download_failed(self, result: DownloadFailed, now: datetime) -> None:
        if result.key == MANIFEST:
            blameless = result.failure in ("storage", "stopped")  # the first is said for all files together
            if not blameless:
                self._fact("manifest.failed", failure=result.failure, error=result.message)
            pause = retry.after_download_failure(result.failure if blameless else "storage", 0, 0, MANIFEST)
            self._set(manifest_at=now + (pause or timedelta(0)))
            return
        deliverable = self._find(result.key)
        if deliverable is None or deliverable.state != "wanted":
            return
        counted = result.failure not in ("storage", "stopped")
        fresh_start = result.progressed and result.failure in ("transfer", "expired")
        attempts = 1 if fresh_start else deliverable.attempts + counted
        corrupted = deliverable.corrupted + (result.failure in ("corrupt", "unsound"))
        expired = (0 if fresh_start else deliverable.expired) + (result.failure == "expired")
        alike = {"corrupt": corrupted, "unsound": corrupted, "expired": expired}.get(result.failure, attempts)
        pause = retry.after_download_failure(result.failure, attempts, alike, f"{self.p.production_id}{result.key}")
        before = deliverable.error
        deliverable = replace(
            deliverable, attempts=attempts, corrupted=corrupted, expired=expired, error=result.message
        )
        fields = {"deliverable_id": deliverable.id, "type": deliverable.type, "failure": result.failure}
        if pause is None:
            self._put(replace(deliverable, state="failed", next_at=None, link_expires_at=None))
            kept = {"kept": result.kept} if result.kept else {}
            self._bury(result.key, f"{deliverable.type}: {result.message}", **fields, **kept)
            return
        again = result.failure == "storage" and result.message == before  # one line for one trouble
        # Another file's failure may have brought fresh addresses while this one was being tried.
        refreshed = result.link_expires_at not in (None, deliverable.link_expires_at)
        if result.failure == "expired" and not refreshed:
            deliverable = replace(deliverable, link_expires_at=None, next_at=None)
            self._set(list_attempts=max(self.p.list_attempts, expired - 1), list_refused=None)
        else:
            deliverable = replace(deliverable, next_at=now + pause)
        self._put(deliverable)
        if result.failure == "stopped" or again:
            return
        self._say(
            "deliverable.retrying",
            at=result.at,
            **fields,
            error=result.message,
            attempts=attempts,
            next_at=deliverable.next_at,
        )

    def _operator(self, asked: OperatorAsked) -> None:
        triggered = {"triggered": True} if asked.triggered else {}
        self._record({"at": asked.at, "kind": "operator", "wish": asked.wish, **triggered})
        self._set(account_id=self.p.account_id or asked.account_id, refused=None, ask_failures=0)
        if asked.wish in ("refresh", "replay"):
            self._set(refresh_wanted=True)
        if asked.wish == "track":
            self._set(
                trigger_body=asked.body or self.p.trigger_body,
                retries_left=max(asked.retries_left, self.p.retries_left),
                retry_of=asked.retry_of or self.p.retry_of,
            )
        if asked.wish == "retry" and asked.key == RETRY and self.p.retry_blocked:
            self._set(retry_blocked=False, retry_round=self.p.retry_round + 1)
            self._resolve(RETRY)
        if asked.wish == "replay":
            self._forget_events()
        if asked.wish not in ("retry", "redownload"):
            return
        self._set(list_attempts=0, list_refused=None)
        chosen = newest_versions(self.p.deliverables).values() if asked.wish == "redownload" else self.p.deliverables
        every = {one.key: one for one in self.p.deliverables}
        for one in chosen:
            if (asked.wish == "redownload" or one.state == "failed") and asked.key in ("", one.key):
                again = listing.fetch_again(one)
                every[again.key] = again
        self._set(deliverables=tuple(every.values()))

    def _forget_events(self) -> None:
        """What was made of the events; they follow once more, and then JARAI is asked."""
        self._set(
            status=None,
            source=None,
            error_code=None,
            error_message=None,
            sequence=-1,
            status_sequence=-1,
            polled_as_of=None,
            answered_as_of=None,
            missing=(),
            excused_sequence=-1,
            unknown_sequence=-1,
            hole_at=None,
        )

    def _manifest_found(self, found: ManifestFound) -> None:
        """What is known already stays; a production that is not final by its manifest is asked about."""
        p = self.p
        new = adoptable(p, found)
        keys = {one.key for one in new}
        if p.status is not None and not new:
            return
        self._say("production.rebuilt", at=found.at, status=found.status, files=len(new))
        self._set(
            account_id=p.account_id or found.account_id,
            folder=p.folder or found.folder,
            sandbox=p.sandbox or found.sandbox,
            deliverables=(*(one for one in p.deliverables if one.key not in keys), *new),
            manifest_revision=p.manifest_revision + 1,
            manifest_at=None,
        )
        if p.status is None and found.settled and found.status in TERMINAL:
            self._set(
                status=found.status,
                source="manifest",
                updated_at=found.at,
                listed_sequence=-1,
                list_excused_sequence=LARGEST,
            )
        elif p.status is None:
            self._set(refresh_wanted=True)

    # --- what has to be done next ----------------------------------------------------------------------------

    def _plan_downloads(self, now: datetime) -> None:
        ready = {
            one.key: replace(one, next_at=now)
            for one in self.p.deliverables
            if one.state == "wanted" and one.link_expires_at is not None and one.next_at is None
        }
        if ready:
            self._set(deliverables=tuple(ready.get(one.key, one) for one in self.p.deliverables))

    def _plan_manifest(self, now: datetime) -> None:
        """The manifest is due when it lags behind; one that is due already covers the next change too.

        It is begun as soon as the folder is known: were Redis lost, it is what a production is known by.
        """
        if self.p.account_id is not None and self.p.manifest_revision == 0:
            self._open_folder()
            self._set(manifest_revision=1)
        if self.p.manifest_written < self.p.manifest_revision and self.p.manifest_at is None:
            self._set(manifest_at=now)

    def _open_folder(self) -> None:
        """Once it has a name it keeps that."""
        account = self.p.account_id or "unknown-account"
        self._set(folder=self.p.folder or f"{account}/{self.p.production_id}")

    # --- small things ----------------------------------------------------------------------------------------

    def _record(self, entry: Mapping[str, Any] | int) -> None:
        self.timeline.append(entry)
        self._set(quiet_polls=0)

    def _set(self, **fields: Any) -> None:
        self.p = changed(self.p, **fields)

    def _find(self, key: str) -> Deliverable | None:
        return next((one for one in self.p.deliverables if one.key == key), None)

    def _put(self, deliverable: Deliverable) -> None:
        self._set(deliverables=tuple(deliverable if one.key == deliverable.key else one for one in self.p.deliverables))

    def _fact(self, name: str, **fields: Any) -> None:
        self.facts.append(Fact(name, {key: value for key, value in fields.items() if value is not None}))

    def _say(self, name: str, at: datetime, **fields: Any) -> None:
        """Both in the log and in the timeline."""
        self._fact(name, **fields)
        self._record({"at": at, "kind": name, **fields})

    def _bury(self, key: str, reason: str, **fields: Any) -> None:
        self.dead_letters.append(DeadLetter("deliverable", key, reason, fields))

    def _bury_question(self, key: str, reason: str, failure: AskFailed) -> None:
        fields = {"code": failure.code, "correlation_id": failure.correlation_id}
        self.dead_letters.append(DeadLetter("question", key, reason, fields))
        self._set(buried_questions=(*self.p.buried_questions, key))

    def _resolve(self, key: str) -> None:
        if key in self.p.buried_questions:
            self.resolved.append(key)
            self._set(buried_questions=tuple(one for one in self.p.buried_questions if one != key))

    def _give_up_unlisted(self, reason: str, at: datetime) -> None:
        """What has no address and gets none any more; a version that never came leaves the one before in its place."""
        missing = [one for one in self.p.deliverables if one.state == "wanted" and one.link_expires_at is None]
        for one in missing:
            if self.p.predecessor(one) is not None:
                self._drop(one, at=at, outcome=reason)
                continue
            self._put(replace(one, state="failed", next_at=None, error=reason))
            self._bury(one.key, f"{one.type}: {reason}", deliverable_id=one.id, type=one.type)
        self._set(list_attempts=0)


def _safe(text: object) -> str | None:
    """What JARAI says of an error, as it may be kept and shown."""
    return redact(text[:2000]) if isinstance(text, str) else None


def _instant(data: Mapping[str, Any] | None, name: str) -> datetime | None:
    try:
        return parse_instant((data or {}).get(name))
    except ValueError:
        return None
