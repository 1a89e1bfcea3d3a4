"""Small builders: what is not said is what any production would have. Seconds count from START."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from service.core import events
from service.core.advance import advance
from service.core.deliverables import Listed, read_list
from service.core.observations import DeliverablesAnswered, EventArrived, Observation, StatusAnswered
from service.core.partner_api import Response
from service.core.production import Change, Production
from service.core.schedule import Intervals

PRODUCTION_ID = "3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"
ACCOUNT_ID = "7d3c1f0a-1111-4222-8333-444455556666"
EVENT_ID = "0b9f8a6e-aaaa-4bbb-8ccc-ddddeeeeffff"
START = datetime(2026, 4, 3, 14, 30, tzinfo=UTC)
INTERVALS = Intervals()
NEW = Production(production_id=PRODUCTION_ID, created_at=START)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def instant(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def envelope(event_type: str = "production.queued", number: int = 1, **fields: object) -> dict[str, Any]:
    """A webhook as JARAI documents it, as a dict; `fields` by their names on the wire."""
    return {
        "eventId": EVENT_ID,
        "eventType": event_type,
        "productionId": PRODUCTION_ID,
        "accountId": ACCOUNT_ID,
        "timestamp": instant(at(min(number, 10**6))),
        "sequenceNumber": number,
        "correlationId": "corr-1",
        "data": {},
        **fields,
    }


def body(event_type: str = "production.queued", number: int = 1, **fields: object) -> bytes:
    return json.dumps(envelope(event_type, number, **fields)).encode()


def arrived(
    event_type: str, number: int, *, happened: float | None = None, received: float | None = None, **fields: object
) -> EventArrived:
    """An event; it happened as many seconds after START as its number says, and was received at once."""
    happened = min(number, 10**6) if happened is None else happened
    event = events.parse(body(event_type, number, **{"timestamp": instant(at(happened)), **fields}))
    return EventArrived(event, at(happened if received is None else received))


def item(name: str = "a", signature: str = "s3cr3t", **fields: object) -> dict[str, Any]:
    """A deliverable as JARAI lists it."""
    return {
        "id": name,
        "type": "Video",
        "sasUrl": f"https://jarai.blob.core.windows.net/out/{name}.mp4?sv=1&sig={signature}",
        **fields,
    }


def ready(number: int, *items: Mapping[str, Any], truncated: bool | None = None, **fields: Any) -> EventArrived:
    return arrived("deliverable.ready", number, data={"deliverables": list(items)}, truncated=truncated, **fields)


def listing(*items: Mapping[str, Any], seconds: float = 100, knew: int = -1) -> DeliverablesAnswered:
    return DeliverablesAnswered(at=at(seconds), knew_sequence=knew, listed=read_list(list(items), at(seconds)))


def one(**fields: object) -> Listed:
    return read_list(item(**fields), START)[0]  # type: ignore[arg-type]


def answered(status: str, seconds: float = 100, knew: int = -1, **fields: Any) -> StatusAnswered:
    """An answer to a poll; `as_of` is cut to the second, as a `Date` header is."""
    moment = at(seconds)
    return StatusAnswered(
        at=moment, **{"as_of": moment.replace(microsecond=0), "knew_sequence": knew, "status": status, **fields}
    )


def change(*observations: Observation, before: Production = NEW, seconds: float = 100) -> Change:
    return advance(before, observations, at(seconds), INTERVALS)


def after(*observations: Observation, before: Production = NEW, seconds: float = 100) -> Production:
    return change(*observations, before=before, seconds=seconds).production


def fact_names(step: Change) -> list[str]:
    return [fact.name for fact in step.facts]


def kinds(timeline: Iterable[Mapping[str, Any] | int]) -> list[str | int]:
    return [entry if isinstance(entry, int) else str(entry["kind"]) for entry in timeline]


def response(value: object = None, status: int = 200, raw: bytes | None = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status, named, json.dumps(value).encode() if raw is None else raw)
