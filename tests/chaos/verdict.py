"""The count: what was promised and does not hold. Pure; the evidence comes from `evidence`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.chaos.evidence import Evidence

Kind = Literal["unsettled", "lost", "doubled", "wrong", "given up", "left behind", "said wrongly"]

# What may stay in Redis of productions that are settled; everything else of ours has to be gone.
_KEPT = ("production:", "events:", "timeline:", "index", "forget", "counts", "budget", "requests", "ready", "clock",
         "deployment", "facts", "heard", "alive", "unaccounted", "radar", "experience", "told:",
         "news", "listening", "rung")  # fmt: skip
TERMINAL = frozenset({"Published", "Failed", "Cancelled"})


@dataclass(frozen=True, slots=True)
class Violation:
    """`production`: its id, or "" where it is about none."""

    kind: Kind
    production: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.production} {self.text}".replace("  ", " ")


def violations(evidence: Evidence) -> tuple[Violation, ...]:
    """All of them; none is the proof."""
    buried = _buried_events(evidence)
    found: list[Violation] = []
    for truth in evidence.truth["productions"]:
        identity = truth["productionId"]
        shown = evidence.productions.get(identity)
        if shown is None:
            found.append(Violation("lost", identity, "the production is not known"))
            continue
        found += _state(truth, shown)
        found += _events(truth, evidence.timelines[identity], buried)
        found += _files(truth, shown, evidence)
    found += _unknown(evidence)
    found += _left_behind(evidence)
    found += [Violation("said wrongly", "", text) for text in evidence.logs.faulty]
    found += [Violation("wrong", "", f"{name} did not end in time after SIGTERM") for name in evidence.overdue]
    found += [
        Violation("wrong", "", f"{times} times {status} to a wish to track")
        for status, times in evidence.tracked.items()
        if status not in (0, 202, 503)
    ]
    return tuple(found)


def _state(truth: Mapping[str, Any], shown: Mapping[str, Any]) -> Iterator[Violation]:
    identity = truth["productionId"]
    if truth["status"] not in TERMINAL:
        yield Violation("unsettled", identity, f"is still {truth['status']} at JARAI")
    if shown["status"] != truth["status"]:
        yield Violation("wrong", identity, f"is {truth['status']} and is shown as {shown['status']}")
    if not shown["settled"]:
        states = Counter(one["state"] for one in shown["deliverables"])
        yield Violation("unsettled", identity, f"{shown['status']}, files {dict(states)}, next {shown['nextPollAt']}")


def _events(truth: Mapping[str, Any], timeline: Any, buried: Counter[tuple[str, int]]) -> Iterator[Violation]:
    """Each acknowledged event once, in the timeline or under dead letters; each other one at most once."""
    identity = truth["productionId"]
    kept = Counter(entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event")
    kept.update({number: times for (one, number), times in buried.items() if one == identity})
    types = {entry["sequenceNumber"]: entry.get("eventType") for entry in timeline if entry["kind"] == "event"}
    for event in truth["events"]:
        number = event["sequenceNumber"]
        times = kept.pop(number, 0)
        if not times and any(one["acknowledged"] for one in event["deliveries"]):
            yield Violation("lost", identity, f"event {number} ({event['eventType']}) was answered 2xx and is gone")
        if times > 1:
            yield Violation("doubled", identity, f"event {number} is kept {times} times")
        if number in types and types[number] != event["eventType"]:
            yield Violation("wrong", identity, f"event {number} is {event['eventType']}, kept as {types[number]}")
    for number in kept:
        yield Violation("wrong", identity, f"event {number} never was")
    settled = [entry for entry in timeline if entry["kind"] == "production.settled"]
    if len(settled) > 1:
        yield Violation("doubled", identity, f"it settled {len(settled)} times")


def _files(truth: Mapping[str, Any], shown: Mapping[str, Any], evidence: Evidence) -> Iterator[Violation]:
    """Each file of JARAI's on disk with its bytes, told by the manifest, stored once; and no other."""
    identity = truth["productionId"]
    manifest = evidence.manifests.get(identity)
    on_disk = dict(evidence.files.get(identity, {}))
    expected = truth["deliverables"]
    if manifest is None:
        if expected or on_disk:
            yield Violation("lost", identity, f"there is no manifest for {len(expected)} files")
        return
    if not manifest["settled"] or manifest["status"] != truth["status"]:
        yield Violation("wrong", identity, f"its manifest says {manifest['status']}, settled {manifest['settled']}")
    listed = {one["id"]: one for one in manifest["deliverables"]}
    stored = Counter(
        entry["deliverable_id"] for entry in evidence.timelines[identity] if entry["kind"] == "deliverable.stored"
    )
    for file in expected:
        one = file["deliverableId"]
        entry = listed.pop(one, None)
        if entry is None:
            yield Violation("lost", identity, f"file {one} is not in the manifest")
            continue
        if (entry["bytes"], entry["sha256"]) != (file["bytes"], file["sha256"]):
            yield Violation("wrong", identity, f"the manifest tells other bytes of {entry['file']} than JARAI")
        if on_disk.pop(entry["file"], None) != file["sha256"]:
            yield Violation("wrong", identity, f"the bytes of {entry['file']} are not JARAI's")
        if stored[one] != 1:
            yield Violation(
                "doubled" if stored[one] else "lost", identity, f"{entry['file']} stored {stored[one]} times"
            )
        if evidence.logs.stored.get((identity, one), 0) > 1:
            yield Violation("doubled", identity, f"the log says more than once that {entry['file']} was stored")
    for entry in listed.values():
        yield Violation("wrong", identity, f"the manifest tells of {entry['file']}, which never was")
    for name in on_disk:
        yield Violation("left behind", identity, f"{name} lies in its folder")


def _unknown(evidence: Evidence) -> Iterator[Violation]:
    true = {one["productionId"] for one in evidence.truth["productions"]}
    for identity in evidence.productions.keys() - true:
        yield Violation("wrong", identity, "is shown and never was")
    for letter in evidence.dead_letters:
        identity = letter.get("production_id", "")
        yield Violation("given up", identity, f"{letter['kind']}: {letter['reason']} {letter.get('details', '')}")


def _left_behind(evidence: Evidence) -> Iterator[Violation]:
    for name in evidence.partial:
        yield Violation("left behind", "", f"{name} among the partial files")
    for key, ttl in evidence.keys.items():
        family, _, rest = key.partition(":")
        if family == "jarai" and not rest.startswith(_KEPT) and not rest.startswith("deadletter"):
            yield Violation("left behind", "", f"{key} in Redis")
        if family not in ("jarai", "rq"):
            yield Violation("left behind", "", f"{key} in Redis, which is nobody's")
        if key.startswith("rq:job:") and ttl < 0 and key.split(":")[2] not in evidence.jobs:
            yield Violation("left behind", "", f"{key}: a job that no queue or registry knows, kept for ever")


def _buried_events(evidence: Evidence) -> Counter[tuple[str, int]]:
    """The events under dead letters, by production and number; a body that can't be read is none of these."""
    found: Counter[tuple[str, int]] = Counter()
    for letter in evidence.dead_letters:
        try:
            body = json.loads(letter.get("body", ""))
            found[body["productionId"], body["sequenceNumber"]] += 1
        except (ValueError, TypeError, KeyError):
            continue
    return found
