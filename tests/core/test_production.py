"""How a production moves: newer evidence wins, a terminal status stays, nothing that is known gets lost."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.core import production
from service.core.advance import advance
from service.core.deliverables import Deliverable
from service.core.experience import Experience
from service.core.observations import (
    MANIFEST,
    AskFailed,
    DownloadFailed,
    DownloadStored,
    ManifestWritten,
    Observation,
    OperatorAsked,
)
from service.core.production import LIFE, TERMINAL, Production, changed, from_json, to_json
from service.core.retry import MOST_EMPTY_LISTS, MOST_LIST_ATTEMPTS, Failure
from tests.core.given import (
    ACCOUNT_ID,
    INTERVALS,
    NEW,
    PRODUCTION_ID,
    after,
    answered,
    arrived,
    at,
    change,
    fact_names,
    item,
    kinds,
    listing,
    one,
    ready,
)

KEY = one().key
SHA256 = "ab" * 32
STEP = "production.step.complete"


def stored(name: str = "a", seconds: float = 100) -> DownloadStored:
    return DownloadStored(at(seconds), one(name=name).key, 123, SHA256, 1.2345)


def failed(failure: Failure, seconds: float = 100, key: str = KEY, **fields: Any) -> DownloadFailed:
    return DownloadFailed(at(seconds), key, failure, "went wrong", **fields)


def refused(question: Any = "deliverables", seconds: float = 100) -> AskFailed:
    return AskFailed(at(seconds), question, "JARAI answers 403", code="PERMISSION_DENIED", final=True)


def unanswered(question: Any = "status", seconds: float = 100) -> AskFailed:
    return AskFailed(at(seconds), question, "time-out")


def file(known: Production, name: str = "a") -> Deliverable:
    return next(each for each in known.deliverables if each.key == one(name=name).key)


LISTED = after(answered("AwaitingApproval", 10), listing(item(), seconds=20), seconds=20)
PUBLISHED = after(answered("Published", 10), listing(item(), seconds=20), seconds=20)


# --- the status ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [1, 2, 3])
def test_a_late_event_never_moves_a_production_back(late: int) -> None:
    known = after(arrived(STEP, 4, data={"status": "Distributing"}), arrived(STEP, late, received=50))
    assert (known.status, known.sequence, known.status_sequence) == ("Distributing", 4, 4)


@pytest.mark.parametrize("final", sorted(TERMINAL))
@pytest.mark.parametrize(
    "later", [arrived("production.queued", 9), arrived("production.published", 9), answered("Producing", knew=9)]
)
def test_a_terminal_status_stays(final: str, later: Observation) -> None:
    assert after(answered(final), later).status == final


@pytest.mark.parametrize("event_type", ["production.published", "production.failed"])
def test_a_final_event_counts_however_late_it_comes(event_type: str) -> None:
    known = after(arrived(STEP, 9), answered("Distributing", 50, knew=9), arrived(event_type, 2, received=60))
    assert known.terminal


def test_newer_evidence_wins_even_where_it_leads_back() -> None:
    known = after(answered("AwaitingApproval", 10), arrived(STEP, 3, happened=20))
    assert (known.status, known.source) == ("Producing", "webhook")


def test_an_event_that_the_poll_already_knew_of_changes_nothing() -> None:
    known = after(answered("AwaitingApproval", 10), arrived(STEP, 3, happened=9, received=11))
    assert (known.status, known.source) == ("AwaitingApproval", "poll")


@pytest.mark.parametrize(
    ("polled", "told", "wins"),
    [("Queued", "Producing", "Producing"), ("Distributing", "Producing", "Distributing"),
     ("Invented", "Producing", "Invented"), ("Queued", "Invented", "Producing")],
)  # fmt: skip
def test_within_the_second_of_a_poll_the_status_further_in_a_life_is_the_newer_one(
    polled: str, told: str, wins: str
) -> None:
    known = after(answered(polled, 10.9), arrived(STEP, 3, happened=10.5, data={"status": told}))
    assert known.status == wins


def test_an_answer_that_an_event_has_overtaken_changes_nothing() -> None:
    known = after(arrived(STEP, 5), answered("Queued", 4, knew=3))
    assert (known.status, known.source, known.last_asked_at) == ("Producing", "webhook", at(4))


def test_an_answer_that_is_final_counts_even_when_overtaken() -> None:
    assert after(arrived(STEP, 5), answered("Failed", 4, knew=3)).status == "Failed"


@pytest.mark.parametrize("earlier", [10, 20.1], ids=["another second", "the same second"])
def test_an_older_answer_that_comes_late_never_moves_a_production_back(earlier: float) -> None:
    known = after(answered("AwaitingApproval", 20.8, knew=3), answered("Producing", earlier, knew=3))
    assert known.status == "AwaitingApproval"


def test_a_status_nobody_has_heard_of_is_kept_and_taken_as_transient() -> None:
    known = after(answered("Rendering4K", 10))
    assert (known.status, known.terminal, known.has_files) == ("Rendering4K", False, False)
    assert known.status_at == at(10) + INTERVALS.waiting


def test_the_states_are_those_of_the_contract() -> None:
    assert LIFE == ("Queued", "Producing", "AwaitingApproval", "Distributing", "Published", "Failed", "Cancelled")
    assert frozenset({"Published", "Failed", "Cancelled"}) == TERMINAL
    assert {status for status in LIFE if after(answered(status)).has_files} == {
        "AwaitingApproval",
        "Distributing",
        "Published",
    }


def test_what_an_event_tells_is_kept() -> None:
    known = after(arrived("production.queued", 1, data={"expiresAt": "2026-04-03T14:40:00Z"}))
    assert (known.account_id, known.status, known.source) == (ACCOUNT_ID, "Queued", "webhook")
    assert (known.expires_at, known.updated_at, known.last_event_at) == (at(600), at(1), at(1))
    assert after(arrived("production.queued", 1, data={"expiresAt": "soon"})).expires_at is None


def test_what_an_answer_tells_is_kept() -> None:
    known = after(answered("Queued", 5, account_id=ACCOUNT_ID, sandbox=True, expires_at=at(600)), answered("Queued", 7))
    assert (known.account_id, known.sandbox, known.expires_at) == (ACCOUNT_ID, True, at(600))
    assert (known.source, known.updated_at, known.last_asked_at) == ("poll", at(5), at(7))


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        ({"errorCode": "X", "errorMessage": "said"}, "X", "said"),
        ({"errorCode": 5}, None, None),
        (None, None, None),
        ({"errorMessage": "x" * 9999}, None, "x" * 2000),
    ],
)
def test_why_a_production_failed_is_kept(data: dict[str, Any] | None, code: str | None, message: str | None) -> None:
    known = after(arrived("production.failed", 1, data=data))
    assert (known.status, known.error_code, known.error_message) == ("Failed", code, message)


def test_a_failure_without_a_reason_learns_it_when_jarai_is_asked() -> None:
    known = after(
        arrived("production.failed", 1),
        OperatorAsked(at(5), "refresh"),
        answered("Failed", 6, knew=1, error_code="PRODUCTION_EXPIRED", error_message="not picked up"),
    )
    assert (known.error_code, known.error_message) == ("PRODUCTION_EXPIRED", "not picked up")


def test_a_change_of_status_is_said_once_with_where_it_came_from() -> None:
    told = change(arrived("production.queued", 1), arrived("production.queued", 1))
    assert fact_names(told) == ["production.status_changed"]
    assert told.facts[0].fields["to_status"] == "Queued"
    assert told.facts[0].fields["event_type"] == "production.queued"
    assert "from_status" not in told.facts[0].fields
    assert kinds(told.timeline) == [1, "status", 1]
    polled = change(answered("Queued", correlation_id="c"))
    assert fact_names(polled) == ["production.status_changed", "poll.recovered"]
    assert polled.facts[0].fields["correlation_id"] == "c"


def test_the_same_events_again_change_neither_status_nor_files() -> None:
    batch = [arrived("production.queued", 1), arrived(STEP, 2), ready(3, item()), arrived("production.published", 4)]
    once = after(*batch)
    twice = after(*batch, before=once)
    assert replace(twice, version=once.version) == once


# --- holes and types that nobody knows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([0], ()),
        ([1], ()),
        ([0, 1, 2], ()),
        ([2], ((1, 1),)),
        ([1, 5], ((2, 4),)),
        ([1, 5, 3], ((2, 2), (4, 4))),
        ([1, 5, 2], ((3, 4),)),
        ([1, 5, 4], ((2, 3),)),
        ([1, 5, 9, 3, 2, 4], ((6, 8),)),
        ([3, 2, 1, 0], ()),
        ([1, 3, 1, 3], ((2, 2),)),
    ],
)
def test_what_is_missing_is_known_in_any_order(numbers: list[int], missing: tuple[tuple[int, int], ...]) -> None:
    known = after(*(arrived("deliverable.ready", number) for number in numbers))
    assert known.missing == missing
    assert (known.hole_at is not None) is bool(missing)


def test_however_many_holes_there_are_their_account_stays_small() -> None:
    known = after(*(arrived(STEP, number) for number in range(0, 1000, 2)))
    assert len(known.missing) == 100
    assert known.missing[-1] == (997, 997)


def test_a_hole_is_a_reason_to_ask_once_and_no_alarm_for_ever() -> None:
    hole = after(arrived(STEP, 1), arrived(STEP, 3))
    assert hole.status_at == at(3) + INTERVALS.producing
    told = after(answered("Producing", 40, knew=3), before=hole)
    assert (told.hole_at, told.missing) == (None, ((2, 2),))
    assert after(arrived(STEP, 6, happened=50), before=told).hole_at == at(50)


def test_a_hole_that_jarai_knew_of_when_it_last_answered_costs_no_further_request() -> None:
    asked = after(
        answered("Published", 40, knew=3), listing(item(), seconds=41, knew=3), before=after(ready(3, item()))
    )
    told = change(arrived("production.published", 9, happened=30, received=45), before=after(stored(), before=asked))
    assert (told.production.list_at, told.production.status_at, told.production.hole_at) == (None, None, None)


def test_a_hole_that_is_always_there_costs_no_request() -> None:
    """The subscription lacks an event type: neither the status nor the list is asked for because of it."""
    lacking = replace(INTERVALS, experience=Experience().after((), [("production.published", 5)] * 10))
    told: list[Observation] = [ready(3, item()), stored(), arrived("production.published", 9)]
    known = advance(after(told[0]), told[1:], at(20), lacking).production
    assert known.missing == ((1, 2), (4, 8)), "of the first two nobody knows, and JARAI's list made up for them"
    assert (known.hole_at, known.list_at, known.status_at, known.complete) == (None, None, None, True)
    assert after(*told[1:], before=after(told[0])).list_at is not None, "without that experience it is"
    more = arrived("production.published", 10)
    known = advance(after(told[0]), [*told[1:-1], more], at(20), lacking).production
    assert (known.hole_at, known.complete) == (None, False)
    assert known.list_at is not None, "one more is missing than always is: it may have brought a file"


def test_the_longest_silence_between_two_of_its_events_is_remembered_while_its_status_lasts() -> None:
    known = after(arrived(STEP, 1), arrived(STEP, 2, received=61), arrived(STEP, 3, received=70))
    assert known.longest_gap_seconds == 60
    assert after(arrived(STEP, 5, received=500), before=known).longest_gap_seconds == 60, "one is missing in between"
    assert after(ready(4, item(), received=80), before=known).longest_gap_seconds == 60
    assert after(answered("AwaitingApproval", 90, knew=3), before=known).longest_gap_seconds == 0


@pytest.mark.parametrize(
    "told",
    [
        answered("Queued", sandbox=True),
        replace(listing(item()), sandbox=True),
        arrived("production.queued", 1, data={"sandbox": True}),
    ],
)
def test_what_jarai_made_up_for_a_test_is_marked_and_stays_so(told: Observation) -> None:
    known = after(arrived(STEP, 2), before=after(told))
    assert known.sandbox
    assert not after(arrived(STEP, 2), before=after(answered("Queued"))).sandbox


def test_a_list_that_was_asked_for_at_the_end_is_the_last_one() -> None:
    final = replace(listing(item(), seconds=41), knew_terminal=True)
    known = after(final, before=after(answered("Published", 40)))
    assert after(arrived("production.published", 9, happened=60), before=known).list_at is None


def test_a_type_that_nobody_knows_is_answered_by_asking_for_the_status_once() -> None:
    unknown = after(arrived("something.new", 2, data={"status": "Published"}), seconds=2)
    assert (unknown.status, unknown.status_at) == (None, at(2))
    told = after(answered("Producing", 3, knew=2), before=unknown)
    assert told.status_at == at(3) + INTERVALS.producing or told.status_at == at(2) + INTERVALS.silence
    assert after(arrived("something.new", 1, received=4), before=told).asks_now is False


# --- asking ----------------------------------------------------------------------------------------------------------


def test_an_operator_has_jarai_asked_at_once_even_about_what_is_final() -> None:
    known = after(OperatorAsked(at(50), "refresh"), before=PUBLISHED, seconds=50)
    assert (known.status_at, known.due_to_ask_at) == (at(50), at(50))
    assert after(answered("Published", 51), before=known).status_at is None


def test_what_is_tracked_is_asked_about_soon_and_keeps_its_account() -> None:
    known = after(OperatorAsked(at(0), "track", account_id=ACCOUNT_ID), seconds=0)
    assert known.account_id == ACCOUNT_ID
    assert known.status_at is not None
    assert known.status_at <= at(10)


def test_no_answer_puts_the_next_question_off_and_an_answer_ends_that() -> None:
    before = after(answered("Producing", 10))
    failing = after(*(unanswered(seconds=50) for _ in range(8)), before=before)
    assert failing.ask_failures == 8
    assert failing.status_at is not None
    assert failing.status_at > at(50) + timedelta(seconds=90)
    assert after(answered("Producing", 60), before=failing).ask_failures == 0


def test_a_refusal_of_the_status_ends_asking_until_there_is_news() -> None:
    told = change(refused("status"), before=after(answered("Producing", 10)))
    assert (told.production.status_at, told.production.refused) == (None, "JARAI answers 403")
    assert [letter.key for letter in told.dead_letters] == ["status"]
    for news in (arrived(STEP, 1), answered("Producing"), OperatorAsked(at(200), "refresh")):
        known = after(news, before=told.production)
        assert known.refused is None
        assert known.status_at is not None


def test_polls_in_a_row_that_tell_nothing_new_share_one_entry() -> None:
    first = change(answered("Producing", 10))
    assert kinds(first.timeline) == ["poll", "status"]
    quiet = change(answered("Producing", 40), before=first.production)
    assert (kinds(quiet.timeline), quiet.replaces_last) == (["poll"], False)
    third = change(answered("Producing", 70), answered("Producing", 100), before=quiet.production)
    assert third.replaces_last
    assert [dict(entry)["times"] for entry in third.timeline if not isinstance(entry, int)] == [3]
    event = change(arrived(STEP, 1), answered("Producing", 130, knew=1), before=third.production)
    assert (kinds(event.timeline), event.replaces_last) == ([1, "poll"], False)


# --- the list of deliverables ----------------------------------------------------------------------------------------


def test_files_that_an_event_lists_are_fetched_at_once_without_asking() -> None:
    told = change(arrived(STEP, 1), ready(2, item("a"), item("b")), seconds=2)
    known = told.production
    assert [each.state for each in known.deliverables] == ["wanted", "wanted"]
    assert set(known.due_downloads) == {MANIFEST, *(each.key for each in known.deliverables)}
    assert [link.url for link in told.links] == [item("a")["sasUrl"], item("b")["sasUrl"]]
    assert known.list_at is None
    assert known.folder == f"{ACCOUNT_ID}/{PRODUCTION_ID}"
    assert "sig=" not in repr(known)


@pytest.mark.parametrize(
    "event", [ready(2, item(), truncated=True), ready(2), arrived("deliverable.ready", 2, data=None)]
)
def test_a_ready_event_without_the_whole_list_has_it_asked_for(event: Observation) -> None:
    known = after(arrived(STEP, 1), event, seconds=2)
    assert known.list_at == at(2)
    whole = after(listing(item("a"), item("b"), seconds=3, knew=2), before=known)
    assert whole.list_at is None
    assert len(whole.deliverables) == 2
    assert after(event, before=whole).list_at is None


@pytest.mark.parametrize("event", [ready(6, item("b"), truncated=True), ready(6)])
def test_a_list_that_was_asked_for_before_a_ready_event_does_not_answer_it(event: Observation) -> None:
    asking = after(answered("AwaitingApproval", 1), arrived(STEP, 5, data={"status": "AwaitingApproval"}), seconds=5)
    known = after(event, listing(item("a"), seconds=7, knew=5), before=asking)
    assert known.list_at is not None


def test_an_event_that_was_lost_behind_a_list_may_have_held_another() -> None:
    known = after(arrived(STEP, 1), ready(2, item()), arrived("production.published", 4))
    assert known.list_at is not None
    assert after(listing(item("a"), item("b"), knew=4), before=known).list_at is None


def test_an_event_that_was_lost_before_a_whole_list_is_made_up_for_by_it() -> None:
    """CONTRACT [docs]: an event that is not truncated brings the list of deliverables."""
    assert after(arrived(STEP, 1), ready(3, item()), arrived("production.published", 4)).list_at is None


def test_where_events_turn_out_to_list_only_parts_a_lost_one_is_asked_for() -> None:
    known = after(ready(2, item("a")), ready(4, item("c")), arrived("production.published", 5))
    assert known.list_at is not None
    assert after(listing(item("a"), item("b"), item("c"), knew=5), before=known).list_at is None


@pytest.mark.parametrize("first", [0, 1])
def test_a_list_that_was_cut_is_not_made_up_for_by_the_list_of_another_event(first: int) -> None:
    pair = [ready(2, item("a"), truncated=True), ready(3, item("b"))]
    known = after(arrived(STEP, 1), pair[first], pair[1 - first])
    assert known.list_at is not None
    assert after(listing(item("a"), item("b"), knew=3), before=known).list_at is None


def test_a_file_that_jarai_no_longer_lists_stays_what_it_was() -> None:
    known = after(listing(item("b"), seconds=30), before=LISTED)
    assert {each.id for each in known.deliverables} == {"a", "b"}


def test_a_file_that_is_stored_is_not_fetched_again() -> None:
    told = change(listing(item(signature="fresh")), before=after(stored(), before=PUBLISHED))
    assert told.links == ()
    assert file(told.production).state == "stored"


def test_a_file_that_is_still_wanted_is_what_the_newest_list_says_it_is() -> None:
    before = after(answered("AwaitingApproval", 1), listing(item(sizeBytes=5, md5="0" * 32)))
    known = after(listing(item(sizeBytes=7, md5="1" * 32)), before=before)
    assert (file(known).bytes, file(known).md5) == (7, "1" * 32)


def test_an_older_address_never_takes_the_place_of_a_fresher_one() -> None:
    before = after(ready(2, item(), truncated=True), listing(item(signature="fresh"), seconds=1800, knew=2))
    told = change(ready(1, item(signature="old"), received=1801), before=before)
    assert [link.url for link in told.links if "old" in link.url] == []
    assert file(told.production).link_expires_at == at(1800 + 3600)


def test_an_empty_list_is_asked_for_again_and_after_a_while_believed() -> None:
    known = after(answered("Published", 10))
    for number in range(1, MOST_EMPTY_LISTS):
        known = after(listing(seconds=10 * number), before=known)
        assert known.list_at is not None
        assert not known.settled
    known = after(listing(seconds=99), before=known)
    assert (known.list_at, known.settled) == (None, True)


def test_before_the_end_an_empty_list_is_never_believed() -> None:
    known = after(answered("AwaitingApproval", 10))
    for number in range(20):
        known = after(listing(seconds=10 * number), before=known)
        assert known.list_at is not None


def test_a_list_that_does_not_come_is_asked_for_ever_more_rarely() -> None:
    before = after(answered("Published", 10))
    known = after(*(unanswered("deliverables", 50) for _ in range(6)), before=before)
    assert known.list_at is not None
    assert known.list_at > at(50) + timedelta(seconds=40)


def test_a_refused_list_has_the_status_asked_for_because_that_may_have_changed() -> None:
    known = after(refused(seconds=50), before=after(answered("AwaitingApproval", 10)), seconds=50)
    assert known.refresh_wanted
    assert known.list_at is not None
    assert known.list_at > at(50)


def test_a_list_that_is_refused_for_a_published_production_is_a_dead_letter() -> None:
    told = change(refused(), before=after(answered("Published", 10)))
    assert [letter.key for letter in told.dead_letters] == ["list"]
    assert (told.production.list_at, told.production.settled) == (None, False)
    again = after(OperatorAsked(at(200), "retry"), before=told.production, seconds=200)
    assert again.list_at == at(200)


@pytest.mark.parametrize("final", ["Failed", "Cancelled"])
def test_a_list_that_is_refused_for_what_failed_is_the_end_of_it(final: str) -> None:
    cut_short = after(answered(final, 60), before=after(failed("expired", 50), before=LISTED))
    assert cut_short.list_at is not None
    told = change(refused(), before=cut_short)
    assert [letter.key for letter in told.dead_letters] == [KEY]
    assert told.production.list_at is None
    assert file(told.production).state == "failed"


def test_a_production_that_is_published_after_its_list_was_refused_never_stalls_in_silence() -> None:
    known = after(answered("AwaitingApproval", 10))
    for number in range(MOST_LIST_ATTEMPTS):
        known = after(refused(seconds=50 + number), before=known)
    told = change(arrived("production.published", 1), before=known)
    assert told.production.list_at is not None or told.dead_letters


def test_an_address_that_was_refreshed_meanwhile_costs_no_second_list() -> None:
    tried = file(LISTED).link_expires_at
    refreshed = after(listing(item(signature="fresh"), seconds=3000), before=LISTED, seconds=3000)
    known = after(failed("expired", 3001, link_expires_at=tried), before=refreshed, seconds=3001)
    assert known.list_at is None
    assert file(known).next_at is not None


def test_an_expired_address_brings_a_fresh_list() -> None:
    expired = after(failed("expired", 50), before=LISTED, seconds=50)
    assert (file(expired).link_expires_at, file(expired).next_at) == (None, None)
    assert expired.lacks_address
    assert expired.list_at == at(50)
    fresh = after(listing(item(signature="fresh"), seconds=60), before=expired, seconds=60)
    assert (file(fresh).next_at, fresh.list_at) == (at(60), None)


def test_a_file_that_jarai_stops_listing_is_given_up_in_the_end() -> None:
    known = after(failed("expired", 50), before=LISTED)
    letters = []
    for number in range(MOST_LIST_ATTEMPTS):
        told = change(listing(item("b"), seconds=60 + number), before=known)
        known = told.production
        letters += [letter.key for letter in told.dead_letters]
    assert letters == [KEY]
    assert (file(known).state, file(known, "b").state) == ("failed", "wanted")


# --- downloads and the manifest --------------------------------------------------------------------------------------


def test_a_published_production_is_settled_once_every_file_and_the_manifest_are_written() -> None:
    told = change(stored(), before=PUBLISHED)
    assert fact_names(told) == ["deliverable.stored"]
    assert (told.production.complete, told.production.settled) == (True, False)
    assert told.production.due_downloads == {MANIFEST: at(100)}
    end = change(ManifestWritten(at(101), told.production.manifest_revision), before=told.production)
    assert fact_names(end) == ["production.settled"]
    assert (end.production.settled, end.production.due_downloads, end.production.due_to_ask_at) == (True, {}, None)
    assert fact_names(change(answered("Published", 200), before=end.production)) == []


def test_a_manifest_that_tells_less_than_is_known_is_written_again() -> None:
    known = after(stored(), before=PUBLISHED)
    assert MANIFEST in after(ManifestWritten(at(101), known.manifest_revision - 1), before=known).due_downloads
    settled = after(ManifestWritten(at(101), known.manifest_revision), before=known)
    more = after(listing(item("b")), stored("b"), before=settled)
    assert (MANIFEST in more.due_downloads, more.settled) == (True, False)


def test_a_manifest_follows_the_status() -> None:
    known = after(stored(), ManifestWritten(at(100), 1), before=LISTED)
    assert known.manifest_at is None
    assert after(arrived("production.published", 5, happened=110), before=known).manifest_at is not None


def test_a_manifest_that_said_it_was_not_settled_is_written_again_once_that_is_not_so() -> None:
    """Also when no file and no status has changed since, but a hole in the numbers has closed."""
    known = after(
        arrived("production.queued", 1),
        answered("AwaitingApproval", 10, knew=1),
        listing(item("a"), seconds=11, knew=1),
    )
    known = after(stored(seconds=12), arrived("production.published", 4, happened=13), before=known)
    assert not known.complete
    known = after(ManifestWritten(at(14), known.manifest_revision), before=known)
    late = (arrived(STEP, 2, happened=8), arrived("deliverable.ready", 3, happened=9))
    known = after(*late, before=known)
    known = after(answered("Published", 20, knew=4), listing(item("a"), seconds=21, knew=4), before=known)
    assert known.complete
    assert MANIFEST in known.due_downloads
    assert not known.settled


@pytest.mark.parametrize(
    ("failure", "said", "seconds"), [("transfer", ["manifest.failed"], 30), ("storage", [], 30), ("stopped", [], 0)]
)
def test_a_manifest_that_can_not_be_written_is_tried_again(failure: Failure, said: list[str], seconds: int) -> None:
    """A folder that takes nothing is said once for all files, not here; a shutdown is no failure."""
    told = change(failed(failure, key=MANIFEST), before=after(stored(), before=PUBLISHED))
    assert fact_names(told) == said
    assert told.production.manifest_at == at(100 + seconds)


@pytest.mark.parametrize(
    ("failure", "times", "state", "said"),
    [
        ("transfer", 11, "wanted", True),
        ("transfer", 12, "failed", False),
        ("corrupt", 3, "wanted", True),
        ("corrupt", 4, "failed", False),
        ("forbidden", 1, "failed", False),
        ("died", 1, "failed", False),
        ("storage", 1, "wanted", True),
        ("storage", 50, "wanted", False),
        ("stopped", 50, "wanted", False),
    ],
)
def test_a_file_that_fails_is_tried_again_until_it_is_given_up(
    failure: Failure, times: int, state: str, said: bool
) -> None:
    known = after(*(failed(failure) for _ in range(times - 1)), before=LISTED)
    told = change(failed(failure), before=known)
    assert file(told.production).state == state
    assert (KEY in told.production.due_downloads) is (state == "wanted")
    assert [letter.key for letter in told.dead_letters] == ([KEY] if state == "failed" else [])
    assert fact_names(told) == (["deliverable.retrying"] if said else [])


def test_a_production_that_settles_again_without_another_file_says_so_once() -> None:
    """A late event opens a hole, the list is asked for once more, and nothing has changed."""
    known = after(arrived("production.published", 9), listing(item("a"), seconds=95, knew=3))
    told = change(stored(), before=known)
    facts = fact_names(told)
    known = after(listing(item("a"), seconds=101, knew=9), before=told.production)
    told = change(ManifestWritten(at(102), known.manifest_revision), before=known)
    facts += fact_names(told)
    assert (told.production.settled, facts.count("production.settled")) == (True, 1)
    again = replace(told.production, settled=False)
    assert "production.settled" not in fact_names(change(before=again))
    more = after(listing(item("a"), item("b"), seconds=110, knew=9), before=told.production)
    more = after(DownloadStored(at(111), one(name="b").key, 1, SHA256, 0.1), before=more)
    assert "production.settled" in fact_names(change(ManifestWritten(at(112), more.manifest_revision), before=more))


def test_a_broken_line_does_not_count_as_wrong_bytes() -> None:
    """Each kind of failure is given up by its own limit: five broken lines and one wrong answer are no dead letter."""
    known = after(*(failed("transfer") for _ in range(5)), failed("corrupt"), before=LISTED)
    assert (file(known).state, file(known).attempts) == ("wanted", 6)
    known = after(failed("expired"), failed("corrupt"), failed("corrupt"), before=known)
    assert file(known).state == "wanted"
    assert file(after(failed("corrupt"), before=known)).state == "failed"


@pytest.mark.parametrize(
    ("failure", "attempts"), [("transfer", 1), ("expired", 1), ("corrupt", 6), ("storage", 5), ("stopped", 5)]
)
def test_a_broken_line_that_brought_bytes_is_a_fresh_start(failure: Failure, attempts: int) -> None:
    known = after(*(failed("transfer") for _ in range(5)), before=LISTED)
    assert file(known).attempts == 5
    if failure == "corrupt":
        known = replace(known, deliverables=(replace(file(known), attempts=2),))
        attempts = 3
    assert file(after(failed(failure, progressed=True), before=known)).attempts == attempts


@pytest.mark.parametrize("failure", ["transfer", "corrupt", "expired", "storage"])
@pytest.mark.parametrize("progressed", [True, False])
def test_a_report_that_comes_after_a_file_was_given_up_does_not_bring_it_back(
    failure: Failure, progressed: bool
) -> None:
    given_up = after(failed("forbidden"), before=LISTED)
    known = after(failed(failure, progressed=progressed), before=given_up)
    assert file(known).state == "failed"
    assert known.due_downloads == {}


@pytest.mark.parametrize("report", [stored("unheard"), failed("transfer", key="unheard")])
def test_a_report_on_a_file_that_nobody_knows_changes_nothing(report: Observation) -> None:
    assert replace(after(report, before=LISTED, seconds=20), version=LISTED.version) == LISTED


@pytest.mark.parametrize("report", [stored(), failed("transfer")])
def test_a_report_on_a_file_that_is_stored_changes_nothing(report: Observation) -> None:
    known = after(stored(), before=LISTED)
    assert replace(after(report, before=known), version=known.version) == known


def test_a_file_that_was_given_up_and_comes_after_all_is_stored() -> None:
    assert file(after(failed("forbidden"), stored(), before=LISTED)).state == "stored"


@pytest.mark.parametrize(("key", "retried"), [("", {"a", "b"}), (one(name="a").key, {"a"}), ("unheard", set())])
def test_an_operator_has_what_was_given_up_tried_again(key: str, retried: set[str]) -> None:
    keys = [one(name=name).key for name in ("a", "b")]
    lost = after(
        listing(item("b")), *(failed("forbidden", key=each) for each in keys), before=LISTED
    )  # fmt: skip
    known = after(OperatorAsked(at(200), "retry", key=key), before=lost, seconds=200)
    assert {each.id for each in known.deliverables if each.state == "wanted"} == retried
    assert (known.list_at is not None) is bool(retried)


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [NEW, LISTED, after(stored(), before=PUBLISHED), after(arrived(STEP, 5))])
def test_a_state_is_read_back_as_it_was_written(known: Production) -> None:
    assert from_json(to_json(known)) == known


def test_a_state_of_an_older_version_is_read_and_what_it_did_not_know_is_empty() -> None:
    kept = json.loads(to_json(LISTED))
    del kept["deliverables"], kept["last_asked_at"]
    known = from_json(json.dumps(kept | {"gone": 1}).encode())
    assert (known.status, known.deliverables, known.last_asked_at) == ("AwaitingApproval", (), None)


def test_every_step_has_a_version_of_its_own() -> None:
    assert (after().version, after(before=LISTED).version) == (1, LISTED.version + 1)


def test_no_secret_is_kept_said_or_shown() -> None:
    told = change(
        ready(1, item(signature="s3cr3t")),
        listing(item("b", signature="s3cr3t")),
        failed("expired"),
        refused(),
    )
    kept = to_json(told.production) + production.to_json(told.production)
    assert b"s3cr3t" not in kept
    assert "s3cr3t" not in repr((told.timeline, told.facts, told.dead_letters))


@pytest.mark.parametrize(
    "observation",
    [
        ready(1, item(), timestamp="9999-12-31T23:59:59Z"),
        ready(1, item(), timestamp="0001-01-01T00:00:00Z"),
        ready(1, item(expiresAt="0001-01-01T00:00:00Z")),
        ready(1, {"sasUrl": "https://[h/p?sig=x"}),
        arrived(STEP, 2**53 - 1, happened=1),
        arrived(STEP, 1, data={"status": "x" * 100_000}),
        answered("Queued", as_of=at(0).replace(year=9999, month=12, day=31, hour=23, minute=59, second=59)),
        OperatorAsked(at(0), "retry", key="unheard"),
        ManifestWritten(at(0), 10**9),
    ],
    ids=range(9),
)
def test_no_observation_makes_it_raise(observation: Observation) -> None:
    known = after(observation, arrived(STEP, 7))
    assert from_json(to_json(known)) == known


def test_a_question_that_is_answered_after_all_takes_its_dead_letter_back() -> None:
    told = change(refused("status"), before=after(arrived(STEP, 1)))
    assert [(letter.kind, letter.key) for letter in told.dead_letters] == [("question", "status")]
    assert told.production.list_at is None
    heard = after(arrived(STEP, 2), before=told.production)
    answer = change(answered("Producing", 200, knew=2), before=heard, seconds=200)
    assert answer.resolved == ("status",)
    assert change(answered("Producing", 300, knew=2), before=answer.production).resolved == ()


def test_a_copy_is_changed_only_in_what_a_production_has() -> None:
    before = Production(production_id="p", created_at=at(0))
    after = changed(before, status="Queued")
    assert (before.status, after.status) == (None, "Queued")
    assert changed(after, status=None) == before
    with pytest.raises(TypeError, match="statsu"):
        changed(before, statsu="Queued")
