"""Telling NOTIFY_URL: against a real receiver that checks every signature with Standard Webhooks' own library."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from service import operator
from service.core.schedule import Intervals
from service.settings import Settings, load
from service.store import deadletters, notices
from service.store.scripts import PREFIX
from tests.deployment import eventually, free_port
from tests.partner import SECRET, Answer, Receiver, receiving
from tests.store.making import RETENTION, event, keep, logged, new_id, values_of
from workers.advance import drain
from workers.notify import Notifier


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def settings(url: str) -> Settings:
    return load({"NOTIFY_URL": url, "NOTIFY_SECRET": SECRET}, dotenv=None)


def failed_production(redis: Redis) -> str:
    identity = new_id()
    failed = event(identity, 1, "production.failed", data={"errorCode": "X", "errorMessage": "said"})
    keep(redis, failed)
    drain(redis, Intervals(), RETENTION, notify=True)
    return identity


def hurry(redis: Redis) -> None:
    for member in notices_waiting(redis):
        redis.zadd(f"{PREFIX}notify", {member: 0})
    redis.delete(f"{PREFIX}notify:pause")


def notices_waiting(redis: Redis) -> list[bytes]:
    found: Any = redis.zrange(f"{PREFIX}notify", 0, -1)
    return list(found)


def test_what_happened_is_told_signed_once_and_nothing_is_left(redis: Redis, receiver: Receiver) -> None:
    identity = failed_production(redis)
    with logged() as lines:
        assert Notifier(redis, settings(receiver.url)).drain() == 1
    [(_, fact)] = receiver.facts
    assert (fact["type"], fact["data"]["productionId"]) == ("production.failed", identity)
    assert fact["data"]["error"] == {"code": "X", "message": "said"}
    assert notices.waiting(redis) == (0, None)
    assert redis.keys(f"{PREFIX}notice:*") == []
    assert Notifier(redis, settings(receiver.url)).drain() == 0
    [line] = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (line["event"], line["notice_id"], line["attempts"]) == ("notice.delivered", receiver.ids[0], 1)


def test_the_stream_has_every_fact_also_without_an_address(redis: Redis, receiver: Receiver) -> None:
    identity = new_id()
    keep(redis, event(identity, 1, "production.failed"))
    drain(redis, Intervals(), RETENTION)
    entries: Any = redis.xrange(f"{PREFIX}facts")
    [(_, entry)] = entries
    assert entry[b"type"] == b"production.failed"
    assert json.loads(entry[b"body"])["data"]["productionId"] == identity
    assert notices_waiting(redis) == []


@pytest.mark.parametrize("status", [500, 404, 302, 429])
def test_a_refusal_is_told_again_later_under_the_same_id(redis: Redis, receiver: Receiver, status: int) -> None:
    answers: Iterator[Answer] = iter([(status, {"Location": receiver.url}), (200, {})])
    receiver.answer = lambda: next(answers)
    failed_production(redis)
    with logged() as lines:
        Notifier(redis, settings(receiver.url)).drain()
    assert len(receiver.facts) == 1, "a redirect is not followed"
    [line] = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (line["event"], line["attempts"]) == ("notice.retrying", 1)
    assert f"answers {status}" in line["error"]
    assert "SeCrEt" not in lines.getvalue()
    hurry(redis)
    assert Notifier(redis, settings(receiver.url)).drain() == 1
    assert receiver.ids[0] == receiver.ids[1]
    assert notices_waiting(redis) == []


def test_while_the_address_is_in_trouble_one_notice_tries_it_and_the_others_wait(
    redis: Redis, receiver: Receiver
) -> None:
    receiver.answer = lambda: (503, {})
    for _ in range(5):
        failed_production(redis)
    assert Notifier(redis, settings(receiver.url)).drain() == 1
    redis.delete(f"{PREFIX}notify:pause")
    assert Notifier(redis, settings(receiver.url)).drain() == 1
    assert len(set(receiver.ids)) == 2
    receiver.answer = lambda: (200, {})
    hurry(redis)
    assert Notifier(redis, settings(receiver.url)).drain() == 5
    assert len(set(receiver.ids)) == 5


def test_a_refusal_of_one_notice_holds_up_no_other(redis: Redis, receiver: Receiver) -> None:
    answers: Iterator[Answer] = iter([(400, {}), (200, {}), (200, {})])
    receiver.answer = lambda: next(answers)
    for _ in range(3):
        failed_production(redis)
    assert Notifier(redis, settings(receiver.url)).drain() == 3
    assert len(notices_waiting(redis)) == 1


def test_as_long_as_the_address_asks_for_it_is_left_alone(redis: Redis, receiver: Receiver) -> None:
    receiver.answer = lambda: (503, {"Retry-After": "100"})
    failed_production(redis)
    Notifier(redis, settings(receiver.url)).drain()
    _, at = notices.waiting(redis)
    now: Any = redis.time()
    assert at is not None
    assert 95 < at.timestamp() - now[0] <= 101
    assert 95_000 < int(redis.pttl(f"{PREFIX}notify:pause")) <= 101_000


def test_an_address_that_is_not_there_costs_an_attempt_and_is_told_when_it_is(redis: Redis) -> None:
    port = free_port()
    failed_production(redis)
    with logged() as lines:
        Notifier(redis, settings(f"http://127.0.0.1:{port}/x")).drain()
    assert "gives no answer: NewConnectionError" in lines.getvalue()
    hurry(redis)
    with receiving(port) as receiver:
        assert Notifier(redis, settings(receiver.url)).drain() == 1
        assert len(receiver.facts) == 1


def test_an_address_that_hangs_is_given_up_in_time(redis: Redis, receiver: Receiver) -> None:
    release = threading.Event()

    def hang() -> Answer:
        release.wait(10)
        return 0, {}

    receiver.answer = hang
    failed_production(redis)
    began = time.monotonic()
    try:
        Notifier(redis, settings(receiver.url), answer_seconds=0.5).drain()
    finally:
        release.set()
    assert time.monotonic() - began < 5
    assert len(notices_waiting(redis)) == 1


def test_gone_is_a_dead_letter_at_once_and_a_retry_tells_it_under_the_same_id(redis: Redis, receiver: Receiver) -> None:
    receiver.answer = lambda: (410, {})
    identity = failed_production(redis)
    Notifier(redis, settings(receiver.url)).drain()
    [letter] = deadletters.newest(redis, 9)
    assert (letter.kind, letter.production_id) == ("notice", identity)
    assert "answers 410" in letter.reason
    assert "SeCrEt" not in str(letter.describe())
    receiver.answer = lambda: (200, {})
    assert operator.retry(redis, letter)
    assert Notifier(redis, settings(receiver.url)).drain() == 1
    assert receiver.ids[0] == receiver.ids[1]
    assert deadletters.count(redis) == 0


def test_a_discarded_notice_is_gone(redis: Redis, receiver: Receiver) -> None:
    receiver.answer = lambda: (410, {})
    failed_production(redis)
    Notifier(redis, settings(receiver.url)).drain()
    [letter] = deadletters.newest(redis, 9)
    assert operator.discard(redis, letter.id)
    assert redis.keys(f"{PREFIX}notice:*") == []
    assert not operator.retry(redis, letter), "there is nothing to send any more"


def test_after_three_days_it_is_a_dead_letter(redis: Redis, receiver: Receiver) -> None:
    receiver.answer = lambda: (500, {})
    failed_production(redis)
    [waiting] = notices_waiting(redis)
    redis.hset(f"{PREFIX}notice:{waiting.decode()}", "attempts", 23)
    Notifier(redis, settings(receiver.url)).drain()
    [letter] = deadletters.newest(redis, 9)
    assert letter.details["attempts"] == 24
    assert notices_waiting(redis) == []


def test_a_replay_tells_the_same_fact_under_the_same_id(redis: Redis, receiver: Receiver) -> None:
    identity = failed_production(redis)
    Notifier(redis, settings(receiver.url)).drain()
    operator.replay(redis, identity)
    drain(redis, Intervals(), RETENTION, notify=True)
    Notifier(redis, settings(receiver.url)).drain()
    assert len(set(receiver.ids)) == 1


def test_a_claim_that_has_run_out_changes_nothing(redis: Redis, receiver: Receiver) -> None:
    failed_production(redis)
    stale = notices.claim(redis, "one")
    assert stale is not None
    hurry(redis)
    fresh = notices.claim(redis, "two")
    assert fresh is not None
    assert not notices.delivered(redis, stale)
    assert not notices.give_up(redis, stale, "x", 1)
    notices.postpone(redis, stale, 9, timedelta(hours=1), timedelta(hours=1))
    assert not redis.exists(f"{PREFIX}notify:pause")
    assert notices.delivered(redis, fresh)


_KILLED = """
import sys
from redis import Redis
from service.settings import load
from workers.notify import Notifier
Notifier(Redis.from_url(sys.argv[1]), load({"NOTIFY_URL": sys.argv[2], "NOTIFY_SECRET": sys.argv[3]}, None)).drain()
"""


def test_who_is_killed_after_telling_and_before_noting_it_tells_it_again_under_the_same_id(
    redis: Redis, redis_url: str, receiver: Receiver
) -> None:
    release = threading.Event()

    def wait() -> Answer:
        release.wait(10)
        return 204, {}

    receiver.answer = wait
    failed_production(redis)
    victim = subprocess.Popen([sys.executable, "-c", _KILLED, redis_url, receiver.url, SECRET])
    eventually(lambda: receiver.facts, what="the first telling")
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    release.set()
    assert Notifier(redis, settings(receiver.url)).drain() == 0, "its claim holds"
    hurry(redis)
    assert Notifier(redis, settings(receiver.url)).drain() == 1
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


def test_the_secret_and_the_address_are_nowhere_in_redis(redis: Redis, receiver: Receiver) -> None:
    receiver.answer = lambda: (500, {})
    failed_production(redis)
    Notifier(redis, settings(receiver.url)).drain()
    everything = str(values_of(redis))
    assert SECRET not in everything
    assert "SeCrEt" not in everything


def test_an_inbox_that_brings_no_news_tells_nothing(redis: Redis, receiver: Receiver) -> None:
    identity = failed_production(redis)
    keep(redis, event(identity, 2))
    drain(redis, Intervals(), RETENTION, notify=True)
    assert len(notices_waiting(redis)) == 1
