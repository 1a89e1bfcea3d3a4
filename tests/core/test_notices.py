"""What partner systems are told: each fact once, by an id that follows from what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.core import notices
from service.core.observations import DownloadStored, ManifestWritten, OperatorAsked
from service.core.production import Change, Production
from tests.core.given import NEW, after, answered, arrived, at, change, item, ready

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "facts.schema.json").read_text())
SHA, OTHER_SHA = "ab" * 32, "cd" * 32


def stored(known: Production, sha256: str = SHA, seconds: float = 10) -> Production:
    waiting = [one.key for one in known.deliverables if one.state == "wanted"]
    return after(*(DownloadStored(at(seconds), key, 5, sha256, 0.1) for key in waiting), before=known)


def written(known: Production) -> Change:
    return change(ManifestWritten(at(20), known.manifest_revision), before=known)


PUBLISHED = after(ready(1, item("a"), item("b")), arrived("production.published", 2))
SETTLED = written(stored(PUBLISHED))


def told(step: Change) -> dict[str, Any]:
    """The one notice, as it is sent; it keeps to the schema and holds no secret."""
    [notice] = step.notices
    body = notices.body(notice)
    assert "s3cr3t" not in body
    fact: dict[str, Any] = json.loads(body)
    jsonschema.validate(fact, SCHEMA, format_checker=jsonschema.FormatChecker())
    return fact


def test_a_production_that_settled_is_told_with_its_files() -> None:
    fact = told(SETTLED)
    assert (fact["type"], fact["data"]["status"], fact["data"]["files"], fact["data"]["bytes"]) == (
        "production.settled",
        "Published",
        2,
        10,
    )
    assert fact["data"]["manifest"] == f"{SETTLED.production.folder}/manifest.json"
    assert [one["sha256"] for one in fact["data"]["deliverables"]] == [SHA, SHA]


def test_nothing_is_told_before_everything_is_written_down() -> None:
    assert change(ready(1, item("a")), arrived("production.published", 2)).notices == ()
    assert change(arrived("production.step.complete", 1)).notices == ()
    waiting = after(ready(1, item("a")), arrived("production.published", 2))
    key = waiting.deliverables[0].key
    assert change(DownloadStored(at(10), key, 5, SHA, 0.1), before=waiting).notices == ()


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
def test_one_that_ended_otherwise_is_told_at_once_and_once(status: str) -> None:
    step = change(answered(status, error_code="X", error_message="said"))
    fact = told(step)
    assert (fact["type"], fact["data"]["status"]) == ("production.failed", status)
    assert fact["data"]["error"] == {"code": "X", "message": "said"}
    assert change(answered(status, 200), before=step.production).notices == ()
    settled = written(step.production)
    assert settled.production.settled
    assert settled.notices == ()


def test_a_failure_without_words_and_before_its_account_is_known_is_told_as_well() -> None:
    fact = told(change(answered("Failed")))
    assert (fact["data"]["error"], fact["data"]["folder"], fact["data"]["manifest"]) == (None, None, None)


def test_the_same_fact_has_the_same_id_whenever_and_however_it_is_come_to() -> None:
    [first] = SETTLED.notices
    later = stored(after(ready(1, item("b"), item("a")), arrived("production.published", 2)), seconds=500)
    [again] = written(later).notices
    assert again.id == first.id
    assert first.id.startswith("msg_")
    [failed] = change(answered("Failed", 10)).notices
    replayed = after(OperatorAsked(at(50), "replay"), before=after(answered("Failed", 10)))
    [once_more] = change(answered("Failed", 60), before=replayed).notices
    assert once_more.id == failed.id


def test_another_fact_has_another_id() -> None:
    ids = {
        SETTLED.notices[0].id,
        written(stored(PUBLISHED, OTHER_SHA)).notices[0].id,
        written(stored(replace(PUBLISHED, production_id="0b9f8a6e-aaaa-4bbb-8ccc-ddddeeeeffff"))).notices[0].id,
        change(answered("Failed")).notices[0].id,
        change(answered("Cancelled")).notices[0].id,
    }
    assert len(ids) == 5


def test_another_version_of_a_file_is_told_and_only_current_files_are_listed() -> None:
    listed = after(ready(3, item("a", sizeBytes=6), item("b")), before=SETTLED.production)
    fact = told(written(stored(listed, OTHER_SHA, 40)))
    assert fact["data"]["files"] == 2
    assert sorted(one["version"] for one in fact["data"]["deliverables"]) == [1, 2]


def test_of_many_files_a_hundred_are_listed_and_it_is_said() -> None:
    many = stored(after(ready(1, *(item(f"f{n}") for n in range(120))), arrived("production.published", 2), before=NEW))
    fact = told(written(many))
    assert (fact["data"]["files"], len(fact["data"]["deliverables"]), fact["data"]["truncated"]) == (120, 100, True)
