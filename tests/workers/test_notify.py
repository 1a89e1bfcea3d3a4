"""Notices on their way to a real receiver: signed, bounded, sent again under the same id, and never lost."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service import jobs, operator
from service.core.notices import Verdict
from service.core.retry import MOST_CLAIMS, MOST_NOTICE_ATTEMPTS
from service.core.schedule import Intervals
from service.runtime import Runtime
from service.settings import Settings, load
from service.store import deadletters, due, notices, productions
from service.store.scripts import PREFIX
from tests.deployment import eventually, free_port
from tests.partner import PATH, SECRET, Partner, partner
from tests.store.making import RETENTION, event, keep, logged, new_id, values_of
from tests.workers.hostile import Hostile, head, hostile, whole
from workers import advance, notify
from workers.notify import Notifier
from workers.poller import Poller
from workers.processes import GRACE_SECONDS

SECRETS = (SECRET, SECRET.removeprefix("whsec_"), PATH, "geheim")


@pytest.fixture
def listening() -> Iterator[Partner]:
    with partner() as made:
        yield made


def settings_for(url: str) -> Settings:
    return load({"NOTIFY_URL": url, "NOTIFY_SECRET": SECRET}, dotenv=None)


def failed(redis: Redis, count: int = 1, notify: bool = True) -> list[str]:
    """Productions that have failed just now, so that there is something to tell."""
    identities = [new_id() for _ in range(count)]
    for identity in identities:
        keep(redis, event(identity, 1, "production.failed", data={"errorCode": "E"}))
        advance.drain(redis, Intervals(), RETENTION, notify=notify)
    return identities


def send(redis: Redis, url: str, longest_seconds: float = 5) -> int:
    """One attempt at whatever waits for one, pauses cut short."""
    redis.delete(f"{PREFIX}notify:pause")
    members: Any = redis.zrange(f"{PREFIX}notify", 0, -1)
    for member in members:
        redis.zadd(f"{PREFIX}notify", {member: 0}, xx=True)
    return Notifier(redis, settings_for(url), longest_seconds).drain()


def facts(redis: Redis) -> list[dict[str, str]]:
    entries: Any = redis.xrange(notices.FACTS)
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]


def waits_seconds(redis: Redis, notice: str) -> float:
    score = redis.zscore(f"{PREFIX}notify", notice)
    assert score is not None
    return score / 1000 - productions.now(redis).timestamp()


def left_of_notices(redis: Redis) -> list[str]:
    return [key for key in values_of(redis) if key.startswith((f"{PREFIX}notify", f"{PREFIX}notice:"))]


def test_what_is_told_arrives_signed_and_as_it_stands_in_the_stream(redis: Redis, listening: Partner) -> None:
    [identity] = failed(redis)
    assert send(redis, listening.url) == 1
    [got], [fact] = listening.got, facts(redis)
    assert got.notice["data"]["productionId"] == identity
    assert (got.id, got.notice["type"], got.body.decode()) == (fact["id"], fact["type"], fact["body"])
    assert (got.path, got.headers["content-type"]) == (f"{PATH}?key=geheim-key", "application/json")
    assert left_of_notices(redis) == []
    assert send(redis, listening.url) == 0


def test_without_an_address_the_stream_has_it_and_nothing_waits(redis: Redis) -> None:
    failed(redis, notify=False)
    assert len(facts(redis)) == 1
    assert left_of_notices(redis) == []
    assert due.sweep(redis).notify == 0


def test_the_stream_keeps_the_newest(redis: Redis) -> None:
    with redis.pipeline() as pipeline:
        for _ in range(10_300):
            pipeline.xadd(notices.FACTS, {"id": "old"})
        pipeline.execute()
    failed(redis)
    assert 10_000 <= redis.xlen(notices.FACTS) <= 10_100
    assert facts(redis)[-1]["id"].startswith("msg_")


def test_it_is_sent_again_under_the_same_id_and_byte_for_byte_until_it_is_taken(
    redis: Redis, listening: Partner
) -> None:
    failed(redis)
    listening.will_answer(500, 404, 204)
    with logged() as stream:
        for _ in range(3):
            send(redis, listening.url)
    assert len({(one.id, one.body, one.notice["timestamp"]) for one in listening.got}) == 1
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [one for one in said if one["event"].startswith("notice.")]
    assert [(one["event"], one["attempts"]) for one in told] == [
        ("notice.retrying", 1), ("notice.retrying", 2), ("notice.delivered", 3),
    ]  # fmt: skip
    assert told[0]["error"] == "answered with 500"
    assert redis.hmget(f"{PREFIX}counts", ["notice.retrying", "notice.delivered"]) == [b"2", b"1"]


def test_each_attempt_is_signed_with_its_own_time(redis: Redis, listening: Partner) -> None:
    failed(redis)
    listening.will_answer(500, 204)
    send(redis, listening.url)
    time.sleep(1.1)
    send(redis, listening.url)
    first, second = listening.got
    assert int(first.headers["webhook-timestamp"]) < int(second.headers["webhook-timestamp"])
    assert first.notice == second.notice


def test_a_busy_receiver_is_left_alone_for_as_long_as_it_asks(redis: Redis, listening: Partner) -> None:
    failed(redis, 3)
    listening.will_answer(503, Retry_After="3600")
    assert send(redis, listening.url) == 1
    assert 3590 < waits_seconds(redis, listening.got[0].id) <= 3600
    assert Notifier(redis, settings_for(listening.url)).drain() == 0, "nor with any other notice"
    redis.delete(*(f"{PREFIX}{name}" for name in ("dirty", "ask", "download")))
    seen = due.sweep(redis)
    assert seen.notify == 0, "nobody is woken meanwhile"
    assert seen.next_at is not None
    assert (seen.next_at - seen.now).total_seconds() > 3590


def test_where_nobody_listens_one_attempt_stands_for_all_and_all_arrive_in_the_end(redis: Redis) -> None:
    port = free_port()
    identities = failed(redis, 4)
    url = f"http://127.0.0.1:{port}/"
    assert send(redis, url) == 1
    assert Notifier(redis, settings_for(url)).drain() == 0
    with partner(port) as listening:
        assert send(redis, url) == 4
        assert {one["data"]["productionId"] for one in listening.notices} == set(identities)


def test_after_the_pause_one_notice_goes_first_and_the_others_follow_if_it_arrives(
    redis: Redis, listening: Partner
) -> None:
    failed(redis, 4)
    listening.will_answer(502, 204)
    send(redis, listening.url)
    redis.hset(f"{PREFIX}notify:pause", "until", 1)
    first = notices.claim(redis, "one")
    assert first is not None
    assert notices.claim(redis, "two") is None, "until it is known what became of the first"
    assert notices.failed(redis, first, Verdict(again_in=timedelta(hours=1)), "answered with 400")
    assert Notifier(redis, settings_for(listening.url)).drain() == 2


def test_notices_go_out_in_the_order_in_which_they_became_due(redis: Redis, listening: Partner) -> None:
    identities = failed(redis, 5)
    assert Notifier(redis, settings_for(listening.url)).drain() == 5
    assert [one["data"]["productionId"] for one in listening.notices] == identities


def drip(server: Hostile) -> Iterator[bytes]:
    return server.endless(b"X-More: 1\r\n", begin=b"HTTP/1.1 200 OK\r\n", pause=0.05)


@pytest.mark.parametrize("silent", [True, False])
def test_a_receiver_that_hangs_costs_a_bounded_time(redis: Redis, silent: bool) -> None:
    failed(redis)
    with hostile(b"") as server:
        server.script = lambda asked: server.endless(b"", pause=0.1) if silent else drip(server)
        started = time.monotonic()
        send(redis, server.url, longest_seconds=0.5)
        assert time.monotonic() - started < 2
    [notice] = [fact["id"] for fact in facts(redis)]
    assert redis.hget(f"{PREFIX}notice:{notice}", "attempts") == b"1"
    assert notify._ANSWER_SECONDS + notify._REST_SECONDS < GRACE_SECONDS, "so that it can end in good order"
    assert notify._ANSWER_SECONDS + notify._REST_SECONDS < notices.LEASE_MS / 1000


def test_an_answer_without_end_counts_by_its_status(redis: Redis) -> None:
    failed(redis)
    with hostile(b"") as server:
        server.script = lambda asked: server.endless(b"x" * 1000, begin=head(), pause=0.01)
        started = time.monotonic()
        send(redis, server.url)
        assert time.monotonic() - started < 3
    assert left_of_notices(redis) == []


def test_a_redirect_is_not_followed_and_the_log_says_what_to_do(redis: Redis, listening: Partner) -> None:
    failed(redis)
    with hostile(whole(b"", f"Location: {listening.url}", status="307 Temporary Redirect")) as server, logged() as said:
        send(redis, server.url)
    assert listening.got == []
    assert "NOTIFY_URL has to be the address that it leads to" in said.getvalue()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 2", b"HTTP/1.1 abc OK\r\n\r\n"])
def test_what_is_no_answer_is_none(redis: Redis, answer: bytes) -> None:
    failed(redis)
    with hostile(answer) as server:
        assert send(redis, server.url) == 1
    assert notices.waiting(redis) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(redis: Redis, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    failed(redis)
    with hostile(whole(b"")) as server, logged() as said:
        server.wrap = lambda connection: context.wrap_socket(connection, server_side=True)
        send(redis, server.url.replace("http:", "https:"))
        assert server.asked == []
    assert "certificate is not accepted" in said.getvalue()


def test_410_is_a_dead_letter_at_once_and_a_retry_delivers_it_under_the_same_id(
    redis: Redis, listening: Partner
) -> None:
    [identity] = failed(redis)
    listening.will_answer(410, 200)
    with logged() as said:
        send(redis, listening.url)
    [letter] = deadletters.newest(redis, 9)
    assert (letter.kind, letter.production_id, letter.id) == ("notice", identity, f"notice-{listening.got[0].id}")
    assert letter.reason.startswith("answered with 410")
    assert said.getvalue().count('"event":"deadletter.added"') == 1
    assert left_of_notices(redis) == []
    redis.delete(jobs.queue_key("notify"))
    assert operator.retry(redis, letter)
    assert redis.llen(jobs.queue_key("notify")) == 1
    assert deadletters.count(redis) == 0
    send(redis, listening.url)
    first, second = listening.got
    assert (first.id, first.body) == (second.id, second.body)
    assert left_of_notices(redis) == []


def test_a_retry_brings_back_a_notice_whose_production_is_forgotten(redis: Redis, listening: Partner) -> None:
    [identity] = failed(redis)
    listening.will_answer(410, 200)
    send(redis, listening.url)
    redis.delete(f"{PREFIX}production:{identity}")
    assert operator.retry(redis, deadletters.newest(redis, 1)[0])
    assert send(redis, listening.url) == 1
    assert listening.notices[1]["data"]["productionId"] == identity


def test_one_that_is_never_taken_is_given_up_at_last_with_the_last_answer(redis: Redis, listening: Partner) -> None:
    failed(redis)
    [fact] = facts(redis)
    redis.hset(f"{PREFIX}notice:{fact['id']}", "attempts", MOST_NOTICE_ATTEMPTS - 2)
    listening.will_answer(500, 422)
    send(redis, listening.url)
    assert deadletters.count(redis) == 0
    send(redis, listening.url)
    [letter] = deadletters.newest(redis, 9)
    assert letter.reason == "answered with 422"
    assert letter.details["attempts"] == MOST_NOTICE_ATTEMPTS
    assert (letter.body or b"").decode() == fact["body"]
    assert operator.discard(redis, letter.id)
    assert send(redis, listening.url) == 0


def test_one_that_every_process_dies_of_is_given_up_too(redis: Redis, listening: Partner) -> None:
    failed(redis)
    for _ in range(MOST_CLAIMS):
        assert notices.claim(redis, "dies") is not None
        redis.zadd(f"{PREFIX}notify", {facts(redis)[0]["id"]: 0})
    send(redis, listening.url)
    assert listening.got == []
    assert "died or hung" in deadletters.newest(redis, 1)[0].reason


def test_what_was_delivered_after_all_is_no_dead_letter(redis: Redis, listening: Partner) -> None:
    """Given up, told again under the same id by a production that came back, and then taken."""
    [identity] = failed(redis)
    listening.will_answer(410, 204)
    send(redis, listening.url)
    assert deadletters.count(redis) == 1
    redis.delete(f"{PREFIX}production:{identity}", f"{PREFIX}events:{identity}")
    keep(redis, event(identity, 1, "production.failed"))
    advance.drain(redis, Intervals(), RETENTION, notify=True)
    send(redis, listening.url)
    assert listening.got[0].id == listening.got[1].id
    assert deadletters.count(redis) == 0


def test_a_replay_sends_nothing_under_another_id(redis: Redis, listening: Partner) -> None:
    [identity] = failed(redis)
    send(redis, listening.url)
    operator.replay(redis, identity)
    advance.drain(redis, Intervals(), RETENTION, notify=True)
    assert len(productions.timeline(redis, identity)) > 2
    send(redis, listening.url)
    assert len({one.id for one in listening.got}) == 1
    assert len({fact["id"] for fact in facts(redis)}) == 1


def test_a_claim_is_of_one_alone_and_who_has_lost_it_tells_nothing(redis: Redis) -> None:
    failed(redis)
    first = notices.claim(redis, "first")
    assert first is not None
    assert notices.claim(redis, "second") is None
    redis.zadd(f"{PREFIX}notify", {first.id: 0})
    second = notices.claim(redis, "second")
    assert second is not None
    assert not notices.failed(redis, first, Verdict(), "late")
    assert notices.waiting(redis) == 1
    assert notices.delivered(redis, second)
    assert not notices.delivered(redis, first), "it was told already"


def test_many_notifiers_send_each_notice_once(redis: Redis, listening: Partner) -> None:
    failed(redis, 20)
    threads = [threading.Thread(target=Notifier(redis, settings_for(listening.url)).drain) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listening.got) == len({one.id for one in listening.got}) == 20


def test_an_entry_without_a_notice_leaves_the_list(redis: Redis, listening: Partner) -> None:
    redis.zadd(f"{PREFIX}notify", {"msg_nothing": 0})
    failed(redis)
    send(redis, listening.url)
    send(redis, listening.url)
    assert len(listening.got) == 1
    assert left_of_notices(redis) == []


def test_a_killed_notifier_leaves_what_it_sent_to_be_sent_again_under_the_same_id(
    redis: Redis, redis_url: str, listening: Partner, tmp_path: Path
) -> None:
    failed(redis)
    environment = {**os.environ, "REDIS_URL": redis_url, "STATE_DIR": str(tmp_path),
                   "NOTIFY_URL": listening.url, "NOTIFY_SECRET": SECRET}  # fmt: skip
    jobs.ring(redis, "notify")
    with open(tmp_path / "log", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker", "notify"], env=environment, stdout=output, stderr=output
        )

        def kill() -> None:
            process.kill()
            process.wait()

        listening.before_answer = kill
        try:
            eventually(lambda: listening.got, what="the first attempt")
            assert process.wait(10) == -signal.SIGKILL
        finally:
            process.kill()
            process.wait()
    assert notices.waiting(redis) == 1
    listening.before_answer = lambda: None
    send(redis, listening.url)
    first, second = listening.got
    assert (first.id, first.notice) == (second.id, second.notice)
    assert left_of_notices(redis) == []


def test_the_sweep_wakes_a_notifier_for_what_is_due_where_somebody_is_to_be_notified(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    failed(redis)
    redis.delete(jobs.queue_key("notify"))  # the bell is lost
    here = {"REDIS_URL": redis_url, "STATE_DIR": str(tmp_path)}
    who = {"NOTIFY_URL": "http://127.0.0.1:9/", "NOTIFY_SECRET": SECRET}
    for settings, bells in ((here, 0), (here | who, 1), (here | who, 1)):
        Poller(Runtime(load(settings, dotenv=None)))._sweep()
        assert redis.llen(jobs.queue_key("notify")) == bells


def test_no_secret_is_in_redis_in_the_log_or_in_a_dead_letter(redis: Redis, listening: Partner) -> None:
    failed(redis, 2)
    listening.will_answer(500, 410, 200)
    with logged() as said:
        for _ in range(3):
            send(redis, listening.url)
        send(redis, f"http://127.0.0.1:{free_port()}{PATH}?key=geheim-key")
    shown = json.dumps([letter.describe() for letter in deadletters.newest(redis, 9)])
    for secret in SECRETS:
        for text in (said.getvalue(), shown, str(values_of(redis))):
            assert secret not in text


def test_a_notice_that_waits_moves_along_when_the_clock_is_set_back(redis: Redis, listening: Partner) -> None:
    failed(redis)
    listening.will_answer(503, Retry_After="60")
    send(redis, listening.url)
    due.sweep(redis)
    notice, hour_ms = listening.got[0].id, 3_600_000
    redis.zincrby(f"{PREFIX}notify", hour_ms, notice)
    redis.incrby(f"{PREFIX}clock", hour_ms)
    due.sweep(redis)
    assert 50 < waits_seconds(redis, notice) < 70
    assert not redis.exists(f"{PREFIX}notify:pause")
