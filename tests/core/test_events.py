"""From signed bytes to an event: what JARAI may add is kept, what it may leave out is tolerated."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core import events
from service.core.errors import MalformedEvent
from service.core.events import Event, parse, parse_envelope, parse_instant, same_news, without_addresses
from tests.core.given import ACCOUNT_ID, EVENT_ID, PRODUCTION_ID, body, envelope, item, json_values


def test_an_event_is_read_as_documented() -> None:
    event = parse(body("deliverable.ready", 7, timestamp="2026-04-03T14:30:00Z", truncated=True, data={"status": "x"}))
    assert (str(event.event_id), event.event_type) == (EVENT_ID, "deliverable.ready")
    assert (str(event.production_id), str(event.account_id)) == (PRODUCTION_ID, ACCOUNT_ID)
    assert event.timestamp == datetime(2026, 4, 3, 14, 30, tzinfo=UTC)
    assert (event.sequence_number, event.correlation_id, event.truncated) == (7, "corr-1", True)
    assert event.data == {"status": "x"}


@pytest.mark.parametrize("absent", ["correlationId", "truncated", "data"])
@pytest.mark.parametrize("null", [True, False])
def test_what_jarai_may_leave_out_reads_as_none(absent: str, null: bool) -> None:
    fields = envelope()
    fields[absent] = None
    if not null:
        del fields[absent]
    event = parse(json.dumps(fields).encode())
    assert {"correlationId": event.correlation_id, "truncated": event.truncated, "data": event.data}[absent] is None


def test_what_jarai_adds_does_no_harm() -> None:
    assert parse(body(apiVersion="2027-01", nested={"a": [1]})).sequence_number == 1


@pytest.mark.parametrize("spelling", [PRODUCTION_ID.upper(), "{" + PRODUCTION_ID + "}", PRODUCTION_ID.replace("-", "")])
def test_one_production_has_one_id_however_it_is_spelt(spelling: str) -> None:
    assert str(parse(body(productionId=spelling)).production_id) == PRODUCTION_ID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eventId", "not-a-uuid-geheim"),
        ("eventId", 7),
        ("eventType", ""),
        ("eventType", "geheim" * 40),
        ("eventType", 5),
        ("productionId", None),
        ("productionId", "../geheim"),
        ("accountId", ["geheim"]),
        ("timestamp", "geheim"),
        ("timestamp", 1775226600),
        ("timestamp", "0001-01-01T00:00:00+14:00"),
        ("timestamp", "9999-12-31T23:59:59-14:00"),
        ("sequenceNumber", -1),
        ("sequenceNumber", 2**53),
        ("sequenceNumber", 10**400),
        ("sequenceNumber", "1"),
        ("sequenceNumber", 1.5),
        ("sequenceNumber", True),
        ("correlationId", 17),
        ("truncated", "geheim"),
        ("data", ["geheim"]),
        ("data", "geheim"),
    ],
)
def test_a_field_that_can_not_be_used_is_named_without_its_value(name: str, value: object) -> None:
    with pytest.raises(MalformedEvent) as refusal:
        parse(body(**{name: value}))  # type: ignore[arg-type]
    assert str(refusal.value).startswith(f"{name}: ")
    assert "geheim" not in str(refusal.value)
    assert "pattern" not in str(refusal.value), "one usual spelling is not all that is taken"


@pytest.mark.parametrize("name", ["eventId", "eventType", "productionId", "accountId", "timestamp", "sequenceNumber"])
def test_a_field_that_routes_the_event_can_not_be_missing(name: str) -> None:
    fields = envelope()
    del fields[name]
    with pytest.raises(MalformedEvent, match=f"^{name}: "):
        parse(json.dumps(fields).encode())


def with_data(data: str) -> bytes:
    return body(data="HERE").replace(b'"HERE"', data.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        body()[:-1],
        body() + b"x",
        b"\xef\xbb\xbf" + body(),
        body().decode().encode("utf-16"),
        b"\xff\xfe\x00",
        b"[" * 100_000,
        with_data('{"a":' * 5_000 + "1" + "}" * 5_000),
        with_data('{"n": ' + "9" * 5_000 + "}"),
        with_data('{"s": "\\ud800"}'),
        with_data('{"s": "\ud800"}'),
        with_data('{"n": NaN}'),
        with_data('{"n": -Infinity}'),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_no_json_event_is_refused_as_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedEvent):
        parse(raw)
    assert_both_agree(raw)


def assert_both_agree(raw: bytes) -> None:
    """The door, which looks at the envelope, lets in what the worker can read, and nothing else."""

    def told(read: Callable[[bytes], Any]) -> object:
        try:
            return read(raw).model_dump(exclude={"data"})
        except MalformedEvent as error:
            return str(error)

    said, read = told(parse_envelope), told(parse)
    assert said == read or (
        isinstance(said, str) and isinstance(read, str) and said.split(":")[0] == read.split(":")[0]
    )


@pytest.mark.parametrize("data", [{}, {"a": [1, {"b": None}]}, None, "text", 3, [{}], True])
def test_the_door_and_the_worker_agree_on_what_an_event_may_say(data: object) -> None:
    assert_both_agree(body(data=data))


@pytest.mark.parametrize("text", ["NaN", "Infinity is long", "bananas, NaNas"])
def test_a_text_that_says_nan_is_a_text(text: str) -> None:
    assert parse(body(data={"s": text})).data == {"s": text}


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_an_event_or_malformed(raw: bytes) -> None:
    with suppress(MalformedEvent):
        assert isinstance(parse(raw), Event)
    assert_both_agree(raw)


@given(st.sampled_from(sorted(envelope())), json_values)
def test_any_value_in_any_field_is_an_event_or_malformed(name: str, value: object) -> None:
    fields = envelope() | {"truncated": False, name: value}
    assert_both_agree(json.dumps(fields).encode())
    try:
        event = parse(json.dumps(fields).encode())
    except MalformedEvent:
        return
    assert event.status is None or isinstance(event.status, str)
    assert same_news(json.dumps(fields).encode(), json.dumps(fields).encode())


@given(st.data())
def test_a_damaged_event_is_an_event_or_malformed(data: st.DataObject) -> None:
    raw = bytearray(body("deliverable.ready", 3, data={"deliverables": [item()]}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_both_agree(bytes(raw))
    try:
        parse(bytes(raw))
    except MalformedEvent:
        return
    assert json.loads(without_addresses(bytes(raw)))


@pytest.mark.parametrize(
    ("event_type", "data", "status"),
    [
        ("production.queued", {}, "Queued"),
        ("production.queued", None, "Queued"),
        ("production.step.complete", {}, "Producing"),
        ("production.step.complete", {"status": "AwaitingApproval"}, "AwaitingApproval"),
        ("production.step.complete", {"status": 7}, "Producing"),
        ("production.step.complete", {"status": ""}, "Producing"),
        ("production.step.complete", {"status": "Complete"}, "Producing"),
        ("production.published", {"status": "Succeeded"}, "Published"),
        ("production.published", {}, "Published"),
        ("production.failed", {"errorCode": "PRODUCTION_EXPIRED"}, "Failed"),
        ("deliverable.ready", {}, None),
        ("deliverable.ready", {"status": "AwaitingApproval"}, "AwaitingApproval"),
        ("webhook.test", {}, None),
        ("production.cancelled", {"status": "Cancelled"}, None),
        ("something.new", {}, None),
    ],
)
def test_the_status_is_what_the_event_states_or_its_name_says(
    event_type: str, data: dict[str, Any] | None, status: str | None
) -> None:
    assert parse(body(event_type, data=data)).status == status


def test_only_the_test_event_is_about_no_production() -> None:
    assert not parse(body("webhook.test")).about_production
    assert parse(body("something.new")).about_production


def test_every_known_type_is_either_named_by_its_status_or_on_its_own() -> None:
    assert (
        frozenset(
            {
                "production.queued",
                "production.step.complete",
                "production.published",
                "production.failed",
                "deliverable.ready",
                "webhook.test",
            }
        )
        == events.KNOWN_TYPES
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-03T14:30:00Z", datetime(2026, 4, 3, 14, 30, tzinfo=UTC)),
        ("2026-04-03T14:30:00", datetime(2026, 4, 3, 14, 30, tzinfo=UTC)),
        ("2026-04-03T16:30:00+02:00", datetime(2026, 4, 3, 14, 30, tzinfo=UTC)),
        ("2026-04-03T14:30:00.1234567Z", datetime(2026, 4, 3, 14, 30, 0, 123456, tzinfo=UTC)),
    ],
)
def test_an_instant_is_utc_whatever_its_offset(text: str, moment: datetime) -> None:
    assert parse_instant(text) == moment
    assert parse_instant(text).tzinfo is UTC


@given(st.text() | st.datetimes().map(lambda moment: moment.isoformat() + "+14:00") | json_values)
@example("0001-01-01T00:00:00+14:00")
@example("9999-12-31T23:59:59-14:00")
@example("\ud800")
def test_any_text_is_an_instant_or_a_value_error(text: object) -> None:
    with suppress(ValueError):
        assert parse_instant(text).utcoffset() is not None


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"eventId": PRODUCTION_ID}, True),
        ({"correlationId": "another"}, True),
        ({"data": {"deliverables": [item(signature="fresh")]}}, True),
        ({"data": {"deliverables": [item("b")]}}, False),
        ({"timestamp": "2026-04-03T14:31:00Z"}, False),
        ({"eventType": "production.failed"}, False),
        ({"added": 1}, False),
    ],
)
def test_two_deliveries_bring_the_same_news_when_only_the_delivery_differs(
    changed: dict[str, object], same: bool
) -> None:
    fields = envelope("deliverable.ready", data={"deliverables": [item()]})
    first, second = json.dumps(fields).encode(), json.dumps(fields | changed, indent=2).encode()
    assert same_news(first, second) is same
    assert same_news(without_addresses(first), second) is same


def test_what_is_kept_for_good_has_no_signed_address_and_is_still_the_event() -> None:
    raw = body("deliverable.ready", data={"deliverables": [item(signature="s3cr3t")]})
    kept = without_addresses(raw)
    assert b"s3cr3t" not in kept
    assert b"https://jarai.blob.core.windows.net/out/a.mp4" in kept
    assert parse(kept).event_id == parse(raw).event_id


@given(st.dictionaries(st.text(), json_values, max_size=4))
@example({"a": "https://h/p?x=\\", "b": 'sig=\\"\\u0041', "c": "Bearer \\\\u0026x"})
@example({"n": 1e308, "big": 10**4000})
def test_taking_addresses_out_never_breaks_the_json(data: dict[str, object]) -> None:
    kept = json.loads(without_addresses(body(data=data)))
    assert kept["sequenceNumber"] == 1
    assert len(kept["data"]) <= len(data)


def test_an_endless_number_is_kept_as_a_text() -> None:
    assert json.loads(without_addresses(with_data('{"n": 1e999}')))["data"] == {"n": "Infinity"}


@pytest.mark.parametrize("correlation_id", [("sig=a&" * 100)[:500], None])
def test_what_becomes_longer_by_taking_out_what_is_secret_is_still_an_event(correlation_id: str | None) -> None:
    """Else what is kept of it could not be read again."""
    raw = body(("sig=a&" * 100)[:200], correlationId=correlation_id)
    kept = without_addresses(raw)
    assert parse(kept).production_id == parse(raw).production_id
    assert len(parse(kept).event_type) == 200
    assert b"sig=a" not in kept
    assert without_addresses(kept) == kept
