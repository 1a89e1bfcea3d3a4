"""The first steps at JARAI: requests as documented, answers in any shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import InvalidField, JaraiError, JaraiRefused, JaraiUnavailable
from service.core.onboarding import (
    read_account_list,
    read_api_key,
    read_registered,
    register_request,
    rotate_request,
    verify_request,
)
from service.core.partner_api import Response, cancel_request, entries, read_done
from tests.core.given import PRODUCTION_ID, json_values, response

KEY = "jarai_live_abcdefgh"


def test_the_first_steps_need_no_key_and_are_sent_as_documented() -> None:
    register = register_request("Harbour Films", " ops@harbour.example ", "Ada")
    assert json.loads(register.body or b"") == {
        "organisationName": "Harbour Films",
        "contactEmail": "ops@harbour.example",
        "contactName": "Ada",
    }
    assert (register.method, register.path, register.keyless) == ("POST", "/partners/register", True)
    verify = verify_request(" a/b?c&d=ä ")
    assert (verify.path, verify.keyless) == ("/partners/verify?token=a%2Fb%3Fc%26d%3D%C3%A4", True)
    assert (rotate_request().path, rotate_request().keyless) == ("/partners/keys/rotate", False)
    assert (cancel_request(PRODUCTION_ID).method, cancel_request(PRODUCTION_ID).path) == (
        "DELETE",
        f"/productions/{PRODUCTION_ID}",
    )


@pytest.mark.parametrize(("organisation", "email", "name"), [("", "a@b", "x"), ("x", "a b@c", "x"), ("x", "a@b", " ")])
def test_a_registration_that_jarai_would_refuse_is_not_sent(organisation: str, email: str, name: str) -> None:
    with pytest.raises(InvalidField):
        register_request(organisation, email, name)
    with pytest.raises(InvalidField):
        verify_request(" ")


@pytest.mark.parametrize(
    ("answer", "partner"),
    [
        (response({"partnerId": "p-1"}, 202), "p-1"),
        (response({"data": {"partnerId": "p-1"}}, 202), "p-1"),
        (response({}, 202), None),
        (response(raw=b"", status=202), None),
    ],
)
def test_a_registration_counts_whatever_its_answer_tells(answer: Response, partner: str | None) -> None:
    assert read_registered(answer) == partner
    with pytest.raises(JaraiRefused):
        read_registered(response({}, 400))


@pytest.mark.parametrize(
    "value",
    [{"apiKey": KEY}, {"data": {"apiKey": KEY}}, {"key": KEY, "n": 5}, {"new": KEY}, KEY, {"newApiKey": KEY}],
)
def test_a_key_is_found_in_any_shape(value: object) -> None:
    assert read_api_key(response(value)) == KEY


@pytest.mark.parametrize("value", [{}, [], None, {"apiKey": ""}, {"apiKey": "with a space"}, {"apiKey": "x\ny" * 9}])
def test_what_can_not_be_a_key_is_none(value: object) -> None:
    with pytest.raises(JaraiUnavailable):
        read_api_key(response(value))


def test_accounts_are_read_with_all_that_is_told() -> None:
    told = {
        "accountId": "a-1",
        "displayName": "Films\x1b[2J",
        "availableAvatars": [{"avatarId": "v-1", "name": "Ada"}, "v-2", 7],
        "connectedPlatforms": ["YouTube", {"platform": "TikTok"}],
        "avatarStyle": "plain",
    }
    first, second = read_account_list(response({"page": 1, "data": {"accounts": [told, {"id": "a-2"}, "no account"]}}))
    assert (first.account_id, first.name) == ("a-1", "Films [2J")
    assert first.avatars == (("v-1", "Ada"), ("v-2", ""), ("", ""))
    assert (first.platforms, first.whole) == (("YouTube", "TikTok"), told)
    assert (second.account_id, second.name, second.avatars) == ("a-2", "", ())
    assert read_account_list(response([])) == read_account_list(response({})) == ()


@pytest.mark.parametrize(
    ("answer", "count"), [([{}, {}], 2), ({"a": 1, "b": [{}]}, 1), ("x", 0), ({"a": {"b": [1]}}, 0)]
)
def test_the_objects_of_a_list_are_found_in_any_shape(answer: Any, count: int) -> None:
    assert len(entries(answer)) == count


@given(st.integers(0, 999), json_values)
def test_whatever_is_answered_is_read_or_is_an_error_of_jarais(status: int, value: object) -> None:
    readers: list[Any] = [read_api_key, read_account_list, read_registered, read_done]
    for read in readers:
        try:
            read(response(value, status))
        except JaraiError:
            continue
