"""The budget of requests: never over JARAI's limit, and never asleep for no reason. Time is simulated."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.budget import (
    WINDOW_SECONDS,
    Answer,
    Budget,
    Limits,
    after_answer,
    after_taking,
    at_this_rate,
    day,
    left_today,
    per_day,
    read_answer,
    spent_on,
    spread_seconds,
    sustainable_seconds,
    wait_seconds,
)

# A day begins five seconds late: JARAI's clock may be behind ours.
NOON = datetime(2026, 4, 3, 12, 0, 5, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 4, 4, 0, 0, 5, tzinfo=UTC).timestamp()


def sent(count: int, before_now: float = 10.0, now: float = NOON) -> list[float]:
    return [now - before_now] * count


@pytest.mark.parametrize(
    ("budget", "limits", "recent", "seconds"),
    [
        (Budget(), Limits(), [], 0),
        # the smallest tier is assumed until an answer tells more; two stay in reserve
        (Budget(), Limits(), sent(7), 0),
        (Budget(), Limits(), sent(8), 51),
        (Budget(limit=60), Limits(), sent(57), 0),
        (Budget(limit=60), Limits(), sent(58), 51),
        (Budget(limit=60), Limits(), [*sent(50, 30), *sent(58, 5)], 56),
        (Budget(limit=60), Limits(), sent(58, WINDOW_SECONDS), 0.05),
        # this deployment's own bound
        (Budget(limit=60), Limits(per_minute=12), sent(10), 51),
        (Budget(limit=10), Limits(per_minute=300), sent(8), 51),
        (Budget(limit=1), Limits(), [], 0),
        (Budget(limit=1), Limits(), sent(1), 51),
        # what JARAI says is left
        (Budget(limit=60, remaining=2, reset_at=NOON + 7), Limits(), [], 7),
        (Budget(limit=60, remaining=-1, reset_at=NOON + 7), Limits(), [], 7),
        (Budget(limit=60, remaining=3, reset_at=NOON + 7), Limits(), [], 0),
        (Budget(limit=60, remaining=0, reset_at=NOON), Limits(), [], 0),
        # a pause holds for everybody
        (Budget(paused_until=NOON + 9), Limits(), [], 9),
        (Budget(paused_until=NOON), Limits(), [], 0),
        # the day
        (Budget(today="2026-04-03", spent_today=12), Limits(per_day=12), [], 12 * 3600),
        (Budget(today="2026-04-03", spent_today=11), Limits(per_day=12), [], 0),
        (Budget(today="2026-04-02", spent_today=12), Limits(per_day=12), [], 0),
        # a twentieth of the day, at most ten, is a person's
        (Budget(today="2026-04-03", spent_today=95), Limits(per_day=100), [], 12 * 3600),
        (Budget(today="2026-04-03", spent_today=94), Limits(per_day=100), [], 0),
        # the tier tells the day's limit
        (Budget(limit=10, today="2026-04-03", spent_today=95), Limits(), [], 12 * 3600),
        (Budget(limit=60, today="2026-04-03", spent_today=1989), Limits(), [], 0),
        (Budget(limit=60, today="2026-04-03", spent_today=1990), Limits(), [], 12 * 3600),
        (Budget(limit=300, today="2026-04-03", spent_today=9999), Limits(), [], 0),
        (Budget(limit=60, today="2026-04-03", spent_today=12), Limits(per_day=12), [], 12 * 3600),
        # or a 429 of yesterday or today did, where the tier is none that is known
        (
            Budget(limit=7, today="2026-04-03", spent_today=9, day_limit=9, day_limit_on="2026-04-02"),
            Limits(),
            [],
            43200,
        ),
        (Budget(limit=7, today="2026-04-03", spent_today=9, day_limit=9, day_limit_on="2026-04-01"), Limits(), [], 0),
        # but not where the tier tells another: others use the key, too, and may not tomorrow
        (Budget(limit=10, today="2026-04-03", spent_today=9, day_limit=9, day_limit_on="2026-04-02"), Limits(), [], 0),
        (Budget(limit=300, today="2026-04-03", spent_today=9, day_limit=9, day_limit_on="2026-04-03"), Limits(), [], 0),
        # JARAI is out of order
        (Budget(down_until=NOON + 9, outages=1), Limits(), [], 9),
    ],
)
def test_a_request_may_go_out_after(budget: Budget, limits: Limits, recent: list[float], seconds: float) -> None:
    assert wait_seconds(budget, limits, recent, NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("budget", "recent", "seconds"),
    [
        (Budget(), sent(9), 0),
        (Budget(), sent(10), 51),
        (Budget(limit=60, remaining=1, reset_at=NOON + 7), [], 0),
        (Budget(limit=60, remaining=0, reset_at=NOON + 7), [], 7),
        (Budget(limit=10, today="2026-04-03", spent_today=99), [], 0),
        (Budget(limit=10, today="2026-04-03", spent_today=100), [], 12 * 3600),
        (Budget(down_until=NOON + 9, outages=3), [], 0),
        (Budget(paused_until=NOON + 9), [], 9),
    ],
)
def test_a_person_may_use_what_the_pollers_leave(budget: Budget, recent: list[float], seconds: float) -> None:
    assert wait_seconds(budget, Limits(), recent, NOON, in_flight=3, person=True) == pytest.approx(seconds)


def test_after_an_outage_one_request_is_the_probe_and_nobody_else_asks_meanwhile() -> None:
    down = after_answer(Budget(), Answer(None), 0, NOON)
    later = NOON + 2
    assert wait_seconds(down, Limits(), [], later, in_flight=0) == 0
    assert wait_seconds(down, Limits(), [], later, in_flight=1) == 1
    up_again = after_answer(down, Answer(200), 0, later)
    assert wait_seconds(up_again, Limits(), [], later, in_flight=1) == 0


def free_tier(spent: int) -> Budget:
    return Budget(limit=10, today="2026-04-03", spent_today=spent)


def test_a_whole_budget_is_not_stretched_and_what_is_left_lasts_until_midnight() -> None:
    assert spread_seconds(free_tier(0), Limits(), 5, NOON) == 0
    apart = [spread_seconds(free_tier(spent), Limits(), 1, NOON) for spent in range(96)]
    assert apart == sorted(apart)
    assert apart[20] < 90  # a fifth of the budget is no reason to wait
    for spent in range(95):
        assert left_today(free_tier(spent), Limits(), NOON) == 95 - spent
        now, total = NOON, spent
        while now < MIDNIGHT and total < 95:
            total += 1
            now += max(30.0, spread_seconds(free_tier(total), Limits(), 1, now))
        assert now >= MIDNIGHT - 60, f"from {spent} on the budget is spent an hour too early"
    assert apart[95] == 43_200
    assert spread_seconds(free_tier(50), Limits(), 4, NOON) == pytest.approx(4 * apart[50])


def test_where_no_end_of_the_day_is_known_nothing_is_stretched() -> None:
    for budget in (Budget(), Budget(limit=300, today="2026-04-03", spent_today=5000), Budget(tells_no_limit=True)):
        assert spread_seconds(budget, Limits(), 100, NOON) == 0
        assert left_today(budget, Limits(), NOON) is None
        assert at_this_rate(budget, Limits(), NOON) == budget


@pytest.mark.parametrize(
    ("budget", "limits", "watched", "seconds"),
    [
        (free_tier(0), Limits(), 1, 43_200 / 47.5),
        (free_tier(0), Limits(), 3, 3 * 43_200 / 47.5),
        (free_tier(80), Limits(), 1, 43_200 / 7.5),
        (free_tier(95), Limits(), 1, 43_200),
        (free_tier(94), Limits(), 9, 43_200),  # never beyond midnight
        (Budget(limit=300), Limits(), 149, 61),
        (Budget(limit=300), Limits(), 1, 61 / 149),
        (Budget(limit=300), Limits(per_minute=12), 10, 122),
        (Budget(), Limits(), 1, 3600),
        (Budget(tells_no_limit=True), Limits(), 1, 3600),
        (Budget(), Limits(per_day=1000), 1, 43_200 / 495),
    ],
)
def test_so_far_apart_may_questions_always_be(budget: Budget, limits: Limits, watched: int, seconds: float) -> None:
    assert sustainable_seconds(budget, limits, watched, NOON) == pytest.approx(seconds)


def test_what_is_spent_at_this_rate_is_told_for_an_hour_before_midnight() -> None:
    assert at_this_rate(free_tier(10), Limits(), NOON).spent_today == 19
    assert at_this_rate(free_tier(80), Limits(), NOON).spent_today == 100
    assert at_this_rate(free_tier(7), Limits(), MIDNIGHT - 60).spent_today == 7
    assert at_this_rate(free_tier(7), Limits(), MIDNIGHT + 5).spent_today == 7  # too early to tell


def test_a_429_that_means_the_day_teaches_how_many_a_day_has() -> None:
    spent = replace(free_tier(41), limit=7)
    taught = after_answer(spent, Answer(429, retry_after_seconds=43_200), 0, NOON)
    assert (taught.day_limit, taught.day_limit_on) == (41, "2026-04-03")
    assert per_day(taught, Limits(), MIDNIGHT + 5) == 41
    assert per_day(taught, Limits(), MIDNIGHT + 86_405) is None
    for seconds in (60, 300, 40_000):
        assert after_answer(spent, Answer(429, retry_after_seconds=seconds), 0, NOON).day_limit is None
    late = replace(spent, spent_today=1)
    assert after_answer(late, Answer(429, retry_after_seconds=43_190), 0, NOON).day_limit == 10, "never none at all"


@pytest.mark.parametrize(("hours", "most"), [(1, 15), (6, 35), (11, 65), (12, 95)])
def test_an_outage_that_lasts_leaves_enough_for_when_it_is_over(hours: int, most: int) -> None:
    budget, now = free_tier(0), NOON
    while now < NOON + hours * 3600:
        budget = after_answer(after_taking(budget, now), Answer(None), 0, now)
        now += wait_seconds(budget, Limits(), [], now)
    assert budget.spent_today <= most


def test_what_was_spent_yesterday_is_still_known_when_today_has_begun() -> None:
    budget = after_taking(free_tier(95), MIDNIGHT + 1)
    assert [spent_on(budget, f"2026-04-0{number}") for number in (2, 3, 4)] == [0, 95, 1]


def test_each_request_is_counted_for_its_day_and_against_what_is_left() -> None:
    budget = after_taking(Budget(remaining=5, reset_at=NOON + 30), NOON)
    assert (budget.today, budget.spent_today, budget.remaining) == ("2026-04-03", 1, 4)
    assert after_taking(budget, NOON + 1).spent_today == 2
    assert after_taking(budget, MIDNIGHT).spent_today == 1
    assert after_taking(budget, NOON + 30).remaining is None
    assert after_taking(Budget(), NOON).remaining is None


def test_a_day_ends_at_midnight_utc() -> None:
    assert (day(MIDNIGHT - 0.001), day(MIDNIGHT)) == ("2026-04-03", "2026-04-04")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200), Budget(tells_no_limit=True)),
        (Answer(200, limit=60), Budget(limit=60)),
        (Answer(200, limit=0), Budget(tells_no_limit=True)),
        (Answer(200, remaining=7, reset_at=NOON + 20), Budget(remaining=6, reset_at=NOON + 20)),
        (Answer(200, remaining=7), Budget(remaining=6, reset_at=NOON + WINDOW_SECONDS)),
        (Answer(200, remaining=7, reset_at=NOON + 9999), Budget(remaining=6, reset_at=NOON + 2 * WINDOW_SECONDS)),
        (Answer(404), Budget()),
        (Answer(429, retry_after_seconds=17), Budget(paused_until=NOON + 17)),
        (Answer(429, retry_after_seconds=1), Budget(paused_until=NOON + 1)),
        (Answer(429, retry_after_seconds=0), Budget(paused_until=NOON + 60)),
        (Answer(429, retry_after_seconds=1e-300), Budget(paused_until=NOON + 60)),
        (
            Answer(429, remaining=0, reset_at=NOON + 0.01, retry_after_seconds=0),
            Budget(remaining=-1, reset_at=NOON + 0.01, paused_until=NOON + 1),
        ),
        (Answer(429), Budget(paused_until=NOON + 60)),
        (Answer(429, remaining=0, reset_at=NOON + 8),
         Budget(remaining=-1, reset_at=NOON + 8, paused_until=NOON + 8)),
    ],
)  # fmt: skip
def test_an_answer_teaches(answer: Answer, expected: Budget) -> None:
    assert after_answer(Budget(), answer, 1, NOON) == expected


@pytest.mark.parametrize("answer", [Answer(None), Answer(503), Answer(401), Answer(503, retry_after_seconds=33)])
def test_an_outage_is_waited_out_and_a_retry_after_is_obeyed_to_the_second(answer: Answer) -> None:
    budget = after_answer(Budget(), answer, 1, NOON)
    assert budget.outages == 1
    assert NOON + 0.75 <= budget.down_until <= NOON + 1
    wait = wait_seconds(budget, Limits(), [], NOON)
    assert wait == answer.retry_after_seconds if answer.retry_after_seconds else 0.75 <= wait <= 1


def test_a_limit_is_assumed_only_until_jarai_has_answered() -> None:
    many = [NOON] * 50
    assert wait_seconds(Budget(), Limits(), many, NOON) > 0
    silent = after_answer(Budget(), Answer(200), 0, NOON)
    assert wait_seconds(silent, Limits(), many, NOON) == 0
    assert wait_seconds(silent, Limits(per_minute=20), many, NOON) > 0
    assert wait_seconds(Budget(), Limits(per_minute=300), many, NOON) == 0
    known = after_answer(Budget(limit=10), Answer(200), 0, NOON)
    assert wait_seconds(known, Limits(), many, NOON) > 0


def test_an_outage_makes_pauses_longer_up_to_a_minute_and_one_good_answer_ends_it() -> None:
    budget, pauses = Budget(), []
    for _ in range(20):
        budget = replace(after_answer(budget, Answer(None), 0, NOON), down_until=0)
        pauses.append(after_answer(budget, Answer(None), 0, NOON).down_until - NOON)
    for pause, doubled in zip(pauses, (min(60, 2.0 ** (n + 1)) for n in range(20)), strict=True):
        assert 0.74 * doubled <= pause <= doubled  # spread, so that deployments do not come back in step
    assert after_answer(budget, Answer(200), 0, NOON).outages == 0


@pytest.mark.parametrize("answer", [Answer(429, retry_after_seconds=1), Answer(503, retry_after_seconds=1)])
def test_a_pause_is_never_cut_short_by_another_answer(answer: Answer) -> None:
    assert after_answer(Budget(paused_until=NOON + 900), answer, 0, NOON).paused_until == NOON + 900
    assert after_answer(Budget(down_until=NOON + 900), Answer(None), 0, NOON).down_until == NOON + 900


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Answer(200)),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": str(int(NOON) + 9)},
            Answer(200, limit=60, remaining=3, reset_at=NOON + 9),
        ),
        # JARAI's clock is an hour ahead: only the difference to its own Date counts
        (
            {
                "x-ratelimit-reset": str(int(NOON) + 3609),
                "date": format_datetime(datetime.fromtimestamp(NOON + 3600, UTC), usegmt=True),
            },
            Answer(200, reset_at=NOON + 9),
        ),
        ({"x-ratelimit-reset": "0"}, Answer(200, reset_at=NOON)),
        ({"x-ratelimit-limit": "-1", "x-ratelimit-remaining": "2.5", "x-ratelimit-reset": "soon"}, Answer(200)),
        ({"x-ratelimit-limit": "٣", "x-ratelimit-remaining": "", "x-ratelimit-reset": "9" * 40}, Answer(200)),
    ],
)
def test_the_headers_tell_the_budget_and_nonsense_tells_nothing(headers: dict[str, str], expected: Answer) -> None:
    assert read_answer(200, headers, None, NOON) == expected


HEADERS = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "date"]


@given(
    st.none() | st.integers(100, 599),
    st.dictionaries(st.sampled_from(HEADERS), st.text() | st.text("0123456789 ,:+-JanMonGMT", max_size=30)),
    st.none() | st.floats(0, 90_000),
)
@example(200, {"date": "Mon, 01 Jan 0001 00:00:00 +2359", "x-ratelimit-reset": "5"}, None)
@example(200, {"date": "Mon, 01 Jan 9999 00:00:00 -9999", "x-ratelimit-reset": "5"}, None)
@example(200, {"date": "Mon, 01 Jan 0001 00:00:00", "x-ratelimit-reset": "5"}, None)
def test_no_answer_stops_the_asking_for_longer_than_it_says(
    status: int | None, headers: dict[str, str], retry_after: float | None
) -> None:
    budget = after_answer(Budget(), read_answer(status, headers, retry_after, NOON), 0, NOON)
    wait = wait_seconds(budget, Limits(), [], NOON)
    assert 0 <= wait <= max(2 * WINDOW_SECONDS, retry_after or 0) + 1e-3


@dataclass
class StrictServer:
    """JARAI's limit to the letter: at most `limit` requests in any 60 seconds."""

    limit: int
    arrivals: list[float] = field(default_factory=list)
    most: int = 0

    def take(self, at: float) -> dict[str, str]:
        self.arrivals = [*(one for one in self.arrivals if one > at - 60), at]
        self.most = max(self.most, len(self.arrivals))
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - len(self.arrivals))),
            "x-ratelimit-reset": str(math.ceil(min(self.arrivals) + 60)),
            "date": format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True),
        }


@dataclass
class Pollers:
    """Several pollers that share one budget and one list of requests, as they do in Redis, on a virtual clock."""

    server: StrictServer
    limits: Limits
    dice: Random
    budget: Budget = field(default_factory=Budget)
    sent: list[float] = field(default_factory=list)
    flying: int = 0

    def run(self, count: int, seconds: float, slowest_answer: float) -> None:
        turns: list[tuple[float, int, str, dict[str, str] | None]] = [
            (NOON, poller, "ask", {}) for poller in range(count)
        ]
        while turns:
            now, poller, what, headers = heapq.heappop(turns)
            if now > NOON + seconds:
                return
            if what == "arrive":
                answered = None if self.dice.random() < 0.05 else self.server.take(now)
                heapq.heappush(turns, (now + self.dice.uniform(0, slowest_answer), poller, "answer", answered))
            elif what == "answer":
                self.flying -= 1
                status = None if headers is None else self.dice.choice([200, 200, 200, 404])
                answer = read_answer(status, headers or {}, None, now)
                self.budget = after_answer(self.budget, answer, self.flying, now)
                heapq.heappush(turns, (now + self.dice.uniform(0, 0.5), poller, "ask", {}))
            else:
                heapq.heappush(turns, self._ask(now, poller))

    def _ask(self, now: float, poller: int) -> tuple[float, int, str, dict[str, str] | None]:
        recent = [one for one in self.sent if one >= now - WINDOW_SECONDS]
        wait = wait_seconds(self.budget, self.limits, recent, now, in_flight=self.flying)
        if wait:
            return now + wait * self.dice.uniform(0.5, 1.1), poller, "ask", {}
        self.budget = after_taking(self.budget, now)
        self.sent.append(now)
        self.flying += 1
        return now + self.dice.uniform(0, 0.99), poller, "arrive", {}


@given(
    st.sampled_from([10, 11, 30, 60, 300]),
    st.none() | st.integers(1, 400),
    st.integers(1, 6),
    st.sampled_from([0.05, 1.0, 8.0]),
    st.integers(0, 10_000),
)
def test_any_number_of_pollers_together_never_ask_over_the_limit(
    limit: int, own_bound: int | None, pollers: int, slowest_answer: float, seed: int
) -> None:
    server = StrictServer(limit)
    Pollers(server, Limits(per_minute=own_bound), Random(seed)).run(pollers, 200, slowest_answer)
    assert 1 <= server.most <= max(1, min(limit, own_bound or limit) - 2)


def test_eager_pollers_use_most_of_what_they_are_allowed() -> None:
    server = StrictServer(60)
    pollers = Pollers(server, Limits(), Random(1))
    pollers.run(3, 600, 0.05)
    assert len(pollers.sent) > 0.75 * 58 * 600 / WINDOW_SECONDS


def test_requests_that_fail_together_are_one_outage() -> None:
    """However many pollers were asking when JARAI went down."""
    down = Answer(status=503)
    first = after_answer(Budget(), down, 3, NOON)
    again = after_answer(after_answer(first, down, 2, NOON + 0.1), down, 1, NOON + 0.2)
    assert again.outages == first.outages == 1
    assert again.down_until < NOON + 2
    assert after_answer(again, down, 0, NOON + 5).outages == 2
