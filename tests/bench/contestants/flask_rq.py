"""Flask + gunicorn + RQ: one process of gunicorn, with threads, which is its way to keep connections open."""

from __future__ import annotations

import json

from flask import Flask, request
from rq import Queue

from tests.bench.contestants.door import connect, is_authentic, is_new

app = Flask(__name__)
redis = connect()
queue = Queue("webhooks", connection=redis, serializer="json")
Answer = tuple[dict[str, str], int]


@app.post("/webhooks/jarai")
def webhook() -> Answer:
    body = request.get_data(cache=False)
    if not is_authentic(body, request.headers.get("X-JARAI-Signature")):
        return {"error": "INVALID_SIGNATURE"}, 401
    event = json.loads(body)
    if is_new(redis, event["productionId"], event["sequenceNumber"]):
        queue.enqueue("webhooks.apply", event, result_ttl=0, description="webhook")
    return {"status": "accepted"}, 202
