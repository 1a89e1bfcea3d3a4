"""What lies in an inbox is read back as it was written, or refused."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from service.core.deliverables import read_list, wanted
from service.core.observations import (
    MANIFEST,
    AskFailed,
    DownloadFailed,
    DownloadSame,
    DownloadStored,
    FileDamaged,
    ManifestFound,
    ManifestWritten,
    OperatorAsked,
    Retriggered,
    Written,
    from_json,
    result_of,
    to_json,
)
from tests.core.given import ACCOUNT_ID, answered, at, item, listing

EACH: list[Written] = [
    answered("Failed", 7.5, knew=3, error_code="X", error_message="said", expires_at=at(9), sandbox=True),
    answered("Queued"),
    listing(item("a", sizeBytes=5), item("b"), knew=4),
    listing(),
    AskFailed(at(1), "status", "no", code="C", final=True, correlation_id="c"),
    AskFailed(at(1), "deliverables", "no"),
    DownloadStored(at(1), "key", 2**40, "ab", 1.5, md5="cd", etag='"0x1"'),
    DownloadSame(at(1), "key", repaired=True),
    FileDamaged(at(1), "key", "it is gone"),
    DownloadFailed(at(1), "key", "transfer", "broke", progressed=True),
    ManifestWritten(at(1), 3),
    OperatorAsked(at(1), "track", account_id=ACCOUNT_ID),
    OperatorAsked(at(1), "track", body='{"topic": "Bees"}', retries_left=2, retry_of="a"),
    Retriggered(at(1), "b"),
    ManifestFound(at(1), ACCOUNT_ID, "a/p", "Published", True, False, (wanted(read_list(item("a"), at(0))[0]),)),
    OperatorAsked(at(1), "retry", key="key"),
]


@pytest.mark.parametrize("observation", EACH, ids=lambda one: type(one).__name__)
def test_an_observation_is_read_back_as_it_was_written(observation: Written) -> None:
    assert from_json(to_json(observation)) == observation


def test_every_kind_of_observation_can_be_written() -> None:
    assert {type(one) for one in EACH} == set(get_args(Written))
    assert len({one.kind for one in EACH}) == len(get_args(Written))


@pytest.mark.parametrize("kind", sorted({one.kind for one in EACH}))
def test_no_observation_is_mistaken_for_a_reference_to_an_event(kind: str) -> None:
    assert all(not to_json(one).startswith((b"e", b"r")) for one in EACH if one.kind == kind)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"e7 1", b'{"kind": "unheard"}', b'{"kind": "stored", "at": 1}'])
def test_what_nobody_of_ours_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(data)


def test_a_newer_versions_additional_fields_are_passed_over() -> None:
    written = json.loads(to_json(EACH[-1])) | {"added": 1}
    assert from_json(json.dumps(written).encode()) == EACH[-1]


def test_the_result_of_work_on_a_file_names_it_and_nothing_else_does() -> None:
    assert {result_of(one) for one in EACH if one.kind in ("stored", "same", "download_failed")} == {"key"}
    assert {result_of(one) for one in EACH if one.kind in ("manifest", "manifest_found")} == {MANIFEST}
    others = ("status", "deliverables", "ask_failed", "operator", "damaged")
    assert {result_of(one) for one in EACH if one.kind in others} == {""}
