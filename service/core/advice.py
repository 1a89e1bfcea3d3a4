"""What a person can do about an answer of JARAI that did not help. CONTRACT [docs]: codes, scopes, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from service.core.errors import JaraiError, RateLimited
from service.core.partner_api import Request

_BY_CODE: Mapping[str, str] = {
    "UNAUTHORIZED": "check JARAI_API_KEY (was it rotated more than 24 hours ago?)",
    "PARTNER_NOT_ACTIVE": "open the mail from JARAI and run `partners verify TOKEN`, or ask JARAI",
    "ACCOUNT_NOT_ACTIVE": "`accounts` lists yours, JARAI activates them",
    "INVALID_REQUEST": "change what it names, and send it again",
}
_BY_STATUS: Mapping[int, str] = {
    401: _BY_CODE["UNAUTHORIZED"],
    404: "check the id (`accounts`, `productions list`, `webhooks list`): JARAI knows none such, or not under this key",
    409: "it is not in a state that allows this",
    413: "it is too large: send less",
}
_GATE = re.compile(r"BUDGET_GATE_\w+")
_OLDER_SCOPES: Mapping[str, str] = {
    "productions:write": "productions:trigger and productions:cancel",
    "webhooks:read": "webhooks:manage",
    "webhooks:write": "webhooks:manage",
    "analytics:read": "performance:read",
}
_LONGER_THAN_A_MINUTE_SECONDS = 180.0
_NEAR_MIDNIGHT = timedelta(minutes=2)


def advise(error: JaraiError, request: Request, now: datetime) -> str:
    """One clause, without a full stop. `now` is aware; times are told in its zone."""
    if isinstance(error, RateLimited):
        return f"again {when(error.retry_after_seconds or 60.0, now)}"
    if _GATE.fullmatch(error.code):
        return "the account's own budget at JARAI does not allow it (not the one of requests): raise it there"
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if error.status == 403 and request.scope:
        older = _OLDER_SCOPES.get(request.scope)
        called = f" (called {older} by older keys)" if older else ""
        return f"the API key needs the scope {request.scope}{called}"
    if error.status is not None and error.status in _BY_STATUS:
        return _BY_STATUS[error.status]
    if not error.sent:
        return "nothing was sent: check JARAI_API_URL and this machine's network"
    if error.status is None or error.status >= 500 or error.status < 300 or error.status == 408:
        return "this is JARAI's trouble or the line's: try again later"
    return "JARAI's support can tell more"


def no_request_left(wait_seconds: float, now: datetime) -> str:
    """Why nothing may be sent for so long."""
    span = "today" if wait_seconds > _LONGER_THAN_A_MINUTE_SECONDS else "this minute"
    return f"No request to JARAI is left {span}; again {when(wait_seconds, now)}."


def when(wait_seconds: float, now: datetime) -> str:
    """`in 23 s`, or `at midnight UTC (02:00 here, in 5 h)`."""
    if wait_seconds <= _LONGER_THAN_A_MINUTE_SECONDS:
        return f"in {max(1, round(wait_seconds))} s"
    then = now + timedelta(seconds=wait_seconds)
    hours, minutes = divmod(round(wait_seconds / 60), 60)
    span = f"in {hours} h" if hours > 1 else f"in {60 * hours + minutes} min"
    midnight = (then.astimezone(UTC) + _NEAR_MIDNIGHT).replace(hour=0, minute=0, second=0, microsecond=0)
    if abs(midnight - then) <= _NEAR_MIDNIGHT:
        return f"at midnight UTC ({midnight.astimezone(now.tzinfo):%H:%M} here, {span})"
    return f"at {then:%H:%M} ({span})"
