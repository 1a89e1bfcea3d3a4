"""The budget of requests to JARAI, shared by all processes. The arithmetic is in core/budget."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import TypeAdapter
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import WatchError

from service.core.budget import (
    WINDOW_SECONDS,
    Answer,
    Budget,
    Limits,
    after_answer,
    after_taking,
    day,
    wait_seconds,
)
from service.store.scripts import PREFIX

KEY = f"{PREFIX}budget"
_RECENT = f"{PREFIX}requests"
_FLYING = f"{PREFIX}requests:flying"
_BUDGET_JSON = TypeAdapter(Budget)
_LONGEST_FLIGHT_SECONDS = 20.0  # whoever asked longer ago than that, and has not said what came of it, is dead
Result = TypeVar("Result")


def take(redis: Redis, limits: Limits, *, person: bool = False) -> tuple[str, float]:
    """Permission for one request: its token and 0, or "" and the seconds to wait. Never more than the budget.

    `person`: somebody waits for the answer, and may use what the pollers leave in reserve.
    """
    token = uuid.uuid4().hex

    def decide(pipeline: Pipeline, budget: Budget, now: float) -> float:
        taken: Any = pipeline.zrangebyscore(_RECENT, now - WINDOW_SECONDS, "+inf", withscores=True)
        flying = int(pipeline.zcount(_FLYING, now - _LONGEST_FLIGHT_SECONDS, "+inf"))
        sent = [score for _, score in taken]
        wait = wait_seconds(budget, limits, sent, now, in_flight=flying, person=person)
        pipeline.multi()
        if wait == 0:
            _store(pipeline, after_taking(budget, now))
            pipeline.zadd(_RECENT, {token: now})
            pipeline.zadd(_FLYING, {token: now})
            pipeline.zremrangebyscore(_RECENT, "-inf", now - WINDOW_SECONDS)
        return wait

    wait = _atomically(redis, decide)
    return (token, 0.0) if wait == 0 else ("", wait)


def settle(redis: Redis, token: str, answer: Answer) -> None:
    """Take in what an answer told about the budget; gives the place of the request in flight back."""

    def decide(pipeline: Pipeline, budget: Budget, now: float) -> None:
        flying = int(pipeline.zcount(_FLYING, now - WINDOW_SECONDS, "+inf"))
        mine = pipeline.zscore(_FLYING, token) is not None
        pipeline.multi()
        _store(pipeline, after_answer(budget, answer, max(0, flying - mine), now))
        pipeline.zrem(_FLYING, token)
        pipeline.zremrangebyscore(_FLYING, "-inf", now - WINDOW_SECONDS)

    _atomically(redis, decide)


def give_back(redis: Redis, token: str) -> None:
    """The request was not made after all."""

    def decide(pipeline: Pipeline, budget: Budget, now: float) -> None:
        taken_at: Any = pipeline.zscore(_RECENT, token)
        pipeline.multi()
        if taken_at is None:
            return
        remaining = None if budget.remaining is None else budget.remaining + 1
        spent = budget.spent_today - (day(taken_at) == budget.today)
        _store(pipeline, replace(budget, remaining=remaining, spent_today=spent))
        pipeline.zrem(_RECENT, token)
        pipeline.zrem(_FLYING, token)

    _atomically(redis, decide)


def read(redis: Redis) -> Budget:
    """What is known of the budget now."""
    return parse(redis.get(KEY))


def parse(raw: Any) -> Budget:
    """The budget as it is kept, or what is known before anything is."""
    return _BUDGET_JSON.validate_json(raw) if raw else Budget()


def now(redis: Redis) -> float:
    """Unix seconds by Redis's clock."""
    seconds, microseconds = redis.time()
    return float(seconds) + float(microseconds) / 1e6


def _store(pipeline: Pipeline, budget: Budget) -> None:
    pipeline.set(KEY, _BUDGET_JSON.dump_json(budget))


def _atomically(redis: Redis, decide: Callable[[Pipeline, Budget, float], Result]) -> Result:
    """Read, decide, write; again from the start when another process wrote in between."""
    while True:
        with redis.pipeline(transaction=True) as pipeline:
            try:
                pipeline.watch(KEY, _RECENT)  # type: ignore[no-untyped-call]
                raw = pipeline.get(KEY)
                budget = parse(raw)
                seconds, microseconds = pipeline.time()
                result = decide(pipeline, budget, float(seconds) + float(microseconds) / 1e6)
                pipeline.execute()
                return result
            except WatchError:
                continue
