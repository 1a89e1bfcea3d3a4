"""JARAI's rate limits [docs]: a rolling minute, a day that ends at midnight UTC, productions a day and account."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

WINDOW_SECONDS = 60
_UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class Tier:
    per_minute: int = _UNLIMITED
    per_day: int = _UNLIMITED
    productions_per_day: int = _UNLIMITED


TIERS: Mapping[str, Tier] = {
    "free": Tier(10, 100, 3),
    "standard": Tier(60, 2_000, 20),
    "enterprise": Tier(per_minute=300),
    "unlimited": Tier(),
}


@dataclass(frozen=True, slots=True)
class Admission:
    """`retry_after_seconds` is None when the request may pass. `reset_at` is Unix time, rounded up."""

    limit: int
    remaining: int
    reset_at: int
    retry_after_seconds: int | None = None

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


class Budget:
    """One budget for the whole partner, all keys and endpoints together. A refused request spends nothing."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._recent: deque[float] = deque()
        self._by_day: Counter[date] = Counter()
        self._productions: Counter[tuple[date, str]] = Counter()

    def admit(self, now: datetime) -> Admission:
        at = now.timestamp()
        while self._recent and self._recent[0] <= at - WINDOW_SECONDS:
            self._recent.popleft()
        if self._by_day[now.date()] >= self._tier.per_day:
            return self._admission(now, seconds_to_midnight(now))
        if len(self._recent) >= self._tier.per_minute:
            return self._admission(now, max(1, math.ceil(self._recent[0] + WINDOW_SECONDS - at)))
        self._recent.append(at)
        self._by_day[now.date()] += 1
        return self._admission(now, None)

    def admit_production(self, account_id: str, now: datetime) -> int | None:
        """None when this production may start, else the seconds until one may."""
        day = (now.date(), account_id)
        if self._productions[day] >= self._tier.productions_per_day:
            return seconds_to_midnight(now)
        self._productions[day] += 1
        return None

    def requests_on(self, day: date) -> int:
        return self._by_day[day]

    def _admission(self, now: datetime, retry_after_seconds: int | None) -> Admission:
        oldest = self._recent[0] if self._recent else now.timestamp()
        left = min(self._tier.per_minute - len(self._recent), self._tier.per_day - self._by_day[now.date()])
        reset_at = math.ceil(oldest + WINDOW_SECONDS)
        return Admission(self._tier.per_minute, max(0, left), reset_at, retry_after_seconds)


def seconds_to_midnight(now: datetime) -> int:
    """Until the next midnight UTC, rounded up; `now` is aware UTC."""
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return math.ceil((midnight - now).total_seconds())
