"""How often JARAI may be asked just now: the settings, what is left of the budget and what productions have taught."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from redis import Redis

from service.core.budget import (
    Budget,
    Limits,
    at_this_rate,
    left_today,
    spread_seconds,
    sustainable_seconds,
    until_midnight,
)
from service.core.production import Production
from service.core.schedule import Intervals, longest_unnoticed
from service.settings import Settings
from service.store import radar, requests
from service.store.scripts import PREFIX


@dataclass(frozen=True, slots=True)
class Pace:
    """As of `now` (Unix seconds by Redis's clock). `watched`: productions that JARAI will have to be asked about."""

    now: float
    budget: Budget
    limits: Limits
    watched: int
    intervals: Intervals

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def spread(self) -> timedelta:
        """How far apart two questions on mere suspicion have to be."""
        return timedelta(seconds=spread_seconds(self.budget, self.limits, self.watched, self.now))

    @property
    def left_today(self) -> int | None:
        """Requests that polling may still spend until midnight UTC; None: no end is known."""
        return left_today(self.budget, self.limits, self.now)

    def noticed_within(self, watched: list[Production]) -> timedelta:
        """How late a webhook that gets lost now is noticed, at the longest."""
        longest = longest_unnoticed(watched, self.moment, self.intervals, self.spread).total_seconds()
        budget = self.budget
        silenced = max(budget.paused_until, budget.down_until) - self.now
        spent = until_midnight(self.now) if self.left_today == 0 else 0.0
        return timedelta(seconds=max(longest, silenced, spent))

    def at_this_rate(self) -> Pace:
        """An hour before midnight UTC, if requests are spent as they have been today."""
        late = self.now + max(0.0, until_midnight(self.now) - 3600)
        return replace(self, now=late, budget=at_this_rate(self.budget, self.limits, self.now))


def read(redis: Redis, settings: Settings) -> Pace:
    """The pace of this deployment."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.get(requests.KEY)
        pipeline.get(radar.EXPERIENCE)
        pipeline.zcard(f"{PREFIX}ask")
        (seconds, microseconds), budget, experience, asked = pipeline.execute()
    now, known, watched = float(seconds) + float(microseconds) / 1e6, requests.parse(budget), max(1, int(asked))
    sustainable = timedelta(seconds=sustainable_seconds(known, settings.limits, watched, now))
    intervals = replace(settings.intervals, experience=radar.parse_experience(experience), sustainable=sustainable)
    return Pace(now, known, settings.limits, watched, intervals)
