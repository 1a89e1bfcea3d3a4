"""What others get to see: the names that deployments hold on to, and never an address."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from service.core.manifest import describe as manifest
from service.core.observations import DownloadStored
from service.core.production import Production
from service.core.view import describe, instant
from tests.core.given import ACCOUNT_ID, NEW, PRODUCTION_ID, after, answered, arrived, at, item, listing, one, ready

SHA256 = "ab" * 32
ADDRESS = "https://h/p?sig=s3cr3t"
PUBLISHED = after(
    arrived("production.queued", 1, data={"expiresAt": "2026-04-03T14:40:00Z"}),
    ready(2, item("a"), item("b")),
    DownloadStored(at(50), one(name="a").key, 123, SHA256, 1.0),
    arrived("production.published", 3),
)


def test_a_production_is_shown_as_promised() -> None:
    shown = describe(PUBLISHED)
    promised = {
        "productionId": PRODUCTION_ID,
        "accountId": ACCOUNT_ID,
        "status": "Published",
        "terminal": True,
        "settled": False,
        "sequenceNumber": 3,
        "updatedAt": "2026-04-03T14:30:03Z",
        "source": "webhook",
        "sandbox": False,
        "error": None,
    }
    assert {name: shown[name] for name in promised} == promised
    stored, wanted = shown["deliverables"]
    assert {name: stored[name] for name in ("id", "type", "state", "bytes", "sha256")} == {
        "id": "a",
        "type": "Video",
        "state": "stored",
        "bytes": 123,
        "sha256": SHA256,
    }
    assert stored["file"] == f"Video_a_{one(name='a').key}.mp4"
    assert (wanted["id"], wanted["state"], wanted["storedAt"]) == ("b", "wanted", None)


def test_nothing_that_is_shown_holds_an_address() -> None:
    assert "sig" not in json.dumps([describe(PUBLISHED), manifest(PUBLISHED)])


@pytest.mark.parametrize(
    "told",
    [
        arrived("production.failed", 1, data={"errorMessage": f"no {ADDRESS}", "errorCode": "jarai_s3cr3ts3cr3t"}),
        answered("Failed", error_message=f"no {ADDRESS}", error_code="jarai_s3cr3ts3cr3t"),
    ],
)
def test_no_error_of_jarais_that_is_shown_holds_a_secret(told: Any) -> None:
    assert "s3cr3t" not in json.dumps(describe(after(told)))


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, None),
        ({"status": "Failed"}, {"code": None, "message": None}),
        ({"status": "Failed", "error_code": "X", "error_message": "said"}, {"code": "X", "message": "said"}),
        ({"status": "Producing", "error_code": "X"}, {"code": "X", "message": None}),
        ({"status": "Producing", "error_message": "said"}, {"code": None, "message": "said"}),
    ],
)
def test_an_error_is_shown_where_there_is_one(fields: dict[str, Any], shown: object) -> None:
    assert describe(replace(NEW, **fields))["error"] == shown


@pytest.mark.parametrize(("status", "shown"), [("Queued", "2026-04-03T14:31:00Z"), ("Producing", None)])
def test_only_a_queued_production_expires(status: str, shown: str | None) -> None:
    assert describe(replace(NEW, status=status, expires_at=at(60)))["expiresAt"] == shown


def test_a_production_of_which_nothing_is_known_says_so() -> None:
    shown = describe(NEW)
    assert (shown["status"], shown["sequenceNumber"], shown["deliverables"]) == (None, None, [])
    assert shown["updatedAt"] == "2026-04-03T14:30:00Z"


@pytest.mark.parametrize("fields", [{"refused": "no"}, {"list_refused": "no"}])
def test_what_jarai_refuses_is_shown(fields: dict[str, Any]) -> None:
    assert describe(replace(NEW, **fields))["refused"] == "no"


def test_a_manifest_tells_only_of_files_that_lie_there_complete() -> None:
    told = manifest(PUBLISHED)
    assert told["deliverables"] == [
        {
            "id": "a",
            "type": "Video",
            "file": f"Video_a_{one(name='a').key}.mp4",
            "bytes": 123,
            "sha256": SHA256,
            "storedAt": "2026-04-03T14:30:50Z",
            "version": 1,
            "current": True,
        }
    ]
    assert (told["productionId"], told["accountId"], told["status"]) == (PRODUCTION_ID, ACCOUNT_ID, "Published")
    assert told["settled"] is False


@pytest.mark.parametrize(
    ("known", "settled"),
    [
        (after(answered("Failed")), True),
        (after(answered("Producing")), False),
        (after(answered("Published"), listing(item())), False),
        (after(answered("Published"), listing(item()), DownloadStored(at(1), one().key, 1, SHA256, 1)), True),
    ],
)
def test_a_manifest_says_whether_anything_will_be_added(known: Production, settled: bool) -> None:
    assert manifest(known)["settled"] is settled


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (at(0), "2026-04-03T14:30:00Z"),
        (at(0.25), "2026-04-03T14:30:00.250000Z"),
        (at(0).astimezone(timezone(timedelta(hours=2))), "2026-04-03T14:30:00Z"),
    ],
)
def test_an_instant_is_written_in_utc_with_a_z(moment: datetime | None, text: str | None) -> None:
    assert instant(moment) == text
