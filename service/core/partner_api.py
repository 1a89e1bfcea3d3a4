"""JARAI's Partner API as values: which request asks what, and what an answer means. No network here.

CONTRACT [docs]: endpoints, error bodies, states. [open]: the exact JSON of most answers, so each field is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from pydantic_core import from_json

from service.core.deliverables import Listed, read_list
from service.core.errors import JaraiRefused, JaraiUnavailable, RateLimited
from service.core.events import parse_instant
from service.core.redaction import redact

PARTNER_NOT_ACTIVE = "PARTNER_NOT_ACTIVE"
LARGEST_ANSWER_BYTES = 4 * 1024 * 1024  # read as JSON, at worst 24 times as much memory
_LONGEST_WAIT_SECONDS = 25 * 3600.0
# What no clock says that is only wrong. Instants are compared with it, and moved by its distance from our clock.
_EARLIEST, _LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the Partner API; `path` follows the base address.

    `scope` is what the key needs for it. `keyless`: it is for whoever has no key yet, and costs nothing of the budget.
    """

    method: str
    path: str
    body: bytes | None = None
    scope: str = ""
    keyless: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it came. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def correlation_id(self) -> str | None:
        return redact(_one_line(self.headers.get("x-correlation-id", ""))[:200]) or None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The status of a production, as of `as_of` by JARAI's clock (None where the answer has no `Date`)."""

    status: str
    as_of: datetime | None
    account_id: str | None
    error_code: str | None
    error_message: str | None
    expires_at: datetime | None
    sandbox: bool


def status_request(production_id: str) -> Request:
    return Request("GET", f"/productions/{production_id}", scope="productions:read")


def deliverables_request(production_id: str) -> Request:
    return Request("GET", f"/productions/{production_id}/deliverables", scope="deliverables:read")


def accounts_request() -> Request:
    return Request("GET", "/accounts", scope="accounts:read")


def cancel_request(production_id: str) -> Request:
    return Request("DELETE", f"/productions/{production_id}", scope="productions:write")


def read_status(response: Response) -> StatusAnswer:
    """Raises RateLimited, JaraiRefused or JaraiUnavailable (also for an answer that can't be read)."""
    answer = _object(response)
    status = answer.get("status")
    if not isinstance(status, str) or not 0 < len(status) <= 100 or not status.isprintable():
        raise JaraiUnavailable(
            "the answer names no status", status=response.status, correlation_id=response.correlation_id
        )
    return StatusAnswer(
        status=status,
        as_of=date(response),
        account_id=uuid_in(answer.get("accountId")),
        error_code=text(answer.get("errorCode")),
        error_message=text(answer.get("errorMessage")),
        expires_at=_instant(answer.get("expiresAt")),
        sandbox=is_sandbox(response),
    )


def read_deliverables(response: Response, now: datetime) -> tuple[Listed, ...]:
    """Raises as `read_status`. Addresses are valid for an hour from the answer's own `Date`."""
    return read_list(success(response), date(response) or now)


def is_sandbox(response: Response) -> bool:
    """CONTRACT [docs]: what a test key is answered is made up, and flagged. Raises as `read_status`."""
    return any(part.get("sandbox") is True for part in objects(success(response)))


def read_done(response: Response) -> None:
    """JARAI has done it, whatever else the answer says. Raises as `read_status`, but for what can't be read."""
    if not 200 <= response.status < 300:
        raise _error(response)


def error_code(response: Response) -> str:
    """JARAI's own word for what went wrong, or nothing."""
    return (text(_error_body(response).get("error")) or "")[:100]


def retry_after_seconds(response: Response) -> float | None:
    """How long JARAI asks to be left alone: `retryAfterSeconds` of the error body, else the `Retry-After` header."""
    value = _error_body(response).get("retryAfterSeconds")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LONGEST_WAIT_SECONDS:
        return float(value)
    header = response.headers.get("retry-after", "")
    return min(float(header), _LONGEST_WAIT_SECONDS) if header.isascii() and header.isdigit() else None


def _object(response: Response) -> Mapping[str, Any]:
    answer = success(response)
    if not isinstance(answer, dict):
        raise JaraiUnavailable(
            "the answer is no JSON object", status=response.status, correlation_id=response.correlation_id
        )
    inner = [part for part in answer.values() if isinstance(part, dict) and "status" in part]
    return answer if "status" in answer or not inner else inner[0]  # the shape is [open]: it may be wrapped


def objects(answer: Any) -> list[Mapping[str, Any]]:
    """The object that an answer is, and those one level down: where it is wrapped is [open]."""
    if not isinstance(answer, dict):
        return []
    return [answer, *(part for part in answer.values() if isinstance(part, dict))]


def entries(answer: Any) -> list[Mapping[str, Any]]:
    """The objects that an answer lists: it is a list, or has one in it."""
    found = [answer, *(value for part in objects(answer) for value in part.values())]
    lists = [value for value in found if isinstance(value, list)]
    return [one for one in lists[0] if isinstance(one, dict)] if lists else []


def success(response: Response) -> Any:
    """What a 2xx says. Raises as `read_status`."""
    if not 200 <= response.status < 300:
        raise _error(response)
    try:
        return from_json(response.body, allow_inf_nan=False)
    except ValueError:
        raise JaraiUnavailable(
            "the answer is not JSON", status=response.status, correlation_id=response.correlation_id
        ) from None


def _error(response: Response) -> RateLimited | JaraiRefused | JaraiUnavailable:
    body = _error_body(response)
    code = error_code(response)
    said = (text(body.get("message")) or "")[:300]
    message = redact(f"JARAI answers {response.status} {code}{': ' if code and said else ''}{said}".strip())
    kind: type[RateLimited | JaraiRefused | JaraiUnavailable] = JaraiRefused
    if response.status == 429:
        kind = RateLimited
    elif not 400 <= response.status < 500 or response.status == 408:
        kind = JaraiUnavailable
    return kind(
        message,
        code=code,
        status=response.status,
        correlation_id=response.correlation_id,
        retry_after_seconds=retry_after_seconds(response),
    )


def _error_body(response: Response) -> Mapping[str, Any]:
    try:
        body = from_json(response.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def date(response: Response) -> datetime | None:
    """When JARAI answered, by its own clock and to the second; None where it does not say, or says nonsense."""
    try:
        moment = parsedate_to_datetime(response.headers.get("date", "")).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if _EARLIEST <= moment < _LATEST else None


def text(value: object) -> str | None:
    """A text of JARAI's as one line; None where there is none."""
    return (_one_line(value[:2000]) or None) if isinstance(value, str) else None


def _one_line(text: str) -> str:
    """Without anything that could steer a terminal or look like another line."""
    return "".join(one if one.isprintable() else " " for one in text).strip()


def uuid_in(value: object) -> str | None:
    """A UUID in its usual spelling; None where it is none."""
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _instant(value: object) -> datetime | None:
    try:
        return parse_instant(value)
    except ValueError:
        return None
