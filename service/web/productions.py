"""Productions over HTTP: what is known, and the wishes of a partner's own systems."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from redis import Redis
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from service import operator
from service.core.errors import ReceiverError
from service.core.production import Production
from service.core.view import describe
from service.store import productions

_LARGEST_PAGE = 500
_MOST_PAGES_LOOKED_AT = 10
_LARGEST_BODY_BYTES = 64 * 1024


def list_productions(request: Request) -> JSONResponse:
    """Newest first. `status` and `account` filter; `next` is the `after` of the following page (null: no more)."""
    query = request.query_params
    limit = _limit(query.get("limit", "50"))
    after = _id(query["after"]) if query.get("after") else None
    status, account = query.get("status"), query.get("account")
    at_once = limit + 1 if status is account is None else _LARGEST_PAGE
    found: list[Production] = []
    for _ in range(_MOST_PAGES_LOOKED_AT):
        page, after = productions.newest(_redis(request), at_once, after, naming=(status, account))
        found += [one for one in page if status in (None, one.status) and account in (None, one.account_id)]
        if len(found) > limit:
            found, after = found[:limit], found[limit - 1].production_id
        if after is None or len(found) == limit:
            break
    return JSONResponse({"productions": [describe(one) for one in found], "next": after})


def show(request: Request) -> JSONResponse:
    identity = identity_of(request)
    production = productions.read(_redis(request), identity)
    if production is None:
        raise HTTPException(404, "no production of that id is known here")
    return JSONResponse(describe(production, productions.progress(_redis(request), production)))


def timeline(request: Request) -> JSONResponse:
    identity = identity_of(request)
    entries = productions.timeline(_redis(request), identity)
    if not entries and productions.read(_redis(request), identity) is None:
        raise HTTPException(404, "no production of that id is known here")
    return JSONResponse({"productionId": identity, "timeline": entries})


async def track(request: Request) -> JSONResponse:
    identity = identity_of(request)
    account = await _account(request)
    await run_in_threadpool(operator.track, _redis(request), identity, account)
    return JSONResponse({"status": "tracking", "productionId": identity}, 202)


def refresh(request: Request) -> JSONResponse:
    identity = identity_of(request)
    if productions.read(_redis(request), identity) is None:
        raise HTTPException(404, "no production of that id is known here; track it first")
    operator.refresh(_redis(request), identity)
    return JSONResponse({"status": "refreshing", "productionId": identity}, 202)


def _redis(request: Request) -> Redis:
    redis: Redis = request.app.state.redis
    return redis


def identity_of(request: Request) -> str:
    """The production's id in the path, or 400."""
    return _id(request.path_params["id"])


async def object_of(request: Request) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty one. Raises ValueError, or HTTPException 413."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY_BYTES:
            raise HTTPException(413, f"the body has at most {_LARGEST_BODY_BYTES} bytes")
    try:
        value = json.loads(body) if body.strip() else {}
    except RecursionError:
        raise ValueError("is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("is no object")
    return value


def _id(text: str) -> str:
    try:
        return operator.production_id(text)
    except ReceiverError as error:
        raise HTTPException(400, str(error)) from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _LARGEST_PAGE):
        raise HTTPException(400, f"limit is a number from 1 to {_LARGEST_PAGE}")
    return int(text)


async def _account(request: Request) -> str | None:
    """`accountId` of the optional JSON body."""
    try:
        account = (await object_of(request)).get("accountId")
        return str(UUID(account)) if account is not None else None
    except (ValueError, TypeError, AttributeError):
        raise HTTPException(400, 'the body is empty or {"accountId": "<UUID>"}') from None
