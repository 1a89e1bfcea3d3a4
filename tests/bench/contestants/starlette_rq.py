"""Starlette + RQ, one `enqueue` for each request; it blocks, so it happens in the pool of threads."""

from __future__ import annotations

import json
from typing import Any

import uvicorn
from rq import Queue
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.bench.contestants.door import PORT, connect, is_authentic, is_new

redis = connect()
queue = Queue("webhooks", connection=redis, serializer="json")


def keep(event: dict[str, Any]) -> None:
    if is_new(redis, event["productionId"], event["sequenceNumber"]):
        queue.enqueue("webhooks.apply", event, result_ttl=0, description="webhook")


async def webhook(request: Request) -> JSONResponse:
    body = await request.body()
    if not is_authentic(body, request.headers.get("x-jarai-signature")):
        return JSONResponse({"error": "INVALID_SIGNATURE"}, 401)
    await run_in_threadpool(keep, json.loads(body))
    return JSONResponse({"status": "accepted"}, 202)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/webhooks/jarai", webhook, methods=["POST"])])
    uvicorn.run(app, port=PORT, log_config=None, access_log=False)
