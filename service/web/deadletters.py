"""Dead letters over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from service import operator
from service.store import deadletters

_MOST_SHOWN = 500


def list_deadletters(request: Request) -> JSONResponse:
    """The newest first, without their bodies."""
    redis = request.app.state.redis
    ids = redis.zrevrange(deadletters.INDEX, 0, _MOST_SHOWN - 1)
    # One by one: a body may have a megabyte.
    shown = [_without_body(letter) for one in ids if (letter := deadletters.find(redis, one.decode())) is not None]
    return JSONResponse({"deadletters": shown, "total": deadletters.count(redis)})


def _without_body(letter: deadletters.DeadLetter) -> dict[str, Any]:
    shown = replace(letter, body=None).describe()
    return shown if letter.body is None else shown | {"bodyBytes": len(letter.body)}


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
