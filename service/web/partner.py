"""What a partner's own systems have JARAI do, and how what did not work is answered."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from service import partner
from service.core import triggering
from service.core.errors import (
    InvalidField,
    JaraiError,
    JaraiRefused,
    NoRequestLeft,
    NotTracked,
    OutcomeUnknown,
    RateLimited,
    SettingsError,
)
from service.web.productions import identity_of, object_of

ERRORS = (JaraiError, InvalidField, NoRequestLeft, NotTracked, OutcomeUnknown, SettingsError)
_CODE = re.compile(r"[A-Z][A-Z0-9_]*")
_OF_THE_ACCOUNT = "ACCOUNT_NOT_ACTIVE"
_WITHOUT_ADVICE_SECONDS = 60.0
AT_ONCE = 8
_MOST_WAITING = 64
Done = TypeVar("Done")


async def trigger(request: Request) -> JSONResponse:
    """The body of the Partner API, with `accountId`, and `retryExpired` and `again` if need be."""
    here = request.app.state.runtime
    try:
        fields = await object_of(request)
    except ValueError:
        raise HTTPException(400, "the body has to be a JSON object") from None
    again = fields.pop("again", False)
    if not isinstance(again, bool):
        raise InvalidField("again", "has to be true or false")
    retries = triggering.retries(fields.pop("retryExpired", here.settings.retry_expired))
    wish = triggering.wanted(fields)
    how = triggering.OVER_HTTP
    identity = await _apart(request, functools.partial(partner.trigger, here, wish, retries, again=again, how=how))
    return JSONResponse({"status": "triggered", "productionId": identity}, 202)


async def cancel(request: Request) -> JSONResponse:
    identity = identity_of(request)
    await _apart(request, functools.partial(partner.cancel, request.app.state.runtime, identity))
    return JSONResponse({"status": "cancelling", "productionId": identity}, 202)


async def _apart(request: Request, work: Callable[[], Done]) -> Done:
    """In threads of its own: a JARAI that is slow must not keep health checks and listings waiting."""
    limiter: anyio.CapacityLimiter = request.app.state.partner_limiter
    if limiter.statistics().tasks_waiting >= _MOST_WAITING:
        raise HTTPException(503, "JARAI is slow, and too many wait for it already", {"Retry-After": "10"})
    return await anyio.to_thread.run_sync(work, limiter=limiter)


async def refused(request: Request, error: Exception) -> JSONResponse:
    """In the form of every error; JARAI's code and 4xx where it gave one.

    A 401 or 403 of our API key is a 502: to whoever asks us it would look like a wrong admin token.
    """
    match error:
        case InvalidField():
            return _answer(400, "INVALID_REQUEST", str(error))
        case NoRequestLeft():
            return _answer(429, "RATE_LIMIT_EXCEEDED", str(error), error.wait_seconds)
        case RateLimited():
            wait_seconds = error.retry_after_seconds or _WITHOUT_ADVICE_SECONDS
            return _answer(429, "RATE_LIMIT_EXCEEDED", error.sentence, wait_seconds)
        case OutcomeUnknown():
            return _answer(409 if error.repeated else 502, "OUTCOME_UNKNOWN", str(error))
        case NotTracked():
            return _answer(502, "NOT_TRACKED", str(error))
        case JaraiError():
            code = error.code if _CODE.fullmatch(error.code) else "JARAI_UNAVAILABLE"
            ours = error.status in (401, 403) and error.code != _OF_THE_ACCOUNT
            status = error.status if isinstance(error, JaraiRefused) and error.status and not ours else 502
            return _answer(status, code, error.sentence)
        case _:
            return _answer(503, "SERVICE_UNAVAILABLE", str(error), _WITHOUT_ADVICE_SECONDS)


def _answer(status: int, code: str, message: str, wait_seconds: float | None = None) -> JSONResponse:
    headers = {} if wait_seconds is None else {"Retry-After": str(max(1, math.ceil(wait_seconds)))}
    return JSONResponse({"error": code, "message": message}, status, headers=headers)
