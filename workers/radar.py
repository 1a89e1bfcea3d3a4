"""Watches over the webhooks: how many get lost, whether JARAI has fallen silent, how late a loss is noticed."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from redis import Redis

from service import log, pacing
from service.core import radar as core
from service.core.budget import day, spent_on
from service.core.errors import MalformedEvent, UnreadableState
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
_LATEST_ALARM = timedelta(hours=1)
_ENOUGH_RECOVERED = 3
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
                events = [one.event for one in productions.kept_events(self._redis, identity)]
            except (UnreadableState, MalformedEvent) as error:
                self._log("production.unreadable", production_id=identity, error=str(error))
                continue
            if production is None:  # forgotten meanwhile
                continue
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
        self._log(
            "radar.day",
            day=yesterday,
            **counts,
            missed_percent=round(100 * counts["missed"] / expected, 1) if expected else 0.0,
            requests=spent_on(requests.read(self._redis), yesterday),
        )
        radar.forget_days(self._redis, today)

    def _listen(self, watched: list[Production], patience: timedelta) -> None:
        """Productions are being made, and JARAI says nothing about any of them.

        One after the other may be too short for that to show: then it does by how often a poll found what no webhook
        had said.
        """
        known, now = heard.read(self._redis), productions.now(self._redis)
        last_at = known.last_at
        if last_at is not None and now - last_at < patience and radar.take_back(self._redis, "silence"):
            self._log("webhooks.heard_again")
        speaking = sum(one.status in _SPEAKING and one.refused is None for one in watched)
        speaking_since = radar.since(self._redis, "speaking", now if speaking else None)
        recovered, unheard_since = radar.recovered(self._redis, now, last_at)
        starts = [] if speaking_since is None else [max(speaking_since, last_at or speaking_since)]
        if recovered >= _ENOUGH_RECOVERED:
            starts.append(unheard_since)
        silent = now - min(starts, default=now)
        if silent >= patience and radar.is_first(self._redis, "silence", _SECONDS_BETWEEN_ALARMS):
            self._log(
                "webhooks.silent",
                seconds=round(silent.total_seconds()),
                productions=speaking,
                recovered=recovered,
                likely=likely_cause(known, now),
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
    return max(_ALARM_AFTER_SILENCES * intervals.silence, min(_LATEST_ALARM, _ALARM_AFTER_USUAL * usual))


def likely_cause(known: heard.Heard, now: datetime) -> str:
    """What a person should look at first."""
    if known.refused_at is not None and (known.last_at is None or known.refused_at > known.last_at):
        return "webhooks arrive, signed with another secret: JARAI_WEBHOOK_SECRETS lacks the subscription's"
    if known.last_at is None:
        return "none ever came: no subscription, or its address does not lead here (`jarai-receiver check` looks)"
    return "the subscription is gone, or its address is not reachable any more (`jarai-receiver check` looks)"
