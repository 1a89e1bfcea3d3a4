"""Prometheus text from numbers. No label ever comes from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. `label` is a name and a value of ours."""

    name: str
    value: float
    help: str
    kind: Literal["counter", "gauge"] = "gauge"
    label: tuple[str, str] | None = None


def render(samples: Iterable[Sample]) -> str:
    """The exposition format, samples of one name together."""
    lines: list[str] = []
    described: set[str] = set()
    for sample in samples:
        if sample.name not in described:
            described.add(sample.name)
            lines += [f"# HELP {sample.name} {sample.help}", f"# TYPE {sample.name} {sample.kind}"]
        label = f'{{{sample.label[0]}="{sample.label[1]}"}}' if sample.label else ""
        lines.append(f"{sample.name}{label} {sample.value:.15g}")
    return "\n".join(lines) + "\n"
