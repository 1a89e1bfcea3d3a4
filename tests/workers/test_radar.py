"""The watch over the webhooks: what is lost is counted, silence is noticed, and how late a loss shows is told."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis

from service.core.budget import Budget, day
from service.core.experience import Experience
from service.core.observations import ManifestWritten, OperatorAsked
from service.core.production import to_json
from service.core.signature import fingerprint
from service.settings import load
from service.store import heard, inbox, productions, radar, requests
from service.store.scripts import PREFIX
from tests.store.making import event, logged, new_id, take_in
from workers.radar import Radar

STEP, READY, DONE, FAILED = (
    "production.step.complete",
    "deliverable.ready",
    "production.published",
    "production.failed",
)
SETTINGS = load({"JARAI_API_KEY": "jarai_live_somebodys"}, dotenv=None)
KEY = fingerprint(b"a key")


def looked(redis: Redis, turns: int = 1) -> list[dict[str, Any]]:
    """What the radar says of this Redis. What settled did so long ago."""
    settled: Any = redis.zrange(f"{PREFIX}unaccounted", 0, -1)
    for raw in settled:
        redis.zadd(f"{PREFIX}unaccounted", {raw: 0})
    with logged() as stream:
        for _ in range(turns):
            Radar(redis, SETTINGS).look()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def said(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == name]


def failed(redis: Redis, *numbers: int, last: int = 6) -> str:
    """A production that failed, of which the events with these numbers came."""
    identity = new_id()
    take_in(redis, *(event(identity, number, FAILED if number == last else STEP) for number in numbers))
    known = productions.read(redis, identity)
    assert known is not None
    inbox.observe(redis, identity, ManifestWritten(productions.now(redis), known.manifest_revision))
    take_in(redis)
    return identity


def being_made(redis: Redis, minutes_ago: float) -> str:
    """A production that has been Producing for so long."""
    identity = new_id()
    take_in(redis, event(identity, 1, STEP))
    known = productions.read(redis, identity)
    assert known is not None
    past = known.created_at - timedelta(minutes=minutes_ago)
    state = to_json(replace(known, created_at=past, last_event_at=past))
    redis.set(f"{PREFIX}production:{identity}", b"%d\n%s" % (known.version, state))
    return identity


def hear(redis: Redis, **minutes_ago: float) -> None:
    for name, minutes in minutes_ago.items():
        at = productions.now(redis) - timedelta(minutes=minutes)
        redis.hset(f"{PREFIX}heard", name, int(at.timestamp() * 1000))


def test_webhooks_that_never_came_are_counted_once_their_production_has_settled(redis: Redis) -> None:
    failed(redis, 1, 2, 3, 4, 5, 6)
    failed(redis, 1, 4, 6)
    looked(redis)
    take_in(redis, event(new_id(), 1, STEP))  # not settled
    looked(redis, turns=3)
    today = day(requests.now(redis))
    assert radar.read_day(redis) == radar.read_day(redis, today)
    assert radar.read_day(redis) == {"received": 9, "missed": 3, "unsubscribed": 0, "ends_missed": 0}


def test_what_comes_while_it_is_not_counted_yet_was_only_late(redis: Redis) -> None:
    identity = failed(redis, 1, 2, 4, 5, 6)
    Radar(redis, SETTINGS).look()
    take_in(redis, event(identity, 3, STEP))
    looked(redis)
    assert radar.read_day(redis)["missed"] == 0


def test_a_subscription_that_lacks_an_event_type_is_learnt_said_once_and_no_longer_asked_for(redis: Redis) -> None:
    for _ in range(10):
        failed(redis, 6)
    assert [line["event_type"] for line in said(looked(redis), "radar.hole_learnt")] == [FAILED]
    failed(redis, 6)
    assert said(looked(redis), "radar.hole_learnt") == []
    assert radar.read_day(redis) == {"received": 11, "missed": 50, "unsubscribed": 5, "ends_missed": 0}
    assert radar.read_experience(redis).always_missing_before(FAILED)


def test_the_day_is_told_once_by_whoever_is_first_after_midnight(redis: Redis) -> None:
    now = requests.now(redis)
    yesterday = day(now - 86400)
    radar.count(redis, yesterday, received=95, missed=5, unsubscribed=2, ends_missed=1)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(Budget(today=yesterday, spent_today=41)))
    [line] = said(looked(redis, turns=3), "radar.day")
    told = {name: line[name] for name in ("day", "received", "missed", "missed_percent", "unsubscribed", "requests")}
    assert told == {
        "day": yesterday, "received": 95, "missed": 5, "missed_percent": 5.0, "unsubscribed": 2, "requests": 41
    }  # fmt: skip


def test_old_days_are_forgotten_and_their_sum_is_not(redis: Redis) -> None:
    for number in range(60):
        radar.count(redis, f"2026-{1 + number // 28:02}-{1 + number % 28:02}", received=1)
    looked(redis)
    assert radar.read_day(redis)["received"] == 60
    assert radar.read_day(redis, "2026-01-01")["received"] == 0
    assert radar.read_day(redis, "2026-03-04")["received"] == 1


@pytest.mark.parametrize(
    ("minutes_ago", "likely"),
    [
        ({}, "none ever came"),
        ({KEY: 20}, "the subscription is gone"),
        ({KEY: 20, heard.REFUSED: 30}, "the subscription is gone"),
        ({KEY: 20, heard.REFUSED: 3}, "signed with another secret"),
        ({heard.REFUSED: 3}, "signed with another secret"),
    ],
)
def test_silence_while_productions_are_being_made_is_an_error_with_its_likely_cause(
    redis: Redis, minutes_ago: dict[str, float], likely: str
) -> None:
    being_made(redis, minutes_ago=16)
    hear(redis, **minutes_ago)
    speaking(redis, minutes=16)
    [line] = said(looked(redis, turns=3), "webhooks.silent")
    assert line["level"] == "error"
    assert line["productions"] == 1
    assert line["seconds"] >= 900
    assert likely in line["likely"]
    hear(redis, **{KEY: 0})
    assert len(said(looked(redis, turns=2), "webhooks.heard_again")) == 1


def speaking(redis: Redis, minutes: float) -> None:
    """Something has been made for so long without a pause."""
    begun = productions.now(redis) - timedelta(minutes=minutes)
    redis.set(f"{PREFIX}told:speaking", int(begun.timestamp() * 1000))


def test_one_short_production_after_another_without_a_webhook_is_silence_too(redis: Redis) -> None:
    """None is being made for as long as the alarm waits, but something always is."""
    hear(redis, **{KEY: 300})
    being_made(redis, minutes_ago=5)
    speaking(redis, minutes=16)
    [line] = said(looked(redis), "webhooks.silent")
    assert 950 < line["seconds"] < 970


def test_what_polls_find_instead_tells_of_silence_when_productions_are_few(redis: Redis) -> None:
    hear(redis, **{KEY: 300})
    looked(redis)
    redis.hincrby(f"{PREFIX}counts", "poll.recovered", 3)
    assert said(looked(redis), "webhooks.silent") == [], "not long enough"
    told: Any = redis.get(f"{PREFIX}told:recovered")
    mark, total, _ = told.split()
    begun = int((productions.now(redis) - timedelta(minutes=16)).timestamp() * 1000)
    redis.set(f"{PREFIX}told:recovered", b"%s %s %d" % (mark, total, begun))
    [line] = said(looked(redis), "webhooks.silent")
    assert (line["productions"], line["recovered"]) == (0, 3)


def test_only_a_webhook_ends_the_alarm(redis: Redis) -> None:
    """Not that the silent production has ended, and another begun."""
    hear(redis, **{KEY: 30})
    silent = being_made(redis, minutes_ago=16)
    speaking(redis, minutes=16)
    assert len(said(looked(redis), "webhooks.silent")) == 1
    take_in(redis, event(silent, 2, FAILED))
    assert said(looked(redis), "webhooks.heard_again") == []
    being_made(redis, minutes_ago=0)
    assert said(looked(redis), "webhooks.heard_again") == []
    hear(redis, **{KEY: 0})
    assert len(said(looked(redis), "webhooks.heard_again")) == 1


def test_an_event_that_can_not_be_read_again_loses_no_other_productions_count(redis: Redis) -> None:
    spoilt = failed(redis, 1, 6)
    redis.hset(f"{PREFIX}events:{spoilt}", "1", b"unreadable")
    failed(redis, 1, 2, 3, 4, 5, 6)
    assert len(said(looked(redis), "production.unreadable")) == 1
    assert radar.read_day(redis)["received"] == 6


def test_a_clock_that_was_set_back_leaves_nothing_heard_in_the_future(redis: Redis) -> None:
    hear(redis, **{KEY: -1440, "other": 3})
    known = heard.read(redis)
    assert list(known.by_key) == ["other"]


def test_nobody_is_alarmed_while_webhooks_come_or_nothing_is_being_made(redis: Redis) -> None:
    assert said(looked(redis), "webhooks.silent") == [], "nothing is being made"
    being_made(redis, minutes_ago=14)
    assert said(looked(redis), "webhooks.silent") == [], "it has not been silent for long"
    speaking(redis, minutes=60)
    hear(redis, **{KEY: 14})
    assert said(looked(redis), "webhooks.silent") == [], "another production's webhook came"


def test_a_pipeline_with_long_steps_is_not_called_silent(redis: Redis) -> None:
    being_made(redis, minutes_ago=20)
    speaking(redis, minutes=20)
    radar.keep_experience(redis, Experience().after([("Producing", 600.0)] * 20, ()))
    assert said(looked(redis), "webhooks.silent") == []


def test_it_is_said_how_late_a_lost_webhook_is_noticed_and_again_when_that_has_doubled(redis: Redis) -> None:
    [line] = said(looked(redis, turns=3), "budget.outlook")
    assert (line["noticed_within_seconds"], "requests_left_today" in line) == (90, False)
    spent = Budget(limit=10, today=day(requests.now(redis)), spent_today=94)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(spent))
    [line] = said(looked(redis, turns=3), "budget.outlook")
    assert line["requests_left_today"] == 1
    assert line["noticed_within_seconds"] > 90
    assert line["at_this_rate_seconds"] > 90
    paused = Budget(limit=60, paused_until=requests.now(redis) + 50_000)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(paused))
    redis.delete(f"{PREFIX}told:outlook")
    [line] = said(looked(redis), "budget.outlook")
    assert line["noticed_within_seconds"] > 49_000, "nothing is asked before JARAI allows it"


def test_a_production_that_nobody_can_read_stops_nothing(redis: Redis) -> None:
    spoilt = failed(redis, 1, 6)
    redis.set(f"{PREFIX}production:{spoilt}", b"9\n{unreadable")
    redis.zadd(f"{PREFIX}ask", {spoilt: 0})
    gone = failed(redis, 1, 6)
    redis.delete(f"{PREFIX}production:{gone}")
    failed(redis, 1, 2, 3, 4, 5, 6)
    redis.set(f"{PREFIX}experience", b"unreadable")
    inbox.observe(redis, new_id(), OperatorAsked(productions.now(redis), "track"))
    looked(redis)
    assert radar.read_day(redis)["received"] == 6
