"""JARAI lists a file again: what has changed comes as a version beside the old one, what has not costs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from service.core import manifest
from service.core.deliverables import Deliverable, Listed, current_files, next_version, safe_name, wanted
from service.core.observations import (
    MANIFEST,
    AskFailed,
    DownloadFailed,
    DownloadSame,
    DownloadStored,
    FileDamaged,
    ManifestWritten,
    OperatorAsked,
)
from service.core.production import Production
from service.core.view import describe
from tests.core.given import (
    ACCOUNT_ID,
    NEW,
    PRODUCTION_ID,
    START,
    after,
    answered,
    arrived,
    at,
    change,
    fact_names,
    item,
    kinds,
    listing,
    ready,
)

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
WAITING = after(arrived("production.step.complete", 1, data={"status": "AwaitingApproval"}), ready(2, item("a")))
[KEY] = [one.key for one in WAITING.deliverables]
STORED = after(DownloadStored(at(3), KEY, 5, SHA, 0.1, md5="11" * 16, etag='"0x1"'), before=WAITING)


def only_new(known: Production) -> Deliverable:
    [one] = [one for one in known.deliverables if one.key != KEY]
    return one


def old(known: Production) -> Deliverable:
    [one] = [one for one in known.deliverables if one.key == KEY]
    return one


@pytest.mark.parametrize(
    "said",
    [{"sizeBytes": 6}, {"sha256": OTHER_SHA}, {"md5": "22" * 16}],
    ids=["size", "sha256", "md5"],
)
def test_other_content_is_fetched_beside_what_is_stored(said: dict[str, Any]) -> None:
    step = change(ready(10, item("a", **said)), before=STORED)
    new = only_new(step.production)
    assert (new.version, new.of, new.compare, new.state) == (2, KEY, "", "wanted")
    assert new.file == f"Video_a-v2_{new.key}.mp4" != old(step.production).file
    assert [link.key for link in step.links] == [new.key]
    assert old(step.production).state == "stored"
    assert not step.production.complete
    assert step.timeline[-1] == {"at": at(10), "kind": "listed", "id": "a", "type": "Video", "version": 2}


def test_what_is_listed_as_it_is_stored_costs_nothing() -> None:
    for said in ({}, {"sizeBytes": 5, "sha256": SHA, "md5": "11" * 16}):
        step = change(ready(10, item("a", signature="fresh", **said)), before=STORED)
        assert [one.key for one in step.production.deliverables] == [KEY]
        assert step.links == ()


def test_a_list_from_before_it_was_stored_is_no_news() -> None:
    late = ready(10, item("a", sizeBytes=6), happened=1.5, received=10)
    assert len(after(late, before=STORED).deliverables) == 1


def test_another_place_is_looked_at_before_it_is_fetched() -> None:
    elsewhere = item("a", sasUrl="https://jarai.blob.core.windows.net/remade/a.mp4?sig=s")
    moved = after(ready(10, elsewhere), before=STORED)
    assert only_new(moved).compare == "head"
    again = after(ready(11, elsewhere), before=moved)
    assert only_new(again) == replace(only_new(moved), listed_at=at(11), link_expires_at=at(11 + 3600))


def test_what_turns_out_to_be_the_same_leaves_nothing_and_is_not_looked_at_again() -> None:
    elsewhere = item("a", sasUrl="https://jarai.blob.core.windows.net/remade/a.mp4?sig=s")
    moved = after(ready(10, elsewhere), before=STORED)
    step = change(DownloadSame(at(12), only_new(moved).key, etag='"0x2"'), before=moved)
    [kept] = step.production.deliverables
    assert (kept.key, kept.etag, kept.sha256, kept.state) == (KEY, '"0x2"', SHA, "stored")
    assert "deliverable.compared" in fact_names(step)
    assert step.production.due_downloads.keys() == {MANIFEST}
    assert len(after(ready(13, elsewhere), before=step.production).deliverables) == 1
    assert change(DownloadSame(at(12), only_new(moved).key), before=step.production).facts == ()


def test_a_production_that_was_made_again_has_every_file_looked_at_once() -> None:
    remade = after(
        arrived("production.step.complete", 4, data={"status": "Producing"}),
        arrived("production.step.complete", 5, data={"status": "AwaitingApproval"}),
        before=STORED,
    )
    assert remade.needs_list
    listed = after(listing(item("a"), seconds=20, knew=5), before=remade)
    assert only_new(listed).compare == "head"
    assert not replace(listed, deliverables=()).needs_list
    assert len(after(ready(30, item("a")), before=listed).deliverables) == 2


def test_a_list_while_it_is_still_being_made_again_is_not_yet_the_one() -> None:
    making = after(answered("Producing", 40, knew=2), before=STORED)
    listed = after(ready(41, item("a")), before=making)
    assert len(listed.deliverables) == 1
    assert after(answered("AwaitingApproval", 50, knew=41), before=listed).needs_list


def test_the_manifest_says_which_version_is_current() -> None:
    step = after(ready(10, item("a", sizeBytes=6)), before=STORED)
    new = only_new(step)
    assert current_files(step.deliverables) == {KEY}
    both = after(DownloadStored(at(12), new.key, 6, OTHER_SHA, 0.1), before=step)
    told = {one["file"]: one for one in manifest.describe(both)["deliverables"]}
    assert (told[old(both).file]["version"], told[old(both).file]["current"]) == (1, False)
    assert (told[new.file]["version"], told[new.file]["current"], told[new.file]["versionOf"]) == (2, True, KEY)
    assert [one["current"] for one in describe(both)["deliverables"]] == [False, True]
    [third] = [
        one for one in after(ready(20, item("a", sizeBytes=7)), before=both).deliverables if one.state == "wanted"
    ]
    assert (third.version, third.of, third.file) == (3, KEY, f"Video_a-v3_{third.key}.mp4")


def test_a_manifest_with_versions_is_read_back_as_it_was() -> None:
    step = after(ready(10, item("a", sizeBytes=6)), before=STORED)
    both = after(DownloadStored(at(12), only_new(step).key, 6, OTHER_SHA, 0.1), before=step)

    text = json.dumps(manifest.describe(both)).encode()
    found = manifest.parse(text).found("f", {one.file: one.bytes or 0 for one in both.deliverables}, at(20))
    back = after(found, before=NEW)
    assert [(one.key, one.version, one.of) for one in back.deliverables] == [
        (one.key, one.version, one.of) for one in both.deliverables
    ]


def test_a_settled_production_says_so_again_when_another_version_lies_there() -> None:
    published = after(arrived("production.published", 3), before=STORED)
    settled = after(ManifestWritten(at(20), published.manifest_revision), before=published)
    assert settled.settled
    listed = after(ready(30, item("a", sizeBytes=6)), before=settled)
    assert not listed.settled
    assert manifest.describe(listed)["settled"] is False
    both = after(DownloadStored(at(32), only_new(listed).key, 6, OTHER_SHA, 0.1), before=listed)
    assert "production.settled" in fact_names(change(ManifestWritten(at(33), both.manifest_revision), before=both))


def test_a_file_that_failed_has_another_chance_when_jarai_lists_other_content() -> None:
    listed = after(ready(1, item("a", sizeBytes=5)))
    failed = after(
        *(DownloadFailed(at(2), KEY, "unsound", "no moov", kept="/aside/a.mp4") for _ in range(2)), before=listed
    )
    assert old(failed).state == "failed"
    assert old(after(ready(5, item("a", sizeBytes=5)), before=failed)).state == "failed"
    again = after(ready(6, item("a", sizeBytes=6)), before=failed)
    assert (old(again).state, old(again).bytes, old(again).corrupted) == ("wanted", 6, 0)


def test_bytes_that_are_no_such_file_are_a_dead_letter_that_says_where_they_lie() -> None:
    listed = after(ready(1, item("a")))
    first = change(DownloadFailed(at(2), KEY, "unsound", "an MP4 without moov", kept="/aside/a.mp4"), before=listed)
    assert first.dead_letters == ()
    [letter] = change(
        DownloadFailed(at(4), KEY, "unsound", "an MP4 without moov", kept="/aside/a.mp4"), before=first.production
    ).dead_letters
    assert "an MP4 without moov" in letter.reason
    assert letter.fields["kept"] == "/aside/a.mp4"


def test_redownload_compares_every_file_byte_by_byte() -> None:
    asked = after(OperatorAsked(at(20), "redownload"), before=STORED)
    new = only_new(asked)
    assert (new.compare, new.version) == ("bytes", 2)
    assert asked.asks_list_now
    assert len(after(OperatorAsked(at(21), "redownload"), before=asked).deliverables) == 2
    step = change(DownloadSame(at(22), new.key, repaired=True), before=asked)
    assert [fact.fields["outcome"] for fact in step.facts if fact.name == "deliverable.compared"] == ["repaired"]


def test_redownload_of_one_file_leaves_the_others() -> None:
    two = after(ready(4, item("a"), item("b")), before=STORED)
    [other] = [one.key for one in two.deliverables if one.key != KEY]
    asked = after(OperatorAsked(at(20), "redownload", key=other), before=two)
    assert {one.key for one in asked.deliverables} == {KEY, other}


def test_a_version_that_never_comes_leaves_the_old_one_in_its_place() -> None:
    published = after(arrived("production.published", 4), before=STORED)
    asked = after(OperatorAsked(at(20), "redownload"), before=published)
    step = change(AskFailed(at(21), "deliverables", "gone", final=True), before=asked)
    assert [one.key for one in step.production.deliverables] == [KEY]
    assert [fact.fields["outcome"] for fact in step.facts if fact.name == "deliverable.compared"] == [
        "JARAI refuses to list it: gone"
    ]
    assert not [letter for letter in step.dead_letters if letter.kind == "deliverable"]


def test_a_damaged_file_is_fetched_again_into_its_place() -> None:
    step = change(FileDamaged(at(20), KEY, "it is gone"), before=STORED)
    one = old(step.production)
    assert (one.state, one.error, one.stored_at) == ("wanted", "it is gone", None)
    assert step.production.asks_list_now
    assert "deliverable.damaged" in fact_names(step)
    assert manifest.describe(step.production)["deliverables"] == []
    assert step.production.manifest_revision > STORED.manifest_revision
    listed = after(listing(item("a"), seconds=30), before=step.production)
    assert old(listed).file == one.file
    assert change(FileDamaged(at(31), KEY, "it is gone"), before=listed).facts == ()


def test_a_damaged_older_version_is_told_and_no_longer_listed() -> None:
    step = after(ready(10, item("a", sizeBytes=6)), before=STORED)
    both = after(DownloadStored(at(12), only_new(step).key, 6, OTHER_SHA, 0.1), before=step)
    damaged = change(FileDamaged(at(20), KEY, "it is gone"), before=both)
    assert [one.version for one in damaged.production.deliverables] == [2]
    [fact] = [fact for fact in damaged.facts if fact.name == "deliverable.damaged"]
    assert fact.fields["fetched_again"] is False


def test_a_damaged_manifest_is_written_again() -> None:
    written = after(ManifestWritten(at(10), STORED.manifest_revision), before=STORED)
    step = change(FileDamaged(at(20), MANIFEST, "it is gone"), before=written)
    assert MANIFEST in step.production.due_downloads
    assert "deliverable.damaged" in kinds(step.timeline)


def test_small_files_are_known_by_their_size_or_their_kind() -> None:
    def small(name: str, kind: str = "Other", **fields: Any) -> bool:
        listed = Listed("0" * 16, "a", kind, "https://h/p", START, file_name=name, **fields)
        return wanted(listed).small

    assert small("a.vtt")
    assert small("a.mp4", bytes=1000)
    assert not small("a.vtt", bytes=2**30)
    assert not small("a.mp4")
    assert not small("a", kind="VideoVertical")
    assert MANIFEST in WAITING.small_downloads


def test_a_version_has_a_name_of_its_own_whatever_the_first_is_called() -> None:
    first = wanted(Listed("0" * 16, "a", "Video", "https://h/p", START, file_name="a"))
    second = next_version(first, "")
    assert first.file == safe_name(Listed("0" * 16, "a", "Video", "https://h/p", START, file_name="a"))
    assert second.file == f"Video_a-v2_{second.key}"
    assert next_version(second, "").of == first.key


def test_what_is_not_a_version_of_ours_in_a_manifest_is_refused() -> None:
    told = manifest.describe(STORED)
    told["deliverables"][0]["versionOf"] = "../x"

    with pytest.raises(ValueError):
        manifest.parse(json.dumps(told).encode())
    assert (told["productionId"], told["accountId"]) == (PRODUCTION_ID, ACCOUNT_ID)


# --- while a file is on its way --------------------------------------------------------------------------------


def fetched(known: Production, sha256: str = SHA, size: int = 5, seconds: float = 20) -> DownloadStored:
    """What a worker brings that began by the list that this production knows."""
    one = old(known)
    return DownloadStored(at(seconds), KEY, size, sha256, 0.1, listed_at=one.listed_at, place=one.place)


def test_a_file_keeps_its_name_once_it_has_one() -> None:
    renamed = after(ready(5, item("a", fileName="Final cut.mp4")), before=WAITING)
    assert old(renamed).file == old(WAITING).file


@pytest.mark.parametrize(
    "later",
    [item("a", sha256=OTHER_SHA), item("a", sasUrl="https://jarai.blob.core.windows.net/remade/a.mp4?sig=s")],
    ids=["other content is announced", "another place"],
)
def test_what_changed_while_it_was_fetched_is_looked_at_again(later: dict[str, Any]) -> None:
    listed = after(ready(10, later), before=WAITING)
    step = change(fetched(WAITING), before=listed)
    assert (old(step.production).sha256, old(step.production).place) == (SHA, old(WAITING).place)
    assert (only_new(step.production).compare, only_new(step.production).version) == ("head", 2)
    assert step.production.asks_list_now


def test_what_was_listed_again_as_it_was_while_it_was_fetched_is_done() -> None:
    listed = after(ready(10, item("a", signature="fresh", sha256=SHA)), before=WAITING)
    assert len(after(fetched(WAITING), before=listed).deliverables) == 1


def test_what_was_made_again_while_it_was_fetched_is_looked_at_again_though_nothing_announces_it() -> None:
    back = after(
        arrived("production.step.complete", 3, data={"status": "Producing"}),
        arrived("production.step.complete", 4, data={"status": "AwaitingApproval"}),
        ready(5, item("a", signature="fresh")),
        before=WAITING,
    )
    assert back.remade_sequence is None
    assert only_new(after(fetched(WAITING), before=back)).compare == "head"
    assert len(after(fetched(back), before=back).deliverables) == 1, "fetched by the list that came after"


def test_a_checksum_of_what_it_is_by_now_is_not_taken_for_that_of_what_was_fetched() -> None:
    listed = after(ready(10, item("a", md5="22" * 16, sizeBytes=6)), before=WAITING)
    assert old(after(fetched(WAITING), before=listed)).md5 is None


# --- made again ------------------------------------------------------------------------------------------------


def two_stored() -> Production:
    two = after(ready(4, item("a"), item("b")), before=STORED)
    keys = [one.key for one in two.deliverables if one.state == "wanted"]
    return after(*(DownloadStored(at(5), key, 5, SHA, 0.1) for key in keys), before=two)


def sent_back(known: Production) -> Production:
    return after(
        arrived("production.step.complete", 5, data={"status": "Producing"}),
        arrived("production.step.complete", 6, data={"status": "AwaitingApproval"}),
        before=known,
    )


def test_a_list_of_only_some_files_leaves_the_others_to_be_looked_at() -> None:
    partly = after(ready(7, item("a")), before=sent_back(two_stored()))
    assert sum(one.compare == "head" for one in partly.deliverables) == 1
    assert partly.remade_sequence == 5
    assert partly.needs_list
    whole = after(listing(item("a"), item("b"), seconds=300, knew=7), before=partly)
    assert sum(one.compare == "head" for one in whole.deliverables) == 2
    assert whole.remade_sequence is None


def test_no_clock_decides_whether_a_list_is_from_after_it_was_made_again() -> None:
    """JARAI's events are an hour ahead of its answers: the list is asked for once, not for ever."""
    ahead = after(
        arrived("production.step.complete", 5, happened=3600, received=10, data={"status": "Producing"}),
        arrived("production.step.complete", 6, happened=3601, received=11, data={"status": "AwaitingApproval"}),
        before=STORED,
    )
    assert ahead.needs_list
    listed = after(listing(item("a"), seconds=20, knew=6), before=ahead)
    assert only_new(listed).compare == "head"
    assert listed.remade_sequence is None


def test_an_answer_that_did_not_know_of_it_is_not_the_one() -> None:
    early = after(listing(item("a"), seconds=20, knew=4), before=sent_back(STORED))
    assert len(early.deliverables) == 1
    assert early.needs_list


def test_a_file_that_failed_has_another_chance_when_it_was_made_again_or_lies_elsewhere() -> None:
    failed = after(*(DownloadFailed(at(4), KEY, "unsound", "no moov") for _ in range(2)), before=WAITING)
    assert old(failed).state == "failed"
    assert old(after(ready(7, item("a")), before=sent_back(failed))).state == "wanted"
    elsewhere = item("a", sasUrl="https://jarai.blob.core.windows.net/remade/a.mp4?sig=s")
    assert old(after(ready(7, elsewhere), before=failed)).state == "wanted"


def test_other_bytes_under_the_same_name_are_settled_anew() -> None:
    published = after(arrived("production.published", 3), before=STORED)
    settled = after(ManifestWritten(at(20), published.manifest_revision), before=published)
    lost = after(FileDamaged(at(30), KEY, "is gone"), before=settled)
    mended = after(DownloadStored(at(40), KEY, 6, OTHER_SHA, 0.1), before=after(listing(item("a")), before=lost))
    step = change(ManifestWritten(at(50), mended.manifest_revision), before=mended)
    assert "production.settled" in fact_names(step)
    assert len(step.notices) == 1
