"""How new is what we know? Told by JARAI's own numbers and clock; a memory from a clock that was wrong is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from service.core.events import Event
from service.core.production import LIFE, Production

_REMEMBERED = ("hole_at", "last_event_at", "last_asked_at", "last_failed_at", "last_listed_at")


def without_future(production: Production, now: datetime) -> Production:
    """What is remembered of a time that has not come is the work of a clock that was wrong: nothing waits for it."""
    latest = now + timedelta(seconds=1)
    wrong: dict[str, Any] = {name: None for name in _REMEMBERED if (getattr(production, name) or now) > latest}
    if production.created_at > latest:
        wrong["created_at"] = now
    return replace(production, **wrong) if wrong else production


def told_by_then(event: Event, as_of: datetime, polled_status: str | None) -> bool:
    """Whether a poll's answer already knew what the event says.

    JARAI's `Date` is cut to the second; within that second the status that is further in a life is the newer one.
    """
    if event.timestamp - as_of >= timedelta(seconds=1):
        return False
    return event.timestamp < as_of or _rank(event.status) <= _rank(polled_status)


def _rank(status: str | None) -> int:
    return LIFE.index(status) if status in LIFE else len(LIFE)


def without(ranges: Iterable[tuple[int, int]], number: int) -> Iterable[tuple[int, int]]:
    """The ranges of numbers, `number` taken out."""
    for first, last in ranges:
        if not first <= number <= last:
            yield first, last
            continue
        if first < number:
            yield first, number - 1
        if number < last:
            yield number + 1, last
