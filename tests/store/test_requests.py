"""The budget of requests: whatever many processes do at the same time, they never spend more than it."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from redis import Redis

from service.core.budget import RESERVE, SMALLEST_TIER_PER_MINUTE, Answer, Limits, day
from service.store import requests
from service.store.scripts import PREFIX

NO_LIMITS = Limits()
UNKNOWN = SMALLEST_TIER_PER_MINUTE - RESERVE
_TAKER = """
import sys
from redis import Redis
from service.core.budget import Limits
from service.store import requests
redis = Redis.from_url(sys.argv[1])
print(sum(bool(requests.take(redis, Limits())[0]) for _ in range(40)))
"""


def tell(redis: Redis, **answer: float) -> None:
    """An answer of JARAI, to a request that was taken before."""
    token, _ = requests.take(redis, NO_LIMITS)
    assert token
    requests.settle(redis, token, Answer(status=200, **answer))  # type: ignore[arg-type]


def take_all(redis: Redis, limits: Limits = NO_LIMITS, most: int = 200) -> int:
    return sum(bool(requests.take(redis, limits)[0]) for _ in range(most))


def test_many_threads_together_never_exceed_the_budget(redis: Redis) -> None:
    tell(redis, limit=40, remaining=39, reset_at=requests.now(redis) + 60)
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(take_all(redis, most=20))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) + 1 == 40 - RESERVE


def test_many_processes_together_never_exceed_the_budget(redis: Redis, redis_url: str) -> None:
    tell(redis, limit=60, remaining=59, reset_at=requests.now(redis) + 60)
    processes = [
        subprocess.Popen([sys.executable, "-c", _TAKER, redis_url], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    taken = [int(process.communicate(timeout=30)[0]) for process in processes]
    assert sum(taken) + 1 == 60 - RESERVE


def test_until_jarai_told_its_limit_the_smallest_tier_is_assumed(redis: Redis) -> None:
    assert take_all(redis) == UNKNOWN
    token, wait_seconds = requests.take(redis, NO_LIMITS)
    assert token == ""
    assert 50 < wait_seconds <= 61


def test_what_was_given_back_can_be_taken_again(redis: Redis) -> None:
    tokens = [requests.take(redis, NO_LIMITS)[0] for _ in range(UNKNOWN)]
    assert not requests.take(redis, NO_LIMITS)[0]
    requests.give_back(redis, tokens[0])
    assert take_all(redis) == 1
    assert requests.read(redis).spent_today == UNKNOWN


def test_taking_and_giving_back_changes_nothing(redis: Redis) -> None:
    tell(redis, limit=20, remaining=10, reset_at=requests.now(redis) + 60)
    before = requests.read(redis)
    requests.give_back(redis, requests.take(redis, NO_LIMITS)[0])
    assert requests.read(redis) == before
    assert redis.zcard(f"{PREFIX}requests:flying") == 0


@pytest.mark.parametrize(("limits", "expected"), [(Limits(per_minute=5), 5 - RESERVE), (Limits(per_day=4), 4)])
def test_a_limit_from_the_settings_is_kept(redis: Redis, limits: Limits, expected: int) -> None:
    assert take_all(redis, limits) == expected


def test_nobody_asks_when_two_requests_remain(redis: Redis) -> None:
    tell(redis, limit=60, remaining=2, reset_at=requests.now(redis) + 33)
    token, wait_seconds = requests.take(redis, NO_LIMITS)
    assert token == ""
    assert 30 < wait_seconds <= 33


def test_after_a_429_nobody_asks_before_its_time(redis: Redis) -> None:
    token, _ = requests.take(redis, NO_LIMITS)
    requests.settle(redis, token, Answer(status=429, retry_after_seconds=17))
    refused, wait_seconds = requests.take(redis, NO_LIMITS)
    assert refused == ""
    assert 15 < wait_seconds <= 17


def test_a_request_that_is_on_its_way_is_counted_when_another_is_answered(redis: Redis) -> None:
    first, second = (requests.take(redis, NO_LIMITS)[0] for _ in range(2))
    answer = Answer(status=200, limit=10, remaining=5, reset_at=requests.now(redis) + 60)
    requests.settle(redis, first, answer)
    assert requests.read(redis).remaining == 4
    requests.settle(redis, second, replace(answer, remaining=4))
    assert requests.read(redis).remaining == 4


def test_yesterdays_requests_are_not_counted_today(redis: Redis) -> None:
    take_all(redis, Limits(per_day=2))
    stale = replace(requests.read(redis), today="2001-01-01", spent_today=2)
    redis.flushall()
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(stale))
    assert requests.take(redis, Limits(per_day=2))[0]
    known = requests.read(redis)
    assert (known.spent_today, known.today) == (1, day(requests.now(redis)))


def test_giving_back_yesterdays_request_does_not_lower_todays_count(redis: Redis) -> None:
    token, _ = requests.take(redis, NO_LIMITS)
    stale = replace(requests.read(redis), today="2001-01-01", spent_today=1)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(stale))
    redis.zadd(f"{PREFIX}requests", {token: requests.now(redis) - 24 * 3600})
    requests.take(redis, NO_LIMITS)
    requests.give_back(redis, token)
    assert requests.read(redis).spent_today == 1
