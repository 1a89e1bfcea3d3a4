"""A file or a question that kills or fails whoever takes it on is tried a bounded number of times; others flow on."""

from __future__ import annotations

from dataclasses import replace

from redis import Redis

from service import operator
from service.core.observations import OperatorAsked
from service.core.production import to_json
from service.core.retry import MOST_CLAIMS
from service.jarai import Jarai
from service.store import deadletters, due, inbox, productions
from service.store.scripts import PREFIX
from tests.store.making import event, keep, logged, new_id, take_in
from tests.workers.receiver import Bench
from workers.asker import Asker
from workers.download import Downloader


def _die_with_a_file(bench: Bench) -> str:
    """What a worker leaves that took on the first file and was killed; its claim has run out."""
    claimed = due.claim_download(bench.redis, "a worker that is dead by now")
    assert claimed is not None
    bench.redis.zadd(f"{PREFIX}download", {claimed.member: 0}, xx=True)
    return claimed.production_id


def test_a_file_that_kills_every_worker_ends_as_a_dead_letter_and_a_retry_brings_it_after_all(bench: Bench) -> None:
    poison = bench.published({"type": "Video", "bytes": 5000})
    assert [_die_with_a_file(bench) for _ in range(MOST_CLAIMS)] == [poison] * MOST_CLAIMS
    other = bench.published({"type": "Video", "bytes": 5000})
    bench.fetch()
    bench.until_quiet()
    assert (bench.only(poison).state, bench.known(other).settled) == ("failed", True)
    [letter] = deadletters.newest(bench.redis, 9)
    assert (letter.production_id, "died or hung" in letter.reason) == (poison, True)
    assert all(other in request["path"] for request in bench.blob_requests()), "the poison was never asked for"
    assert operator.retry(bench.redis, letter)
    take_in(bench.redis)
    bench.until_quiet()
    bench.is_stored(poison)


def test_a_worker_that_dies_after_it_got_further_than_any_before_is_not_counted_against_the_file(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 5000})
    for death in range(3 * MOST_CLAIMS):
        claimed = due.claim_download(bench.redis, f"{death}")
        assert claimed is not None
        assert claimed.tries <= 2
        assert due.renew_download(bench.redis, claimed, 100 * (death + 1)) is not None
        bench.redis.zadd(f"{PREFIX}download", {claimed.member: 0}, xx=True)
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_file_whose_processing_always_raises_ends_as_a_dead_letter(bench: Bench) -> None:
    identity, other = (bench.published({"type": "Video", "bytes": 5000}) for _ in range(2))
    known = bench.known(identity)
    spoilt = replace(known, deliverables=(replace(known.deliverables[0], file="a\0b"),))
    bench.redis.set(f"{PREFIX}production:{identity}", b"%d\n%s" % (spoilt.version, to_json(spoilt)))
    with logged() as stream:
        for _ in range(14):
            bench.fetch()
    assert '"event":"download.unexpected"' in stream.getvalue()
    assert (bench.only(identity).state, bench.only(other).state) == ("failed", "stored")
    [letter] = deadletters.newest(bench.redis, 9)
    assert (letter.production_id, "unexpected ValueError" in letter.reason) == (identity, True)


def _asker(bench: Bench) -> Asker:
    jarai = Jarai(bench.simulator.api_url, bench.simulator.settings.api_key)
    return Asker(bench.redis, jarai, bench.settings)


def test_a_question_that_kills_every_poller_ends_as_a_dead_letter_without_a_request(bench: Bench) -> None:
    identity = bench.simulator.produce({"hold": "Producing"})
    inbox.observe(bench.redis, identity, OperatorAsked(productions.now(bench.redis), "refresh"))
    take_in(bench.redis)
    for _ in range(MOST_CLAIMS):
        assert due.claim_ask(bench.redis) is not None
        bench.redis.zadd(f"{PREFIX}ask", {identity: 0}, xx=True)
        bench.redis.delete(f"{PREFIX}asking:{identity}")  # both have run out
    assert _asker(bench).ask_once()
    take_in(bench.redis)
    assert bench.simulator.truth()["apiRequests"] == []
    [letter] = deadletters.newest(bench.redis, 9)
    assert "died or hung" in letter.reason
    assert bench.redis.zscore(f"{PREFIX}ask", identity) is None
    assert operator.retry(bench.redis, letter)
    take_in(bench.redis)
    bench.ask()
    assert bench.known(identity).status is not None
    assert deadletters.count(bench.redis) == 0


def test_an_answer_that_always_raises_is_asked_for_a_bounded_number_of_times(bench: Bench) -> None:
    identity = bench.simulator.produce({"hold": "Producing"})
    inbox.observe(bench.redis, identity, OperatorAsked(productions.now(bench.redis), "refresh"))
    take_in(bench.redis)

    class Broken(Jarai):
        def call(self, request: object) -> object:  # type: ignore[override]
            raise LookupError("a defect of ours")

    asker = Asker(bench.redis, Broken(bench.simulator.api_url, ""), bench.settings)
    turns = 0
    while bench.redis.zscore(f"{PREFIX}ask", identity) is not None:
        bench.hurry("ask")
        asker._not_before = 0
        assert asker.ask_once()
        take_in(bench.redis)
        turns += 1
        assert turns < 20, "it goes on for ever"
    assert turns == MOST_CLAIMS + 1
    assert "unexpected LookupError" in deadletters.newest(bench.redis, 1)[0].reason


def test_a_parked_production_costs_no_request_and_its_files_are_not_fetched_again(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 5000})
    inbox.observe(bench.redis, identity, OperatorAsked(productions.now(bench.redis), "refresh"))
    take_in(bench.redis)
    bench.redis.rpush(f"{PREFIX}inbox:{identity}", b'{"kind": "written by nothing of ours"}')
    keep(bench.redis, event(identity, 1001))
    while bench.redis.zscore(f"{PREFIX}dirty", identity) is not None:
        bench.hurry("dirty")
        take_in(bench.redis)
    asked = len(bench.simulator.truth()["apiRequests"])
    for _ in range(3):
        bench.hurry("ask", "download")
        assert not _asker(bench).ask_once()
        Downloader(bench.redis, bench.settings).drain()
    assert len(bench.simulator.truth()["apiRequests"]) == asked
    assert len(bench.blob_requests()) == 1


def test_dedupe_never_hides_work_that_was_not_done(redis: Redis) -> None:
    """The event comes again while its production is parked: it is a duplicate, and still waits to be taken in."""
    identity = new_id()
    body = event(identity, 1)
    keep(redis, body)
    redis.rpush(f"{PREFIX}inbox:{identity}", b"unreadable")
    while redis.zscore(f"{PREFIX}dirty", identity) is not None:
        redis.zadd(f"{PREFIX}dirty", {identity: 0})
        take_in(redis)
    keep(redis, body)
    redis.lrem(f"{PREFIX}inbox:{identity}", 1, "unreadable")
    assert operator.retry(redis, deadletters.newest(redis, 1)[0])
    take_in(redis)
    known = productions.read(redis, identity)
    assert known is not None
    assert known.sequence == 1
