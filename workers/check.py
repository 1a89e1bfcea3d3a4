"""`jarai-receiver check`: is this deployment sound? One line for each thing, and what to do where it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from redis.exceptions import RedisError

from service.core import partner_api
from service.core.budget import read_answer
from service.core.errors import JaraiError, ReceiverError
from service.core.view import instant
from service.runtime import Runtime
from service.store import deadletters, due, notices, productions, requests
from service.store.connection import safety_problems
from workers.storage import open_storage

Verdict = Literal["ok", "warning", "broken"]
_LEAST_FREE_BYTES = 1024**3
_LARGEST_SKEW_SECONDS = 60.0
_LATEST_NOTICE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at. `broken`: something would be lost or not work."""

    part: str
    verdict: Verdict
    says: str


def examine(runtime: Runtime) -> Iterator[Line]:
    """Look at everything. Costs one request of the budget at JARAI."""
    yield from _settings(runtime)
    redis_answers = False
    for line in _redis(runtime):
        redis_answers |= line.verdict == "ok" and line.part == "redis"
        yield line
    yield from _storage(runtime)
    yield from _jarai(runtime, redis_answers)
    if redis_answers:
        yield from _work(runtime)


def _settings(runtime: Runtime) -> Iterator[Line]:
    settings = runtime.settings
    if settings.webhook_secrets:
        yield Line("secrets", "ok", f"{len(settings.webhook_secrets)} signing secret(s) in JARAI_WEBHOOK_SECRETS")
    else:
        yield Line("secrets", "broken", "JARAI_WEBHOOK_SECRETS is not set: every webhook would be refused")
    if settings.admin_token:
        yield Line("admin", "ok", "ADMIN_TOKEN is set")
    else:
        yield Line("admin", "warning", "ADMIN_TOKEN is not set: /productions, /deadletters and /metrics answer 404")


def _redis(runtime: Runtime) -> Iterator[Line]:
    try:
        started = time.monotonic()
        runtime.redis.ping()
        latency = (time.monotonic() - started) * 1000
        problems = safety_problems(runtime.redis)
    except (RedisError, ReceiverError) as error:
        yield Line("redis", "broken", f"does not answer: {error}")
        return
    yield Line("redis", "ok", f"answers in {latency:.1f} ms")
    for problem in problems:
        yield Line("durability", "broken", f"Redis may lose accepted events: {problem}")
    if not problems:
        yield Line("durability", "ok", "append-only file on, nothing is evicted")


def _storage(runtime: Runtime) -> Iterator[Line]:
    try:
        storage = open_storage(runtime.settings)
        free_bytes = storage.probe()
    except ReceiverError as error:
        yield Line("storage", "broken", f"{runtime.settings.storage_url}: {error}")
        return
    verdict: Verdict = "ok" if free_bytes is None or free_bytes >= _LEAST_FREE_BYTES else "warning"
    room = "" if free_bytes is None else f", {free_bytes / 1024**3:.1f} GiB free"
    yield Line("storage", verdict, f"{storage.where} takes files{room}")


def _jarai(runtime: Runtime, redis_answers: bool) -> Iterator[Line]:
    settings = runtime.settings
    if not settings.jarai_api_key:
        yield Line("api key", "warning", "JARAI_API_KEY is not set: nothing is polled, lost webhooks go unnoticed")
        return
    token = ""
    if redis_answers:
        token, wait_seconds = requests.take(runtime.redis, settings.limits)
        if not token:
            yield Line("api key", "warning", f"not tried: the budget is used up for {wait_seconds:.0f} s")
            return
    try:
        response = runtime.jarai.call(partner_api.accounts_request())
        if token:
            requests.settle(
                runtime.redis, token, read_answer(response.status, response.headers, None, requests.now(runtime.redis))
            )
        accounts = partner_api.read_accounts(response)
    except JaraiError as error:
        reference = f" (correlation id {error.correlation_id})" if error.correlation_id else ""
        yield Line("api key", "broken", f"{error}{reference}")
        return
    yield Line("api key", "ok", f"accepted by {settings.jarai_api_url}, {accounts} account(s)")
    yield from _clock(response)


def _clock(response: partner_api.Response) -> Iterator[Line]:
    try:
        theirs = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    verdict: Verdict = "ok" if abs(skew) <= _LARGEST_SKEW_SECONDS else "warning"
    yield Line("clock", verdict, f"{skew:+.0f} s against JARAI's")


def _work(runtime: Runtime) -> Iterator[Line]:
    waiting = due.sweep(runtime.redis)
    idle = waiting.advance == 0 and waiting.download == 0
    yield Line(
        "work",
        "ok" if idle else "warning",
        f"{waiting.advance} production(s) and {waiting.download} file(s) wait for a worker",
    )
    yield _notices(runtime)
    letters = deadletters.count(runtime.redis)
    yield Line("dead letters", "warning" if letters else "ok", f"{letters} wait for a person")


def _notices(runtime: Runtime) -> Line:
    """Nothing is sent: whether the receiver takes notices is seen from those that wait."""
    settings, redis = runtime.settings, runtime.redis
    oldest_at = notices.oldest_at(redis)
    waits = (
        "" if oldest_at is None else f"{notices.waiting(redis)} notice(s) wait, the oldest since {instant(oldest_at)}"
    )
    if not settings.notify_url:
        verdict: Verdict = "warning" if waits else "ok"
        return Line("notify", verdict, f"NOTIFY_URL is not set: nobody is told{f'; {waits}' if waits else ''}")
    late = oldest_at is not None and productions.now(redis) - oldest_at > _LATEST_NOTICE
    return Line("notify", "warning" if late else "ok", f"{settings.notify_place} is told; {waits or 'nothing waits'}")
