"""When JARAI has to be asked, as a table: what is known of a production, and the second at which it is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.core.deliverables import wanted
from service.core.experience import Experience
from service.core.production import Production
from service.core.schedule import Intervals, held_until, longest_unnoticed, next_list_at, next_status_at
from tests.core.given import NEW, START, at, one

INTERVALS = Intervals(
    queued=timedelta(seconds=10),
    producing=timedelta(seconds=30),
    waiting=timedelta(seconds=60),
    silence=timedelta(seconds=90),
)
NOW = 1000
STORED = replace(wanted(one()), state="stored")
LINKED = replace(wanted(one()), link_expires_at=at(5000))
UNLINKED = wanted(one())


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        (None, 10),
        ("Queued", 10),
        ("Producing", 30),
        ("AwaitingApproval", 60),
        ("Distributing", 60),
        ("Invented", 60),
    ],
)
def test_each_status_has_its_interval(status: str | None, seconds: int) -> None:
    assert INTERVALS.of(status) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        # nothing is known: a moment for the first webhook, then ask
        ({}, 5),
        ({"ask_failures": 1, "last_failed_at": at(999)}, None),
        # the interval after the last answer, whatever the time is now
        ({"status": "Queued", "last_asked_at": at(8)}, 18),
        ({"status": "Producing", "last_asked_at": at(50)}, 80),
        ({"status": "AwaitingApproval", "last_asked_at": at(50)}, 110),
        ({"status": "Invented", "last_asked_at": at(50)}, 110),
        ({"last_asked_at": at(8)}, 18),
        # a quarter of the time in which nothing was new, once that is longer; at most an hour
        ({"status": "Queued", "last_asked_at": at(400)}, 500),
        ({"status": "Producing", "last_asked_at": at(400)}, 500),
        ({"status": "Producing", "last_asked_at": at(400), "updated_at": at(300)}, 430),
        ({"status": "Producing", "last_asked_at": at(400), "last_event_at": at(200)}, 450),
        ({"status": "AwaitingApproval", "last_asked_at": at(100_000)}, 103_600),
        # webhooks that arrive put it off until they have been silent
        ({"last_event_at": at(20)}, 110),
        ({"status": "Producing", "last_event_at": at(20)}, 110),
        ({"status": "Producing", "last_event_at": at(20), "last_asked_at": at(100)}, 130),
        # for longer than they are usually, by its own events
        ({"status": "Producing", "last_event_at": at(20), "longest_gap_seconds": 50.0}, 110),
        ({"status": "Producing", "last_event_at": at(20), "longest_gap_seconds": 100.0}, 170),
        ({"status": "Producing", "last_event_at": at(20), "longest_gap_seconds": 9999.0}, 1820),
        # a hole in their numbers ends that patience
        ({"status": "Producing", "last_event_at": at(20), "hole_at": at(18)}, 48),
        ({"status": "Producing", "last_event_at": at(20), "hole_at": at(18), "last_asked_at": at(40)}, 70),
        ({"status": "Producing", "last_event_at": at(20), "hole_at": at(18), "longest_gap_seconds": 100.0}, 48),
        # what has not been picked up has expired
        ({"status": "Queued", "last_event_at": at(1), "expires_at": at(60)}, 65),
        ({"status": "Queued", "last_event_at": at(70), "expires_at": at(60)}, 70),
        ({"status": "Queued", "last_event_at": at(1), "last_asked_at": at(50), "expires_at": at(55)}, 60),
        ({"status": "Queued", "last_event_at": at(1), "last_asked_at": at(100), "expires_at": at(60)}, 124.75),
        ({"status": "Queued", "last_event_at": at(1), "expires_at": at(600)}, 91),
        ({"status": "Producing", "last_event_at": at(1), "expires_at": at(60)}, 91),
        ({"status": "Queued", "last_event_at": at(1), "expires_at": datetime.max.replace(tzinfo=UTC)}, 91),
        # terminal, or refused: never
        *(({"status": final, "last_asked_at": at(50)}, -1) for final in ("Published", "Failed", "Cancelled")),
        ({"status": "Producing", "refused": "no"}, -1),
        # somebody asked, or an unknown event came: at once, unless the unknown event is older than an answer
        ({"status": "Published", "refresh_wanted": True}, NOW),
        ({"status": "Producing", "refresh_wanted": True, "refused": "no"}, NOW),
        ({"status": "Producing", "unknown_sequence": 3, "last_asked_at": at(990)}, NOW),
        ({"status": "Producing", "unknown_sequence": 3, "excused_sequence": 3, "last_asked_at": at(90)}, 120),
        ({"status": "Published", "unknown_sequence": 3}, -1),
    ],
)
def test_the_status_is_asked_for(known: dict[str, Any], seconds: float | None) -> None:
    """-1: never; None: some time later than now."""
    asked_at = next_status_at(replace(NEW, **known), at(NOW), INTERVALS)
    if seconds is None:
        assert asked_at is not None
        assert asked_at > at(NOW)
    else:
        assert asked_at == (None if seconds < 0 else at(seconds))


def taught(seconds: float, times: int = 40, status: str = "Producing") -> Intervals:
    return replace(INTERVALS, experience=Experience().after([(status, seconds)] * times, ()))


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        (taught(200), 250),
        (taught(40), 90),  # never shorter than the setting
        (taught(7200), 1800),  # nor longer than half an hour
        (taught(200, times=19), 90),  # nineteen are too few to go by
        (taught(200, status="Queued"), 90),
    ],
)
def test_its_siblings_tell_how_long_it_may_be_silent(intervals: Intervals, seconds: float) -> None:
    production = replace(NEW, status="Producing", last_event_at=START)
    assert next_status_at(production, at(NOW), intervals) == at(seconds)


def test_a_production_whose_deliverables_are_ready_is_made_and_waits() -> None:
    made = replace(NEW, status="Producing", status_sequence=16, event_listed_sequence=17, last_event_at=START)
    assert made.phase == "AwaitingApproval"
    assert next_status_at(made, at(NOW), taught(200, status="AwaitingApproval")) == at(250)
    assert replace(made, status_sequence=18).phase == "Producing"
    assert replace(made, ready_sequence=19, status_sequence=18).phase == "AwaitingApproval"
    assert replace(made, status="Published").phase == "Published"


@pytest.mark.parametrize(
    ("sustainable", "asked", "patience"),
    [(3600, 3600, 1800), (1000, 1000, 1000), (120, 120, 300), (5, 60, 300)],
)
def test_what_the_budget_can_sustain_bounds_how_seldom_is_asked(
    sustainable: float, asked: float, patience: float
) -> None:
    intervals = replace(taught(7200, status="AwaitingApproval"), sustainable=timedelta(seconds=sustainable))
    waiting = replace(NEW, status="AwaitingApproval", last_asked_at=at(100_000))
    assert next_status_at(waiting, at(NOW), intervals) == at(100_000 + asked)
    assert intervals.patience(waiting) == timedelta(seconds=patience)


SUSPECTED = replace(NEW, status="Producing", last_event_at=at(20), last_asked_at=at(50))


@pytest.mark.parametrize(
    ("production", "seconds"),
    [
        (SUSPECTED, 650),
        (replace(SUSPECTED, last_asked_at=None), 620),
        (replace(SUSPECTED, last_asked_at=None, last_event_at=None), 600),
        # what tells much is not put off
        (replace(SUSPECTED, hole_at=at(20)), None),
        (replace(SUSPECTED, list_at=at(60)), None),
        (replace(SUSPECTED, refresh_wanted=True), None),
        (replace(SUSPECTED, unknown_sequence=3), None),
        (replace(SUSPECTED, status="Queued", expires_at=at(700), status_at=at(705)), None),
        (replace(SUSPECTED, retry_at=at(60)), None),
        (NEW, None),
        (replace(NEW, last_asked_at=at(50)), 650),
        # while it is queued, it is asked about when it expires at the latest
        (replace(SUSPECTED, status="Queued", expires_at=at(700), status_at=at(80)), 650),
        (replace(SUSPECTED, status="Queued", expires_at=at(300), status_at=at(80)), 305),
        (replace(SUSPECTED, status="Queued", expires_at=at(40), status_at=None), 650),
        (replace(SUSPECTED, status="Queued"), 650),
        # an answer that was no use counts as one
        (replace(SUSPECTED, last_failed_at=at(100)), 700),
    ],
)
def test_only_mere_suspicion_waits_for_the_budget_of_the_day(production: Production, seconds: float | None) -> None:
    assert held_until(production, timedelta(minutes=10)) == (None if seconds is None else at(seconds))


def test_it_is_known_how_long_a_lost_webhook_goes_unnoticed_at_the_longest() -> None:
    def longest(*productions: Production, spread: float = 0, intervals: Intervals = INTERVALS) -> float:
        return longest_unnoticed(productions, at(NOW), intervals, timedelta(seconds=spread)).total_seconds()

    heard = replace(NEW, status="Producing", last_event_at=at(20))
    asked = replace(NEW, status="AwaitingApproval", last_asked_at=at(800))
    assert longest() == 90
    assert longest(spread=500) == 500
    assert longest(intervals=taught(200)) == 250
    assert longest(heard) == 90
    assert longest(heard, asked) == 200
    assert longest(heard, asked, spread=700) == 700
    assert longest(replace(heard, hole_at=at(20)), spread=700) == 30
    assert longest(replace(NEW, status="Published")) == 90


@pytest.mark.parametrize("known", [{"status": "Producing"}, {"refresh_wanted": True}])
def test_answers_that_are_no_use_put_the_next_question_off(known: dict[str, Any]) -> None:
    failing = [
        replace(NEW, **known, ask_failures=failures, last_failed_at=at(NOW), last_asked_at=START)
        for failures in range(1, 6)
    ]
    times = [next_status_at(production, at(NOW), INTERVALS) for production in failing]
    assert all(time is not None and time > at(NOW) for time in times)
    assert times == sorted(times, key=lambda time: time or START)


@pytest.mark.parametrize(
    ("known", "needed"),
    [
        ({}, False),
        ({"status": "Producing"}, False),
        ({"status": "Failed"}, False),
        ({"list_wanted": True}, True),
        ({"deliverables": (UNLINKED,)}, True),
        ({"deliverables": (LINKED,)}, False),
        ({"deliverables": (STORED,)}, False),
        ({"status": "AwaitingApproval"}, True),
        ({"status": "Published", "listed_sequence": 0}, False),
        ({"status": "Published", "listed_sequence": 4, "missing": ((2, 3),)}, False),
        ({"status": "Published", "listed_sequence": 4, "missing": ((2, 3), (5, 6))}, True),
    ],
)
def test_a_list_is_needed_where_files_may_be_unknown_or_lack_an_address(known: dict[str, Any], needed: bool) -> None:
    assert replace(NEW, **known).needs_list is needed


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({"status": "Producing"}, None),
        ({"status": "Published", "list_refused": "no"}, None),
        ({"status": "Published", "source": "poll"}, NOW),
        # the event that brings the list may be on its way
        ({"status": "Published", "source": "webhook", "last_event_at": at(997)}, 1002),
        ({"status": "Published", "source": "webhook"}, 1005),
        ({"status": "Published", "source": "webhook", "last_event_at": at(997), "list_wanted": True}, NOW),
        ({"status": "Published", "source": "webhook", "deliverables": (UNLINKED,)}, NOW),
        ({"status": "Published", "source": "poll", "list_attempts": 2}, NOW),
    ],
)
def test_the_list_is_asked_for(known: dict[str, Any], seconds: int | None) -> None:
    assert next_list_at(replace(NEW, **known), at(NOW), INTERVALS) == (None if seconds is None else at(seconds))


def test_lists_that_are_no_use_put_the_next_one_off() -> None:
    times = [
        next_list_at(replace(NEW, list_wanted=True, list_attempts=n, last_listed_at=at(NOW)), at(NOW), INTERVALS)
        for n in range(1, 6)
    ]
    assert all(time is not None and time > at(NOW) for time in times)
    assert times == sorted(times, key=lambda time: time or START)
