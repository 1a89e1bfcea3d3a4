"""A production that somebody wants: nothing goes out that JARAI would refuse, and its answer is read in any shape."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from service.core import triggering
from service.core.errors import InvalidField, JaraiRefused, JaraiUnavailable, RateLimited
from service.core.partner_api import Response
from service.core.triggering import Wanted, in_doubt, read_started, retries, still_in_doubt, wanted
from tests.core.given import ACCOUNT_ID, EVENT_ID, PRODUCTION_ID, START, at, response

LEAST: dict[str, Any] = {
    "accountId": ACCOUNT_ID,
    "topic": "Harbours",
    "languageId": EVENT_ID,
    "countryId": PRODUCTION_ID,
    "avatarId": ACCOUNT_ID,
}


def test_what_is_sent_is_what_was_asked_for_and_nothing_else() -> None:
    wish = wanted(
        LEAST
        | {
            "topic": "Häfen",
            "languageId": EVENT_ID.upper(),
            "projectTypeSlug": "social-video-30s",
            "metadataMD": "# Brief",
        }
    )
    assert (wish.request.method, wish.request.path) == ("POST", f"/accounts/{ACCOUNT_ID}/productions")
    assert json.loads(wish.request.body or b"") == {
        "topic": "Häfen",
        "languageId": EVENT_ID,
        "countryId": PRODUCTION_ID,
        "avatarId": ACCOUNT_ID,
        "projectTypeSlug": "social-video-30s",
        "metadataMD": "# Brief",
    }
    assert "metadataMD" not in json.loads(wanted(LEAST | {"metadataMD": None}).body)


def test_the_limits_are_those_of_the_contract_and_count_characters() -> None:
    assert wanted(LEAST | {"topic": "ä" * 500, "metadataMD": "🎬" * 4096}).short_topic == "ä" * 80


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("accountId", None, "missing"),
        ("accountId", "x/../y", "UUID"),
        ("topic", None, "missing"),
        ("topic", "", "empty"),
        ("topic", " \n", "empty"),
        ("topic", 5, "text"),
        ("topic", "x" * 501, "501 characters; at most 500"),
        ("topic", "x\ud800", "no character"),
        ("languageId", "de", "UUID"),
        ("countryId", "", "empty"),
        ("avatarId", ["a"], "text"),
        ("projectTypeSlug", "", "empty"),
        ("metadataMD", "", "empty"),
        ("metadataMD", "x" * 4097, "4,097 characters; at most 4,096"),
        ("topik", "x", "is not a field"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_sent(field: str, value: object, word: str) -> None:
    with pytest.raises(InvalidField, match=word) as raised:
        wanted(LEAST | {field: value})
    assert raised.value.field == field


@pytest.mark.parametrize("value", [-1, 11, True, "2", None, 1.5])
def test_so_often_can_nothing_be_tried_again(value: object) -> None:
    with pytest.raises(InvalidField, match="from 0 to 10"):
        retries(value)
    assert (retries(0), retries(10)) == (0, 10)


def test_the_same_wish_has_the_same_digest_and_another_has_another() -> None:
    others = [LEAST, LEAST | {"topic": "x"}, LEAST | {"accountId": EVENT_ID}, LEAST | {"metadataMD": "x"}]
    assert len({wanted(one).digest for one in others}) == 4
    assert wanted(LEAST).digest == wanted(LEAST | {"accountId": ACCOUNT_ID.upper()}).digest
    assert wanted(LEAST) == Wanted(ACCOUNT_ID, "Harbours", wanted(LEAST).body)


@pytest.mark.parametrize(
    "answer",
    [
        response({"productionId": PRODUCTION_ID.upper()}, 202),
        response({"data": {"productionId": PRODUCTION_ID}}, 200),
        response(raw=b'{"productionId": "', status=202, location=f"https://h/v1/productions/{PRODUCTION_ID}"),
        response([], 202, location=f"/v1/partner/productions/{PRODUCTION_ID}/?x=1"),
        response({"productionId": 7}, 201, location=f"/productions/{PRODUCTION_ID}"),
    ],
)
def test_the_production_is_found_in_the_answer_or_where_location_points(answer: Response) -> None:
    assert read_started(answer) == PRODUCTION_ID


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (response({"error": "BUDGET_GATE_1_FAILED"}, 409), JaraiRefused),
        (response({"error": "RATE_LIMIT_EXCEEDED"}, 429), RateLimited),
        (response({"error": "INTERNAL_ERROR"}, 500), JaraiUnavailable),
        (response(raw=b"{", status=202), JaraiUnavailable),
        (response({}, 202, location="/productions/nonsense"), JaraiUnavailable),
        (response({}, 202, location=f"/productions/{'-' * 36}"), JaraiUnavailable),
    ],
)
def test_every_other_answer_says_whether_one_was_started(answer: Response, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        read_started(answer)
    assert type(raised.value) is kind


def test_a_doubt_says_what_is_known_and_what_to_do() -> None:
    assert "--again" in in_doubt([])
    assert '`"again": true`' in in_doubt([], triggering.OVER_HTTP)
    assert PRODUCTION_ID in in_doubt([PRODUCTION_ID])
    said = still_in_doubt(START, at(425), [])
    assert "2026-04-03 14:30:00 UTC, 7 min ago" in said
    assert "12 s ago" in still_in_doubt(START, START + timedelta(seconds=12), [])


def test_a_wish_is_the_same_when_it_is_sent_once_more_by_itself() -> None:
    first = wanted(LEAST)
    again = triggering.as_sent(first.account_id, first.body)
    assert (again.request, again.topic) == (first.request, first.topic)


def test_what_to_do_about_a_retry_in_doubt_names_what_may_be_it() -> None:
    assert "deadletters retry" in triggering.in_doubt_again([])
    assert "triggered by nobody here: a, b" in triggering.in_doubt_again(["a", "b"])
