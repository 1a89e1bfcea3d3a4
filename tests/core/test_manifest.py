"""A manifest is read back as what it was written from, and nothing else passes for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from service.core import manifest
from service.core.observations import DownloadStored, ManifestFound, ManifestWritten
from service.core.production import Production
from tests.core.given import (
    ACCOUNT_ID,
    NEW,
    PRODUCTION_ID,
    after,
    arrived,
    at,
    change,
    fact_names,
    item,
    kinds,
    ready,
)

FOLDER = f"{ACCOUNT_ID}/{PRODUCTION_ID}"
LISTED = after(ready(1, item("a"), item("b")), arrived("production.published", 2))
STORED = after(*(DownloadStored(at(200), one.key, 5, "ab" * 32, 0.1) for one in LISTED.deliverables), before=LISTED)
SETTLED = after(ManifestWritten(at(210), STORED.manifest_revision), before=STORED)
SIZES = {one.file: 5 for one in STORED.deliverables}


def written(production: Production, **changed: Any) -> bytes:
    return json.dumps(manifest.describe(production) | changed).encode()


def found(production: Production = STORED, sizes: dict[str, int] = SIZES) -> ManifestFound:
    return manifest.parse(written(production)).found(FOLDER, sizes, at(300))


def test_a_settled_production_comes_back_whole_and_asks_for_nothing() -> None:
    again = after(found(), before=replace(NEW, created_at=at(300)), seconds=300)
    assert (again.status, again.source, again.account_id, again.folder) == ("Published", "manifest", ACCOUNT_ID, FOLDER)
    assert again.deliverables == tuple(replace(one, place="", listed_at=None) for one in STORED.deliverables)
    assert again.due_to_ask_at is None
    assert set(again.due_downloads) == {"manifest"}
    assert after(ManifestWritten(at(301), again.manifest_revision), before=again).settled


def test_a_rebuild_is_told_in_the_log_and_in_the_timeline_and_what_brings_nothing_new_is_not() -> None:
    told = change(found(), before=NEW)
    [fact] = [one for one in told.facts if one.name == "production.rebuilt"]
    assert fact.fields == {"status": "Published", "files": 2}
    assert "production.rebuilt" in kinds(told.timeline)
    assert "production.rebuilt" not in fact_names(change(found(), before=told.production))


def test_an_event_that_comes_after_a_rebuild_has_nothing_asked_either() -> None:
    again = after(found(), before=NEW)
    later = after(arrived("production.published", 9), before=again)
    assert (later.status, later.due_to_ask_at) == ("Published", None)


def test_a_file_that_is_gone_or_has_another_size_is_not_believed() -> None:
    [first, second] = SIZES
    for sizes in ({first: 5}, {first: 5, second: 4}):
        told = found(sizes=sizes)
        assert [one.file for one in told.deliverables] == [first]
        again = after(told, before=NEW)
        assert (again.status, again.settled) == (None, False)
        assert again.status_at is not None, "JARAI is asked"


def test_a_production_that_was_on_its_way_is_asked_about_at_once() -> None:
    told = manifest.parse(written(after(arrived("production.queued", 1)))).found(FOLDER, {}, at(300))
    assert (told.status, told.settled) == ("Queued", False)
    again = after(told, before=NEW, seconds=300)
    assert again.status is None
    assert again.status_at == at(300)


def test_what_is_known_already_stays() -> None:
    told = replace(found(), deliverables=())
    assert replace(after(told, before=STORED), version=0) == replace(STORED, version=0)


def test_a_file_that_is_wanted_is_recognised_unless_jarai_announces_another() -> None:
    assert after(found(), before=LISTED).deliverables == STORED.deliverables
    for announced in ({"bytes": 6}, {"sha256": "cd" * 32}):
        wanted = tuple(replace(one, **announced) for one in LISTED.deliverables)
        assert after(found(), before=replace(LISTED, deliverables=wanted)).deliverables == wanted


def test_files_that_only_the_manifest_knows_are_added_to_what_is_known() -> None:
    known = after(found(), before=after(arrived("production.published", 2)))
    assert [one.state for one in known.deliverables] == ["stored", "stored"]
    assert (known.status, known.source) == ("Published", "webhook")


def test_every_name_that_a_file_is_given_is_read_back_with_its_key() -> None:
    names = ["", "film", "film.mp4", "Ünï cödé.VTT", "../../x", "a_b_c.tar.gz", "x" * 300]
    listed = after(ready(1, *(item(f"n{number}", fileName=name) for number, name in enumerate(names))))
    stored = after(*(DownloadStored(at(9), one.key, 5, "ab" * 32, 0.1) for one in listed.deliverables), before=listed)
    read = manifest.parse(written(stored)).deliverables
    assert [one.key for one in read] == [one.key for one in stored.deliverables]


FIRST: dict[str, Any] = manifest.describe(STORED)["deliverables"][0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        written(STORED, productionId="7"),
        written(STORED, deliverables=None),
        written(STORED, deliverables=[FIRST | {"file": "../x_3f9a0c51d2b7e846"}]),
        written(STORED, deliverables=[FIRST | {"file": "film.mp4"}]),
        written(STORED, deliverables=[FIRST | {"sha256": "ab"}]),
        written(STORED, deliverables=[FIRST | {"bytes": -1}]),
    ],
)
def test_what_is_no_manifest_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        manifest.parse(content)


def test_an_older_version_is_no_current_one_only_because_the_newer_one_is_lost() -> None:
    entries = manifest.describe(STORED)["deliverables"]
    first = entries[0] | {"current": False}
    key = first["file"].rpartition("_")[2].partition(".")[0]
    second = first | {"file": "Video_a-v2_0123456789abcdef.mp4", "version": 2, "versionOf": key, "current": True}
    told = manifest.parse(written(STORED, deliverables=[second, first, entries[1]]))
    assert manifest.to_fetch_again(told, {first["file"], entries[1]["file"]}) == [key]
    assert manifest.to_fetch_again(told, {first["file"], second["file"], entries[1]["file"]}) == []
    assert manifest.to_fetch_again(told, {entries[1]["file"]}) == []
