"""What a production is waiting for, and where each thing that is known of it came from: sentences for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.core.deliverables import Deliverable
from service.core.production import Production
from service.core.schedule import due_question
from service.core.view import Progress

Clock = Callable[[datetime], str]
_MOST_HOLES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is not in a production's own state. Instants are aware UTC.

    `held_until`: a question on mere suspicion is put off until then, to save the budget. `paused_until`: nobody may ask
    before, by JARAI's word. `down_until`: JARAI is out of order. `left_today` of `per_day` requests; None: no end is
    known.
    """

    now: datetime
    inbox: int = 0
    patience: timedelta = timedelta(0)
    held_until: datetime | None = None
    paused_until: datetime | None = None
    down_until: datetime | None = None
    left_today: int | None = None
    per_day: int | None = None
    has_key: bool = True
    storage_fails: bool = False
    progress: Mapping[str, Progress] = field(default_factory=dict)


def waiting_for(p: Production, here: Circumstances, clock: Clock) -> tuple[str, ...]:
    """Each thing that has to happen before it is settled, and when it is tried next. `clock` writes an instant."""
    return tuple(_waiting_for(p, here, clock))


def known_from(p: Production, here: Circumstances, clock: Clock) -> tuple[str, ...]:
    """What is known, and who told it when."""
    return tuple(_known_from(p, here, clock))


def span(duration: timedelta) -> str:
    """How long, as people say it: `95 s`, `12 min`, `3.5 h`, `4 days`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def _waiting_for(p: Production, here: Circumstances, clock: Clock) -> Iterator[str]:
    if here.inbox:
        yield f"a worker on the queue advance: {here.inbox} thing(s) that were learnt are not taken in yet"
    if p.retry_at is not None:
        yield f"a poll, which has JARAI start another in its place{_at(p.retry_at, here, clock)}"
    elif p.settled and p.due_to_ask_at is not None:
        yield _question(p, here, clock)
    elif p.settled and not here.inbox:
        yield f"nothing: it is {p.status}, and {'every file is stored' if p.deliverables else 'nothing is left to do'}"
    if p.settled:
        return
    if p.refused is not None:
        again = f"`productions refresh {p.production_id}`"
        yield f"a person: {p.refused}; see `deadletters list`, or ask again with {again}"
    elif not p.terminal:
        yield f"JARAI, which will tell of the next step by webhook; {_silence(p, here)}"
    if p.list_refused is not None:
        yield f"a person: {p.list_refused}; see `deadletters list`"
    question = _question(p, here, clock)
    if question:
        yield question
    for one in p.deliverables:
        if one.state != "stored":
            yield _file(one, here, clock)
    if p.manifest_written < p.manifest_revision:
        yield "manifest.json, which is written by a worker on the queue download"


def _at(at: datetime, here: Circumstances, clock: Clock) -> str:
    return " now" if at <= here.now else f" at {clock(at)}"


def _silence(p: Production, here: Circumstances) -> str:
    if p.last_event_at is None:
        return f"none has come yet, and it has been known for {span(here.now - p.created_at)}"
    silent = here.now - p.last_event_at
    if p.hole_at is not None:
        return f"one before the last is missing ({_holes(p)})"
    if silent <= here.patience:
        return f"silent for {span(silent)}, and left alone until that is {span(here.patience)}"
    return f"silent for {span(silent)}, longer than the {span(here.patience)} that it is left alone"


def _question(p: Production, here: Circumstances, clock: Clock) -> str:
    at = p.due_to_ask_at
    if at is None:
        return ""
    what = "the list of its deliverables" if due_question(p, here.now) == "deliverables" else "its status"
    if not here.has_key:
        return f"JARAI_API_KEY, without which nobody can ask for {what}"
    reasons = []
    for until, reason in (
        (here.held_until, "put off so that today's requests last"),
        (here.paused_until, "not before, by JARAI's word"),
        (here.down_until, "JARAI is out of order, and is tried again then"),
    ):
        if until is not None and until > max(at, here.now):
            at, reasons = until, [reason]
    if p.ask_failures and not reasons:
        reasons = [f"{p.ask_failures} answer(s) in a row were no use"]
    budget = "" if here.left_today is None else f"; {here.left_today} of {here.per_day} requests left today"
    return f"a poll, which asks JARAI for {what}{_at(at, here, clock)}{''.join(f' ({one})' for one in reasons)}{budget}"


def _file(one: Deliverable, here: Circumstances, clock: Clock) -> str:
    name = f"{one.type} ({one.file})"
    if one.state == "failed":
        return f"a person: {name} was given up: {one.error}; see `deadletters list`"
    if one.link_expires_at is None:
        return f"{name}: it has no valid address, and a poll brings a fresh one"
    if here.storage_fails:
        return f"{name}: the storage takes no files at present; it is tried every ten seconds"
    done = here.progress.get(one.key)
    if done is not None:
        whole = f" of {one.bytes}" if one.bytes else ""
        return f"{name}: {done.bytes}{whole} bytes are here, {done.bytes_per_second} more a second"
    tried = f"tried {one.attempts} time(s), last: {one.error}; " if one.attempts else ""
    if one.next_at is not None and one.next_at > here.now:
        return f"{name}: {tried}tried again at {clock(one.next_at)}"
    return f"{name}: {tried}waits for a worker on the queue download"


def _known_from(p: Production, here: Circumstances, clock: Clock) -> Iterator[str]:
    if p.status is not None:
        since = f" since {clock(p.updated_at)}" if p.updated_at else ""
        yield f"{p.status}{since} ({_source(p, clock)})"
    if p.sandbox:
        yield "SANDBOX: JARAI made it up for a test; nothing of it is published or billed"
    if p.error_code or p.error_message:
        yield f"JARAI says of its failure: {' '.join(filter(None, (p.error_code, p.error_message)))}"
    if p.retry_of is not None:
        yield f"triggered in the place of {p.retry_of}, which had expired"
    if p.retried_as is not None:
        yield f"{p.retried_as} was triggered in its place"
    if p.status == "Queued" and p.expires_at is not None:
        yield f"expires at {clock(p.expires_at)} unless JARAI has begun by then"
    if p.last_event_at is not None:
        yield f"last webhook: number {p.sequence}, {span(here.now - p.last_event_at)} ago"
    if p.missing:
        asked = "JARAI has been asked since" if p.hole_at is None else "JARAI has not been asked since"
        known = "its end is known all the same" if p.terminal else asked
        yield f"webhooks that never came: {_holes(p)}; {known}"
    if p.last_asked_at is not None:
        yield f"JARAI was last asked {span(here.now - p.last_asked_at)} ago"
    if p.deliverables:
        stored = sum(one.state == "stored" for one in p.deliverables)
        told = "an answer of JARAI" if p.listed_sequence is not None else "a webhook"
        yield f"{len(p.deliverables)} file(s), of which {stored} are stored; the list came with {told}"


def _source(p: Production, clock: Clock) -> str:
    if p.source == "webhook":
        return f"webhook {p.status_sequence}"
    if p.source == "poll":
        return f"poll at {clock(p.last_asked_at)}" if p.last_asked_at else "poll"
    return f"{p.source or 'unknown'}"


def _holes(p: Production) -> str:
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in p.missing[:_MOST_HOLES_SHOWN]]
    more = ", …" if len(p.missing) > _MOST_HOLES_SHOWN else ""
    return ", ".join(shown) + more
