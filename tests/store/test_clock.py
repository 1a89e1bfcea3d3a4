"""Redis's clock is set back: whatever it had written down for later comes as soon as it would have come."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from service.core.budget import Answer, Limits
from service.store import due, productions, requests
from service.store.scripts import PREFIX
from tests.store.making import event, keep, new_id, take_in
from tests.store.test_due import to_ask, with_file

HOUR_MS = 3_600_000


def written_an_hour_ahead(redis: Redis) -> None:
    """Everything as if Redis's clock had been an hour ahead until now."""
    units = {"dirty": 1, "ask": 1, "download": 1, "requests": 1000, "requests:flying": 1000}
    for name, unit in units.items():
        members: Any = redis.zrange(f"{PREFIX}{name}", 0, -1)
        for member in members:
            redis.zincrby(f"{PREFIX}{name}", HOUR_MS / unit, member)
    raw: Any = redis.get(f"{PREFIX}budget")
    if raw:
        budget = json.loads(raw)
        ahead = {name: budget[name] + HOUR_MS / 1000 for name in ("paused_until", "reset_at")}
        redis.set(f"{PREFIX}budget", json.dumps(budget | ahead))
    redis.incrby(f"{PREFIX}clock", HOUR_MS)


def due_in_seconds(redis: Redis, name: str, member: str) -> float:
    score = redis.zscore(f"{PREFIX}{name}", member)
    assert score is not None
    return score / 1000 - productions.now(redis).timestamp()


def test_what_was_due_is_due_again_after_one_sweep_and_what_was_not_keeps_its_time(redis: Redis) -> None:
    waiting, asked = new_id(), to_ask(redis)
    with_file(redis)
    keep(redis, event(waiting, 1))
    tracked = new_id()
    take_in(redis, event(tracked, 1, "production.queued"))
    keep(redis, event(waiting, 2))
    due.sweep(redis)
    before = due_in_seconds(redis, "ask", tracked)
    assert before > 30
    written_an_hour_ahead(redis)
    assert productions.claim(redis, 9) == []
    assert due.claim_download(redis, "x") is None
    assert abs(due.sweep(redis).set_back_seconds - HOUR_MS / 1000) < 1
    assert [claim.production_id for claim in productions.claim(redis, 9)] == [waiting]
    assert due.claim_download(redis, "x") is not None
    claimed = due.claim_ask(redis)
    assert claimed is not None
    assert claimed.production.production_id == asked
    assert abs(due_in_seconds(redis, "ask", tracked) - before) < 2


def test_it_is_noticed_once(redis: Redis) -> None:
    due.sweep(redis)
    written_an_hour_ahead(redis)
    assert due.sweep(redis).set_back_seconds > 0
    assert due.sweep(redis).set_back_seconds == 0


def test_the_budget_is_neither_lost_nor_closed_for_an_hour(redis: Redis) -> None:
    limits = Limits(per_minute=4)
    assert all(requests.take(redis, limits)[0] for _ in range(2))
    due.sweep(redis)
    written_an_hour_ahead(redis)
    due.sweep(redis)
    token, wait_seconds = requests.take(redis, limits)
    assert token == ""
    assert 0 < wait_seconds <= 61


def test_a_pause_that_jarai_asked_for_keeps_its_length(redis: Redis) -> None:
    token, _ = requests.take(redis, Limits())
    requests.settle(redis, token, Answer(status=429, retry_after_seconds=20))
    due.sweep(redis)
    written_an_hour_ahead(redis)
    due.sweep(redis)
    assert 18 < requests.take(redis, Limits())[1] <= 20.1


def test_a_clock_that_is_set_forward_loses_nothing_and_takes_no_claim_from_whoever_works(redis: Redis) -> None:
    """All leases have run out at once: who had the file finds out before it renames, and the next has it."""
    with_file(redis)
    first = due.claim_download(redis, "first")
    assert first is not None
    redis.zadd(f"{PREFIX}download", {first.member: 0}, xx=True)
    second = due.claim_download(redis, "second")
    assert second is not None
    assert (due.renew_download(redis, first, 1), due.renew_download(redis, second, 1)) == (None, 0)


def test_an_event_that_arrives_after_the_clock_was_set_back_is_taken_in(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1))
    keep(redis, event(identity, 2))
    due.sweep(redis)
    written_an_hour_ahead(redis)
    keep(redis, event(identity, 3))
    due.sweep(redis)
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.sequence == 3
