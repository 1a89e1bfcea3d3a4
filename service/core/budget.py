"""The budget of requests to JARAI: may we ask now, and if not, when?

CONTRACT [docs]: one budget for the whole partner; a rolling 60-second window told by three headers; a daily one that
ends at midnight UTC; JARAI's advice is to stop when 2 or fewer remain. Instants are Unix seconds by Redis's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

RESERVE = 2
WINDOW_SECONDS = 61.0  # one more than JARAI's, for the time a request is on its way
SMALLEST_TIER_PER_MINUTE = 10  # assumed until an answer tells the real limit
_PAUSE_WITHOUT_ADVICE_SECONDS = 60.0
_SHORTEST_PAUSE_SECONDS = 1.0  # after a 429
_LONGEST_OUTAGE_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for this deployment (settings); None leaves it to what JARAI's answers say."""

    per_minute: int | None = None
    per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What all processes together know and have spent."""

    limit: int | None = None
    tells_no_limit: bool = False
    remaining: int | None = None
    reset_at: float = 0.0
    paused_until: float = 0.0
    outages: int = 0
    today: str = ""
    spent_today: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer of JARAI tells about the budget. `status` is None where no answer came."""

    status: int | None
    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    retry_after_seconds: float | None = None


def read_answer(
    status: int | None, headers: Mapping[str, str], retry_after_seconds: float | None, now: float
) -> Answer:
    """The budget's part of an answer; `headers` with lower-case names. Nonsense in a header reads as absent.

    The reset is told by JARAI's clock: the answer's own `Date` moves it to ours.
    """
    reset_at = _whole(headers.get("x-ratelimit-reset"))
    try:
        jarai_now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        jarai_now = now
    return Answer(
        status=status,
        limit=_whole(headers.get("x-ratelimit-limit")),
        remaining=_whole(headers.get("x-ratelimit-remaining")),
        reset_at=None if reset_at is None else now + max(0.0, reset_at - jarai_now),
        retry_after_seconds=retry_after_seconds,
    )


def wait_seconds(budget: Budget, limits: Limits, recent: list[float], now: float, reserve: int = RESERVE) -> float:
    """0 when a request may go out now, else how long to wait. `recent`: our requests of the last WINDOW_SECONDS.

    `reserve`: so many requests a minute are left to others; to a person, none.
    """
    if budget.paused_until > now:
        return budget.paused_until - now
    if limits.per_day is not None and budget.today == day(now) and budget.spent_today >= limits.per_day:
        return _until_midnight(now)
    known = [limit for limit in (budget.limit, limits.per_minute) if limit is not None]
    if not known and not budget.tells_no_limit:
        known = [SMALLEST_TIER_PER_MINUTE]
    allowed = max(1, min(known) - reserve) if known else None
    if allowed is not None and len(recent) >= allowed:
        return max(0.05, sorted(recent)[-allowed] + WINDOW_SECONDS - now)
    if budget.remaining is not None and budget.remaining <= reserve and now < budget.reset_at:
        return budget.reset_at - now
    return 0.0


def after_taking(budget: Budget, now: float) -> Budget:
    """The budget once a request has been allowed to go out at `now`."""
    spent = budget.spent_today if budget.today == day(now) else 0
    remaining = None if budget.remaining is None or now >= budget.reset_at else budget.remaining - 1
    return replace(budget, today=day(now), spent_today=spent + 1, remaining=remaining)


def after_answer(budget: Budget, answer: Answer, in_flight: int, now: float) -> Budget:
    """The budget after an answer. `in_flight`: requests of ours that are still on their way and not counted in it."""
    if answer.limit:
        budget = replace(budget, limit=answer.limit, tells_no_limit=False)
    elif answer.status is not None and 200 <= answer.status < 300 and answer.remaining is None:
        budget = replace(budget, tells_no_limit=budget.limit is None)  # where JARAI counts, each 2xx says so
    if answer.remaining is not None:
        reset_at = min(answer.reset_at or now + WINDOW_SECONDS, now + 2 * WINDOW_SECONDS)
        budget = replace(budget, remaining=answer.remaining - in_flight, reset_at=reset_at)
    if answer.status == 429:
        pause = answer.retry_after_seconds
        if pause is None or pause < _SHORTEST_PAUSE_SECONDS:  # "at once" is no advice: it would end in a storm
            until_reset = budget.reset_at - now
            pause = max(until_reset, _SHORTEST_PAUSE_SECONDS) if until_reset > 0 else _PAUSE_WITHOUT_ADVICE_SECONDS
        return replace(budget, paused_until=max(budget.paused_until, now + pause))
    if answer.status is None or answer.status >= 500 or answer.status == 401:
        # Requests that went out together and fail together are one outage, however many pollers there are.
        outages = budget.outages if budget.outages and budget.paused_until > now else min(budget.outages + 1, 16)
        pause = max(answer.retry_after_seconds or 0.0, min(_LONGEST_OUTAGE_PAUSE_SECONDS, 0.5 * 2.0**outages))
        return replace(budget, outages=outages, paused_until=max(budget.paused_until, now + pause))
    return replace(budget, outages=0)


def day(now: float) -> str:
    """The day of JARAI's daily budget that `now` (Unix seconds) belongs to."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def _until_midnight(now: float) -> float:
    moment = datetime.fromtimestamp(now, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - moment).total_seconds()


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None
