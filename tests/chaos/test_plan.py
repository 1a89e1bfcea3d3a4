"""The plan is a pure function, and leaves nothing broken behind."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.plan import Action, Fault, Freeze, Signal, Start, Store, plan, show

SEEDS = range(40)


def test_the_same_seed_and_length_give_the_same_plan() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)
    assert len(show(plan(7, 60)).splitlines()) == len(plan(7, 60))


@pytest.mark.parametrize("seconds", [0, 5, 20, 90])
def test_everything_begins_in_order_and_ends_in_time(seconds: float) -> None:
    for seed in SEEDS:
        actions = plan(seed, seconds)
        assert list(actions) == sorted(actions, key=lambda action: action.at)
        assert all(action.at >= 0 and action.at + action.seconds <= seconds for action in actions)


def _subject(action: Action) -> str:
    match action:
        case Freeze():
            return "freeze"
        case Fault():
            return action.name
        case Store():
            return "redis"
        case _:
            return ""


def test_no_trouble_begins_before_the_one_before_of_its_kind_has_ended() -> None:
    for seed in SEEDS:
        actions = plan(seed, 90)
        for kind in {_subject(action) for action in actions} - {""}:
            alike = [action for action in actions if _subject(action) == kind]
            assert all(before.at + before.seconds <= after.at + 1e-6 for before, after in pairwise(alike))


def test_some_seed_brings_each_kind_of_trouble() -> None:
    actions = [action for seed in SEEDS for action in plan(seed, 90)]
    assert {a.trouble for a in actions if isinstance(a, Store)} == {
        "kill",
        "restart",
        "freeze",
        "read_only",
        "full",
        "cut",
    }
    assert len({a.name for a in actions if isinstance(a, Fault)}) == 17
    assert len({(a.process, a.name) for a in actions if isinstance(a, Signal)}) == 20
    assert any(a.seconds > 30 for a in actions if isinstance(a, Freeze))
    assert {one.outcome for a in actions if isinstance(a, Start) for one in a.productions} == {
        "Published",
        "Failed",
        "Cancelled",
        "Expired",
    }
