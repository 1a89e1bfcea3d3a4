"""A short proof in every run of the tests: three seeds, whatever they break."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plan import Fault, Signal, Store, plan
from tests.chaos.report import text
from tests.chaos.round import play

_SECONDS = 10
_SETTLE_SECONDS = 180
_SEEDS = (2441, 2732, 29737)  # their plans bring much within so short a time, as the first test says


def test_each_of_the_plans_kills_loses_webhooks_and_troubles_redis() -> None:
    troubles = set()
    for seed in _SEEDS:
        actions = plan(seed, _SECONDS)
        assert len([one for one in actions if isinstance(one, Signal) and one.name == "KILL"]) >= 3
        assert [one for one in actions if isinstance(one, Fault) and one.name == "loss"]
        assert [one for one in actions if isinstance(one, Fault) and one.name.startswith("blob_")]
        here = {one.trouble for one in actions if isinstance(one, Store)}
        assert len(here) >= 2
        troubles |= here
    assert troubles >= {"kill", "freeze", "read_only", "full", "cut"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", _SEEDS)
def test_whatever_breaks_nothing_is_lost_doubled_wrong_or_left_behind(seed: int, tmp_path: Path) -> None:
    found = play(seed, _SECONDS, tmp_path / "c", _SETTLE_SECONDS)
    assert found.events, "something happened"
    assert not found.violations, text(found)
