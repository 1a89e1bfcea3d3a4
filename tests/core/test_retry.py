"""When to try again, and when to give up."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.retry import (
    Failure,
    after_download_failure,
    after_failed_advance,
    after_failed_ask,
    backoff,
    resumes_at_once,
)


@given(st.integers(-3, 10_000), st.floats(0.1, 60), st.floats(60, 3600), st.text(max_size=5))
def test_a_pause_doubles_up_to_its_cap_and_is_spread_over_a_quarter(
    attempt: int, first: float, longest: float, salt: str
) -> None:
    full = min(longest, first * 2.0 ** min(max(attempt, 1) - 1, 40))
    pause = backoff(attempt, first_seconds=first, longest_seconds=longest, salt=salt).total_seconds()
    assert 0.75 * full - 1e-5 <= pause <= full + 1e-5


def test_the_same_failure_always_gives_the_same_pause_and_others_are_spread() -> None:
    pauses = {backoff(3, first_seconds=1, longest_seconds=60, salt=str(salt)) for salt in range(100)}
    assert len(pauses) > 90
    assert backoff(3, first_seconds=1, longest_seconds=60, salt="7") in pauses


@pytest.mark.parametrize(("failure", "attempts"), [("expired", 6), ("transfer", 12), ("corrupt", 4), ("forbidden", 1)])
def test_a_file_is_given_up_after_so_many_failures_in_a_row(failure: Failure, attempts: int) -> None:
    pauses = [after_download_failure(failure, attempt, attempt, "salt") for attempt in range(1, attempts)]
    assert all(pause is not None and timedelta(0) < pause <= timedelta(minutes=10) for pause in pauses)
    assert after_download_failure(failure, attempts, attempts, "salt") is None
    assert after_download_failure(failure, attempts + 1, attempts + 1, "salt") is None


@pytest.mark.parametrize(("failure", "seconds"), [("storage", 30), ("stopped", 0)])
def test_a_full_disk_and_a_shutdown_never_end_in_giving_up(failure: Failure, seconds: int) -> None:
    assert after_download_failure(failure, 10_000, 10_000, "salt") == timedelta(seconds=seconds)


def test_jarai_is_asked_ever_more_rarely_while_it_gives_no_answer() -> None:
    pauses = [after_failed_ask(failures, "salt") for failures in range(1, 20)]
    assert timedelta(seconds=1.5) <= pauses[0] <= timedelta(seconds=2)
    assert all(later > earlier for earlier, later in pairwise(pauses[:9]))
    assert all(pause <= timedelta(minutes=15) for pause in pauses)


def test_a_production_whose_processing_raised_is_tried_again_within_a_minute() -> None:
    assert after_failed_advance(1) <= timedelta(seconds=0.5)
    assert after_failed_advance(50) <= timedelta(seconds=60)


def test_a_broken_line_is_gone_on_with_as_long_as_it_brings_something() -> None:
    mebi = 1024 * 1024
    assert resumes_at_once(1, mebi)
    assert resumes_at_once(20, 5 * mebi)
    assert not resumes_at_once(21, 5 * mebi)
    assert not resumes_at_once(1, mebi - 1)
