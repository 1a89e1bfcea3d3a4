"""Time travel: the kept events alone, and how they differ from what is stored."""

from __future__ import annotations

from dataclasses import replace

from service.core import replay
from service.core.observations import DownloadStored, EventArrived, OperatorAsked
from tests.core.given import ACCOUNT_ID, NEW, PRODUCTION_ID, after, answered, arrived, at, change, item, ready

EVENTS = [
    arrived("production.queued", 1, data={"expiresAt": "2026-04-03T14:40:00Z"}),
    arrived("production.step.complete", 2),
    ready(3, item("a"), item("b")),
    arrived("production.published", 4),
]
WISH = OperatorAsked(at(50), "replay")


def replayed(events: list[EventArrived]) -> list[EventArrived]:
    return [replace(event, replayed=True) for event in events]


def test_events_that_all_arrived_tell_what_is_stored() -> None:
    stored = after(*EVENTS)
    assert replay.differences(stored, replay.from_events(PRODUCTION_ID, EVENTS, at(100))) == ()


def test_what_a_poll_told_and_no_event_shows_as_a_difference() -> None:
    stored = after(*EVENTS[:2], answered("Failed", error_code="X", error_message="broke"))
    found = replay.differences(stored, replay.from_events(PRODUCTION_ID, EVENTS[:2], at(100)))
    assert [(one.field, one.stored, one.replayed) for one in found] == [
        ("status", "Failed", "Producing"),
        ("error", {"code": "X", "message": "broke"}, None),
    ]


def test_no_events_make_an_empty_production() -> None:
    found = replay.differences(after(*EVENTS), replay.from_events(PRODUCTION_ID, [], at(100)))
    assert {one.field: one.replayed for one in found} == {
        "accountId": None, "status": None, "sequenceNumber": None, "deliverables": [],
    }  # fmt: skip


def test_a_replay_makes_the_same_state_from_the_events_and_then_asks_jarai() -> None:
    before = after(*EVENTS)
    again = after(WISH, *replayed(EVENTS), before=before)
    assert (again.status, again.sequence, again.missing) == ("Published", 4, ())
    assert again.status_at == at(100)
    assert (again.deliverables, again.account_id) == (before.deliverables, ACCOUNT_ID)


def test_a_replay_mends_a_state_that_is_wrong() -> None:
    spoilt = replace(after(*EVENTS[:2]), status="Failed", error_code="WRONG", sequence=900, status_sequence=900)
    again = after(WISH, *replayed(EVENTS[:2]), before=spoilt)
    assert (again.status, again.sequence, again.error_code) == ("Producing", 2, None)


def test_a_replay_writes_no_event_into_the_timeline_twice() -> None:
    told = change(WISH, *replayed(EVENTS), before=after(*EVENTS))
    assert [entry for entry in told.timeline if isinstance(entry, int)] == []


def test_stored_files_stay_stored_and_the_archives_addresses_are_not_tried() -> None:
    listed = after(*EVENTS)
    key = listed.deliverables[0].key
    half = after(DownloadStored(at(60), key, 5, "ab" * 32, 0.1), before=listed)
    told = change(WISH, *replayed(EVENTS), before=half)
    assert [one.state for one in told.production.deliverables] == ["stored", "wanted"]
    assert told.links == ()


def test_an_event_of_the_archive_lists_nothing_that_is_not_known() -> None:
    assert after(*replayed(EVENTS), before=NEW).deliverables == ()
