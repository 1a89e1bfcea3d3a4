"""The table: medians, the ratio of each round, goals."""

from __future__ import annotations

from tests.bench.table import HEAD, Absent, Sample, markdown, rows


def sample(ours: float, theirs: float | None = None, **goal: float) -> Sample:
    return Sample("intake", "events/s", ours, "bare" if theirs else "", theirs, **goal)


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    [row] = rows([sample(100, 100, at_least=1), sample(300, 200, at_least=1), sample(90, 100, at_least=1)])
    found = dict(zip(HEAD, row, strict=True))
    assert (found["ours"], found["its"]) == ("100", "100")
    assert (found["ratio"], found["spread"], found["goal"], found["reached"]) == ("1.00", "0.90–1.50", "≥ 1", "yes")


def test_without_a_reference_the_goal_is_of_the_figure_itself() -> None:
    [row] = rows([sample(11, at_most=10)])
    assert row == ("intake", "events/s", "11.0", "", "", "", "", "≤ 10", "no")


def test_one_thing_beside_two_references_has_two_rows_and_what_is_absent_comes_last() -> None:
    other = Sample("intake", "events/s", 100, "other", 50)
    found = rows([Absent("more", "there is no node"), sample(100, 50), other, other])
    assert [(row[0], row[3]) for row in found] == [
        ("intake", "bare"),
        ("intake", "other"),
        ("more", "there is no node"),
    ]


def test_every_line_of_the_table_has_one_width() -> None:
    lines = markdown(rows([sample(12345.6, 2.0), Absent("more", "there is no node")])).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
