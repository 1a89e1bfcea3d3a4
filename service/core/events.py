"""Webhook events: from signed bytes to a typed event. CONTRACT [docs]: the envelope's fields.

What JARAI may add is kept, what it may leave out is tolerated, what can't be routed raises MalformedEvent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from service.core.errors import MalformedEvent
from service.core.redaction import redact

TEST = "webhook.test"
DELIVERABLE_READY = "deliverable.ready"
# CONTRACT [docs]: nine types, of which these say by their name what became of the production.
STATUS_BY_TYPE = {
    "production.queued": "Queued",
    "production.step.complete": "Producing",
    "production.published": "Published",
    "production.failed": "Failed",
}
# CONTRACT [docs]. What else may stand under `data.status` is [open]: it can be a step's own.
STATUSES = ("Queued", "Producing", "AwaitingApproval", "Distributing", "Published", "Failed", "Cancelled")
KNOWN_TYPES = frozenset(STATUS_BY_TYPE) | {DELIVERABLE_READY, TEST}
LARGEST = 2**53 - 1  # sequence number
_LONGEST_TYPE, _LONGEST_CORRELATION_ID = 200, 500
_USUAL_SPELLING = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def _identity(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a string")
    return str(UUID(value))


def parse_instant(value: object) -> datetime:
    """An ISO 8601 instant as aware UTC; one without an offset is UTC by JARAI's word. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("is not a string")
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not an ISO 8601 instant") from None


# The usual spelling is recognised without a word of Python: the door sees nothing else on most days.
Id = Annotated[
    Annotated[str, Field(pattern=_USUAL_SPELLING)] | Annotated[str, BeforeValidator(_identity)],
    Field(union_mode="left_to_right"),
]
Instant = Annotated[datetime, BeforeValidator(parse_instant)]


class _Object(BaseModel):
    """A JSON object into which nobody looks."""


class _Fields(BaseModel):
    """Ids are UUIDs in their usual spelling."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_id: Id = Field(alias="eventId")
    event_type: str = Field(alias="eventType", min_length=1, max_length=_LONGEST_TYPE, strict=True)
    production_id: Id = Field(alias="productionId")
    account_id: Id = Field(alias="accountId")
    timestamp: Instant
    sequence_number: int = Field(alias="sequenceNumber", ge=0, le=LARGEST, strict=True)
    correlation_id: str | None = Field(None, alias="correlationId", max_length=_LONGEST_CORRELATION_ID, strict=True)
    truncated: bool | None = Field(None, strict=True)

    @property
    def about_production(self) -> bool:
        return self.event_type != TEST


class Envelope(_Fields):
    """One webhook, without what it says: that takes up to thirty times as much memory as its text."""

    data: _Object | None = None


class Event(_Fields):
    """One webhook. `data` is JARAI's object as it came; a missing one reads as None."""

    data: dict[str, Any] | None = None

    @property
    def is_known(self) -> bool:
        """Whether its type is a documented one."""
        return self.event_type in KNOWN_TYPES

    @property
    def is_sandbox(self) -> bool:
        """Whether it says so of itself. CONTRACT [docs]: answers do; [open]: whether events do."""
        return (self.data or {}).get("sandbox") is True

    @property
    def status(self) -> str | None:
        """The status this event reports, or None where it says nothing about it or its type is not known."""
        if self.event_type not in KNOWN_TYPES:
            return None
        stated = (self.data or {}).get("status")
        return stated if stated in STATUSES else STATUS_BY_TYPE.get(self.event_type)


def parse(body: bytes) -> Event:
    """The event in a signed body; MalformedEvent says what is wrong without repeating any value."""
    return _parsed(Event, body)


def parse_envelope(body: bytes) -> Envelope:
    """The envelope of what `parse` takes for an event. Raises MalformedEvent for the same bodies."""
    return _parsed(Envelope, body)


def same_news(one: bytes, other: bytes) -> bool:
    """Whether two bodies report the same event.

    They may differ in what belongs to the delivery (`eventId`, `correlationId`: two subscriptions bring one event
    under two ids) and in addresses' queries, which are taken out of what is kept.
    """
    return _news(one) == _news(other)


def without_addresses(body: bytes) -> bytes:
    """The body as it may be kept for good: every address in it loses its query, which is a secret.

    It is still an event: what has become too long by that is cut off.
    """
    text = to_json(from_json(body), inf_nan_mode="strings").decode()
    kept = redact(text)
    if kept == text:
        return kept.encode()
    value = from_json(kept)
    most = {"eventType": _LONGEST_TYPE, "correlationId": _LONGEST_CORRELATION_ID}
    return to_json({name: part[: most[name]] if name in most and part else part for name, part in value.items()})


def _news(body: bytes) -> object:
    value = from_json(without_addresses(body))
    return {name: part for name, part in value.items() if name not in ("eventId", "correlationId")}


_Read = TypeVar("_Read", bound=_Fields)


def _parsed(model: type[_Read], body: bytes) -> _Read:
    try:
        event = model.model_validate_json(body)
    except ValidationError as error:
        raise MalformedEvent(_sentence(error)) from None
    if b"NaN" in body or b"Infinity" in body:
        _refuse_non_json_numbers(body)
    return event


def _refuse_non_json_numbers(body: bytes) -> None:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError:
        raise MalformedEvent("not JSON: NaN and Infinity are no JSON values") from None


def _sentence(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if not found[0]["loc"]:
        return f"not an event: {found[0]['msg']}"[:300]
    where = found[0]["loc"][0]
    last = [one for one in found if one["loc"][0] == where][-1]  # of the spellings that are tried, the widest
    return f"{where}: {last['msg']}"[:300]
