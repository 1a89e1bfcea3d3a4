"""Asking JARAI: what its answers mean for the budget, for the production and for whoever asks next."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as with_fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.core.budget import RESERVE, Budget, day
from service.core.observations import OperatorAsked
from service.core.partner_api import Response, read_deliverables
from service.core.production import Production, to_json
from service.jarai import Jarai
from service.runtime import Runtime
from service.settings import load
from service.store import deadletters, deployment, inbox, productions, requests
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import event, keep, listing, logged, new_id, take_in
from workers.asker import Asker
from workers.poller import Poller
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

HELD = {"hold": "Producing", "phaseSeconds": 0, "stepSeconds": 0}


@pytest.fixture
def free() -> Iterator[Running]:
    """A JARAI that allows ten requests a minute."""
    with run_in_thread(SimulatorSettings(seed=1, tier="free")) as running:
        yield running


def runtime(redis_url: str, simulator: Running, tmp_path: Path, **settings: str) -> Runtime:
    environment = {
        "REDIS_URL": redis_url,
        "JARAI_API_URL": simulator.api_url,
        "JARAI_API_KEY": simulator.settings.api_key,
        "STATE_DIR": str(tmp_path),
        **settings,
    }
    return Runtime(load(environment, dotenv=None))


def asker(redis: Redis, simulator: Running, key: str = "") -> Asker:
    here = load({"REDIS_URL": "unix:///none"}, dotenv=None)
    return Asker(redis, Jarai(simulator.api_url, key or simulator.settings.api_key), here)


def track(redis: Redis, identity: str) -> str:
    """JARAI is asked about it now."""
    inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "refresh"))
    take_in(redis)
    return identity


def known(redis: Redis, identity: str) -> Production:
    found = productions.read(redis, identity)
    assert found is not None
    return found


def pause(redis: Redis) -> float:
    budget = requests.read(redis)
    return max(budget.paused_until, budget.down_until) - requests.now(redis)


@contextmanager
def polling(here: Runtime) -> Iterator[None]:
    poller = Poller(here)
    thread = threading.Thread(target=poller.run)
    thread.start()
    try:
        yield
    finally:
        poller.stop()
        thread.join(12)
        assert not thread.is_alive()


def test_an_answer_brings_the_status_and_the_next_question(redis: Redis, simulator: Running) -> None:
    identity = track(redis, simulator.produce(HELD))
    eventually(lambda: simulator.truth()["productions"][0]["status"] == "Producing")
    assert asker(redis, simulator).ask_once()
    take_in(redis)
    found = known(redis, identity)
    assert (found.status, found.source) == ("Producing", "poll")
    assert found.due_to_ask_at is not None
    assert found.due_to_ask_at > productions.now(redis)
    assert not asker(redis, simulator).ask_once()


def test_nothing_due_costs_nothing(redis: Redis, simulator: Running) -> None:
    for _ in range(30):
        assert not asker(redis, simulator).ask_once()
    assert simulator.truth()["apiRequests"] == []
    assert requests.read(redis).spent_today == 0


def test_it_learns_the_limit_from_the_headers_and_stops_when_two_remain(redis: Redis, free: Running) -> None:
    for _ in range(14):
        track(redis, free.produce(HELD))
    asked = sum(asker(redis, free).ask_once() for _ in range(30))
    statuses = [one["status"] for one in free.truth()["apiRequests"]]
    assert statuses == [200] * (10 - RESERVE)
    assert asked == len(statuses)
    budget = requests.read(redis)
    assert (budget.limit, budget.remaining) == (10, 2)


def test_askers_in_many_threads_are_never_told_429(redis: Redis, free: Running) -> None:
    for _ in range(14):
        track(redis, free.produce(HELD))
    askers = [threading.Thread(target=lambda: [asker(redis, free).ask_once() for _ in range(5)]) for _ in range(5)]
    for one in askers:
        one.start()
    for one in askers:
        one.join()
    assert {one["status"] for one in free.truth()["apiRequests"]} == {200}
    assert len(free.truth()["apiRequests"]) <= 10 - RESERVE


def test_a_429_is_honoured_and_the_question_is_asked_again_afterwards(redis: Redis, simulator: Running) -> None:
    identity = track(redis, simulator.produce(HELD))
    simulator.set_faults(api_429={"next": 1, "value": 1})
    assert asker(redis, simulator).ask_once()
    assert 0 < pause(redis) <= 1
    assert not asker(redis, simulator).ask_once()
    assert len(simulator.truth()["apiRequests"]) == 1
    eventually(lambda: asker(redis, simulator).ask_once(), 4)
    take_in(redis)
    assert known(redis, identity).status is not None
    assert known(redis, identity).ask_failures == 0


def test_a_long_429_keeps_everybody_quiet_as_long(redis: Redis, simulator: Running) -> None:
    track(redis, simulator.produce(HELD))
    simulator.set_faults(api_429={"next": 1, "value": 3600})
    asker(redis, simulator).ask_once()
    assert 3590 < pause(redis) <= 3600


@pytest.mark.parametrize("fault", ["api_500", "api_503", "api_garbage", "api_drop"])
def test_an_answer_that_is_no_use_is_asked_again_with_a_growing_pause(
    redis: Redis, simulator: Running, fault: str
) -> None:
    identity = track(redis, simulator.produce(HELD))
    simulator.set_faults(**{fault: {"next": 2}})
    pauses = []
    for turn in (1, 2):
        redis.delete(f"{PREFIX}budget")
        redis.zadd(f"{PREFIX}ask", {identity: 0})
        assert asker(redis, simulator).ask_once()
        take_in(redis)
        found = known(redis, identity)
        assert (found.ask_failures, found.status, found.refused) == (turn, None, None)
        assert found.due_to_ask_at is not None
        pauses.append((found.due_to_ask_at - productions.now(redis)).total_seconds())
    assert 1 < pauses[0] < pauses[1]
    assert deadletters.count(redis) == 0
    redis.delete(f"{PREFIX}budget")
    redis.zadd(f"{PREFIX}ask", {identity: 0})
    assert asker(redis, simulator).ask_once()
    take_in(redis)
    assert (known(redis, identity).ask_failures, known(redis, identity).status is None) == (0, False)


@pytest.mark.parametrize("fault", ["api_500", "api_drop"])
def test_an_outage_quietens_all_questions_more_and_more(redis: Redis, simulator: Running, fault: str) -> None:
    for _ in range(3):
        track(redis, simulator.produce(HELD))
    simulator.set_faults(**{fault: {"rate": 1}})
    pauses = []
    for _ in range(3):
        assert asker(redis, simulator).ask_once()
        pauses.append(pause(redis))
        assert not asker(redis, simulator).ask_once()
        budget = with_fields(requests.read(redis), down_until=0.0)
        redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(budget))
    assert 0 < pauses[0] < pauses[1] < pauses[2] <= 60


def spent(redis: Redis, requests_today: int) -> None:
    """On the smallest tier."""
    known = Budget(limit=10, today=day(requests.now(redis)), spent_today=requests_today)
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(known))


def silent(redis: Redis, simulator: Running) -> str:
    """A production that is asked about on mere suspicion, now."""
    identity = simulator.produce(HELD)
    take_in(redis, event(identity, 1, "production.step.complete"))
    redis.zadd(f"{PREFIX}ask", {identity: 0})
    return identity


def test_what_is_left_of_the_day_is_kept_for_questions_that_tell_more(redis: Redis, simulator: Running) -> None:
    identity = silent(redis, simulator)
    spent(redis, 93)
    assert asker(redis, simulator).ask_once()
    assert simulator.truth()["apiRequests"] == []
    assert requests.read(redis).spent_today == 93
    until: Any = redis.zscore(f"{PREFIX}ask", identity)
    assert until > productions.now(redis).timestamp() * 1000 + 60_000
    assert not asker(redis, simulator).ask_once(), "it is not asked about again and again"
    track(redis, identity)
    assert asker(redis, simulator).ask_once()
    assert len(simulator.truth()["apiRequests"]) == 1


def test_a_suspicion_costs_a_request_while_the_day_is_young(redis: Redis, simulator: Running) -> None:
    silent(redis, simulator)
    spent(redis, 0)
    one = asker(redis, simulator)
    eventually(lambda: one.ask_once() and len(simulator.truth()["apiRequests"]) == 1, what="the question")


def test_where_the_answer_tells_much_is_asked_first(redis: Redis, simulator: Running) -> None:
    for _ in range(5):
        silent(redis, simulator)
    wanted = track(redis, simulator.produce(HELD))
    asker(redis, simulator).ask_once()
    [asked] = simulator.truth()["apiRequests"]
    assert asked["path"].endswith(wanted)


def test_after_an_outage_one_poller_probes_and_the_others_wait_for_it(redis: Redis, simulator: Running) -> None:
    for _ in range(8):
        track(redis, simulator.produce(HELD))
    redis.set(f"{PREFIX}budget", requests._BUDGET_JSON.dump_json(Budget(outages=3, tells_no_limit=True)))
    simulator.set_faults(api_slow={"next": 1, "value": 1})
    askers = [threading.Thread(target=asker(redis, simulator).ask_once) for _ in range(4)]
    for one in askers:
        one.start()
    eventually(lambda: redis.zcard(f"{PREFIX}requests:flying") == 1, what="the probe")
    assert not asker(redis, simulator).ask_once()
    for one in askers:
        one.join()
    assert len(simulator.truth()["apiRequests"]) == 1
    assert asker(redis, simulator).ask_once(), "JARAI is back"


def test_the_correlation_id_of_every_answer_can_be_found(redis: Redis, simulator: Running) -> None:
    track(redis, simulator.produce(HELD))
    with logged("debug") as stream:
        asker(redis, simulator).ask_once()
    [line] = [json.loads(line) for line in stream.getvalue().splitlines() if "poll.answered" in line]
    assert (line["question"], line["level"]) == ("status", "debug")
    assert line["correlation_id"]
    assert 0 <= line["seconds"] < 5


def test_an_answer_that_is_slower_than_its_time_out_is_no_answer(redis: Redis, simulator: Running) -> None:
    identity = track(redis, simulator.produce(HELD))
    simulator.set_faults(api_slow={"next": 1, "value": 10})
    assert asker(redis, simulator).ask_once()
    take_in(redis)
    assert known(redis, identity).ask_failures == 1


def test_a_production_that_jarai_does_not_know_is_not_asked_about_again_and_is_a_dead_letter(
    redis: Redis, simulator: Running
) -> None:
    identity = track(redis, new_id())
    assert asker(redis, simulator).ask_once()
    take_in(redis)
    found = known(redis, identity)
    assert found.due_to_ask_at is None
    assert found.refused is not None
    [letter] = deadletters.newest(redis, 9)
    assert (letter.production_id, letter.details["code"]) == (identity, "NOT_FOUND")
    take_in(redis, event(identity, 1))
    assert known(redis, identity).due_to_ask_at is not None, "an event shows that JARAI knows it"


def test_a_refused_key_is_said_and_no_production_pays_for_it(redis: Redis, simulator: Running) -> None:
    identity = track(redis, simulator.produce(HELD))
    with logged() as stream:
        assert asker(redis, simulator, "jarai_live_wrong").ask_once()
        take_in(redis)
    printed = stream.getvalue()
    assert '"event":"jarai.refused"' in printed
    assert '"code":"UNAUTHORIZED"' in printed
    assert "jarai_live_wrong" not in printed
    found = known(redis, identity)
    assert (found.refused, found.ask_failures) == (None, 0)
    assert deadletters.count(redis) == 0
    assert pause(redis) > 0


def test_a_partner_that_is_not_active_is_asked_about_nothing_until_it_is(redis: Redis, simulator: Running) -> None:
    """No question of this key is answered: that is the breaker's, and no production's fault."""
    identities = [track(redis, simulator.produce(HELD)) for _ in range(5)]
    simulator.set_faults(api_partner_inactive={"rate": 1})
    for _ in range(5):
        asker(redis, simulator).ask_once()
    assert len(simulator.truth()["apiRequests"]) == 1
    assert pause(redis) > 0
    assert all(known(redis, one).refused is None for one in identities)


def test_a_clock_that_was_set_back_does_not_put_suspicion_off(redis: Redis, simulator: Running) -> None:
    identity = silent(redis, simulator)
    found = known(redis, identity)
    ahead = with_fields(found, last_event_at=productions.now(redis) + timedelta(hours=1))
    redis.set(f"{PREFIX}production:{identity}", b"%d\n%s" % (found.version, to_json(ahead)))
    spent(redis, 3)
    one = asker(redis, simulator)
    eventually(lambda: one.ask_once() and len(simulator.truth()["apiRequests"]) == 1, what="the question")


def test_what_tells_much_is_found_behind_any_number_of_suspicions(redis: Redis, simulator: Running) -> None:
    redis.zadd(f"{PREFIX}ask", {new_id(): 1 for _ in range(150)})
    wanted = track(redis, simulator.produce(HELD))
    asker(redis, simulator).ask_once()
    assert [one["path"].rpartition("/")[2] for one in simulator.truth()["apiRequests"]] == [wanted]


def test_an_event_that_waits_is_taken_in_before_jarai_is_asked(redis: Redis, simulator: Running) -> None:
    identity = track(redis, simulator.produce(HELD))
    keep(redis, event(identity, 1))
    assert not asker(redis, simulator).ask_once()
    assert simulator.truth()["apiRequests"] == []


def test_a_poller_asks_by_itself_and_two_share_the_work(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    identities = [track(redis, simulator.produce(HELD)) for _ in range(6)]
    here = runtime(redis_url, simulator, tmp_path)
    with polling(here), polling(runtime(redis_url, simulator, tmp_path)):
        eventually(lambda: len(simulator.truth()["apiRequests"]) >= 6, 10)
    paths = [request["path"].rpartition("/")[2] for request in simulator.truth()["apiRequests"]]
    assert sorted(paths) == sorted(identities)


def test_the_sweep_rings_for_what_lost_its_bell(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    keep(redis, event(new_id(), 1))
    redis.zadd(f"{PREFIX}download", {f"{new_id()}:x": 0})
    assert redis.llen("rq:queue:advance") == redis.llen("rq:queue:download") == 0
    with polling(runtime(redis_url, simulator, tmp_path)):
        eventually(lambda: redis.llen("rq:queue:advance") and redis.llen("rq:queue:download"), 5)


def test_what_loses_its_bell_amid_quiet_gets_another_within_a_second_or_so(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    """However it became due: by an event, by a commit that leaves a file to be fetched, or by a wish."""
    followed = new_id()
    take_in(redis, event(followed, 1))
    redis.delete(f"{PREFIX}download", "rq:queue:advance", "rq:queue:download")
    losses: list[tuple[str, Callable[[], object]]] = [
        ("advance", lambda: keep(redis, event(followed, 2))),
        ("advance", lambda: productions.replay(redis, followed, OperatorAsked(datetime.now(UTC), "refresh"))),
        (
            "download",
            lambda: take_in(redis, event(followed, 3, "deliverable.ready", data=listing("https://b/f?sig=s"))),
        ),
    ]
    with polling(runtime(redis_url, simulator, tmp_path, JARAI_API_KEY="")):
        eventually(lambda: redis.exists(f"{PREFIX}alive"), what="the first look")
        for queue, loses in losses:
            redis.delete(f"{PREFIX}dirty", f"{PREFIX}download", "rq:queue:advance", "rq:queue:download")
            sweeps = _scripts(redis)
            time.sleep(1.5)
            assert _scripts(redis) <= sweeps + 3, "it is quiet"
            loses()
            redis.delete("rq:queue:download")
            eventually(lambda queue=queue: redis.llen(f"rq:queue:{queue}"), 1.8, f"a bell for {queue}")  # type: ignore[misc]


def test_with_nothing_to_do_it_asks_redis_once_a_second_whether_there_is_news(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    """What is due and nobody here may ask JARAI about is nothing to do."""
    deployment.recognise(redis, tmp_path)
    track(redis, simulator.produce(HELD))
    redis.delete(f"{PREFIX}dirty", f"{PREFIX}download")
    redis.zadd(f"{PREFIX}ask", {new_id(): 1})
    with polling(runtime(redis_url, simulator, tmp_path, JARAI_API_KEY="")):
        time.sleep(1.5)
        before = int(redis.info("stats")["total_commands_processed"])
        time.sleep(3)
        assert int(redis.info("stats")["total_commands_processed"]) - before <= 6


def test_redis_emptied_amid_quiet_is_said_within_seconds(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    deployment.recognise(redis, tmp_path)
    take_in(redis, event(new_id(), 1, "production.failed"))
    redis.delete(f"{PREFIX}download")
    with logged() as said, polling(runtime(redis_url, simulator, tmp_path)):
        eventually(lambda: redis.exists(f"{PREFIX}clock"), what="the first sweep")
        redis.flushall()
        eventually(lambda: "store.emptied" in said.getvalue(), 3)


def test_redis_emptied_before_the_first_news_is_looked_at(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    deployment.recognise(redis, tmp_path)
    poller = Poller(runtime(redis_url, simulator, tmp_path))
    poller._sweep()
    assert poller._nothing_new() > 0
    redis.flushall()
    assert poller._nothing_new() == 0


def test_redis_emptied_before_the_first_look_at_the_deployments_name_is_said(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    """A poller may be up before the worker that gives a new deployment its name."""
    poller = Poller(runtime(redis_url, simulator, tmp_path))
    poller._sweep()
    assert deployment.recognise(redis, tmp_path)
    redis.flushall()
    assert poller._nothing_new() == 0
    with logged() as said:
        poller._sweep()
        poller._sweep()
    assert said.getvalue().count("store.emptied") == 1


def test_a_clock_that_was_set_back_amid_quiet_is_noticed_though_it_is_nobodys_news(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    with logged() as said, polling(runtime(redis_url, simulator, tmp_path, JARAI_API_KEY="")):
        eventually(lambda: redis.exists(f"{PREFIX}clock"), what="the first look")
        redis.set(f"{PREFIX}clock", int(redis.time()[0] + 3600) * 1000)
        eventually(lambda: "clock.set_back" in said.getvalue(), 14, "the line that says so")


def _scripts(redis: Redis) -> int:
    return int(redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def test_a_key_that_is_rotated_in_the_settings_file_is_used_without_a_restart(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workers.poller.SECONDS_BETWEEN_LOOKS", 0.1)
    here = runtime(redis_url, simulator, tmp_path, JARAI_API_KEY="jarai_live_rotated_away")
    track(redis, simulator.produce(HELD))
    with polling(here):
        eventually(lambda: [one["status"] for one in simulator.truth()["apiRequests"]] == [401], what="the refusal")
        redis.delete(f"{PREFIX}budget")
        (tmp_path / ".env").write_text(
            f"JARAI_API_KEY={simulator.settings.api_key}\nJARAI_API_URL={simulator.api_url}\n"
        )
        eventually(lambda: simulator.truth()["apiRequests"][-1]["status"] == 200, 8, what="the new key")


def test_without_a_key_it_sweeps_and_asks_nothing(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    track(redis, simulator.produce(HELD))
    redis.delete("rq:queue:advance")
    keep(redis, event(new_id(), 1))
    with polling(runtime(redis_url, simulator, tmp_path, JARAI_API_KEY="")):
        eventually(lambda: redis.llen("rq:queue:advance"), 5)
    assert simulator.truth()["apiRequests"] == []


def test_it_drops_what_settled_long_ago(redis: Redis, redis_url: str, simulator: Running, tmp_path: Path) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1, "production.failed"))
    redis.zadd(f"{PREFIX}forget", {identity: 1})
    with polling(runtime(redis_url, simulator, tmp_path)):
        eventually(lambda: productions.read(redis, identity) is None, 5)


def test_one_unreadable_production_does_not_stop_the_questions_about_the_others(
    redis: Redis, redis_url: str, simulator: Running, tmp_path: Path
) -> None:
    spoilt, sound = (track(redis, simulator.produce(HELD)) for _ in range(2))
    redis.set(f"{PREFIX}production:{spoilt}", b"9\n{unreadable")
    redis.zadd(f"{PREFIX}ask", {spoilt: 0})
    with polling(runtime(redis_url, simulator, tmp_path)):
        eventually(lambda: any(sound in one["path"] for one in simulator.truth()["apiRequests"]), 4)


def test_an_answer_from_the_end_of_time_does_not_end_the_asking() -> None:
    """JARAI's `Date` may be nonsense; the list's addresses must still get an expiry."""
    headers = {"date": "Fri, 31 Dec 9999 23:59:59 GMT"}
    answer = Response(200, headers, b'{"deliverables": [{"type": "Video", "sasUrl": "https://a.b/c?sig=1"}]}')
    assert len(read_deliverables(answer, datetime.now(UTC))) == 1
