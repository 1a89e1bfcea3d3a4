"""FastAPI + Celery: JSON, no results, acknowledged late; publishing blocks, so it happens in the pool of threads."""

from __future__ import annotations

import json
from typing import Any

import uvicorn
from celery import Celery
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from tests.bench.contestants.door import PORT, REDIS_SOCKET, connect, is_authentic, is_new

app = FastAPI()
tasks = Celery("webhooks", broker=f"redis+socket://{REDIS_SOCKET}")
tasks.conf.update(task_ignore_result=True, task_acks_late=True, task_serializer="json", broker_pool_limit=40)
redis = connect()


@tasks.task(name="apply")
def apply(event: dict[str, Any]) -> None:
    redis.hset(f"production:{event['productionId']}", "sequenceNumber", event["sequenceNumber"])


def keep(event: dict[str, Any]) -> None:
    if is_new(redis, event["productionId"], event["sequenceNumber"]):
        apply.delay(event)


@app.post("/webhooks/jarai", status_code=202)
async def webhook(request: Request) -> Response:
    body = await request.body()
    if not is_authentic(body, request.headers.get("x-jarai-signature")):
        return Response('{"error":"INVALID_SIGNATURE"}', 401, media_type="application/json")
    await run_in_threadpool(keep, json.loads(body))
    return Response('{"status":"accepted"}', 202, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, log_config=None, access_log=False)
