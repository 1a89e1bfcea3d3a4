"""JARAI's answers as values: each is either read or raises who has to act."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core import partner_api
from service.core.errors import JaraiError, JaraiRefused, JaraiUnavailable, RateLimited
from service.core.onboarding import read_account_list
from service.core.partner_api import (
    Response,
    StatusAnswer,
    is_sandbox,
    read_deliverables,
    read_status,
    retry_after_seconds,
)
from tests.core.given import ACCOUNT_ID, PRODUCTION_ID, START, at, item, json_values, response


def test_questions_name_their_path() -> None:
    questions = [
        partner_api.status_request(PRODUCTION_ID),
        partner_api.deliverables_request(PRODUCTION_ID),
        partner_api.accounts_request(),
    ]
    assert [(question.method, question.path) for question in questions] == [
        ("GET", f"/productions/{PRODUCTION_ID}"),
        ("GET", f"/productions/{PRODUCTION_ID}/deliverables"),
        ("GET", "/accounts"),
    ]
    assert all(question.body is None for question in questions)


def test_a_status_is_read_with_everything_that_is_told() -> None:
    answer = response(
        {
            "status": "Failed",
            "accountId": ACCOUNT_ID.upper(),
            "errorCode": "PRODUCTION_EXPIRED",
            "errorMessage": "not picked up",
            "expiresAt": "2026-04-03T14:40:00Z",
            "sandbox": True,
            "added": [1],
        },
        date="Fri, 03 Apr 2026 14:30:07 GMT",
        x_correlation_id="corr-9",
    )
    assert answer.correlation_id == "corr-9"
    assert read_status(answer) == StatusAnswer(
        status="Failed",
        as_of=at(7),
        account_id=ACCOUNT_ID,
        error_code="PRODUCTION_EXPIRED",
        error_message="not picked up",
        expires_at=at(600),
        sandbox=True,
    )


@pytest.mark.parametrize("nonsense", [None, 7, "", "x", [], {}, "2026-99-99"])
def test_only_the_status_has_to_be_there(nonsense: object) -> None:
    fields = dict.fromkeys(["accountId", "expiresAt", "sandbox"], nonsense)
    answer = read_status(response({"status": "Invented", **fields}, date="soon"))
    assert answer == StatusAnswer("Invented", None, None, None, None, None, False)


@pytest.mark.parametrize(
    "answer",
    [
        response({}),
        response({"status": ""}),
        response({"status": 5}),
        response({"status": "x" * 101}),
        response({"status": "Produ\x1b[2Jcing"}),
        response({"status": "Queued\nforged"}),
        response([{"status": "Queued"}]),
        response("Queued"),
        response(raw=b""),
        response(raw=b"<html>"),
        response(raw=b'{"status": "Queued", "n": NaN}'),
        response({"status": "Queued"}, status=304),
        response({"status": "Queued"}, status=100),
    ],
)
def test_an_answer_without_a_status_is_no_answer(answer: Response) -> None:
    with pytest.raises(JaraiUnavailable) as raised:
        read_status(answer)
    assert raised.value.status == answer.status


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, JaraiRefused),
        (401, JaraiRefused),
        (403, JaraiRefused),
        (404, JaraiRefused),
        (409, JaraiRefused),
        (408, JaraiUnavailable),
        (429, RateLimited),
        (500, JaraiUnavailable),
        (503, JaraiUnavailable),
        (302, JaraiUnavailable),
    ],
)
def test_an_error_is_split_by_who_has_to_act(status: int, kind: type[JaraiError]) -> None:
    answer = response({"error": "CODE", "message": "said", "retryAfterSeconds": 7}, status, x_correlation_id="c")
    for read in (read_status, read_account_list, lambda one: read_deliverables(one, START)):
        with pytest.raises(JaraiError) as raised:
            read(answer)
        error = raised.value
        assert type(error) is kind
        assert str(error) == f"JARAI answers {status} CODE: said"
        assert (error.code, error.status, error.correlation_id, error.retry_after_seconds) == ("CODE", status, "c", 7)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "CODE"}, "JARAI answers 500 CODE"),
        ({"message": "said"}, "JARAI answers 500 said"),
        ({}, "JARAI answers 500"),
        ([], "JARAI answers 500"),
        ({"error": 5, "message": None}, "JARAI answers 500"),
    ],
)
def test_an_error_says_what_jarai_said(body: object, message: str) -> None:
    with pytest.raises(JaraiUnavailable) as raised:
        read_status(response(body, 500))
    assert str(raised.value) == message


@pytest.mark.parametrize("secret", ["https://h/p?sig=s3cr3t", "key jarai_live_s3cr3ts3cr3t"])
def test_no_error_repeats_a_secret(secret: str) -> None:
    with pytest.raises(JaraiRefused) as raised:
        read_status(response({"error": "CODE", "message": secret}, 400))
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "header", "seconds"),
    [
        ({"retryAfterSeconds": 7}, None, 7),
        ({"retryAfterSeconds": 0.5}, "9", 0.5),
        ({"retryAfterSeconds": None}, "9", 9),
        ({"retryAfterSeconds": -1}, "9", 9),
        ({"retryAfterSeconds": True}, "9", 9),
        ({"retryAfterSeconds": 10**9}, "9", 9),
        ({"retryAfterSeconds": "7"}, None, None),
        ({}, "99999999", 90_000),
        ({}, "9" * 400, 90_000),
        ({}, "٣", None),
        ({}, "Fri, 03 Apr 2026 14:30:07 GMT", None),
        (None, None, None),
    ],
)
def test_how_long_jarai_wants_to_be_left_alone(body: object, header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert retry_after_seconds(Response(429, headers, response(body).body)) == seconds


@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"retryAfterSeconds": NaN}', b'{"retryAfterSeconds": Infinity}'])
def test_an_error_without_a_usable_body_asks_for_nothing(raw: bytes) -> None:
    assert retry_after_seconds(response(raw=raw, status=503)) is None


@pytest.mark.parametrize(
    ("value", "sandbox"),
    [
        ({"sandbox": True}, True),
        ({"deliverables": [], "sandbox": True}, True),
        ({"data": {"status": "Queued", "sandbox": True}}, True),
        ({"sandbox": "true"}, False),
        ([], False),
        ({}, False),
    ],
)
def test_an_answer_that_was_made_up_is_known_by_its_flag(value: object, sandbox: bool) -> None:
    assert is_sandbox(response(value)) is sandbox


def test_an_address_is_good_for_an_hour_from_when_jarai_made_the_list() -> None:
    dated, undated = (
        read_deliverables(one, at(900))[0]
        for one in (response([item()], date="Fri, 03 Apr 2026 14:30:00 GMT"), response([item()]))
    )
    assert dated.link_expires_at == at(3600)
    assert undated.link_expires_at == at(900 + 3600)


@pytest.mark.parametrize("correlation_id", ["", "x" * 300])
def test_a_correlation_id_is_bounded(correlation_id: str) -> None:
    assert response({}, x_correlation_id=correlation_id).correlation_id == (correlation_id[:200] or None)


@pytest.mark.parametrize("mark", ["\x00", "\n", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u202e"])
def test_nothing_that_steers_a_terminal_or_looks_like_another_line_is_taken_over(mark: str) -> None:
    said = f"{mark}CODE{mark}said{mark}"
    status = read_status(response({"status": "Failed", "errorCode": said, "errorMessage": said}))
    assert (status.error_code, status.error_message) == ("CODE said", "CODE said")
    assert response({}, x_correlation_id=said).correlation_id == "CODE said"
    with pytest.raises(JaraiRefused) as raised:
        read_status(response({"error": said, "message": said}, 400))
    assert str(raised.value) == "JARAI answers 400 CODE said: CODE said"
    assert read_status(response({"status": "Failed", "errorCode": mark * 3})).error_code is None


def test_a_key_in_a_correlation_id_is_not_repeated() -> None:
    assert "s3cr3t" not in (response({}, x_correlation_id="jarai_live_s3cr3ts3cr3t").correlation_id or "")


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1 Jan 2200 00:00 GMT"),
        *("Thu, 01 Jan 1970 00:00:00 GMT", "Tue, 31 Dec 2019 23:59:59 GMT"),
    ],
)
def test_a_date_that_no_clock_says_is_none(text: str) -> None:
    assert partner_api.date(response({}, date=text)) is None


@given(
    st.integers(0, 999),
    st.dictionaries(st.sampled_from(["date", "retry-after", "x-correlation-id"]), st.text(), max_size=3),
    st.binary(max_size=60) | json_values.map(lambda value: response(value).body),
)
@example(200, {"date": "Mon, 01 Jan 0001 00:00:00 +2359"}, b'{"status": "Queued"}')
@example(200, {"date": "Fri, 31 Dec 9999 23:59:59 GMT"}, response([item()]).body)
@example(500, {}, b"[" * 10_000)
@example(200, {}, b"9" * 10_000)
def test_whatever_is_answered_is_read_or_is_an_error_of_jarais(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = Response(status, headers, body)
    readers: list[Any] = [read_status, read_account_list, lambda one: read_deliverables(one, START)]
    for read in readers:
        try:
            read(answer)
        except (RateLimited, JaraiRefused, JaraiUnavailable):
            continue


def test_a_status_one_level_down_is_found() -> None:
    assert read_status(response({"data": {"status": "Producing"}, "meta": {"n": 1}})).status == "Producing"
    assert read_status(response({"status": "Queued", "last": {"status": "Failed"}})).status == "Queued"
