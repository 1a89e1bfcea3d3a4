"""Dead letters over HTTP."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from service import operator
from service.store import deadletters

_MOST_SHOWN = 500


def list_deadletters(request: Request) -> JSONResponse:
    """The newest first, without their bodies."""
    redis = request.app.state.redis
    shown = [letter.describe() for letter in deadletters.newest(redis, _MOST_SHOWN)]
    for one in shown:
        one.pop("body", None)
    return JSONResponse({"deadletters": shown, "total": deadletters.count(redis)})


def retry(request: Request) -> JSONResponse:
    redis, identity = request.app.state.redis, request.path_params["id"]
    letter = deadletters.find(redis, identity)
    if letter is None:
        raise HTTPException(404, "no dead letter of that id")
    if not operator.retry(redis, letter):
        raise HTTPException(409, f"it still can't be used: {letter.reason}")
    return JSONResponse({"status": "retrying", "id": identity}, 202)


def discard(request: Request) -> JSONResponse:
    identity = request.path_params["id"]
    if not operator.discard(request.app.state.redis, identity):
        raise HTTPException(404, "no dead letter of that id")
    return JSONResponse({"status": "discarded", "id": identity})
