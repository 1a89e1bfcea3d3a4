"""Requests of a person: what becomes of them when Redis goes away in the middle."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from service import partner
from service.core.errors import JaraiRefused, NotTracked
from service.core.partner_api import Request, Response
from service.core.triggering import Wanted, wanted
from service.jarai import Jarai
from service.runtime import Runtime
from service.settings import load
from service.store.scripts import PREFIX
from tests.store.making import server
from workers.simulator.running import Running

Act = Callable[[Runtime], object]


class LosingRedis(Jarai):
    """A JARAI that answers, and whose answer finds no Redis any more."""

    def __init__(self, simulator: Running, redis: Redis) -> None:
        super().__init__(simulator.api_url, simulator.settings.api_key)
        self._redis = redis

    def call(self, request: Request) -> Response:
        response = super().call(request)
        self._redis.shutdown(nosave=True)
        return response


def wish(simulator: Running) -> Wanted:
    simulator.produce({"hold": "Queued"})
    account = simulator.truth()["productions"][0]["accountId"]
    ids = {name: str(uuid.uuid4()) for name in ("languageId", "countryId", "avatarId")}
    return wanted({"accountId": account, "topic": "Harbours", **ids})


def runtime(simulator: Running, redis: Redis) -> Runtime:
    environment = {
        "REDIS_URL": f"unix://{redis.connection_pool.connection_kwargs['path']}",
        "JARAI_API_URL": simulator.api_url,
        "JARAI_API_KEY": simulator.settings.api_key,
    }
    return Runtime(load(environment, None))


def test_what_jarai_has_started_or_cancelled_is_named_even_if_redis_is_gone(simulator: Running) -> None:
    cancelled = simulator.produce({"hold": "Queued"})
    acts: list[Act] = [
        lambda here: partner.trigger(here, wish(simulator)),
        lambda here: partner.cancel(here, cancelled),
    ]
    for act, done in zip(acts, ("started", "cancelled"), strict=True):
        with server("--save", "") as redis:
            here = runtime(simulator, redis)
            here.__dict__["jarai"] = LosingRedis(simulator, redis)
            with pytest.raises(NotTracked, match=f"JARAI has {done} production") as raised:
                act(here)
        identity = simulator.truth()["productions"][-1]["productionId"] if done == "started" else cancelled
        assert f"productions track {identity}" in str(raised.value)


def test_a_refusal_is_told_even_if_redis_is_gone(simulator: Running) -> None:
    simulator.set_faults(api_budget_gate={"next": 1})
    with server("--save", "") as redis:
        here = runtime(simulator, redis)
        here.__dict__["jarai"] = LosingRedis(simulator, redis)
        with pytest.raises(JaraiRefused, match="BUDGET_GATE_1_FAILED"):
            partner.trigger(here, wish(simulator))


def test_an_intent_is_noted_before_anything_is_sent(simulator: Running, redis: Redis, tmp_path: Path) -> None:
    seen: list[object] = []

    class Watching(Jarai):
        def call(self, request: Request) -> Response:
            seen.extend(redis.keys(f"{PREFIX}trigger:*"))
            return super().call(request)

    here = runtime(simulator, redis)
    here.__dict__["jarai"] = Watching(simulator.api_url, simulator.settings.api_key)
    partner.trigger(here, wish(simulator))
    assert len(seen) == 1
    assert redis.keys(f"{PREFIX}trigger:*") == []
