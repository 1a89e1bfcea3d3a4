"""What the door keeps, what it recognises, and what it puts aside."""

from __future__ import annotations

import hashlib
import json

import pytest
from redis import Redis

from service.core.observations import OperatorAsked
from service.store import deadletters, inbox, productions
from service.store.inbox import Kept
from service.store.scripts import PREFIX
from tests.store.making import event, keep, listing, new_id, other_delivery, take_in, values_of, verdicts

ADDRESS = "https://store.blob.core.windows.net/a/film.mp4?sv=1&sig=SeCrEt%2F1"


def test_an_event_is_in_its_inbox_once_it_is_accepted(redis: Redis) -> None:
    identity = new_id()
    body = event(identity, 7)
    assert keep(redis, body) == [Kept("accepted", wakes=True)]
    [claim] = productions.claim(redis, 10)
    assert (claim.production_id, claim.bodies) == (identity, (body,))


def test_only_the_first_event_of_a_waiting_production_wakes_a_worker(redis: Redis) -> None:
    identity = new_id()
    kept = keep(redis, event(identity, 1), event(identity, 2), event(identity, 3))
    assert [one.wakes for one in kept if isinstance(one, Kept)] == [True, False, False]


def test_a_worker_that_listens_takes_as_much_as_one_bell_is_for_and_the_rest_wakes_others(redis: Redis) -> None:
    redis.set(f"{PREFIX}listening", 1)
    kept = keep(redis, *(event(new_id(), 1) for _ in range(20)))
    assert [one.wakes for one in kept if isinstance(one, Kept)] == [False] * 16 + [True] * 4
    assert redis.llen(f"{PREFIX}rung") == 1


def test_enough_bells_are_enough(redis: Redis) -> None:
    redis.rpush("rq:queue:advance", *range(8))
    assert keep(redis, event(new_id(), 1)) == [Kept("accepted")]


def test_the_same_event_again_is_a_duplicate_and_leaves_one_entry(redis: Redis) -> None:
    identity = new_id()
    body = event(identity, 1)
    assert verdicts(redis, body, body) == ["accepted", "duplicate"]
    assert verdicts(redis, body) == ["duplicate"]
    assert redis.llen(f"{PREFIX}inbox:{identity}") == 1


def test_one_event_of_two_subscriptions_is_one_event(redis: Redis) -> None:
    body = event(new_id(), 1)
    assert verdicts(redis, body, other_delivery(body)) == ["accepted", "duplicate"]
    assert deadletters.count(redis) == 0


def test_it_is_still_recognised_after_its_addresses_were_redacted_from_the_archive(redis: Redis) -> None:
    identity = new_id()
    body = event(identity, 1, "deliverable.ready", data=listing(ADDRESS))
    take_in(redis, body)
    archived = redis.hget(f"{PREFIX}events:{identity}", "1")
    assert archived is not None
    assert b"sig=" not in archived
    assert verdicts(redis, body, other_delivery(body)) == ["duplicate", "duplicate"]
    assert deadletters.count(redis) == 0


def test_a_delivery_that_differs_only_in_its_form_is_the_same_event(redis: Redis) -> None:
    body = event(new_id(), 1, data={"name": "Tromsø", "step": 2})
    spaced = json.dumps(dict(reversed(json.loads(body).items())), indent=3, ensure_ascii=False).encode()
    assert verdicts(redis, body, spaced) == ["accepted", "duplicate"]


def test_another_event_under_a_number_that_is_taken_is_quarantined_whole(redis: Redis) -> None:
    identity = new_id()
    first, second = event(identity, 1, data={"step": 1}), event(identity, 1, data={"step": 2})
    assert verdicts(redis, first, second) == ["accepted", "quarantined"]
    [letter] = deadletters.newest(redis, 10)
    assert (letter.kind, letter.production_id, letter.body) == ("event", identity, second)
    assert "sequence number" in letter.reason
    assert verdicts(redis, first) == ["duplicate"]


def test_quarantine_keeps_every_byte_and_is_idempotent(redis: Redis) -> None:
    body = bytes(range(256)) + b'{"eventId": \xff\xfe\x00\r\n'
    assert verdicts(redis, body, body) == ["quarantined", "quarantined"]
    assert verdicts(redis, body) == ["quarantined"]
    [letter] = deadletters.newest(redis, 10)
    assert letter.body == body
    assert not list(redis.scan_iter(f"{PREFIX}inbox:*"))


def test_in_a_batch_each_gets_its_own_verdict_in_order(redis: Redis) -> None:
    one, other = new_id(), new_id()
    first = event(one, 1)
    bodies = [first, b"{}", first, event(other, 1), event(one, 1, data={"x": 1}), event(one, 2), b"{}"]
    assert verdicts(redis, *bodies) == [
        "accepted", "quarantined", "duplicate", "accepted", "quarantined", "accepted", "quarantined",
    ]  # fmt: skip


def test_what_redis_refuses_is_an_exception_in_its_place_and_the_rest_is_kept(redis: Redis) -> None:
    spoilt, sound = new_id(), new_id()
    redis.set(f"{PREFIX}events:{spoilt}", "of another type")
    answers = keep(redis, event(sound, 1), event(spoilt, 1), event(sound, 2))
    assert [type(answer) for answer in answers][0::2] == [Kept, Kept]
    assert isinstance(answers[1], Exception)
    assert redis.llen(f"{PREFIX}inbox:{sound}") == 2


def test_what_can_not_be_put_aside_takes_no_event_with_it(redis: Redis) -> None:
    redis.set(f"{PREFIX}deadletters", "of another type")
    assert verdicts(redis, b"no event", event(new_id(), 1)) == ["ResponseError", "accepted"]


def test_events_that_are_refused_leave_what_is_put_aside_alone(redis: Redis) -> None:
    redis.set("rq:queue:advance", "of another type")
    assert verdicts(redis, b"no event", event(new_id(), 1)) == ["quarantined", "ResponseError"]


def test_it_works_again_after_redis_forgot_its_scripts(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1))
    redis.script_flush()
    assert verdicts(redis, event(identity, 2), b"nothing") == ["accepted", "quarantined"]
    redis.script_flush()
    assert inbox.observe(redis, new_id(), OperatorAsked(productions.now(redis), "track"))


@pytest.mark.parametrize("number", [0, 2**53 - 1])
def test_the_smallest_and_the_largest_number_come_back_exactly(redis: Redis, number: int) -> None:
    identity = new_id()
    take_in(redis, event(identity, number))
    known = productions.read(redis, identity)
    assert known is not None
    assert known.sequence == number
    assert [entry["sequenceNumber"] for entry in productions.timeline(redis, identity) if entry["kind"] == "event"] == [
        number
    ]


def test_a_full_redis_keeps_nothing_of_what_it_refuses(redis: Redis) -> None:
    redis.config_set("maxmemory", 1)
    refused = keep(redis, event(new_id(), 1), b"not json")
    redis.config_set("maxmemory", 0)
    assert all(isinstance(one, Exception) for one in refused)
    assert values_of(redis) == {}


def test_a_dead_letter_shows_its_body_without_the_secret_part_of_an_address(redis: Redis) -> None:
    body = json.dumps({"sasUrl": ADDRESS}).encode()
    keep(redis, body)
    [letter] = deadletters.newest(redis, 10)
    assert letter.body is not None
    assert hashlib.sha256(letter.body).digest() == hashlib.sha256(body).digest()
    assert "SeCrEt" not in json.dumps(letter.describe())
