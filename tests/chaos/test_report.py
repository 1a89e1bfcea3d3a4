"""The report adds up, can be read by a person and by a program."""

from __future__ import annotations

import json
from collections import Counter

from tests.chaos.plan import plan
from tests.chaos.report import as_json, report, text, together
from tests.chaos.test_verdict import DOCTORED, ONE, evidence, sound


def test_two_rounds_add_up() -> None:
    parts = sound()
    parts["truth"]["productions"][0]["terminalAt"] = "2026-04-03T14:30:00Z"
    parts["timelines"][ONE][-1]["at"] = "2026-04-03T14:30:02.500Z"
    counters = {"events": 2, "deliveries": 4, "acknowledged": 2, "blobBytes": 6, "faultsStruck": {"loss": 1}}
    parts["truth"]["counters"] = counters
    well = report(7, 60, plan(7, 60), evidence(parts), 3.0, Counter({"web-1": 1}))
    DOCTORED["a byte is wrong"][1](parts)
    badly = report(8, 60, plan(8, 60), evidence(parts), 9.0, Counter({"web-1": 2}))
    total = together([well, badly])
    assert (total.seeds, total.seconds, total.productions, total.file_bytes) == ((7, 8), 120, 2, 6)
    assert (total.fetched, total.calm_seconds, total.settle_seconds) == (2.0, 9.0, (2.5, 2.5))
    assert (total.faults, total.ended) == ({"loss": 2}, {"web-1": 3})
    assert [one.kind for one in total.violations] == ["wrong"]
    assert "2 rounds, seeds 7 to 8" in text(total)
    assert f"✗ wrong: {ONE}" in text(total)
    assert "(seed 8)" in text(total)
    assert "✗" not in text(well)
    assert json.loads(json.dumps(as_json(total)))["violations"][0]["production"] == ONE
