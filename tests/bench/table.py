"""What the measurements bring, and the table that is made of it: medians, spreads, ratios of the same run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: ours, and beside it the reference of the same round, or None where there is nothing to compare.

    The goal is of the ratio, or of our own figure where there is no reference.
    """

    what: str
    unit: str
    ours: float
    reference: str = ""
    theirs: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def compared(self) -> float:
        return self.ours if self.theirs is None else self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Absent:
    """What could not be measured here, and why."""

    what: str
    why: str


HEAD = ("what", "unit", "ours", "reference", "its", "ratio", "spread", "goal", "reached")


def rows(found: Iterable[Sample | Absent]) -> list[tuple[str, ...]]:
    """A row for each thing measured, in the order in which they first came; then what is absent."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    absent = []
    for one in found:
        if isinstance(one, Absent):
            absent.append((one.what, "", "absent", one.why, "", "", "", "", ""))
        else:
            groups.setdefault((one.what, one.reference), []).append(one)
    return [_row(samples) for samples in groups.values()] + absent


def raw(found: Iterable[Sample | Absent]) -> list[dict[str, Any]]:
    """Every figure as it was measured, for JSON."""
    return [asdict(one) for one in found]


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """The rows as a table that also reads well as plain text."""
    widths = [max(len(line[place]) for line in [HEAD, *lines]) for place in range(len(HEAD))]
    ruled = [HEAD, tuple("-" * width for width in widths), *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in ruled
    )


def _row(samples: Sequence[Sample]) -> tuple[str, ...]:
    first = samples[0]
    ours = median(one.ours for one in samples)
    compared = [one.compared for one in samples]
    theirs = [one.theirs for one in samples if one.theirs is not None]
    goal, reached = _goal(first, median(compared))
    return (
        first.what,
        first.unit,
        _figure(ours),
        first.reference,
        _figure(median(theirs)) if theirs else "",
        f"{median(compared):.2f}" if theirs else "",
        f"{_figure(min(compared))}–{_figure(max(compared))}" if len(compared) > 1 else "",
        goal,
        reached,
    )


def _goal(sample: Sample, found: float) -> tuple[str, str]:
    if sample.at_least is not None:
        return f"≥ {sample.at_least:g}", "yes" if found >= sample.at_least else "no"
    if sample.at_most is not None:
        return f"≤ {sample.at_most:g}", "yes" if found <= sample.at_most else "no"
    return "", ""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
