"""Notices: told once for each fact, under an id that the fact alone makes, as the published schema says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from service.core import manifest, notices
from service.core.deliverables import next_version
from service.core.observations import DownloadStored, ManifestWritten, Observation, OperatorAsked
from service.core.production import Change, Notice, Production
from service.core.retry import MOST_NOTICE_ATTEMPTS
from tests.core.given import (
    ACCOUNT_ID,
    NEW,
    PRODUCTION_ID,
    after,
    answered,
    arrived,
    at,
    change,
    item,
    ready,
)

FOLDER = f"{ACCOUNT_ID}/{PRODUCTION_ID}"
SCHEMA = jsonschema_rs.validator_for(
    json.loads((Path(__file__).parents[2] / "docs" / "facts.schema.json").read_text()), validate_formats=True
)
FAILED = arrived("production.failed", 3, data={"errorCode": "RENDER", "errorMessage": "see https://a.b/?sig=SeCrEt"})


def stored(production: Production) -> list[Observation]:
    return [DownloadStored(at(200), one.key, 5, "ab" * 32, 0.1) for one in production.deliverables]


def published(*items: dict[str, Any]) -> Production:
    """Every file is stored; only the manifest is still to be written."""
    listed = after(ready(1, *items), arrived("production.published", 2))
    return after(*stored(listed), before=listed)


def settle(production: Production, seconds: float = 210) -> Change:
    written = ManifestWritten(at(seconds), production.manifest_revision)
    return change(written, before=production, seconds=seconds)


def only(step: Change) -> Notice:
    [notice] = step.notices
    return notice


def told(notice: Notice) -> dict[str, Any]:
    """What somebody reads who got it; it is as the schema says."""
    read: dict[str, Any] = json.loads(notices.body(notice))
    assert list(SCHEMA.iter_errors(read)) == []
    return read


def test_a_published_production_is_told_when_it_settles_and_with_what_its_manifest_says() -> None:
    whole = published(item("a"), item("b"))
    step = settle(whole)
    read = told(only(step))
    assert (read["type"], read["timestamp"]) == ("production.settled", "2026-04-03T14:33:30Z")
    assert read["data"] == {
        "productionId": PRODUCTION_ID,
        "accountId": ACCOUNT_ID,
        "status": "Published",
        "sandbox": False,
        "error": None,
        "folder": FOLDER,
        "manifest": f"{FOLDER}/manifest.json",
        "files": 2,
        "bytes": 10,
        "deliverables": manifest.describe(whole)["deliverables"],
        "truncated": False,
    }
    assert "sig=" not in notices.body(only(step))


def test_nothing_is_told_before_the_manifest_is_written_nor_afterwards() -> None:
    whole = published(item())
    assert change(before=whole).notices == ()
    settled = settle(whole).production
    assert change(arrived("production.published", 9), OperatorAsked(at(300), "refresh"), before=settled).notices == ()


def test_more_files_are_another_fact() -> None:
    first = settle(published(item("a")))
    listed = after(ready(3, item("a"), item("b")), before=first.production)
    again = settle(after(*stored(listed), before=listed), seconds=400)
    assert only(again).id != only(first).id
    assert told(only(again))["data"]["files"] == 2


def test_other_bytes_in_a_file_are_another_fact_and_a_later_moment_is_not() -> None:
    whole = published(item("a"), item("b"))
    other = replace(whole, deliverables=tuple(replace(one, sha256="cd" * 32) for one in whole.deliverables))
    turned = replace(whole, deliverables=whole.deliverables[::-1], sandbox=True)
    ids = [notices.settled(one, at(300)).id for one in (whole, other, turned)]
    assert len(set(ids)) == 2
    assert ids[0] == ids[2] == notices.settled(whole, at(999)).id


def test_only_the_newest_version_of_a_file_is_told_of() -> None:
    whole = published(item())
    old = whole.deliverables[0]
    new = replace(next_version(old, ""), state="stored", bytes=7, sha256="cd" * 32, stored_at=at(250))
    data = told(notices.settled(replace(whole, deliverables=(old, new)), at(300)))["data"]
    assert [one["file"] for one in data["deliverables"]] == [new.file]
    assert (data["files"], data["bytes"]) == (1, 7)


@pytest.mark.parametrize(("files", "truncated"), [(notices.MOST_LISTED, False), (notices.MOST_LISTED + 1, True)])
def test_of_very_many_files_the_first_are_listed_and_all_are_counted(files: int, truncated: bool) -> None:
    data = told(only(settle(published(*(item(f"n{number}") for number in range(files))))))["data"]
    assert (data["files"], len(data["deliverables"]), data["truncated"]) == (files, notices.MOST_LISTED, truncated)


def test_a_production_that_fails_is_told_at_that_moment_with_its_error() -> None:
    step = change(arrived("production.queued", 1), FAILED)
    read = told(only(step))
    assert (read["type"], read["timestamp"]) == ("production.failed", "2026-04-03T14:30:03Z")
    assert (read["data"]["status"], read["data"]["manifest"]) == ("Failed", f"{FOLDER}/manifest.json")
    assert read["data"]["error"] == {"code": "RENDER", "message": "see https://a.b/?[redacted]"}
    assert settle(step.production).notices == (), "it was told already; that its manifest is written is no news"


def test_a_cancelled_production_is_told_as_failed_and_its_status_says_which() -> None:
    cancelled = only(change(arrived("production.queued", 1), answered("Cancelled")))
    assert (told(cancelled)["type"], told(cancelled)["data"]["status"]) == ("production.failed", "Cancelled")
    assert cancelled.id != only(change(FAILED)).id


def test_a_failure_whose_account_nobody_knows_yet_is_told_without_a_folder() -> None:
    data = told(only(change(answered("Failed"), before=NEW)))["data"]
    assert (data["accountId"], data["folder"], data["manifest"]) == (None, None, None)
    assert data["error"] == {"code": None, "message": None}


def test_whoever_tells_of_a_failure_and_however_it_is_worded_it_is_one_fact() -> None:
    by_event, by_poll = change(FAILED), change(answered("Failed", error_code="RENDER_FAILED"))
    assert only(by_event).id == only(by_poll).id
    assert change(answered("Failed", error_code="RENDER_FAILED"), before=by_event.production).notices == ()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_replay_tells_nothing_that_was_told(at_once: bool) -> None:
    failed = change(FAILED).production
    wish, again = OperatorAsked(at(300), "replay"), replace(FAILED, replayed=True)
    steps = [(wish, again)] if at_once else [(wish,), (again,)]
    for observations in steps:
        step = change(*observations, before=failed)
        assert step.notices == ()
        failed = step.production
    assert failed.status == "Failed"


def test_a_replay_that_ends_otherwise_is_told() -> None:
    failed = change(FAILED).production
    end = change(OperatorAsked(at(300), "replay"), answered("Cancelled", seconds=301), before=failed)
    assert told(only(end))["data"]["status"] == "Cancelled"


def test_what_comes_back_from_its_manifest_is_told_again_under_the_id_that_it_had() -> None:
    settled = settle(published(item("a"), item("b")))
    found = manifest.parse(json.dumps(manifest.describe(settled.production)).encode())
    sizes = {one.file: 5 for one in settled.production.deliverables}
    again = settle(after(found.found(FOLDER, sizes, at(500)), before=NEW), seconds=510)
    assert only(again).id == only(settled).id
    failed = change(FAILED)
    found = manifest.parse(json.dumps(manifest.describe(failed.production)).encode())
    assert only(change(found.found(FOLDER, {}, at(500)), before=NEW)).id == only(failed).id


def test_each_production_has_ids_of_its_own() -> None:
    other = replace(published(item()), production_id="0b9f8a6e-aaaa-4bbb-8ccc-ddddeeeeffff")
    assert notices.settled(other, at(1)).id != notices.settled(published(item()), at(1)).id


def test_the_schema_lets_later_versions_add_and_nothing_be_left_out() -> None:
    read = told(only(change(FAILED)))
    assert SCHEMA.is_valid(read | {"more": 1, "data": read["data"] | {"more": 1}})
    assert SCHEMA.is_valid(read | {"type": "production.distributed"})
    for name in read["data"]:
        assert not SCHEMA.is_valid(read | {"data": {key: value for key, value in read["data"].items() if key != name}})
    assert not SCHEMA.is_valid(read | {"data": read["data"] | {"status": "Published"}})


# --- what follows from an answer -------------------------------------------------------------------------------------

NOTHING = timedelta(0)


def judged(status: int | None, asked: timedelta = NOTHING, attempts: int = 0, failures: int = 0) -> notices.Verdict:
    return notices.judge(status, asked, attempts=attempts, receiver_failures=failures, notice_id="msg_1")


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    assert judged(status) == notices.Verdict(delivered=True)


def test_410_gives_this_one_up_and_holds_no_other_up() -> None:
    assert judged(410) == notices.Verdict()


@pytest.mark.parametrize("status", [None, 429, 500, 502, 503, 599])
def test_a_receiver_in_trouble_is_left_alone_for_a_while_that_grows(status: int | None) -> None:
    first, later = judged(status), judged(status, failures=5)
    assert not first.delivered
    assert first.again_in is not None
    assert timedelta(0) < first.others_wait < later.others_wait <= timedelta(minutes=5)


@pytest.mark.parametrize("status", [100, 302, 307, 400, 401, 404, 422])
def test_any_other_answer_is_about_this_notice_only(status: int) -> None:
    verdict = judged(status)
    assert verdict.again_in is not None
    assert verdict.others_wait == NOTHING


def test_it_is_given_up_after_about_three_days() -> None:
    pauses = [judged(500, attempts=attempts).again_in for attempts in range(MOST_NOTICE_ATTEMPTS - 1)]
    assert pauses[0] is not None
    assert timedelta(seconds=3) < pauses[0] <= timedelta(seconds=5)
    whole = sum((pause for pause in pauses if pause is not None), timedelta(0))
    assert timedelta(days=2.5) < whole < timedelta(days=3.5)
    last = judged(500, attempts=MOST_NOTICE_ATTEMPTS - 1)
    assert (last.again_in, last.delivered) == (None, False)
    assert last.others_wait > NOTHING


def test_what_the_receiver_asks_for_is_granted_up_to_a_day() -> None:
    hour, week = judged(503, timedelta(hours=1)), judged(429, timedelta(days=7))
    assert (hour.again_in, hour.others_wait) == (timedelta(hours=1), timedelta(hours=1))
    assert (week.again_in, week.others_wait) == (timedelta(days=1), timedelta(days=1))
    short = judged(503, timedelta(seconds=1), attempts=9)
    assert short.again_in is not None
    assert short.again_in > timedelta(minutes=10), "asking for less than we would wait brings nothing sooner"


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (503, "120", 120),
        (429, "0", 0),
        (429, format_datetime(at(60), usegmt=True), 60),
        (503, format_datetime(at(-60), usegmt=True), 0),
        (503, "Fri, 03 Apr 2026 14:31:00 -0000", 60),
        (503, "9" * 40, 10**9),
        (503, "Fri, 03 Apr 99999999999999999999 14:31:00 GMT", 0),
        (503, "", 0),
        (503, "soon", 0),
        (503, "-5", 0),
        (503, "²", 0),
        (500, "120", 0),
        (200, "120", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_an_instant(status: int, header: str, seconds: int) -> None:
    assert notices.retry_after(status, header, at(0)) == timedelta(seconds=seconds)
