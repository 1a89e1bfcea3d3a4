"""Is it alive, is it ready, and what do its numbers say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from service.core.budget import Limits, day, left_today
from service.core.errors import StoreUnavailable
from service.core.production import FACTS
from service.metrics import Sample, render
from service.store import deadletters, due, notices, productions, radar, requests
from service.store.connection import safety_problems
from service.store.scripts import PREFIX


async def healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> JSONResponse:
    """Ready: an event that arrives now is kept. `warnings`: Redis may lose it later."""
    state = request.app.state
    problems: dict[str, str] = {}
    warnings: list[str] = []
    if not state.settings.webhook_secrets:
        problems["secrets"] = "JARAI_WEBHOOK_SECRETS is not set"
    try:
        warnings = safety_problems(state.intake_redis)
        state.intake_redis.set(f"{PREFIX}ready", 1, px=1000)
    except (RedisError, StoreUnavailable) as error:
        problems["redis"] = str(error) if isinstance(error, StoreUnavailable) else f"refuses: {error}"
    ready = not problems
    return JSONResponse({"ready": ready, "problems": problems, "warnings": warnings}, 200 if ready else 503)


def metrics(request: Request) -> PlainTextResponse:
    state = request.app.state
    text = render(_samples(state.redis, state.settings.limits, dict(state.intake.counts)))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _samples(redis: Redis, limits: Limits, verdicts: dict[str, int]) -> Iterator[Sample]:
    for verdict in ("accepted", "duplicate", "quarantined", "rejected", "unavailable"):
        yield Sample("jarai_webhooks_total", verdicts.get(verdict, 0), "Webhooks answered by this process.", "counter",
                     ("verdict", verdict))  # fmt: skip
    counts: Any = redis.hgetall(f"{PREFIX}counts")
    for name in FACTS:  # also those that have not happened yet: an increase from nothing can't be seen
        yield Sample("jarai_facts_total", int(counts.get(name.encode(), 0)), "What happened, by its name in the log.",
                     "counter", ("event", name))  # fmt: skip
    stored_bytes = int(counts.get(productions.STORED_BYTES.encode(), 0))
    yield Sample("jarai_stored_bytes_total", stored_bytes, "Bytes of deliverables that were stored.", "counter")
    coming = productions.downloads(redis)
    yield Sample("jarai_downloads", len(coming), "Files of which some bytes are here, and more to come.")
    rate = sum(one.bytes_per_second for one in coming)
    yield Sample("jarai_download_bytes_per_second", rate, "What they bring together, as last told.")
    now = due.sweep(redis)
    for label, value in (
        ("advance", now.advance),
        ("download", now.download),
        ("ask", now.ask),
        ("notify", now.notify),
    ):
        yield Sample("jarai_due", value, "Work that is due and that nobody has taken on.", label=("list", label))
    for label, value in (
        ("advance", now.advance_bells),
        ("download", now.download_bells),
        ("notify", now.notify_bells),
    ):
        yield Sample("jarai_bells", value, "Bells that wait in a queue for a worker.", label=("queue", label))
    tracked: Any = redis.zcard(f"{PREFIX}index")
    yield Sample("jarai_productions", tracked, "Productions that are kept.")
    yield Sample("jarai_deadletters", deadletters.count(redis), "Dead letters that wait for a person.")
    yield Sample("jarai_notices", notices.waiting(redis), "Notices that NOTIFY_URL has not taken yet.")
    budget = requests.read(redis)
    seconds = requests.now(redis)
    spent = budget.spent_today if budget.today == day(seconds) else 0
    yield Sample("jarai_requests_today", spent, "Requests to JARAI since midnight UTC.")
    missed = radar.read_day(redis)
    for label in ("received", "missed", "unsubscribed"):
        yield Sample("jarai_radar_webhooks_total", missed[label],
                     "Webhooks of settled productions: came, never came, not subscribed to.", "counter",
                     ("fate", label))  # fmt: skip
    left = left_today(budget, limits, seconds)
    if left is not None:
        yield Sample("jarai_requests_left_today", left, "Requests that polling may still spend until midnight UTC.")
    if budget.remaining is not None and seconds < budget.reset_at:
        yield Sample("jarai_requests_remaining", budget.remaining, "Requests left in JARAI's window, as last told.")
