"""Taking in: what raises is bounded, noted with its cause, and holds nobody else up."""

from __future__ import annotations

import pytest
from redis import Redis

from service import operator
from service.core.retry import MOST_ADVANCE_ATTEMPTS
from service.core.schedule import Intervals
from service.store import deadletters, productions
from service.store.scripts import PREFIX
from tests.store.making import RETENTION, event, keep, listing, logged, new_id, take_in, values_of
from workers import advance

UNREADABLE = b'{"kind": "written by nothing of ours"}'


def poison(redis: Redis, identity: str) -> None:
    redis.rpush(f"{PREFIX}inbox:{identity}", UNREADABLE)
    redis.zadd(f"{PREFIX}dirty", {identity: 0})


def until_parked(redis: Redis, identity: str) -> int:
    """How many turns it takes, each pause cut short."""
    turns = 0
    while redis.zscore(f"{PREFIX}dirty", identity) is not None:
        redis.zadd(f"{PREFIX}dirty", {identity: 0}, xx=True)
        take_in(redis)
        turns += 1
        assert turns < 20, "it goes on for ever"
    return turns


def test_what_raises_is_tried_a_few_times_with_a_growing_pause(redis: Redis) -> None:
    identity = new_id()
    poison(redis, identity)
    pauses = []
    for attempt in range(1, 4):
        redis.zadd(f"{PREFIX}dirty", {identity: 0}, xx=True)
        take_in(redis)
        due_ms = redis.zscore(f"{PREFIX}dirty", identity)
        assert due_ms is not None
        pauses.append(due_ms / 1000 - productions.now(redis).timestamp())
        assert redis.hget(f"{PREFIX}attempts", identity) == b"%d" % attempt
    assert 0 < pauses[0] < pauses[1] < pauses[2]


def test_what_goes_on_raising_is_parked_under_dead_letters_with_its_cause(redis: Redis) -> None:
    identity = new_id()
    poison(redis, identity)
    with logged() as stream:
        assert until_parked(redis, identity) == MOST_ADVANCE_ATTEMPTS
    [letter] = deadletters.newest(redis, 9)
    assert (letter.kind, letter.production_id) == ("production", identity)
    assert letter.reason.startswith("ValidationError: ")
    printed = stream.getvalue()
    assert printed.count('"event":"production.advance_failed"') == MOST_ADVANCE_ATTEMPTS
    assert printed.count('"event":"deadletter.added"') == 1


def test_other_productions_flow_on_beside_one_that_raises(redis: Redis) -> None:
    spoilt = new_id()
    others = [new_id() for _ in range(40)]
    keep(redis, *(event(one, 1) for one in others[:20]))
    poison(redis, spoilt)
    keep(redis, *(event(one, 1) for one in others[20:]))
    take_in(redis)
    assert all(productions.read(redis, one) for one in others)
    assert productions.read(redis, spoilt) is None


def test_a_retry_finishes_it_once_the_cause_is_gone_and_nothing_was_lost(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    poison(redis, identity)
    keep(redis, event(identity, 2))
    until_parked(redis, identity)
    keep(redis, event(identity, 3))
    until_parked(redis, identity)
    redis.lrem(f"{PREFIX}inbox:{identity}", 1, UNREADABLE.decode())
    [letter] = deadletters.newest(redis, 9)
    assert operator.retry(redis, letter)
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.sequence == 3
    kinds = [entry["kind"] for entry in productions.timeline(redis, identity)]
    assert kinds.count("event") == 3
    assert deadletters.count(redis) == 0


def test_a_retry_while_the_cause_is_there_ends_under_dead_letters_again(redis: Redis) -> None:
    identity = new_id()
    poison(redis, identity)
    until_parked(redis, identity)
    operator.retry(redis, deadletters.newest(redis, 1)[0])
    assert deadletters.count(redis) == 0
    assert until_parked(redis, identity) == MOST_ADVANCE_ATTEMPTS
    assert deadletters.count(redis) == 1


def test_an_event_for_a_parked_production_does_not_hide_the_cause(redis: Redis) -> None:
    identity = new_id()
    poison(redis, identity)
    until_parked(redis, identity)
    [before] = deadletters.newest(redis, 9)
    keep(redis, event(identity, 1))
    until_parked(redis, identity)
    [after] = deadletters.newest(redis, 9)
    assert after.reason == before.reason


def test_an_unreadable_state_is_bounded_like_any_other_cause(redis: Redis) -> None:
    identity, other = new_id(), new_id()
    take_in(redis, event(identity, 1))
    redis.set(f"{PREFIX}production:{identity}", b"1\n{unreadable")
    keep(redis, event(identity, 2), event(other, 1))
    take_in(redis)
    assert productions.read(redis, other) is not None
    until_parked(redis, identity)
    assert deadletters.newest(redis, 1)[0].production_id == identity


def test_what_redis_refuses_at_the_commit_is_bounded_too(redis: Redis) -> None:
    identity, other = new_id(), new_id()
    redis.set(f"{PREFIX}timeline:{identity}", "of another type")
    keep(redis, event(identity, 1), event(other, 1))
    take_in(redis)
    assert productions.read(redis, other) is not None
    until_parked(redis, identity)
    assert "WRONGTYPE" in deadletters.newest(redis, 1)[0].reason


HOSTILE = {
    "a timestamp at the end of time": event(
        new_id(), 1, "deliverable.ready", timestamp="9999-12-31T23:59:59Z", data=listing("https://a.b/c?sig=1")
    ),
    "a timestamp at the beginning of time": event(
        new_id(), 1, "deliverable.ready", timestamp="0001-01-01T00:00:00Z", data=listing("https://a.b/c?sig=1")
    ),
    "an address that is none": event(
        new_id(), 1, "deliverable.ready", data={"x": [{"sasUrl": "https://[::1/film?sig=1"}]}
    ),
    "an expiry that is none": event(
        new_id(), 1, "deliverable.ready", data={"x": [{"sasUrl": "https://a.b/c", "expiresAt": "9999-99-99"}]}
    ),
    "a huge size": event(new_id(), 1, "deliverable.ready", data={"x": [{"sasUrl": "https://a.b/c", "size": 10**400}]}),
    "names of odd characters": event(
        new_id(), 1, "x\u0000\u001b[2J", correlationId="\u0000\u2028", data={"status": "\u0000", "\u0000": "\U0001f600"}
    ),
    "thousands of deliverables": event(
        new_id(), 1, "deliverable.ready", data={"x": [{"sasUrl": f"https://a.b/{n}?sig=1"} for n in range(3000)]}
    ),
    "an infinite number": event(new_id(), 1, "x", data={"x": "!"}).replace(b'"!"', b"1e999"),
    "an address in an odd spelling": event(
        new_id(), 1, "deliverable.ready", data={"sasUrl": "https://a.b/c?sig=SeCrEt"}
    ).replace(b"sasUrl", b"sas\\u0055rl").replace(b"sig=", b"si\\u0067="),
}  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_event_that_the_door_accepts_makes_taking_in_raise(redis: Redis, body: bytes) -> None:
    [kept] = keep(redis, body)
    assert getattr(kept, "verdict", None) == "accepted"
    take_in(redis)
    assert redis.hgetall(f"{PREFIX}attempts") == {}
    assert redis.zcard(f"{PREFIX}dirty") == 0
    assert [key for key, value in values_of(redis).items() if "SeCrEt" in value and ":link:" not in key] == []


def test_draining_says_how_many_productions_it_took_in(redis: Redis) -> None:
    keep(redis, *(event(new_id(), 1) for _ in range(70)))
    assert advance.drain(redis, Intervals(), RETENTION) == 70
    assert advance.drain(redis, Intervals(), RETENTION) == 0
