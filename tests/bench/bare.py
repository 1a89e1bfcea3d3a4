"""The reference for the intake: a Starlette endpoint that reads, checks the HMAC and answers 202. It keeps nothing."""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.core.errors import InvalidSignature
from service.core.signature import verify
from tests.bench.load import KEY


async def webhook(request: Request) -> JSONResponse:
    try:
        verify(await request.body(), request.headers["x-jarai-signature"].encode(), [KEY])
    except InvalidSignature:
        return JSONResponse({"error": "INVALID_SIGNATURE"}, 401)
    return JSONResponse({"status": "accepted"}, 202)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/webhooks/jarai", webhook, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[1]), log_config=None, access_log=False, proxy_headers=False, server_header=False)
