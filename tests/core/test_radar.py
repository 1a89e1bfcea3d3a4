"""How many webhooks were really missed: counted from the numbers that are kept, and from what only a poll told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.core.events import Event
from service.core.experience import Experience
from service.core.radar import account
from tests.core.given import NEW, arrived

STEP, READY, DONE = "production.step.complete", "deliverable.ready", "production.published"
PUBLISHED = replace(NEW, status="Published", source="webhook")


def life(*numbers: int) -> list[Event]:
    """Of eight events these arrived: the first is `queued`, the last two `ready` and `published`."""
    types = {1: "production.queued", 7: READY, 8: DONE}
    return [arrived(types.get(number, STEP), number, happened=number * 10).event for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "missed"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8), 0),
        ((8, 7, 6, 5, 4, 3, 2, 1), 0),
        ((1, 3, 4, 5, 6, 7, 8), 1),
        ((2, 3, 4, 5, 6, 7, 8), 1),
        ((0, 1, 2, 8), 5),
        ((8,), 7),
    ],
)
def test_each_number_that_never_came_was_missed(numbers: tuple[int, ...], missed: int) -> None:
    found = account(PUBLISHED, life(*numbers), Experience())
    assert (found.received, found.missed, found.unsubscribed, found.end_missed) == (len(numbers), missed, 0, False)


def test_an_end_that_only_a_poll_told_was_missed_too() -> None:
    found = account(replace(PUBLISHED, source="poll"), life(1, 2, 3, 4, 5, 6, 7), Experience())
    assert (found.missed, found.end_missed) == (1, True)
    assert account(PUBLISHED, [], Experience()).missed == 1
    assert account(replace(PUBLISHED, source="manifest"), [], Experience()).missed == 0, "it was brought back"
    assert account(replace(NEW, status="Producing"), life(1, 2), Experience()).missed == 0


def test_an_end_that_an_event_of_an_undocumented_type_may_have_told_is_not_called_missed() -> None:
    """CONTRACT [open]: the names of three event types, of which one tells that a production was cancelled."""
    told = [*life(1, 2), arrived("something.new", 3).event]
    cancelled = replace(NEW, status="Cancelled", source="poll")
    assert account(cancelled, told, Experience()).missed == 0
    assert account(cancelled, told[:2], Experience()).missed == 1


def test_what_is_always_missing_is_the_subscriptions_and_not_lost() -> None:
    lacking = Experience().after((), [(READY, 3), *[(READY, 5)] * 9])
    found = account(PUBLISHED, life(1, 7, 8), lacking)
    assert (found.missed, found.unsubscribed) == (0, 5)
    always_four = Experience().after((), [(READY, 4)] * 10)
    found = account(PUBLISHED, life(1, 7, 8), always_four)
    assert (found.missed, found.unsubscribed) == (1, 4)
    assert account(PUBLISHED, life(1, 7, 8), Experience()).missed == 5


def test_it_teaches_the_silences_with_nothing_missing_in_them_and_what_came_before_what() -> None:
    found = account(PUBLISHED, life(1, 2, 4, 5, 6, 7, 8), Experience())
    assert found.gaps == (
        ("Queued", 10), ("Producing", 10), ("Producing", 10), ("Producing", 10), ("AwaitingApproval", 10)
    )  # fmt: skip
    assert found.preceded[:4] == (("production.queued", 0), (STEP, 0), (STEP, 1), (STEP, 0))


def test_silence_in_a_status_that_is_not_known_teaches_nothing() -> None:
    told = [arrived("something.new", 1).event, arrived("something.new", 2).event, arrived(STEP, 3).event]
    assert account(NEW, told, Experience()).gaps == ()


def test_clocks_that_went_back_and_numbers_that_jump_count_little() -> None:
    back = [arrived(STEP, 1, happened=50).event, arrived(STEP, 2, happened=10).event]
    assert account(NEW, back, Experience()).gaps == (("Producing", 0.0),)
    assert account(PUBLISHED, [arrived(DONE, 2**53 - 1).event], Experience()).missed == 1000
