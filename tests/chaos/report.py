"""What a round came to, in numbers and in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from statistics import median
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.plan import Action, Freeze, Signal, Store
from tests.chaos.verdict import Violation, violations


@dataclass(frozen=True, slots=True)
class Report:
    """One round. `settle_seconds`: for each settled production, from its end at JARAI to ours. `calm_seconds`: from the
    end of all trouble until nothing was left to do. `fetched`: bytes over the wire for each byte of a file."""

    seeds: tuple[int, ...]
    seconds: float
    productions: int
    files: int
    file_bytes: int
    fetched: float
    events: int
    deliveries: int
    acknowledged: int
    timeline_events: int
    signals: Mapping[str, int]
    redis: Mapping[str, int]
    faults: Mapping[str, int]
    ended: Mapping[str, int]
    recovered: int
    settle_seconds: tuple[float, ...]
    calm_seconds: float
    keys: Mapping[str, int]
    violations: tuple[Violation, ...] = ()
    log: Mapping[str, int] = field(default_factory=dict)


def report(
    seed: int,
    seconds: float,
    actions: Sequence[Action],
    evidence: Evidence,
    calm_seconds: float,
    ended: Mapping[str, int],
) -> Report:
    truth = evidence.truth
    counters = truth["counters"]
    size = sum(file["bytes"] for one in truth["productions"] for file in one["deliverables"])
    return Report(
        seeds=(seed,),
        seconds=seconds,
        productions=len(truth["productions"]),
        files=sum(len(one["deliverables"]) for one in truth["productions"]),
        file_bytes=size,
        fetched=round(counters["blobBytes"] / max(1, size), 2),
        events=counters["events"],
        deliveries=counters["deliveries"],
        acknowledged=counters["acknowledged"],
        timeline_events=sum(e["kind"] == "event" for each in evidence.timelines.values() for e in each),
        signals=_signals(actions),
        redis=Counter(action.trouble for action in actions if isinstance(action, Store)),
        faults=counters["faultsStruck"],
        ended=ended,
        recovered=evidence.logs.events.get("poll.recovered", 0),
        settle_seconds=tuple(sorted(_settle_seconds(evidence))),
        calm_seconds=round(calm_seconds, 1),
        keys=Counter(_family(key) for key in evidence.keys),
        violations=violations(evidence),
        log=evidence.logs.events,
    )


def together(reports: Sequence[Report]) -> Report:
    """Many rounds as one: added up, but for the longest calm and the mean of what was fetched.

    Each violation then says which seed showed it.
    """
    size = sum(one.file_bytes for one in reports)
    added = {each.name: _added([getattr(one, each.name) for one in reports]) for each in fields(Report)}
    added["settle_seconds"] = tuple(sorted(added["settle_seconds"]))
    added["calm_seconds"] = max(one.calm_seconds for one in reports)
    added["fetched"] = round(sum(one.fetched * one.file_bytes for one in reports) / max(1, size), 2)
    added["violations"] = tuple(
        replace(found, text=f"{found.text} (seed {one.seeds[0]})") for one in reports for found in one.violations
    )
    return Report(**added)


def text(one: Report) -> str:
    """The report for a person."""
    kinds = Counter(violation.kind for violation in one.violations)
    several = f"{len(one.seeds)} rounds, seeds {min(one.seeds)} to {max(one.seeds)}"
    seeds = f"seed {one.seeds[0]}" if len(one.seeds) == 1 else several
    lines = [
        f"{seeds}, {one.seconds:g} s of trouble",
        f"  productions   {one.productions}, {one.files} files, {one.file_bytes / 1e6:.1f} MB,"
        f" fetched {one.fetched:g} times over",
        f"  events        {one.events}, {one.deliveries} deliveries, {one.acknowledged} acknowledged,"
        f" {one.timeline_events} in timelines",
        f"  signals       {_listed(one.signals)}",
        f"  Redis         {_listed(one.redis)}",
        f"  JARAI         {_listed(one.faults)}",
        f"  ended itself  {_listed(one.ended)}",
        f"  recovered     {one.recovered} by polling",
        f"  to settle     {_spread(one.settle_seconds)}; all settled within {one.calm_seconds:g} s of calm",
        f"  left in Redis {_listed(one.keys)}",
        f"  lost {kinds['lost']}, wrong {kinds['wrong']}, doubled {kinds['doubled']}, unsettled {kinds['unsettled']},"
        f" given up {kinds['given up']}, left behind {kinds['left behind']}, said wrongly {kinds['said wrongly']}",
    ]
    return "\n".join([*lines, *(f"  ✗ {violation}" for violation in one.violations)])


def as_json(one: Report) -> dict[str, Any]:
    shown = {each.name: getattr(one, each.name) for each in fields(Report)}
    return shown | {"violations": [asdict(violation) for violation in one.violations]}


def _signals(actions: Sequence[Action]) -> Counter[str]:
    found: Counter[str] = Counter()
    for action in actions:
        if isinstance(action, Signal):
            found[f"{action.name} {action.process.partition('-')[0]}"] += 1
        elif isinstance(action, Freeze):
            found[f"STOP {action.process.partition('-')[0]}"] += 1
    return found


def _settle_seconds(evidence: Evidence) -> Iterable[float]:
    for truth in evidence.truth["productions"]:
        said = [
            datetime.fromisoformat(entry["at"])
            for entry in evidence.timelines.get(truth["productionId"], ())
            if entry["kind"] == "production.settled"
        ]
        if said and truth.get("terminalAt"):
            yield round((said[-1] - datetime.fromisoformat(truth["terminalAt"])).total_seconds(), 3)


def _family(key: str) -> str:
    """`jarai:link:…` and the like; RQ's keys by their first two words."""
    return ":".join(key.split(":")[:2])


def _added(values: Sequence[Any]) -> Any:
    """Numbers, tuples and counts, each in its own way."""
    if isinstance(values[0], Mapping):
        return sum((Counter(value) for value in values), Counter())
    return sum(values, ()) if isinstance(values[0], tuple) else sum(values)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "nothing settled"
    last = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    return f"median {median(seconds):.2f} s, p99 {last:.2f} s, worst {seconds[-1]:.2f} s"
