"""Why is it not settled? Each answer as a person reads it; clocks are written as seconds after START."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.core.deliverables import wanted
from service.core.production import Production
from service.core.view import Progress
from service.core.why import Circumstances, known_from, span, waiting_for
from tests.core.given import NEW, PRODUCTION_ID, START, at, one

HERE = Circumstances(now=at(100), patience=timedelta(seconds=90), left_today=41, per_day=100)
MAKING = replace(NEW, status="Producing", source="webhook", status_sequence=7, sequence=7, updated_at=at(2),
                 last_event_at=at(5), status_at=at(110))  # fmt: skip
VIDEO = replace(wanted(one()), link_expires_at=at(3600), next_at=at(90))
PUBLISHED = replace(NEW, status="Published", source="poll", last_asked_at=at(95))


def clock(moment: datetime) -> str:
    return f"{(moment - START).total_seconds():.0f}"


def waits(production: Production, **here: Any) -> tuple[str, ...]:
    return waiting_for(production, replace(HERE, **here), clock)


def knows(production: Production, **here: Any) -> tuple[str, ...]:
    return known_from(production, replace(HERE, **here), clock)


def test_one_that_is_being_made_waits_for_jarai_and_says_when_it_is_asked() -> None:
    assert waits(MAKING) == (
        "JARAI, which will tell of the next step by webhook; "
        "silent for 95 s, longer than the 90 s that it is left alone",
        "a poll, which asks JARAI for its status at 110; 41 of 100 requests left today",
    )
    assert knows(MAKING) == ("Producing since 2 (webhook 7)", "last webhook: number 7, 95 s ago")


@pytest.mark.parametrize(
    ("changes", "here", "said"),
    [
        ({"last_event_at": at(60)}, {}, "silent for 40 s, and left alone until that is 90 s"),
        ({"last_event_at": None}, {}, "none has come yet, and it has been known for 100 s"),
        ({"hole_at": at(5), "missing": ((2, 2), (4, 5))}, {}, "one before the last is missing (2, 4 to 5)"),
        ({}, {"held_until": at(900)}, "its status at 900 (put off so that today's requests last)"),
        ({}, {"held_until": at(105)}, "its status at 110;"),
        ({}, {"paused_until": at(700)}, "its status at 700 (not before, by JARAI's word)"),
        ({}, {"down_until": at(120)}, "its status at 120 (JARAI is out of order, and is tried again then)"),
        ({"status_at": at(50)}, {}, "its status now; 41 of 100"),
        ({"ask_failures": 2}, {}, "its status at 110 (2 answer(s) in a row were no use)"),
        ({"list_at": at(105)}, {}, "the list of its deliverables at 105"),
        ({"list_at": at(115)}, {}, "its status at 110"),
        ({"status_at": None, "list_at": at(105)}, {"left_today": None}, "the list of its deliverables at 105"),
        ({}, {"has_key": False}, "JARAI_API_KEY, without which nobody can ask for its status"),
        ({"refused": "JARAI answers 404"}, {}, f"JARAI answers 404; see `deadletters list`, or ask again with "
         f"`productions refresh {PRODUCTION_ID}`"),
        ({"list_refused": "JARAI answers 403"}, {}, "a person: JARAI answers 403"),
        ({}, {"inbox": 3}, "a worker on the queue advance: 3 thing(s)"),
        ({"manifest_revision": 2}, {}, "manifest.json"),
    ],
)  # fmt: skip
def test_what_it_waits_for_is_said(changes: dict[str, Any], here: dict[str, Any], said: str) -> None:
    assert any(said in sentence for sentence in waits(replace(MAKING, **changes), **here))


@pytest.mark.parametrize(
    ("file", "here", "said"),
    [
        (VIDEO, {}, "waits for a worker on the queue download"),
        (replace(VIDEO, next_at=at(130), attempts=2, error="time-out"), {},
         "tried 2 time(s), last: time-out; tried again at 130"),
        (replace(VIDEO, link_expires_at=None), {}, "it has no valid address, and a poll brings a fresh one"),
        (replace(VIDEO, state="failed", error="gone"), {}, "was given up: gone; see `deadletters list`"),
        (VIDEO, {"storage_fails": True}, "the storage takes no files at present"),
        (VIDEO, {"progress": {VIDEO.key: Progress(10, 5)}}, "10 bytes are here, 5 more a second"),
        (replace(VIDEO, bytes=40), {"progress": {VIDEO.key: Progress(10, 5)}}, "10 of 40 bytes are here"),
    ],
)  # fmt: skip
def test_each_file_that_is_not_stored_says_what_it_waits_for(file: Any, here: dict[str, Any], said: str) -> None:
    [sentence] = waits(replace(PUBLISHED, deliverables=(file,)), **here)
    assert sentence.startswith(("Video (", "a person: Video ("))
    assert said in sentence


def test_what_is_settled_may_still_be_asked_about_or_be_triggered_again() -> None:
    failed = replace(NEW, status="Failed", settled=True)
    assert waits(replace(failed, retry_at=at(90))) == ("a poll, which has JARAI start another in its place now",)
    assert waits(replace(failed, retry_at=at(900)))[0].endswith("in its place at 900")
    assert waits(replace(failed, status_at=at(90)))[0].startswith("a poll, which asks JARAI for its status now")
    assert "x was triggered in its place" in knows(replace(failed, retried_as="x"))
    assert "triggered in the place of y, which had expired" in knows(replace(failed, retry_of="y"))


def test_one_that_is_settled_waits_for_nothing() -> None:
    stored = replace(VIDEO, state="stored")
    settled = replace(PUBLISHED, settled=True, deliverables=(stored,))
    assert waits(settled) == ("nothing: it is Published, and every file is stored",)
    failed = replace(NEW, status="Failed", settled=True)
    assert waits(failed) == ("nothing: it is Failed, and nothing is left to do",)
    assert waits(replace(settled, settled=False)) == (), "but for the manifest, which is on its way"
    assert waits(settled, inbox=1)[0].startswith("a worker on the queue advance")


@pytest.mark.parametrize(
    ("production", "said"),
    [
        (PUBLISHED, "Published (poll at 95)"),
        (replace(PUBLISHED, last_asked_at=None), "Published (poll)"),
        (replace(PUBLISHED, source="manifest"), "Published (manifest)"),
        (replace(PUBLISHED, source=None), "Published (unknown)"),
        (PUBLISHED, "JARAI was last asked 5 s ago"),
        (replace(PUBLISHED, sandbox=True),
         "SANDBOX: JARAI made it up for a test; nothing of it is published or billed"),
        (replace(NEW, status="Failed", error_code="E1", error_message="no"), "JARAI says of its failure: E1 no"),
        (replace(NEW, status="Failed", error_message="no"), "JARAI says of its failure: no"),
        (replace(NEW, status="Queued", expires_at=at(600)), "expires at 600 unless JARAI has begun by then"),
        (replace(MAKING, missing=((2, 2),)), "webhooks that never came: 2; JARAI has been asked since"),
        (replace(MAKING, missing=((2, 2),), hole_at=at(3)),
         "webhooks that never came: 2; JARAI has not been asked since"),
        (replace(PUBLISHED, missing=((2, 2),), hole_at=at(3)),
         "webhooks that never came: 2; its end is known all the same"),
        (replace(MAKING, missing=tuple((n, n) for n in range(1, 20, 2))),
         "webhooks that never came: 1, 3, 5, 7, 9, …; JARAI has been asked since"),
        (replace(PUBLISHED, deliverables=(VIDEO, replace(VIDEO, key="k", state="stored"))),
         "2 file(s), of which 1 are stored; the list came with a webhook"),
        (replace(PUBLISHED, deliverables=(VIDEO,), listed_sequence=3),
         "1 file(s), of which 0 are stored; the list came with an answer of JARAI"),
    ],
)  # fmt: skip
def test_where_each_thing_came_from_is_said(production: Production, said: str) -> None:
    assert said in knows(production)


def test_of_one_that_nothing_is_known_of_nothing_is_said() -> None:
    assert knows(NEW) == ()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (-5, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h"), (300_000, "3 days")],
)
def test_a_span_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert span(timedelta(seconds=seconds)) == said
