"""What expired is triggered again by the poller: once, linked to the first, and never while the outcome is in doubt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis

from service import operator
from service.core.observations import OperatorAsked
from service.core.production import Production
from service.jarai import Jarai
from service.settings import load
from service.store import deadletters, inbox, productions, requests
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import new_id, take_in
from workers.asker import Asker
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

EXPIRES = {"outcome": "Expired", "phaseSeconds": 0}


def asker(redis: Redis, simulator: Running) -> Asker:
    return Asker(redis, Jarai(simulator.api_url, simulator.settings.api_key), load({}, dotenv=None))


def expired(redis: Redis, simulator: Running, retries: int = 1) -> str:
    """A production that was triggered from here, has expired, and is to be triggered again."""
    identity = simulator.produce(EXPIRES)
    eventually(lambda: simulator.truth()["productions"][0]["status"] == "Failed")
    account = simulator.truth()["productions"][0]["accountId"]
    body = json.dumps({"topic": "Bees", "languageId": new_id(), "countryId": new_id(), "avatarId": new_id()})
    wish = OperatorAsked(productions.now(redis), "track", account, body=body, retries_left=retries)
    inbox.observe(redis, identity, wish)
    operator.refresh(redis, identity)
    take_in(redis)
    assert asker(redis, simulator).ask_once()
    take_in(redis)
    assert known(redis, identity).retry_at is not None
    return identity


def known(redis: Redis, identity: str) -> Production:
    found = productions.read(redis, identity)
    assert found is not None
    return found


def ask(redis: Redis, simulator: Running) -> None:
    """Everything that is due, pauses cut short."""
    redis.delete(f"{PREFIX}budget")
    while asker(redis, simulator).ask_once():
        pass
    take_in(redis)


def started(simulator: Running) -> list[str]:
    return [one["productionId"] for one in simulator.truth()["productions"]]


def test_it_is_triggered_again_once_and_both_know_each_other(redis: Redis, simulator: Running) -> None:
    first = expired(redis, simulator)
    ask(redis, simulator)
    ask(redis, simulator)
    [_, second] = started(simulator)
    assert known(redis, first).retried_as == second
    follower = known(redis, second)
    assert (follower.retry_of, follower.retries_left) == (first, 0)
    assert simulator.truth()["productions"][1]["topic"] == "Bees"
    assert redis.keys(f"{PREFIX}trigger:*") == []
    assert known(redis, first).due_to_ask_at is None


@pytest.mark.parametrize("fault", ["api_drop", "api_garbage", "api_500"])
def test_an_answer_that_got_lost_is_a_dead_letter_and_never_two_productions(
    redis: Redis, simulator: Running, fault: str
) -> None:
    first = expired(redis, simulator)
    simulator.set_faults(**{fault: {"next": 1}})
    for _ in range(3):
        ask(redis, simulator)
    found = started(simulator)
    assert len(found) <= 2
    if fault == "api_garbage":  # its Location tells which one it is
        assert known(redis, first).retried_as == found[1]
        return
    [letter] = deadletters.newest(redis, 9)
    assert "may or may not have started another" in letter.reason
    assert known(redis, first).retried_as is None
    assert operator.retry(redis, letter)
    take_in(redis)
    ask(redis, simulator)
    assert known(redis, first).retried_as == started(simulator)[-1]
    assert deadletters.count(redis) == 0


def test_a_poller_that_died_between_question_and_answer_leaves_a_doubt_and_no_second_production(
    redis: Redis, simulator: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = expired(redis, simulator)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    one = asker(redis, simulator)
    with monkeypatch.context() as context:
        context.setattr("service.store.triggers.started", die)
        with pytest.raises(Killed):
            one.ask_once()
    redis.delete(f"{PREFIX}asking:{first}")
    redis.zadd(f"{PREFIX}ask", {first: 0})
    ask(redis, simulator)
    ask(redis, simulator)
    assert len(started(simulator)) == 2
    [letter] = deadletters.newest(redis, 9)
    assert "may or may not have started another" in letter.reason


def test_a_person_who_has_it_tried_once_more_does_not_get_two_when_the_poller_dies(
    redis: Redis, simulator: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = expired(redis, simulator)
    simulator.set_faults(api_budget_gate={"next": 1, "match": "/accounts/"})
    ask(redis, simulator)
    [letter] = deadletters.newest(redis, 9)
    assert operator.retry(redis, letter)
    take_in(redis)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    redis.delete(f"{PREFIX}budget")
    with monkeypatch.context() as context:
        context.setattr("service.store.triggers.started", die)
        with pytest.raises(Killed):
            asker(redis, simulator).ask_once()
    redis.delete(f"{PREFIX}asking:{first}")
    redis.zadd(f"{PREFIX}ask", {first: 0})
    ask(redis, simulator)
    assert len(started(simulator)) == 2
    [letter] = deadletters.newest(redis, 9)
    assert "may or may not have started another" in letter.reason


def test_a_quota_without_a_time_does_not_end_in_a_storm(redis: Redis, simulator: Running) -> None:
    first = expired(redis, simulator)
    simulator.set_faults(api_429={"rate": 1, "match": "/accounts/"})
    for _ in range(4):
        ask(redis, simulator)
    posts = [one for one in simulator.truth()["apiRequests"] if one["method"] == "POST"]
    assert len(posts) == 1
    due: Any = redis.zscore(f"{PREFIX}ask", first)
    assert due / 1000 - requests.now(redis) > 290


def test_a_quota_is_waited_for_and_nobody_else_waits_with_it(redis: Redis, simulator: Running) -> None:
    first = expired(redis, simulator)
    simulator.set_faults(api_429={"next": 1, "value": 3600})
    ask(redis, simulator)
    assert len(started(simulator)) == 1
    assert deadletters.count(redis) == 0
    due: Any = redis.zscore(f"{PREFIX}ask", first)
    assert due / 1000 - requests.now(redis) > 3500
    assert requests.read(redis).paused_until - requests.now(redis) <= 60


def test_what_expires_every_time_is_triggered_as_often_as_was_asked_for(redis: Redis) -> None:
    with run_in_thread(SimulatorSettings(seed=1, outcome="Expired", phase_seconds=0)) as always:
        identity = expired(redis, always, retries=2)
        for _ in range(5):
            eventually(lambda: all(one["status"] == "Failed" for one in always.truth()["productions"]))
            for one in started(always):
                redis.zadd(f"{PREFIX}ask", {one: 0}, xx=True)
            ask(redis, always)
        chain = started(always)
        assert len(chain) == 3
        assert [known(redis, one).retry_of for one in chain] == [None, identity, identity]
        assert [known(redis, one).retried_as for one in chain] == [*chain[1:], None]
