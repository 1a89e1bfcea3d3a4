"""Webhook subscriptions at JARAI. CONTRACT [docs]: what is asked; [open]: the names of most fields of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from service.core.errors import InvalidField, JaraiUnavailable
from service.core.fields import filled_in, identity
from service.core.partner_api import Request, Response, entries, objects, success, text
from service.core.signature import decode_secret

# Every documented type that tells of a production. `webhook.test` tells of none, and whether it can be subscribed to is
# [open]: a JARAI that refuses it would refuse the whole subscription.
EVENT_TYPES = (
    "production.queued",
    "production.step.complete",
    "production.published",
    "production.failed",
    "deliverable.ready",
)
DOCUMENTED = frozenset((*EVENT_TYPES, "webhook.test"))
PATH = "/webhooks/jarai"
MOST_ACCOUNTS = 50
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Subscription:
    """One at JARAI, as far as it is told. `scope_id` is an `accountScopeId`, `whole` the object as JARAI gave it."""

    id: str
    url: str
    event_types: tuple[str, ...]
    account_ids: tuple[str, ...]
    scope_id: str = ""
    active: bool = True
    whole: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def brings_the_same(self, other: Subscription) -> bool:
        """It is another that delivers the same to the same place."""
        mine, theirs = (
            (one.url, sorted(one.event_types), sorted(one.account_ids), one.scope_id) for one in (self, other)
        )
        return self.id != other.id and mine == theirs


def address(url: str) -> str:
    """Where JARAI may deliver to: https, or http towards this machine (the simulator). Raises InvalidField."""
    given = filled_in("endpointUrl", url).strip()
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidField("endpointUrl", "is no address") from None
    plain = parts.scheme == "http" and host in _LOOPBACK
    if not host or not (parts.scheme == "https" or plain) or not given.isascii() or " " in given:
        raise InvalidField("endpointUrl", "has to be an https address (http only towards this machine)")
    if "@" in parts.netloc or parts.fragment:
        raise InvalidField("endpointUrl", "must hold no user, no password and no fragment")
    return given


def subscribe_request(
    url: str, event_types: Sequence[str], account_ids: Sequence[str] = (), scope_id: str = ""
) -> Request:
    """Raises InvalidField."""
    body: dict[str, object] = {"endpointUrl": address(url)}
    body["eventTypes"] = [filled_in("eventTypes", one.strip(), 200) for one in event_types]
    if not event_types:
        raise InvalidField("eventTypes", "is empty")
    if len(account_ids) > MOST_ACCOUNTS:
        raise InvalidField("accountIds", f"are {len(account_ids)}; at most {MOST_ACCOUNTS} are allowed")
    if account_ids:
        body["accountIds"] = [identity("accountIds", one) for one in account_ids]
    elif scope_id:
        body["accountScopeId"] = scope_id
    return Request("POST", "/webhooks", json.dumps(body).encode(), scope="webhooks:write")


def list_request() -> Request:
    return Request("GET", "/webhooks", scope="webhooks:read")


def delete_request(subscription_id: str) -> Request:
    return Request("DELETE", f"/webhooks/{quote(subscription_id, safe='')}", scope="webhooks:write")


def read_subscribed(response: Response) -> tuple[str, str]:
    """The id of the new subscription ("" where it is not told) and its signing secret. Raises JaraiError."""
    answer = success(response)
    for part in objects(answer):
        secret = part.get("signingSecret")
        try:
            if isinstance(secret, str) and decode_secret(secret):
                return next((one for one in map(_id, objects(answer)) if one), ""), secret
        except ValueError:
            continue
    raise JaraiUnavailable(
        "the answer holds no signingSecret", status=response.status, correlation_id=response.correlation_id
    )


def read_subscriptions(response: Response) -> tuple[Subscription, ...]:
    """Raises JaraiError."""
    return tuple(
        Subscription(
            id=_id(one),
            url=text(one.get("endpointUrl")) or text(one.get("url")) or "",
            event_types=_texts(one.get("eventTypes")),
            account_ids=_texts(one.get("accountIds")),
            scope_id=text(one.get("accountScopeId")) or "",
            active=one.get("isActive") is not False,
            whole={name: value for name, value in one.items() if name != "signingSecret"},
        )
        for one in entries(success(response))
    )


def _id(one: Mapping[str, Any]) -> str:
    found = (text(one.get(name)) for name in ("webhookId", "subscriptionId", "id"))
    return next((each for each in found if each), "")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(filter(None, map(text, value))) if isinstance(value, list) else ()
