"""When JARAI has to be asked: a webhook costs nothing, a request costs budget, so ask only where one may be missed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.core.production import Production
from service.core.retry import after_failed_ask

_REORDER_GRACE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Intervals:
    """CONTRACT [seed]: `Queued` every 10 s, `Producing` every 30 s; the rest is ours."""

    queued: timedelta = timedelta(seconds=10)
    producing: timedelta = timedelta(seconds=30)
    waiting: timedelta = timedelta(seconds=60)
    silence: timedelta = timedelta(seconds=90)

    def of(self, status: str | None) -> timedelta:
        """The interval for a status; one that JARAI invents later counts as waiting."""
        if status is None or status == "Queued":
            return self.queued
        return self.producing if status == "Producing" else self.waiting


def next_status_at(production: Production, now: datetime, intervals: Intervals) -> datetime | None:
    """When to ask for the status: at the interval after the last answer, or never (terminal, or JARAI refused).

    While webhooks arrive it is put off until they have been silent; a hole in their numbers ends that patience.
    """
    if production.asks_now:
        return _not_before_backoff(production, now)
    if production.terminal or production.refused is not None:
        return None
    interval = intervals.of(production.status)
    if production.last_asked_at is None and production.last_event_at is None:
        # Tracked, and nothing is known yet: its first webhook may be on its way.
        return _not_before_backoff(production, production.created_at + min(_REORDER_GRACE, interval))
    at = (production.last_asked_at or production.created_at) + interval
    if production.hole_at is not None:
        at = max(at, production.hole_at + interval)
    elif production.last_event_at is not None:
        at = max(at, production.last_event_at + intervals.silence)
    return _not_before_backoff(production, at)


def next_list_at(production: Production, now: datetime, intervals: Intervals) -> datetime | None:
    """When to ask for the list of deliverables, or None while every file is stored or has its address."""
    if production.refused is not None or production.list_refused is not None or not production.needs_list:
        return None
    at = now
    if not production.asks_list_now and production.source == "webhook":
        # The event that brings the list may be on its way: events overtake each other.
        at = (production.last_event_at or now) + min(_REORDER_GRACE, intervals.waiting)
    if production.list_attempts and production.last_listed_at is not None:
        at = max(at, production.last_listed_at + after_failed_ask(production.list_attempts, production.production_id))
    return at


def _not_before_backoff(production: Production, at: datetime) -> datetime:
    if not production.ask_failures or production.last_failed_at is None:
        return at
    return max(at, production.last_failed_at + after_failed_ask(production.ask_failures, production.production_id))
