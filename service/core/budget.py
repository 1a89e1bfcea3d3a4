"""The budget of requests to JARAI: may we ask now, and if not, when?

CONTRACT [docs]: one budget for the whole partner; a rolling 60-second window told by three headers; a daily one that
ends at midnight UTC; JARAI's advice is to stop when 2 or fewer remain. Instants are Unix seconds by Redis's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from service.core.retry import backoff

RESERVE = 2  # of each minute, for a person who triggers or cancels
WINDOW_SECONDS = 61.0  # one more than JARAI's, for the time a request is on its way
SMALLEST_TIER_PER_MINUTE = 10  # assumed until an answer tells the real limit
# CONTRACT [docs]: the tiers, told apart by what they allow a minute. The third allows as many a day as one likes.
_PER_DAY = {SMALLEST_TIER_PER_MINUTE: 100, 60: 2000}
_PERSONS_SHARE_OF_A_DAY, _MOST_FOR_PERSONS = 20, 10  # a twentieth, at most ten
_UNLIMITED_PER_MINUTE = 300
_NEAR_MIDNIGHT_SECONDS = 300.0  # a 429 until then means the day
_LEAST_A_DAY = 10  # whatever was taught by what was spent when a 429 came
_DAY_BEGINS_LATE_SECONDS = 5.0  # JARAI's clock may be a little behind ours
_PAUSE_WITHOUT_ADVICE_SECONDS = 60.0
_SHORTEST_PAUSE_SECONDS = 1.0  # after a 429
_LONGEST_OUTAGE_PAUSE_SECONDS = 60.0  # or what the budget of the day sustains, if that is longer
_LONGEST_OUTAGE_PAUSE_OF_ALL_SECONDS = 1800.0
_PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for this deployment (settings); None leaves it to what JARAI's answers say."""

    per_minute: int | None = None
    per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What all processes together know and have spent.

    `paused_until` is JARAI's word and holds for everybody; `down_until` is ours, while it is out of order, and a person
    may try all the same. `day_limit` was learnt from a 429 on the day `day_limit_on`.
    """

    limit: int | None = None
    tells_no_limit: bool = False
    remaining: int | None = None
    reset_at: float = 0.0
    paused_until: float = 0.0
    down_until: float = 0.0
    outages: int = 0
    today: str = ""
    spent_today: int = 0
    yesterday: str = ""
    spent_yesterday: int = 0
    day_limit: int | None = None
    day_limit_on: str = ""


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


def per_day(budget: Budget, limits: Limits, now: float) -> int | None:
    """How many requests a day has, as far as is known; None: as many as one likes, or nobody knows.

    Of a tier that is not documented a 429 teaches it, for that day and the next: where others use the key too, it was
    only our share of it.
    """
    known = [limits.per_day, _PER_DAY.get(budget.limit or 0)]
    documented = budget.limit == _UNLIMITED_PER_MINUTE or budget.limit in _PER_DAY
    if not documented and budget.day_limit_on in (day(now), day(now - 86400)):
        known.append(budget.day_limit)
    return min((one for one in known if one is not None), default=None)


def left_today(budget: Budget, limits: Limits, now: float) -> int | None:
    """How many requests the pollers have until midnight UTC; None: no end is known. A person has a few more."""
    most = per_day(budget, limits, now)
    return None if most is None else max(0, most - _for_persons(most) - _spent(budget, now))


def sustainable_seconds(budget: Budget, limits: Limits, watched: int, now: float) -> float:
    """How far apart the questions about each of `watched` productions have to be for half of the budget to last.

    Half of what is left until midnight UTC, or of each minute where no end of the day is known. An hour where JARAI has
    told no limit. The other half is for what can't wait.
    """
    left = left_today(budget, limits, now)
    to_midnight = until_midnight(now)
    known = [limit for limit in (budget.limit, limits.per_minute) if limit is not None]
    if left is None and not known:
        return 3600.0
    a_minute = watched * WINDOW_SECONDS / max(0.5, (min(known) - RESERVE) / 2) if known else 0.0
    a_day = 0.0 if left is None else min(to_midnight, watched * to_midnight / (left / 2)) if left else to_midnight
    return max(a_minute, a_day)


def spread_seconds(budget: Budget, limits: Limits, watched: int, now: float) -> float:
    """How far apart two questions on mere suspicion have to be, for each of `watched` productions.

    Nothing while the day's budget is whole; the more of it is spent, the closer this comes to what can be sustained.
    """
    most, left = per_day(budget, limits, now), left_today(budget, limits, now)
    if most is None or left is None:
        return 0.0
    spent_share = 1 - left / max(1, most - _for_persons(most))
    return float(spent_share**2 * sustainable_seconds(budget, limits, watched, now))


def at_this_rate(budget: Budget, limits: Limits, now: float) -> Budget:
    """The budget as it would be an hour before midnight UTC, were as much spent until then as has been spent today."""
    most = per_day(budget, limits, now)
    passed = 86400 - until_midnight(now)
    if most is None or passed < 60:
        return budget
    spent = _spent(budget, now)
    return replace(budget, today=day(now), spent_today=min(most, round(spent * 82800 / min(passed, 82800))))


def wait_seconds(
    budget: Budget, limits: Limits, recent: list[float], now: float, *, in_flight: int = 0, person: bool = False
) -> float:
    """0 when a request may go out now, else how long to wait. `recent`: our requests of the last WINDOW_SECONDS.

    After an outage one request is the probe; while it is among `in_flight` nobody else asks. A `person` may use what
    the pollers leave in reserve, and try what is out of order.
    """
    if budget.paused_until > now:
        return budget.paused_until - now
    if not person and budget.down_until > now:
        return budget.down_until - now
    if not person and budget.outages and in_flight:
        return _PROBE_SECONDS
    most = per_day(budget, limits, now)
    if most is not None and _spent(budget, now) >= most - (0 if person else _for_persons(most)):
        return until_midnight(now)
    reserve = 0 if person else RESERVE
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
    spent = _spent(budget, now)
    remaining = None if budget.remaining is None or now >= budget.reset_at else budget.remaining - 1
    if budget.today != day(now):
        budget = replace(budget, yesterday=budget.today, spent_yesterday=budget.spent_today)
    return replace(budget, today=day(now), spent_today=spent + 1, remaining=remaining)


def spent_on(budget: Budget, date: str) -> int:
    """How many requests went out on that day (`YYYY-MM-DD`), today or the last day on which any did; else 0."""
    return {budget.yesterday: budget.spent_yesterday, budget.today: budget.spent_today}.get(date, 0)


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
        if pause > 2 * WINDOW_SECONDS and abs(pause - until_midnight(now)) <= _NEAR_MIDNIGHT_SECONDS:
            budget = replace(budget, day_limit=max(_LEAST_A_DAY, _spent(budget, now)), day_limit_on=day(now))
        return replace(budget, paused_until=max(budget.paused_until, now + pause))
    if answer.status is None or answer.status >= 500 or answer.status == 401:
        # Requests that went out together and fail together are one outage, however many pollers there are.
        outages = budget.outages if budget.outages and budget.down_until > now else min(budget.outages + 1, 16)
        affordable = min(_LONGEST_OUTAGE_PAUSE_OF_ALL_SECONDS, sustainable_seconds(budget, Limits(), 2, now))
        longest = max(_LONGEST_OUTAGE_PAUSE_SECONDS, affordable if budget.limit else 0.0)
        pause = backoff(outages, first_seconds=1, longest_seconds=longest, salt=f"{now:.3f}").total_seconds()
        asked = answer.retry_after_seconds or 0.0
        return replace(
            budget,
            outages=outages,
            down_until=max(budget.down_until, now + pause),
            paused_until=max(budget.paused_until, now + asked if asked else 0.0),
        )
    return replace(budget, outages=0, down_until=0.0)


def day(now: float) -> str:
    """The day of JARAI's daily budget that `now` (Unix seconds) belongs to; begun a little late."""
    return datetime.fromtimestamp(now - _DAY_BEGINS_LATE_SECONDS, UTC).date().isoformat()


def until_midnight(now: float) -> float:
    """Seconds until JARAI's daily budget begins anew."""
    moment = datetime.fromtimestamp(now - _DAY_BEGINS_LATE_SECONDS, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - moment).total_seconds()


def _spent(budget: Budget, now: float) -> int:
    return budget.spent_today if budget.today == day(now) else 0


def _for_persons(most: int) -> int:
    return min(_MOST_FOR_PERSONS, most // _PERSONS_SHARE_OF_A_DAY)


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None
