"""Whole days of productions in virtual time, by the same simulation as `make bench`: the budget goes round."""

from __future__ import annotations

import pytest

from tests.bench.polling import FREE, STANDARD, Row, simulate


@pytest.mark.parametrize("pollers", [1, 3])
def test_on_the_smallest_tier_three_a_day_settle_with_a_third_of_the_webhooks_lost(pollers: int) -> None:
    """CONTRACT [docs]: 10 requests a minute, 100 a day, 3 productions a day."""
    ours, guide = simulate(Row(FREE, 3, 0.3, days=6), seed=5, pollers=pollers)
    assert (ours.settled, ours.refused) == (18, 0)
    assert ours.busiest_day <= 95, "a person may always ask"
    assert max(ours.delays) < 3600
    assert ours.requests < guide.requests


def test_without_any_webhook_everything_settles_and_jarai_never_has_to_say_no() -> None:
    for row in (Row(FREE, 3, 1.0, days=3), Row(STANDARD, 20, 1.0, days=1)):
        ours, _ = simulate(row, seed=9)
        assert (ours.settled, ours.refused) == (row.days * row.a_day, 0)
