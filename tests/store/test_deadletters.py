"""Dead letters stay whole until a person decides."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from service import operator
from service.core.observations import DownloadFailed
from service.store import deadletters, inbox, productions
from service.store.scripts import PREFIX
from tests.store.making import event, keep, listing, new_id, take_in, verdicts

ADDRESS = "https://elsewhere.example/film.mp4?sig=SeCrEt"


def forbidden_file(redis: Redis) -> str:
    """A production whose one file was given up."""
    identity = new_id()
    take_in(redis, event(identity, 1, "deliverable.ready", data=listing(ADDRESS)))
    known = productions.read(redis, identity)
    assert known is not None
    failed = DownloadFailed(productions.now(redis), known.deliverables[0].key, "forbidden", "leads elsewhere")
    inbox.observe(redis, identity, failed)
    take_in(redis)
    return identity


def test_the_newest_come_first_and_the_count_is_of_all(redis: Redis) -> None:
    for place in range(3):
        keep(redis, b"%d" % place)
        [newest] = deadletters.newest(redis, 1)
        redis.zadd(f"{PREFIX}deadletters", {newest.id: place})
    assert [letter.body for letter in deadletters.newest(redis, 2)] == [b"2", b"1"]
    assert deadletters.count(redis) == 3


def test_it_tells_when_it_was_added_and_keeps_that_when_it_comes_again(redis: Redis) -> None:
    keep(redis, b"x")
    [first] = deadletters.newest(redis, 1)
    assert abs(datetime.now(UTC) - first.added_at) < timedelta(seconds=5)
    redis.hset(f"{PREFIX}deadletter:{first.id}", "at", 1000)
    keep(redis, b"x")
    assert deadletters.newest(redis, 9)[0].added_at == datetime.fromtimestamp(1, UTC)


def test_each_is_counted_once_however_often_it_arrives(redis: Redis) -> None:
    keep(redis, b"x", b"x", b"y")
    keep(redis, b"x")
    assert redis.hget(f"{PREFIX}counts", "deadletter.added") == b"2"


def test_discarding_removes_it_once_and_for_good(redis: Redis) -> None:
    keep(redis, b"x")
    [letter] = deadletters.newest(redis, 1)
    assert operator.discard(redis, letter.id)
    assert not operator.discard(redis, letter.id)
    assert deadletters.find(redis, letter.id) is None
    assert deadletters.newest(redis, 9) == []


def test_an_event_that_is_still_not_usable_stays_after_a_retry(redis: Redis) -> None:
    keep(redis, b"x")
    [letter] = deadletters.newest(redis, 1)
    assert not operator.retry(redis, letter)
    assert deadletters.newest(redis, 9) == [letter]


def test_an_event_whose_number_is_taken_stays_after_a_retry(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1), event(identity, 1, data={"other": 1}))
    [letter] = deadletters.newest(redis, 9)
    assert not operator.retry(redis, letter)
    assert deadletters.newest(redis, 9) == [letter]


def test_an_event_that_redis_refuses_stays_after_a_retry(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1), event(identity, 1, data={"other": 1}))
    [letter] = deadletters.newest(redis, 9)
    redis.set(f"{PREFIX}events:{identity}", "of another type")
    with pytest.raises(ResponseError):
        operator.retry(redis, letter)
    assert deadletters.newest(redis, 9) == [letter]


def test_a_quarantined_event_that_is_usable_by_now_goes_to_its_production(redis: Redis) -> None:
    identity = new_id()
    first, second = event(identity, 1), event(identity, 1, data={"step": 9})
    assert verdicts(redis, first, second) == ["accepted", "quarantined"]
    redis.delete(f"{PREFIX}events:{identity}", f"{PREFIX}inbox:{identity}", f"{PREFIX}dirty")
    [letter] = deadletters.newest(redis, 1)
    assert operator.retry(redis, letter)
    assert redis.hget(f"{PREFIX}events:{identity}", "1") == second
    assert deadletters.count(redis) == 0


def test_a_file_that_was_given_up_is_wanted_again_after_a_retry(redis: Redis) -> None:
    identity = forbidden_file(redis)
    [letter] = deadletters.newest(redis, 1)
    assert (letter.kind, letter.production_id) == ("deliverable", identity)
    assert operator.retry(redis, letter)
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.deliverables[0].state == "wanted"
    assert known.due_to_ask_at is not None


def test_retrying_a_file_of_a_production_that_was_forgotten_makes_no_new_production(redis: Redis) -> None:
    identity = forbidden_file(redis)
    redis.delete(f"{PREFIX}production:{identity}", f"{PREFIX}events:{identity}", f"{PREFIX}timeline:{identity}")
    redis.zrem(f"{PREFIX}index", identity)
    [letter] = deadletters.newest(redis, 1)
    operator.retry(redis, letter)
    take_in(redis)
    assert productions.read(redis, identity) is None


def test_no_reason_and_no_detail_holds_a_secret() -> None:
    flat = deadletters.fields("deliverable", f"at {ADDRESS}", url=ADDRESS, note='"quoted" \\ \u2028')
    shown = dict(zip(flat[::2], flat[1::2], strict=True))
    assert "SeCrEt" not in str(shown)
    assert json.loads(str(shown["details"]))["note"] == '"quoted" \\ \u2028'
