"""Watches over the webhooks: how many get lost, whether JARAI has fallen silent, how late a loss is noticed."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from redis import Redis

from service import log, pacing
from service.core import radar as core
from service.core.budget import day
from service.core.errors import UnreadableState
from service.core.production import Production
from service.core.schedule import Intervals
from service.pacing import Pace
from service.settings import Settings
from service.store import deployment, due, heard, productions, radar, requests

SECONDS_BETWEEN_LOOKS = 20.0
_MOST_AT_ONCE = 50
_SPEAKING = (None, "Queued", "Producing")  # an approval may take days, and says nothing meanwhile
_ALARM_AFTER_SILENCES = 10
_ALARM_AFTER_USUAL = 3
_SECONDS_BETWEEN_ALARMS = 3600.0
_TWO_DAYS_SECONDS = 2 * 86400.0


class Radar:
    """One poller's share of the watch. What there is to say is said by one of all pollers."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings, self._name = redis, settings, uuid.uuid4().hex[:8]
        self._log = log.get()

    def look(self) -> None:
        """Cheap, and idempotent but for the counting, which each production undergoes once."""
        deployment.report_alive(self._redis, "poller", self._name)
        self._count()
        self._tell_day()
        watched = due.watched(self._redis)
        pace = pacing.read(self._redis, self._settings)
        self._listen(watched, alarm_after(pace.intervals))
        if self._settings.jarai_api_key:
            self._tell_outlook(pace, watched)

    def _count(self) -> None:
        taken = radar.take_settled(self._redis, _MOST_AT_ONCE)
        if not taken:
            return
        known = radar.read_experience(self._redis)
        today = day(requests.now(self._redis))
        for identity in taken:
            try:
                production = productions.read(self._redis, identity)
            except UnreadableState:
                continue
            if production is None:  # forgotten meanwhile
                continue
            events = [one.event for one in productions.kept_events(self._redis, identity)]
            found = core.account(production, events, known)
            before, known = known, known.after(found.gaps, found.preceded)
            radar.count(
                self._redis,
                today,
                received=found.received,
                missed=found.missed,
                unsubscribed=found.unsubscribed,
                ends_missed=int(found.end_missed),
            )
            for event_type in sorted(known.holes):
                if known.always_missing_before(event_type) and not before.always_missing_before(event_type):
                    self._log("radar.hole_learnt", event_type=event_type)
        radar.keep_experience(self._redis, known)

    def _tell_day(self) -> None:
        """Once after midnight UTC: what the day before was like."""
        now = requests.now(self._redis)
        today, yesterday = day(now), day(now - 86400)
        if not radar.is_first(self._redis, f"day:{today}", _TWO_DAYS_SECONDS):
            return
        counts = radar.read_day(self._redis, yesterday)
        expected = counts["received"] + counts["missed"]
        budget = requests.read(self._redis)
        self._log(
            "radar.day",
            day=yesterday,
            **counts,
            missed_percent=round(100 * counts["missed"] / expected, 1) if expected else 0.0,
            requests=budget.spent_today if budget.today == yesterday else 0,
        )
        radar.forget_days(self._redis, today)

    def _listen(self, watched: list[Production], patience: timedelta) -> None:
        """Productions are being made, and JARAI says nothing about any of them."""
        speaking = [one for one in watched if one.status in _SPEAKING and one.refused is None]
        if not speaking:
            return
        known = heard.read(self._redis)
        now = productions.now(self._redis)
        since = max(filter(None, (known.last_at, min(one.created_at for one in speaking))))
        seconds = (now - since).total_seconds()
        if seconds < patience.total_seconds():
            if known.last_at is not None and radar.take_back(self._redis, "silence"):
                self._log("webhooks.heard_again")
            return
        if radar.is_first(self._redis, "silence", _SECONDS_BETWEEN_ALARMS):
            self._log(
                "webhooks.silent", seconds=round(seconds), productions=len(speaking), likely=likely_cause(known, now)
            )

    def _tell_outlook(self, pace: Pace, watched: list[Production]) -> None:
        """Said when it has doubled, or halved, since it was said last."""
        seconds = round(pace.noticed_within(watched).total_seconds())
        before = radar.replace_told(self._redis, "outlook", seconds)
        if before is not None and max(before, 60) / 2 < max(seconds, 60) < max(before, 60) * 2:
            radar.replace_told(self._redis, "outlook", before)
            return
        self._log(
            "budget.outlook",
            noticed_within_seconds=seconds,
            at_this_rate_seconds=round(pace.at_this_rate().noticed_within(watched).total_seconds()),
            requests_left_today=pace.left_today,
        )


def alarm_after(intervals: Intervals) -> timedelta:
    """How long JARAI may be silent about everything that is being made."""
    usual = intervals.experience.usual_silence("Producing") or timedelta(0)
    return max(_ALARM_AFTER_SILENCES * intervals.silence, _ALARM_AFTER_USUAL * usual)


def likely_cause(known: heard.Heard, now: datetime) -> str:
    """What a person should look at first."""
    if known.refused_at is not None and (known.last_at is None or known.refused_at > known.last_at):
        return "webhooks arrive, signed with another secret: JARAI_WEBHOOK_SECRETS lacks the subscription's"
    if known.last_at is None:
        return "none ever came: no subscription, or its address does not lead here (`jarai-receiver check` looks)"
    return "the subscription is gone, or its address is not reachable any more (`jarai-receiver check` looks)"
