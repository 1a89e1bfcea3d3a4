"""A production that somebody wants: what is sent, what the answer means. CONTRACT [seed][docs]: fields and limits."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.core.errors import InvalidField, JaraiUnavailable
from service.core.fields import filled_in, identity
from service.core.partner_api import Request, Response, objects, read_done, success, uuid_in

MOST_TOPIC_CHARACTERS, MOST_METADATA_CHARACTERS = 500, 4096
MOST_RETRIES = 10
_SHOWN_TOPIC_CHARACTERS = 80
_LOCATION = re.compile(r"/productions/([0-9A-Fa-f-]{36})/?(?:[?#].*)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A valid one. `body` is the JSON that is sent: the same wish has the same body, to the byte."""

    account_id: str
    topic: str
    body: str

    @property
    def digest(self) -> str:
        """Tells one wish from another."""
        return hashlib.sha256(f"{self.account_id}\n{self.body}".encode()).hexdigest()[:32]

    @property
    def short_topic(self) -> str:
        return self.topic[:_SHOWN_TOPIC_CHARACTERS]

    @property
    def request(self) -> Request:
        path = f"/accounts/{self.account_id}/productions"
        return Request("POST", path, self.body.encode(), scope="productions:write")


def wanted(fields: Mapping[str, object]) -> Wanted:
    """What `fields` ask for, by their names in the Partner API, beside `accountId`; None counts as left out.

    Raises InvalidField for the first that is missing, wrong, or not known.
    """
    account = identity("accountId", fields.get("accountId"))
    body = {"topic": filled_in("topic", fields.get("topic"), MOST_TOPIC_CHARACTERS)}
    body |= {name: identity(name, fields.get(name)) for name in ("languageId", "countryId", "avatarId")}
    for name, most in (("projectTypeSlug", MOST_TOPIC_CHARACTERS), ("metadataMD", MOST_METADATA_CHARACTERS)):
        if fields.get(name) is not None:
            body[name] = filled_in(name, fields[name], most)
    unknown = sorted(fields.keys() - body.keys() - {"accountId", "projectTypeSlug", "metadataMD"})
    if unknown:
        raise InvalidField(unknown[0][:100], "is not a field of a production")
    return Wanted(account, body["topic"], json.dumps(body, ensure_ascii=False))


def retries(value: object) -> int:
    """How often a production that expires is to be triggered again. Raises InvalidField."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_RETRIES:
        raise InvalidField("retryExpired", f"has to be a number from 0 to {MOST_RETRIES}")
    return value


def as_sent(account_id: str, body: str) -> Wanted:
    """The wish that was sent with this body."""
    return Wanted(account_id, str(json.loads(body).get("topic", "")), body)


def in_doubt_again(seen: Sequence[str]) -> str:
    """As `in_doubt`, of one that was to be triggered again by itself."""
    these = f" (first seen since then, and triggered by nobody here: {', '.join(seen)})" if seen else ""
    return (
        f"JARAI may or may not have started another{these}; if it has not, `deadletters retry` sends it once more, "
        "else `deadletters discard`"
    )


@dataclass(frozen=True, slots=True)
class How:
    """How whoever asks looks at productions, and how they would send something all the same."""

    listing: str
    again: str


BY_COMMAND = How("`productions list`", "--again")
OVER_HTTP = How("`GET /productions`", '`"again": true`')


def in_doubt(seen: Sequence[str], how: How = BY_COMMAND) -> str:
    """What to do where nobody knows whether JARAI has started it. `seen`: what may be it."""
    these = f" (first seen since then, and triggered by nobody here: {', '.join(seen)})" if seen else ""
    return (
        f"JARAI may or may not have started it; if it has, its first webhook shows it in {how.listing}"
        f"{these}; don't repeat it blindly: {how.again} sends it all the same"
    )


def still_in_doubt(at: datetime, now: datetime, seen: Sequence[str], how: How = BY_COMMAND) -> str:
    """The same was asked for at `at`, and nobody knows the outcome."""
    minutes, seconds = divmod(round((now - at).total_seconds()), 60)
    ago = f"{minutes} min" if minutes else f"{seconds} s"
    since = f"{at:%Y-%m-%d %H:%M:%S} UTC, {ago} ago"
    return f"The same was triggered at {since}, without an answer so far: {in_doubt(seen, how)}"


def read_started(response: Response) -> str:
    """The id of the production that JARAI has started: by the answer, else by where its Location points to.

    Raises RateLimited and JaraiRefused: none was started. Raises JaraiUnavailable: nobody knows.
    """
    read_done(response)
    try:
        named = [uuid_in(part.get("productionId")) for part in objects(success(response))]
    except JaraiUnavailable:
        named = []
    pointed = _LOCATION.search(response.headers.get("location", ""))
    found = [*named, uuid_in(pointed[1]) if pointed else None]
    for one in found:
        if one is not None:
            return one
    raise JaraiUnavailable(
        "the answer names no production", status=response.status, correlation_id=response.correlation_id
    )
