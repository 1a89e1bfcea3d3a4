"""When JARAI has to be asked: a webhook costs nothing, a request costs budget, so ask only where one may be missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.core.experience import Experience
from service.core.observations import Question
from service.core.production import Production
from service.core.retry import after_failed_ask

_REORDER_GRACE = timedelta(seconds=5)
_LONGEST_INTERVAL = timedelta(hours=1)
_LEAST_PATIENCE, _MOST_PATIENCE = timedelta(minutes=5), timedelta(minutes=30)
_LONGEST_QUEUE = timedelta(days=7)
_SHARE_OF_SILENCE = 0.25  # what has been silent for an hour is asked about every quarter of an hour
_MORE_THAN_USUAL, _MORE_THAN_ITS_OWN = 1.25, 1.5


@dataclass(frozen=True, slots=True)
class Intervals:
    """CONTRACT [seed]: `Queued` every 10 s, `Producing` every 30 s; the rest is ours.

    `sustainable`: how far apart questions about each production may always be (budget.sustainable_seconds).
    """

    queued: timedelta = timedelta(seconds=10)
    producing: timedelta = timedelta(seconds=30)
    waiting: timedelta = timedelta(seconds=60)
    silence: timedelta = timedelta(seconds=90)
    sustainable: timedelta = _LONGEST_INTERVAL
    experience: Experience = field(default_factory=Experience)

    def of(self, status: str | None) -> timedelta:
        """The interval for a status; one that JARAI invents later counts as waiting."""
        if status is None or status == "Queued":
            return self.queued
        return self.producing if status == "Producing" else self.waiting

    def patience(self, production: Production) -> timedelta:
        """How long its webhooks may be silent: as the setting says, and longer where that is usual for its status.

        What is usual is told by the productions before it, and by its own events in this status. At most five minutes,
        or up to half an hour where the budget is small.
        """
        usual = self.experience.usual_silence(production.phase) or timedelta(0)
        own = timedelta(seconds=production.longest_gap_seconds)
        learnt = max(_MORE_THAN_USUAL * usual, _MORE_THAN_ITS_OWN * own)
        return max(self.silence, min(learnt, max(_LEAST_PATIENCE, min(self.sustainable, _MOST_PATIENCE))))

    def grown(self, interval: timedelta, production: Production) -> timedelta:
        """The interval, or a share of how long nothing new had been learnt when JARAI was asked last.

        Never longer than an hour, nor than the budget demands.
        """
        if production.last_asked_at is None:
            return interval
        news_at = max(filter(None, (production.last_event_at, production.updated_at, production.created_at)))
        silent = production.last_asked_at - news_at
        return max(interval, min(_LONGEST_INTERVAL, self.sustainable, _SHARE_OF_SILENCE * silent))


def next_status_at(production: Production, now: datetime, intervals: Intervals) -> datetime | None:
    """When to ask for the status: at the interval after the last answer, or never (terminal, or JARAI refused).

    While webhooks arrive it is put off until they are silent for longer than usual; a hole in their numbers ends that
    patience. The longer nothing is new, the longer the interval.
    """
    if production.asks_now:
        return _not_before_backoff(production, now)
    if production.terminal or production.refused is not None:
        return None
    interval = intervals.of(production.phase)
    if production.last_asked_at is None and production.last_event_at is None:
        # Tracked, and nothing is known yet: its first webhook may be on its way.
        return _not_before_backoff(production, production.created_at + min(_REORDER_GRACE, interval))
    asked_at = production.last_asked_at
    at = (asked_at or production.created_at) + intervals.grown(interval, production)
    if production.hole_at is not None:
        at = max((asked_at or production.created_at) + interval, production.hole_at + interval)
    elif production.last_event_at is not None:
        at = max(at, production.last_event_at + intervals.patience(production))
    expired_at = _expired_at(production)
    if expired_at is not None and (asked_at is None or asked_at < expired_at):
        at = min(at, max(expired_at, production.last_event_at or expired_at))
    return _not_before_backoff(production, at)


def next_retry_at(production: Production, now: datetime) -> datetime | None:
    """When to trigger again what has expired, or None."""
    return _not_before_backoff(production, now) if production.is_to_be_retried else None


def due_question(production: Production, now: datetime) -> Question:
    """What is due first; of what is due already, what tells most. Clocks that were set back leave all ahead."""
    at: dict[Question, datetime | None]
    at = {"trigger": production.retry_at, "deliverables": production.list_at, "status": production.status_at}
    times = {question: max(when, now) for question, when in at.items() if when is not None}
    return min(times, key=lambda question: times[question], default="status")


def held_until(production: Production, spread: timedelta) -> datetime | None:
    """Until when a question on mere suspicion is put off, so that the day's budget lasts; None: it is more than that.

    `spread`: how far apart such questions have to be (budget.spread_seconds).
    """
    if production.tells_much:
        return None
    known_at = _known_at(production)
    expired_at = _expired_at(production)
    if expired_at is not None and known_at < expired_at:
        return min(known_at + spread, expired_at)
    return known_at + spread


def longest_unnoticed(
    productions: Iterable[Production], now: datetime, intervals: Intervals, spread: timedelta
) -> timedelta:
    """How long it takes, at the longest, until a webhook that got lost just now would be noticed.

    Where nothing is on its way, that is told for a production that is being made and whose webhooks arrive.
    """
    longest = timedelta(0)
    for one in productions:
        asked_at = next_status_at(one, now, intervals)
        if asked_at is not None:
            held = held_until(one, spread)
            longest = max(longest, (asked_at if held is None else max(asked_at, held)) - _known_at(one))
    return longest or max(intervals.patience(Production("", now, status="Producing")), spread)


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


def _known_at(production: Production) -> datetime:
    """When something was learnt of it last, or nothing although JARAI was asked."""
    p = production
    return max(filter(None, (p.last_asked_at, p.last_failed_at, p.last_event_at, p.created_at)))


def _expired_at(production: Production) -> datetime | None:
    """By when a queued one is Producing, or has failed. A time that is nobody's plan is none."""
    at = production.expires_at
    if production.status != "Queued" or at is None or at > production.created_at + _LONGEST_QUEUE:
        return None
    return at + _REORDER_GRACE


def _not_before_backoff(production: Production, at: datetime) -> datetime:
    if not production.ask_failures or production.last_failed_at is None:
        return at
    return max(at, production.last_failed_at + after_failed_ask(production.ask_failures, production.production_id))
