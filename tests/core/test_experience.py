"""What productions teach: how long silence is usual, and which holes are always there."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.experience import Experience, from_json, to_json

READY, STEP = "deliverable.ready", "production.step.complete"


@pytest.mark.parametrize(("low", "high"), [(10, 20), (1, 300), (0.05, 0.5)])
def test_nine_of_ten_silences_are_shorter_than_what_is_called_usual(low: float, high: float) -> None:
    dice, known, shorter = Random(1), Experience(), 0
    for number in range(2000):
        seconds = dice.uniform(low, high)
        if number >= 1000:
            shorter += timedelta(seconds=seconds) < (known.usual_silence("Producing") or timedelta(0))
        known = known.after([("Producing", seconds)], ())
    assert 0.8 < shorter / 1000 < 0.97


def test_one_silence_beyond_all_measure_is_soon_forgotten() -> None:
    known = Experience().after([("Producing", 7e8), *[("Producing", 60.0)] * 300], ())
    assert (known.usual_silence("Producing") or timedelta(0)) < timedelta(minutes=4)


def test_a_pipeline_that_becomes_slower_is_followed() -> None:
    known = Experience().after([("Producing", 10.0)] * 50, ()).after([("Producing", 100.0)] * 30, ())
    assert timedelta(seconds=60) < (known.usual_silence("Producing") or timedelta(0)) <= timedelta(seconds=100)


def test_little_is_no_experience_and_statuses_do_not_teach_each_other() -> None:
    known = Experience().after([("Producing", 10.0)] * 19, ())
    assert known.usual_silence("Producing") is None
    known = known.after([("Producing", 10.0), ("Invented", 5.0)], ())
    assert known.usual_silence("Producing") == timedelta(seconds=10)
    assert known.usual_silence("Queued") is known.usual_silence(None) is known.usual_silence("Invented") is None
    assert set(known.gaps) == {"Producing"}


def test_a_hole_that_is_there_ten_times_in_a_row_is_always_there_until_one_time_it_is_not() -> None:
    known = Experience().after((), [(READY, 3)] * 9)
    assert not known.always_missing_before(READY)
    known = known.after((), [(READY, 2), (STEP, 0)])
    assert known.always_missing_before(READY)
    assert not known.always_missing_before(STEP)
    assert not known.after((), [(READY, 0)]).always_missing_before(READY)


def test_where_as_many_are_missing_each_time_one_more_got_lost() -> None:
    same = Experience().after((), [(READY, 2)] * 10)
    assert [same.is_always_so(READY, missing) for missing in (1, 2, 3)] == [False, True, False]
    assert [same.unsubscribed(READY, missing) for missing in (1, 2, 3)] == [1, 2, 2]
    other = same.after((), [(READY, 3)])
    assert other.always_missing_before(READY)
    assert not other.is_always_so(READY, 2)
    assert other.unsubscribed(READY, 9) == 9, "any number may be the subscription's"
    assert Experience().unsubscribed(READY, 9) == 0
    assert not Experience().is_always_so(READY, 0)


def test_webhooks_that_get_lost_at_random_teach_no_hole() -> None:
    dice, known = Random(7), Experience()
    for _ in range(3000):
        known = known.after((), [(READY, int(dice.random() < 0.3))])
        assert not known.always_missing_before(READY)


def test_however_many_types_there_are_the_memory_of_them_stays_small() -> None:
    known = Experience().after((), [(f"type.{number}", 1) for number in range(500)] + [(READY, 1)])
    assert len(known.holes) == 33, "a documented one always has its place"
    assert len(to_json(known.after([("Queued", 0.0)] * 99, ()))) < 2000


@given(st.lists(st.tuples(st.sampled_from(["Queued", "Producing"]), st.floats(0, 1e9))))
def test_what_is_learnt_lies_within_what_was_seen_and_can_be_kept(gaps: list[tuple[str, float]]) -> None:
    known = Experience().after(gaps, ())
    for status, usual in known.gaps.items():
        seen = [seconds for name, seconds in gaps if name == status]
        assert min(3600, *seen) <= usual.seconds <= max(0.001, *seen)
        assert usual.count == len(seen)
    assert from_json(to_json(known)) == known
