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
    known = Experience().after((), [(READY, True)] * 9)
    assert not known.always_missing_before(READY)
    known = known.after((), [(READY, True), (STEP, False)])
    assert known.always_missing_before(READY)
    assert not known.always_missing_before(STEP)
    assert not known.after((), [(READY, False)]).always_missing_before(READY)


def test_webhooks_that_get_lost_at_random_teach_no_hole() -> None:
    dice, known = Random(7), Experience()
    for _ in range(3000):
        known = known.after((), [(READY, dice.random() < 0.3)])
        assert not known.always_missing_before(READY)


def test_however_many_types_there_are_the_memory_of_them_stays_small() -> None:
    known = Experience().after((), [(f"type.{number}", True) for number in range(500)])
    assert len(known.holes) == 32
    assert len(to_json(known.after([("Queued", 0.0)] * 99, ()))) < 2000


@given(st.lists(st.tuples(st.sampled_from(["Queued", "Producing"]), st.floats(0, 1e9))))
def test_what_is_learnt_lies_within_what_was_seen_and_can_be_kept(gaps: list[tuple[str, float]]) -> None:
    known = Experience().after(gaps, ())
    for status, usual in known.gaps.items():
        seen = [seconds for name, seconds in gaps if name == status]
        assert min(seen) <= usual.seconds <= max(0.001, *seen)
        assert usual.count == len(seen)
    assert from_json(to_json(known)) == known
