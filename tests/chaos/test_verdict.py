"""A proof that can't fail proves nothing: sound evidence is doctored in every way, and each time it is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Logs, read_logs
from tests.chaos.verdict import violations

ONE, FILE = "5b0f7c3e-0f4e-4c59-9c3b-9a3c2f6c1a01", "d1"
Parts = dict[str, Any]


def evidence(parts: Parts) -> Evidence:
    return Evidence(**parts)


def buried(number: int) -> Parts:
    body = json.dumps({"productionId": ONE, "sequenceNumber": number})
    return {"kind": "event", "reason": "conflict", "body": body}


def sound() -> Parts:
    """The parts of the evidence about one production with two events and one file."""
    file = {"deliverableId": FILE, "bytes": 3, "sha256": "aa"}
    events = [
        {"sequenceNumber": number, "eventType": kind, "deliveries": [{"acknowledged": True}, {"acknowledged": False}]}
        for number, kind in enumerate(("production.queued", "production.published"), start=1)
    ]
    entry = {"id": FILE, "file": "film.mp4", "bytes": 3, "sha256": "aa"}
    shown = {"status": "Published", "settled": True, "nextPollAt": None, "deliverables": [{"state": "stored"}]}
    return {
        "truth": {
            "productions": [
                {"productionId": ONE, "status": "Published", "deliverables": [file], "events": events},
            ]
        },
        "productions": {ONE: shown},
        "timelines": {
            ONE: [
                *(
                    {"kind": "event", "sequenceNumber": e["sequenceNumber"], "eventType": e["eventType"]}
                    for e in events
                ),
                {"kind": "deliverable.stored", "deliverable_id": FILE},
                {"kind": "production.settled"},
            ]
        },
        "dead_letters": [],
        "manifests": {ONE: {"status": "Published", "settled": True, "deliverables": [entry]}},
        "files": {ONE: {"film.mp4": "aa"}},
        "partial": (),
        "keys": {f"jarai:production:{ONE}": -1, "jarai:counts": -1, "rq:workers": -1, "rq:job:j1": 40, "rq:job:j2": -1},
        "jobs": frozenset({"j2"}),
        "tracked": {202: 1, 503: 4, 0: 2},
        "overdue": (),
        "logs": Logs({}, {(ONE, FILE): 1}, ()),
    }


def lose_an_event(parts: Parts) -> None:
    del parts["timelines"][ONE][1]


DOCTORED: dict[str, tuple[str, Callable[[Parts], object]]] = {
    "an event is lost": ("lost", lose_an_event),
    "an event is kept twice": ("doubled", lambda e: e["timelines"][ONE].append(e["timelines"][ONE][0])),
    "an event is kept under dead letters too": ("doubled", lambda e: e["dead_letters"].append(buried(1))),
    "an event never was": ("wrong", lambda e: e["timelines"][ONE].append({"kind": "event", "sequenceNumber": 9})),
    "an event is another": ("wrong", lambda e: e["timelines"][ONE][1].update(eventType="production.failed")),
    "a production is lost": ("lost", lambda e: e["productions"].pop(ONE)),
    "a production never was": ("wrong", lambda e: e["productions"].update(another=e["productions"][ONE])),
    "a status is wrong": ("wrong", lambda e: e["productions"][ONE].update(status="Failed")),
    "a production is not settled": ("unsettled", lambda e: e["productions"][ONE].update(settled=False)),
    "a production never ended": ("unsettled", lambda e: e["truth"]["productions"][0].update(status="Producing")),
    "a production settled twice": ("doubled", lambda e: e["timelines"][ONE].append({"kind": "production.settled"})),
    "a byte is wrong": ("wrong", lambda e: e["files"][ONE].update({"film.mp4": "ab"})),
    "a file is gone": ("wrong", lambda e: e["files"][ONE].clear()),
    "a file is left behind": ("left behind", lambda e: e["files"][ONE].update({"film_2.mp4": "aa"})),
    "there is no manifest": ("lost", lambda e: e["manifests"].clear()),
    "the manifest is old": ("wrong", lambda e: e["manifests"][ONE].update(settled=False)),
    "the manifest tells another hash": ("wrong", lambda e: e["manifests"][ONE]["deliverables"][0].update(sha256="ab")),
    "the manifest lacks a file": ("lost", lambda e: e["manifests"][ONE]["deliverables"].clear()),
    "a file was stored twice": ("doubled", lambda e: e["timelines"][ONE].append(e["timelines"][ONE][2])),
    "a file was never stored": ("lost", lambda e: e["timelines"][ONE].pop(2)),
    "a file was stored twice by the log": ("doubled", lambda e: e.update(logs=Logs({}, {(ONE, FILE): 2}, ()))),
    "a partial file is left": ("left behind", lambda e: e.update(partial=(f"{ONE}.{FILE}.part",))),
    "an inbox is left": ("left behind", lambda e: e["keys"].update({f"jarai:inbox:{ONE}": -1})),
    "an address is left": ("left behind", lambda e: e["keys"].update({f"jarai:link:{ONE}:k": 3000})),
    "a claim is left": ("left behind", lambda e: e["keys"].update({"jarai:claims": -1})),
    "a key is nobody's": ("left behind", lambda e: e["keys"].update(oops=-1)),
    "a job is an orphan": ("left behind", lambda e: e["keys"].update({"rq:job:j3": -1})),
    "a file was given up": ("given up", lambda e: e["dead_letters"].append({"kind": "deliverable", "reason": "cut"})),
    "a log tells a secret": ("said wrongly", lambda e: e.update(logs=Logs({}, {}, ("web-1 tells a secret",)))),
    "a process does not end": ("wrong", lambda e: e.update(overdue=("web-1",))),
    "a web fails": ("wrong", lambda e: e["tracked"].update({500: 1})),
}


def test_sound_evidence_has_nothing_to_say_against_it() -> None:
    assert violations(evidence(sound())) == ()


def test_an_acknowledged_event_may_lie_under_dead_letters_instead_but_the_letter_is_a_finding() -> None:
    parts = sound()
    lose_an_event(parts)
    parts["dead_letters"].append(buried(2))
    assert [found.kind for found in violations(evidence(parts))] == ["given up"]


def test_an_event_that_was_never_acknowledged_may_be_missing() -> None:
    parts = sound()
    lose_an_event(parts)
    parts["truth"]["productions"][0]["events"][1]["deliveries"] = [{"acknowledged": False}]
    assert violations(evidence(parts)) == ()


@pytest.mark.parametrize("what", DOCTORED)
def test_whatever_is_doctored_is_noticed(what: str) -> None:
    kind, doctor = DOCTORED[what]
    parts = deepcopy(sound())
    doctor(parts)
    assert kind in {found.kind for found in violations(evidence(parts))}


def test_of_the_logs_every_secret_traceback_and_line_of_another_kind_is_told() -> None:
    sound_line = '{"event": "deliverable.stored", "production_id": "p", "deliverable_id": "d"}'
    lines = [
        ("web-1", sound_line),
        ("web-2", '{"event": "x", "url": "https://h/f?sig=abc"}'),
        ("poller-1", "Traceback (most recent call last):"),
        ("poller-2", '{"event": "x", "exception": "Traceback (most recent call last):\\n"}'),
    ]
    found = read_logs(lines, ("sig=",))
    assert found.stored == {("p", "d"): 1}
    assert [fault.split()[0] for fault in found.faulty] == ["web-2", "poller-1", "poller-2"]
    assert "abc" not in "".join(found.faulty)
    assert not read_logs(lines[:1], ("sig=",)).faulty


def test_the_evidence_of_two_productions_is_not_mixed_up() -> None:
    parts = sound()
    other = deepcopy(parts["truth"]["productions"][0]) | {"productionId": "another", "deliverables": []}
    parts["truth"]["productions"].append(other)
    parts["productions"]["another"] = parts["productions"][ONE]
    parts["timelines"]["another"] = parts["timelines"][ONE][:1]
    found = violations(evidence(parts))
    assert [(one.kind, one.production) for one in found] == [("lost", "another")]
