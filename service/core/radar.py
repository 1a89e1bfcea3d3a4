"""How many webhooks JARAI really missed, told from what is kept of a production that has settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from service.core.events import DELIVERABLE_READY, Event
from service.core.experience import Experience
from service.core.production import Production

_LARGEST_HOLE = 1000  # a number that jumps further than that counts nothing


@dataclass(frozen=True, slots=True)
class Account:
    """The webhooks of one production.

    `missed` were numbered and never came, or must have told of its end, which only a poll told (`end_missed`).
    `unsubscribed` are missing before events before which something is always missing. `gaps` and `preceded` are what
    Experience learns from.
    """

    received: int
    missed: int
    unsubscribed: int
    end_missed: bool
    gaps: tuple[tuple[str, float], ...]
    preceded: tuple[tuple[str, int], ...]


def account(production: Production, events: Sequence[Event], experience: Experience) -> Account:
    """Of all events that are kept, in any order; each number once."""
    ordered = sorted(events, key=lambda one: one.sequence_number)
    missed = unsubscribed = 0
    preceded: list[tuple[str, int]] = []
    last = -1 if ordered and ordered[0].sequence_number == 0 else 0  # numbering starts at 0 or 1 [open]
    for event in ordered:
        hole = min(event.sequence_number - last - 1, _LARGEST_HOLE)
        preceded.append((event.event_type, hole))
        never = experience.unsubscribed(event.event_type, hole)
        unsubscribed, missed = unsubscribed + never, missed + hole - never
        last = event.sequence_number
    # The names of three types are [open]: an event of one that came last may well have told the end.
    told = {event.status for event in ordered} | {production.status for one in ordered[-1:] if not one.is_known}
    end_missed = production.terminal and production.source != "manifest" and production.status not in told
    return Account(len(ordered), missed + end_missed, unsubscribed, end_missed, tuple(_gaps(ordered)), tuple(preceded))


def _gaps(ordered: Sequence[Event]) -> Iterator[tuple[str, float]]:
    """How long it was silent, by JARAI's clock, between two events with nothing missing between them."""
    status: str | None = None
    for before, event in pairwise(ordered):
        status = "AwaitingApproval" if before.event_type == DELIVERABLE_READY else before.status or status
        if status is not None and event.sequence_number == before.sequence_number + 1:
            yield status, max(0.0, (event.timestamp - before.timestamp).total_seconds())
