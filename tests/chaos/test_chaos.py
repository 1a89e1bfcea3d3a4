"""A short proof in every run of the tests: three seeds, whatever they break."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import text
from tests.chaos.round import play

_SECONDS = 15
_SETTLE_SECONDS = 180


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [156, 288, 338])
def test_whatever_breaks_nothing_is_lost_doubled_wrong_or_left_behind(seed: int, tmp_path: Path) -> None:
    found = play(seed, _SECONDS, tmp_path / "c", _SETTLE_SECONDS)
    assert found.events, "something happened"
    assert not found.violations, text(found)
