"""The due lists: each thing to do is handed to one process at a time."""

from __future__ import annotations

import threading

from redis import Redis

from service.core.observations import DownloadStored, ManifestFound, ManifestWritten, OperatorAsked
from service.core.view import Progress
from service.store import due, inbox, productions
from service.store.scripts import PREFIX
from tests.store.making import event, keep, listing, new_id, take_in

ADDRESS = "https://store.blob.core.windows.net/a/film.mp4?sig=1"


def with_file(redis: Redis) -> str:
    """A production whose one file is due."""
    identity = new_id()
    take_in(redis, event(identity, 1, "deliverable.ready", data=listing(ADDRESS)))
    inbox.observe(redis, identity, ManifestWritten(productions.now(redis), 1))
    take_in(redis)
    return identity


def to_ask(redis: Redis) -> str:
    """A production that JARAI has to be asked about now."""
    identity = new_id()
    inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "refresh"))
    take_in(redis)
    return identity


def claim(redis: Redis, token: str) -> due.DownloadClaim:
    found = due.claim_download(redis, token)
    assert found is not None
    return found


def let_lease_run_out(redis: Redis, found: due.DownloadClaim) -> None:
    redis.zadd(f"{PREFIX}download", {found.member: 0}, xx=True)


def test_a_claim_brings_the_production_and_the_address(redis: Redis) -> None:
    identity = with_file(redis)
    found = claim(redis, "one")
    assert (found.production_id, found.url) == (identity, ADDRESS)
    assert found.production.deliverables[0].key == found.key


def test_a_file_is_claimed_by_one_until_the_lease_runs_out(redis: Redis) -> None:
    with_file(redis)
    first = claim(redis, "one")
    assert due.claim_download(redis, "two") is None
    let_lease_run_out(redis, first)
    assert claim(redis, "two").member == first.member


def test_renewing_with_a_stale_token_is_refused_and_does_not_prolong_the_claim(redis: Redis) -> None:
    with_file(redis)
    stale = claim(redis, "one")
    let_lease_run_out(redis, stale)
    fresh = claim(redis, "two")
    until = redis.zscore(f"{PREFIX}download", fresh.member)
    assert due.renew_download(redis, stale, 5) is None
    assert redis.zscore(f"{PREFIX}download", fresh.member) == until
    assert due.renew_download(redis, fresh, 7) is not None
    assert productions.progress(redis, fresh.production) == {fresh.key: Progress(7, 0)}


def test_a_claim_whose_file_is_no_longer_wanted_can_not_be_renewed(redis: Redis) -> None:
    with_file(redis)
    found = claim(redis, "one")
    due.drop_download(redis, found)
    due.renew_download(redis, found, 5)
    assert redis.zcard(f"{PREFIX}download") == 0


def test_an_event_does_not_take_a_running_download_away(redis: Redis) -> None:
    identity = with_file(redis)
    found = claim(redis, "one")
    take_in(redis, event(identity, 2, "production.published"))
    assert due.renew_download(redis, found, 5) is not None
    again = due.claim_download(redis, "two")
    assert again is None or again.member != found.member


def test_a_file_whose_address_ran_out_is_handed_out_without_one(redis: Redis) -> None:
    identity = with_file(redis)
    for key in redis.scan_iter(f"{PREFIX}link:{identity}:*"):
        redis.delete(key)
    assert claim(redis, "one").url == ""


def test_of_many_pollers_exactly_one_asks_about_a_production(redis: Redis) -> None:
    identities = {to_ask(redis) for _ in range(4)}
    gate = threading.Barrier(12)
    got: list[str] = []

    def run() -> None:
        with Redis(connection_pool=redis.connection_pool) as client:
            gate.wait()
            found = due.claim_ask(client)
            if found is not None:
                got.append(found.production.production_id)

    threads = [threading.Thread(target=run) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(identities)


def test_a_production_whose_inbox_is_not_empty_is_not_asked_about_yet(redis: Redis) -> None:
    waiting, ready = to_ask(redis), to_ask(redis)
    redis.zadd(f"{PREFIX}ask", {waiting: 0})
    keep(redis, event(waiting, 1))
    found = due.claim_ask(redis)
    assert found is not None
    assert found.production.production_id == ready
    assert due.claim_ask(redis) is None
    assert redis.zscore(f"{PREFIX}ask", waiting) is not None


def test_a_question_that_was_given_back_is_due_at_once(redis: Redis) -> None:
    identity = to_ask(redis)
    assert due.claim_ask(redis) is not None
    due.give_back_ask(redis, identity)
    assert due.claim_ask(redis) is not None
    due.give_back_ask(redis, new_id())
    assert redis.zcard(f"{PREFIX}ask") == 1


def test_what_was_forgotten_meanwhile_leaves_the_lists(redis: Redis) -> None:
    redis.zadd(f"{PREFIX}ask", {new_id(): 0})
    redis.zadd(f"{PREFIX}download", {f"{new_id()}:key": 0})
    assert due.claim_ask(redis) is None
    assert due.claim_download(redis, "one") is None
    assert redis.zcard(f"{PREFIX}ask") == redis.zcard(f"{PREFIX}download") == 0


def test_the_sweep_counts_what_is_due_and_tells_what_comes_next(redis: Redis) -> None:
    assert due.sweep(redis).next_at is None
    with_file(redis)
    to_ask(redis)
    seen = due.sweep(redis)
    assert (seen.advance, seen.download, seen.ask) == (0, 1, 1)
    assert seen.next_at is not None
    assert seen.next_at <= seen.now
    assert seen.download_bells == 2


def two_files(redis: Redis) -> None:
    with_file(redis)
    with_file(redis)


def test_while_the_folder_takes_nothing_one_file_at_a_time_is_tried(redis: Redis) -> None:
    two_files(redis)
    first = claim(redis, "one")
    assert due.storage_failed(redis, 5)
    assert due.sweep(redis).download == 0
    assert due.claim_download(redis, "two") is None
    redis.delete(f"{PREFIX}storage:try")  # the pause is over
    assert due.sweep(redis).download == 1
    claim(redis, "two")
    let_lease_run_out(redis, first)
    assert due.claim_download(redis, "three") is None
    assert due.storage_works(redis, 5)
    claim(redis, "three")


def test_a_folder_that_fails_is_news_once_and_so_is_its_recovery(redis: Redis) -> None:
    assert [due.storage_failed(redis, size) for size in (5, 9, 3)] == [True, False, False]
    assert not due.storage_works(redis, 8), "a file that fits proves nothing for one that did not"
    assert [due.storage_works(redis, 9) for _ in range(2)] == [True, False]
    assert due.storage_failed(redis, 0)
    assert due.storage_works(redis, 0)


def test_a_file_that_never_comes_again_does_not_pause_the_others_for_ever(redis: Redis) -> None:
    due.storage_failed(redis, 5)
    assert 0 < redis.pttl(f"{PREFIX}storage") <= 900_000


def test_nothing_is_asked_about_while_an_answer_is_on_its_way(redis: Redis) -> None:
    """An event in the meantime may make it due at once; it is asked again when the answer is here, and not before."""
    identity = to_ask(redis)
    assert due.claim_ask(redis) is not None
    take_in(redis, event(identity, 1, "production.mystery"))
    redis.zadd(f"{PREFIX}ask", {identity: 0})
    assert due.claim_ask(redis) is None
    due.asked(redis, identity)
    redis.zadd(f"{PREFIX}ask", {identity: 0})
    assert due.claim_ask(redis) is not None
    redis.zadd(f"{PREFIX}ask", {identity: 0})
    due.give_back_ask(redis, identity)
    assert due.claim_ask(redis) is not None


def test_a_file_whose_result_lies_in_the_inbox_is_not_handed_out_again(redis: Redis) -> None:
    """However long nobody takes it in: an advance worker may be down while the others work."""
    identity = with_file(redis)
    found = claim(redis, "one")
    inbox.observe(redis, identity, DownloadStored(productions.now(redis), found.key, 3, "a" * 64, 0.1))
    redis.zadd(f"{PREFIX}download", {found.member: 0}, xx=True)
    assert due.claim_download(redis, "two") is None


def test_a_result_that_changes_nothing_does_not_take_the_file_out_of_the_list(redis: Redis) -> None:
    """Such as a manifest that was found by a worker who had been stopped for long, while a newer one is due."""
    identity = with_file(redis)
    inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "track", account_id="a"))
    take_in(redis, event(identity, 2, "production.published"))
    assert redis.zscore(f"{PREFIX}download", f"{identity}:manifest") is not None
    found = ManifestFound(productions.now(redis), None, "f", "Published", False, False, ())
    inbox.observe(redis, identity, found)
    assert redis.zscore(f"{PREFIX}download", f"{identity}:manifest") is None
    take_in(redis)
    assert redis.zscore(f"{PREFIX}download", f"{identity}:manifest") is not None
