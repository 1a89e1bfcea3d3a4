"""A partner's first steps: registering, verifying, keys and accounts. CONTRACT [seed][docs]; the answers are [open]."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from service.core.errors import InvalidField, JaraiUnavailable
from service.core.fields import filled_in
from service.core.partner_api import Request, Response, entries, objects, read_done, success, text

_MAIL = re.compile(r"[^@\s]+@[^@\s]+")
_KEY = re.compile(r"[\x21-\x7e]{8,1000}")


def register_request(organisation: str, email: str, name: str) -> Request:
    """Raises InvalidField."""
    body = {
        "organisationName": filled_in("organisationName", organisation),
        "contactEmail": filled_in("contactEmail", email).strip(),
        "contactName": filled_in("contactName", name),
    }
    if not _MAIL.fullmatch(body["contactEmail"]):
        raise InvalidField("contactEmail", "has to be a mail address")
    return Request("POST", "/partners/register", json.dumps(body).encode(), keyless=True)


def verify_request(token: str) -> Request:
    """Raises InvalidField."""
    return Request("GET", f"/partners/verify?token={quote(filled_in('token', token.strip()), safe='')}", keyless=True)


def rotate_request() -> Request:
    return Request("POST", "/partners/keys/rotate")


def read_registered(response: Response) -> str | None:
    """The partner's id where the answer tells it. Raises JaraiError when JARAI has not taken the registration."""
    read_done(response)
    try:
        found = [text(part.get("partnerId")) for part in objects(success(response))]
    except JaraiUnavailable:  # the mail is what counts
        return None
    return next((one for one in found if one), None)


def read_api_key(response: Response) -> str:
    """The key. Raises JaraiError."""
    answer = success(response)
    named = [part.get(name) for name in ("apiKey", "newApiKey", "key") for part in objects(answer)]
    others = [value for part in objects(answer) for value in part.values()]
    prefixed = [one for one in (answer, *others) if isinstance(one, str) and one.startswith("jarai_")]
    for one in (*named, *prefixed):
        if isinstance(one, str) and _KEY.fullmatch(one):
            return one
    raise JaraiUnavailable(
        "the answer holds no API key", status=response.status, correlation_id=response.correlation_id
    )


@dataclass(frozen=True, slots=True)
class Account:
    """An account as far as it is told. `avatars`: id and name, `whole`: the object as JARAI gave it."""

    account_id: str
    name: str
    avatars: tuple[tuple[str, str], ...]
    platforms: tuple[str, ...]
    whole: Mapping[str, Any]


def read_account_list(response: Response) -> tuple[Account, ...]:
    """The accounts of the key, in any shape. Raises JaraiError."""
    return tuple(
        Account(
            account_id=_first(one, "accountId", "id"),
            name=_first(one, "name", "accountName", "displayName"),
            avatars=tuple(
                (_first(avatar, "avatarId", "id"), _first(avatar, "name") if isinstance(avatar, dict) else "")
                for avatar in _listed(one, "avatar")
            ),
            platforms=tuple(
                _first(platform, "name", "platform", "id") for platform in _listed(one, "platform")
            ),
            whole=one,
        )
        for one in entries(success(response))
    )  # fmt: skip


def _listed(account: Mapping[str, Any], word: str) -> Iterable[object]:
    """What lists with this word in their names hold."""
    return (one for name, value in account.items() if word in name.lower() and isinstance(value, list) for one in value)


def _first(value: object, *names: str) -> str:
    """The first of these that is told, or the text that stands in its place."""
    if not isinstance(value, dict):
        return text(value) or ""
    return next((found for found in (text(value.get(name)) for name in names) if found), "")
