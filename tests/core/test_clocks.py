"""A clock that is wrong, or was, makes nothing wait and nothing be believed that is not so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from service.core.production import Production
from tests.core.given import INTERVALS, NEW, after, answered, arrived, at, item, listing, ready

HOUR = 3600.0
QUEUED = after(arrived("production.queued", 1), answered("Producing", 50))


@pytest.mark.parametrize("name", ["hole_at", "last_event_at", "last_asked_at", "last_failed_at", "last_listed_at"])
def test_a_memory_of_an_hour_that_has_not_come_does_not_put_off_the_next_question(name: str) -> None:
    spoilt = replace(QUEUED, created_at=at(HOUR), ask_failures=1, **{name: at(HOUR)})  # type: ignore[arg-type]
    known = after(before=spoilt, seconds=100)
    assert known.status_at is not None
    assert known.status_at <= at(100) + INTERVALS.silence
    assert known.created_at == at(100)


def test_an_answer_counts_although_an_earlier_one_was_written_down_an_hour_ahead() -> None:
    ahead = after(answered("Queued", HOUR), before=NEW, seconds=HOUR)
    known = after(answered("Published", 100, as_of=at(100)), before=ahead, seconds=100)
    assert known.status == "Published"


@pytest.mark.parametrize("wrong_by", [-HOUR, HOUR])
def test_an_address_is_good_for_as_long_as_jarai_says_whatever_our_clock_says(wrong_by: float) -> None:
    """JARAI's `Date` and the expiry that it names are by one clock; how long is left is what counts."""
    item_ = item(expiresAt=at(1000 + HOUR).isoformat())
    answer = replace(listing(item_, seconds=1000), as_of=at(1000), at=at(1000 + wrong_by))
    known = after(answer, before=PUBLISHED, seconds=1000 + wrong_by)
    [one] = known.deliverables
    assert one.link_expires_at == at(1000 + wrong_by) + timedelta(hours=1)


PUBLISHED: Production = after(arrived("production.published", 1), ready(2, truncated=True))
