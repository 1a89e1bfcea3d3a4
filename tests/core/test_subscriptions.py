"""Webhook subscriptions: nothing goes out that JARAI would refuse, and no secret is ever listed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from service.core.errors import InvalidField, JaraiRefused, JaraiUnavailable
from service.core.subscriptions import (
    EVENT_TYPES,
    Subscription,
    address,
    delete_request,
    list_request,
    read_subscribed,
    read_subscriptions,
    subscribe_request,
)
from tests.core.given import ACCOUNT_ID, EVENT_ID, response

URL = "https://hooks.partner.example/webhooks/jarai"


def test_what_is_sent_is_what_is_documented() -> None:
    assert json.loads(subscribe_request(URL, EVENT_TYPES).body or b"") == {
        "endpointUrl": URL,
        "eventTypes": list(EVENT_TYPES),
    }
    some = json.loads(subscribe_request(URL, [" a "], [ACCOUNT_ID.upper(), EVENT_ID], EVENT_ID).body or b"")
    assert some == {"endpointUrl": URL, "eventTypes": ["a"], "accountIds": [ACCOUNT_ID, EVENT_ID]}
    scoped = json.loads(subscribe_request(URL, ["a"], (), EVENT_ID).body or b"")
    assert scoped["accountScopeId"] == EVENT_ID
    assert (delete_request("a/../b?c").method, delete_request("a/../b?c").path) == (
        "DELETE",
        "/webhooks/a%2F..%2Fb%3Fc",
    )
    assert (list_request().method, list_request().path) == ("GET", "/webhooks")


@pytest.mark.parametrize("url", [URL, "https://h:8443/x?y=1", "http://127.0.0.1:8000/webhooks/jarai", "http://[::1]/x"])
def test_https_anywhere_and_http_to_this_machine_is_an_address(url: str) -> None:
    assert address(f" {url} ") == url


@pytest.mark.parametrize(
    "url",
    [*("", "partner.example", "http://partner.example/x", "ftp://127.0.0.1/x", "https://", "https://[x", "https://h:x"),
     *("https://u:p@h/x", "https://h/x#y", "https://h/a b", "https://hä/x")],
)  # fmt: skip
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(InvalidField) as raised:
        address(url)
    assert raised.value.field == "endpointUrl"


@pytest.mark.parametrize(
    ("events", "accounts", "field"),
    [
        ([], [], "eventTypes"),
        ([""], [], "eventTypes"),
        (["a"], ["x"], "accountIds"),
        (["a"], [EVENT_ID] * 51, "accountIds"),
    ],
)
def test_a_subscription_that_jarai_would_refuse_is_not_sent(events: Any, accounts: Any, field: str) -> None:
    with pytest.raises(InvalidField) as raised:
        subscribe_request(URL, events, accounts)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"webhookId": "w", "signingSecret": "SmVmZQ"}, ("w", "SmVmZQ")),
        ({"data": {"id": "w", "signingSecret": "SmVmZQ=="}}, ("w", "SmVmZQ==")),
        ({"id": "w", "secret": {"signingSecret": "SmVmZQ"}}, ("w", "SmVmZQ")),
        ({"signingSecret": "SmVmZQ"}, ("", "SmVmZQ")),
    ],
)
def test_the_secret_is_found_and_the_id_if_it_is_told(value: object, found: tuple[str, str]) -> None:
    assert read_subscribed(response(value, 201)) == found


@pytest.mark.parametrize(
    "value", [{}, [], {"signingSecret": 5}, {"signingSecret": "no base64!"}, {"signingSecret": ""}]
)
def test_an_answer_without_a_secret_is_no_answer(value: object) -> None:
    with pytest.raises(JaraiUnavailable):
        read_subscribed(response(value, 201))
    with pytest.raises(JaraiRefused):
        read_subscribed(response(value, 409))


def test_subscriptions_are_listed_with_all_that_is_told_but_their_secrets() -> None:
    told = {
        "webhookId": "w-1",
        "endpointUrl": URL,
        "eventTypes": ["a", 5],
        "accountIds": None,
        "accountScopeId": "s",
        "isActive": False,
        "signingSecret": "geheim",
    }
    first, second = read_subscriptions(response({"webhooks": [told, {"id": "w-2", "url": URL}]}))
    assert first == Subscription("w-1", URL, ("a",), (), "s", active=False)
    assert "geheim" not in str(first)
    assert second == Subscription("w-2", URL, (), ())


def test_another_one_that_brings_the_same_is_told_from_one_that_does_not() -> None:
    one = Subscription("w-1", URL, ("a", "b"), ())
    assert one.brings_the_same(Subscription("w-2", URL, ("b", "a"), (), active=False))
    for other in (one, replace(one, id="w-2", url="https://h"), replace(one, id="w-2", account_ids=("x",))):
        assert not one.brings_the_same(other)
