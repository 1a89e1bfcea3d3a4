"""A proof that can't fail proves nothing: sound evidence is doctored in every way, and each time it is noticed."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.evidence import Evidence, Logs, read_logs
from tests.chaos.verdict import violations

ONE, FILE = "5b0f7c3e-0f4e-4c59-9c3b-9a3c2f6c1a01", "d1"
Doctor = Callable[[dict[str, Any]], None]


def sound() -> dict[str, Any]:
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


def lost_event(e: dict[str, Any]) -> None:
    del e["timelines"][ONE][1]


def doubled_event(e: dict[str, Any]) -> None:
    e["timelines"][ONE].append(e["timelines"][ONE][0])


def doubled_under_dead_letters(e: dict[str, Any]) -> None:
    body = f'{{"productionId": "{ONE}", "sequenceNumber": 1}}'
    e["dead_letters"].append({"kind": "event", "reason": "conflict", "body": body})


def invented_event(e: dict[str, Any]) -> None:
    e["timelines"][ONE].append({"kind": "event", "sequenceNumber": 9, "eventType": "production.failed"})


def other_event(e: dict[str, Any]) -> None:
    e["timelines"][ONE][1]["eventType"] = "production.failed"


def lost_production(e: dict[str, Any]) -> None:
    del e["productions"][ONE]


def invented_production(e: dict[str, Any]) -> None:
    e["productions"]["another"] = e["productions"][ONE]


def wrong_status(e: dict[str, Any]) -> None:
    e["productions"][ONE]["status"] = "Failed"


def unsettled(e: dict[str, Any]) -> None:
    e["productions"][ONE]["settled"] = False


def never_ended(e: dict[str, Any]) -> None:
    e["truth"]["productions"][0]["status"] = e["productions"][ONE]["status"] = "Producing"


def settled_twice(e: dict[str, Any]) -> None:
    e["timelines"][ONE].append({"kind": "production.settled"})


def wrong_byte(e: dict[str, Any]) -> None:
    e["files"][ONE]["film.mp4"] = "ab"


def lost_file(e: dict[str, Any]) -> None:
    e["files"][ONE] = {}


def file_left_behind(e: dict[str, Any]) -> None:
    e["files"][ONE]["film_2.mp4"] = "aa"


def no_manifest(e: dict[str, Any]) -> None:
    e["manifests"] = {}


def old_manifest(e: dict[str, Any]) -> None:
    e["manifests"][ONE]["settled"] = False


def manifest_of_a_wrong_hash(e: dict[str, Any]) -> None:
    e["manifests"][ONE]["deliverables"][0]["sha256"] = "ab"


def manifest_without_the_file(e: dict[str, Any]) -> None:
    e["manifests"][ONE]["deliverables"] = []


def stored_twice_in_the_timeline(e: dict[str, Any]) -> None:
    e["timelines"][ONE].append({"kind": "deliverable.stored", "deliverable_id": FILE})


def never_stored_in_the_timeline(e: dict[str, Any]) -> None:
    del e["timelines"][ONE][2]


def stored_twice_in_the_log(e: dict[str, Any]) -> None:
    e["logs"] = Logs({}, {(ONE, FILE): 2}, ())


def partial_file(e: dict[str, Any]) -> None:
    e["partial"] = (f"{ONE}.{FILE}.part",)


def dead_letter(e: dict[str, Any]) -> None:
    e["dead_letters"].append({"kind": "deliverable", "reason": "the line broke", "production_id": ONE})


def inbox(e: dict[str, Any]) -> None:
    e["keys"][f"jarai:inbox:{ONE}"] = -1


def address(e: dict[str, Any]) -> None:
    e["keys"][f"jarai:link:{ONE}:k"] = 3000


def claim(e: dict[str, Any]) -> None:
    e["keys"]["jarai:claims"] = -1


def foreign_key(e: dict[str, Any]) -> None:
    e["keys"]["oops"] = -1


def orphan_job(e: dict[str, Any]) -> None:
    e["keys"]["rq:job:j3"] = -1


def bad_log(e: dict[str, Any]) -> None:
    e["logs"] = Logs({}, {}, ("web-1 tells a secret",))


def overdue(e: dict[str, Any]) -> None:
    e["overdue"] = ("web-1",)


def server_error(e: dict[str, Any]) -> None:
    e["tracked"] = {202: 1, 500: 1}


def test_sound_evidence_has_nothing_to_say_against_it() -> None:
    assert violations(Evidence(**sound())) == ()


def test_an_acknowledged_event_may_lie_under_dead_letters_instead_but_the_letter_is_a_finding() -> None:
    parts = sound()
    lost_event(parts)
    body = f'{{"productionId": "{ONE}", "sequenceNumber": 2}}'
    parts["dead_letters"].append({"kind": "event", "reason": "conflict", "body": body})
    assert [found.kind for found in violations(Evidence(**parts))] == ["given up"]


def test_an_event_that_was_never_acknowledged_may_be_missing() -> None:
    parts = sound()
    lost_event(parts)
    parts["truth"]["productions"][0]["events"][1]["deliveries"] = [{"acknowledged": False}]
    assert violations(Evidence(**parts)) == ()


@pytest.mark.parametrize(
    ("doctor", "kind"),
    [
        (lost_event, "lost"), (lost_production, "lost"), (lost_file, "wrong"), (no_manifest, "lost"),
        (manifest_without_the_file, "lost"), (never_stored_in_the_timeline, "lost"),
        (doubled_event, "doubled"), (doubled_under_dead_letters, "doubled"), (settled_twice, "doubled"),
        (stored_twice_in_the_timeline, "doubled"), (stored_twice_in_the_log, "doubled"),
        (wrong_status, "wrong"), (invented_event, "wrong"), (other_event, "wrong"), (invented_production, "wrong"),
        (wrong_byte, "wrong"), (old_manifest, "wrong"), (manifest_of_a_wrong_hash, "wrong"), (overdue, "wrong"),
        (server_error, "wrong"), (unsettled, "unsettled"), (never_ended, "unsettled"), (dead_letter, "given up"),
        (file_left_behind, "left behind"), (partial_file, "left behind"), (inbox, "left behind"),
        (address, "left behind"), (claim, "left behind"), (foreign_key, "left behind"), (orphan_job, "left behind"),
        (bad_log, "said wrongly"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_whatever_is_doctored_is_noticed(doctor: Doctor, kind: str) -> None:
    parts = deepcopy(sound())
    doctor(parts)
    assert kind in {found.kind for found in violations(Evidence(**parts))}


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
    found = violations(replace(Evidence(**parts)))
    assert [(one.kind, one.production) for one in found] == [("lost", "another")]
