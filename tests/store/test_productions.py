"""Claim and commit: one writer at a time, nothing lost between the two, no secret left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from service.core.advance import advance
from service.core.observations import MANIFEST, DownloadStored, ManifestWritten, OperatorAsked
from service.core.production import Change, Production, to_json
from service.core.schedule import Intervals
from service.store import deadletters, inbox, notices, productions
from service.store.productions import Claim
from service.store.scripts import PREFIX
from tests.store.making import RETENTION, event, keep, listing, new_id, other_delivery, take_in, values_of, verdicts

ADDRESS = "https://store.blob.core.windows.net/a/film{}.mp4?sv=1&sig=SeCrEt"


def changed(claim: Claim) -> tuple[Claim, Production, Change]:
    before = claim.before
    return claim, before, advance(before, claim.observations(), claim.now, Intervals())


def commit(redis: Redis, claim: Claim) -> int | Exception:
    [left] = productions.commit(redis, [changed(claim)], RETENTION)
    return left


def at_once(redis: Redis, work: Callable[[Redis], object], threads: int = 8) -> list[object]:
    """The answers of many threads that begin together, each with a connection of its own."""
    gate, answers = threading.Barrier(threads), []

    def run() -> None:
        with Redis(connection_pool=redis.connection_pool) as client:
            gate.wait()
            answers.append(work(client))

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return answers


def make_due(redis: Redis, identity: str) -> None:
    """Let the lease or the pause of a production run out."""
    redis.zadd(f"{PREFIX}dirty", {identity: 0}, xx=True)


def fail(redis: Redis, identity: str, times: int, most: int = 6) -> None:
    for _ in range(times):
        make_due(redis, identity)
        [claim] = productions.claim(redis, 1)
        productions.failed(redis, claim, timedelta(0), most, "KeyError: the cause")


def test_of_many_claimers_exactly_one_gets_a_production(redis: Redis) -> None:
    identities = [new_id() for _ in range(5)]
    keep(redis, *(event(identity, 1) for identity in identities))
    got = at_once(redis, lambda client: [claim.production_id for claim in productions.claim(client, 2)])
    assert sorted(one for each in got for one in each) == sorted(identities)  # type: ignore[attr-defined]


def test_of_many_committers_exactly_one_wins_and_the_others_change_nothing(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1), event(identity, 2))
    [claim] = productions.claim(redis, 1)
    made = changed(claim)
    answers = at_once(redis, lambda client: productions.commit(client, [made], RETENTION)[0])
    assert sorted(answers) == [-1] * 7 + [0]  # type: ignore[type-var]
    kinds = [entry["kind"] for entry in productions.timeline(redis, identity)]
    assert kinds.count("event") == 2


def test_an_event_between_claim_and_commit_keeps_the_production_dirty_and_is_not_lost(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    [claim] = productions.claim(redis, 1)
    keep(redis, event(identity, 2))
    assert commit(redis, claim) == 1
    [again] = productions.claim(redis, 1)
    assert len(again.entries) == 1
    assert commit(redis, again) == 0
    known = productions.read(redis, identity)
    assert known is not None
    assert known.sequence == 2
    assert redis.zcard(f"{PREFIX}dirty") == 0


def test_an_event_after_the_commit_wakes_a_worker(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1))
    [kept] = keep(redis, event(identity, 2))
    assert isinstance(kept, inbox.Kept)
    assert kept.wakes


def test_a_claim_is_exclusive_until_its_lease_runs_out(redis: Redis) -> None:
    keep(redis, event(new_id(), 1))
    [first] = productions.claim(redis, 1)
    assert productions.claim(redis, 1) == []
    make_due(redis, first.production_id)
    assert [claim.production_id for claim in productions.claim(redis, 1)] == [first.production_id]


def test_a_stale_commit_after_the_lease_trims_nothing(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    [stale] = productions.claim(redis, 1)
    make_due(redis, identity)
    [fresh] = productions.claim(redis, 1)
    assert commit(redis, fresh) == 0
    keep(redis, event(identity, 2))
    before = values_of(redis)
    assert commit(redis, stale) == -1
    assert values_of(redis) == before
    [last] = productions.claim(redis, 1)
    assert commit(redis, last) == 0


def test_addresses_lie_in_link_keys_for_an_hour_at_most_and_nowhere_else(redis: Redis) -> None:
    identity = new_id()
    urls = [ADDRESS.format(number) for number in range(3)]
    take_in(redis, event(identity, 1, "deliverable.ready", data=listing(*urls)))
    links = {key: value for key, value in values_of(redis).items() if "sig=" in value}
    assert len(links) == 3
    for key in links:
        assert key.startswith(f"{PREFIX}link:{identity}:")
        assert 0 < redis.pttl(key) <= 3_600_000


def test_a_signature_outside_a_list_of_deliverables_is_not_kept_either(redis: Redis) -> None:
    data = {"previewUrl": ADDRESS.format(0), "note": "see " + ADDRESS.format(1)}
    take_in(redis, event(new_id(), 1, "production.preview", data=data))
    assert [key for key, value in values_of(redis).items() if "SeCrEt" in value] == []


def test_an_address_is_gone_as_soon_as_its_file_is_stored(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 1, "deliverable.ready", data=listing(ADDRESS.format(0))))
    known = productions.read(redis, identity)
    assert known is not None
    stored = DownloadStored(productions.now(redis), known.deliverables[0].key, 3, "a" * 64, 0.1)
    inbox.observe(redis, identity, stored)
    take_in(redis)
    assert [key for key, value in values_of(redis).items() if "sig=" in value] == []


def test_the_timeline_tells_everything_in_the_order_of_its_arrival(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, event(identity, 2), event(identity, 1, "production.queued", data={"status": "Queued"}))
    inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "refresh"))
    take_in(redis, event(identity, 3, "production.failed", data={"errorCode": "X"}))
    shown = [
        entry.get("sequenceNumber") or entry.get("wish") or entry.get("to")
        for entry in productions.timeline(redis, identity)
        if entry["kind"] in ("event", "operator", "status")
    ]
    assert shown == [2, "Producing", 1, "refresh", 3, "Failed"]
    times = [entry["at"][:22] for entry in productions.timeline(redis, identity)]
    assert times == sorted(times)


def settle(redis: Redis, identity: str, retention: timedelta) -> None:
    """A production that was published with one file, which is stored and in its manifest."""
    keep(
        redis,
        event(identity, 1, "deliverable.ready", data=listing(ADDRESS.format(0))),
        event(identity, 2, "production.published"),
    )
    known: Production | None = None
    for step in range(3):
        [claim] = productions.claim(redis, 1)
        productions.commit(redis, [changed(claim)], retention)
        known = productions.read(redis, identity)
        assert known is not None
        if step == 0:
            key, now = known.deliverables[0].key, productions.now(redis)
            inbox.observe(redis, identity, DownloadStored(now, key, 3, "a" * 64, 0.1))
        elif step == 1:
            assert MANIFEST in known.due_downloads
            now = productions.now(redis)
            inbox.observe(redis, identity, ManifestWritten(now, known.manifest_revision))
    assert known is not None
    assert known.settled


def test_forget_removes_every_key_of_a_settled_production_but_its_last_number(redis: Redis) -> None:
    identity = new_id()
    settle(redis, identity, timedelta(milliseconds=-1))
    assert productions.forget(redis, 10) == [identity]
    left = {key: value for key, value in values_of(redis).items() if identity in key + value}
    del left[notices.FACTS]  # what was told runs out by its number, whatever becomes of the production
    assert left == {f"{PREFIX}forgotten:{identity[:3]}": str({identity.encode(): b"2"})}


def test_an_old_event_that_is_replayed_after_all_was_forgotten_changes_nothing(redis: Redis) -> None:
    identity = new_id()
    bodies = (event(identity, 1, "production.queued"), event(identity, 2, "production.published"))
    settle(redis, identity, timedelta(milliseconds=-1))
    productions.forget(redis, 10)
    before = values_of(redis)
    assert verdicts(redis, *bodies, *map(other_delivery, bodies)) == ["duplicate"] * 4
    assert values_of(redis) == before


def test_a_new_event_of_a_production_that_was_forgotten_is_news(redis: Redis) -> None:
    identity = new_id()
    settle(redis, identity, timedelta(milliseconds=-1))
    productions.forget(redis, 10)
    assert verdicts(redis, event(identity, 3)) == ["accepted"]
    take_in(redis)
    assert productions.read(redis, identity) is not None


def test_what_comes_late_of_work_for_a_forgotten_production_does_not_begin_it_anew(redis: Redis) -> None:
    identity = new_id()
    settle(redis, identity, timedelta(milliseconds=-1))
    productions.forget(redis, 10)
    assert not inbox.observe(redis, identity, ManifestWritten(productions.now(redis), 9))
    take_in(redis)
    assert productions.read(redis, identity) is None


def test_an_operator_may_follow_a_forgotten_production_again(redis: Redis) -> None:
    identity = new_id()
    settle(redis, identity, timedelta(milliseconds=-1))
    productions.forget(redis, 10)
    assert inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "track"))
    take_in(redis)
    assert productions.read(redis, identity) is not None


def test_forget_leaves_what_is_young_or_has_something_to_take_in(redis: Redis) -> None:
    young, busy = new_id(), new_id()
    settle(redis, young, timedelta(days=1))
    settle(redis, busy, timedelta(milliseconds=-1))
    keep(redis, event(busy, 3))
    assert productions.forget(redis, 10) == []
    assert productions.read(redis, young) is not None
    assert productions.read(redis, busy) is not None


def test_after_too_many_attempts_a_production_is_parked_with_its_cause(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    fail(redis, identity, times=6)
    assert redis.zscore(f"{PREFIX}dirty", identity) is None
    [letter] = deadletters.newest(redis, 10)
    assert (letter.kind, letter.production_id, letter.reason) == ("production", identity, "KeyError: the cause")
    assert redis.llen(f"{PREFIX}inbox:{identity}") == 1


def test_a_parked_production_is_revived_with_all_it_has_missed(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    fail(redis, identity, times=6)
    keep(redis, event(identity, 2))
    productions.revive(redis, identity)
    [claim] = productions.claim(redis, 1)
    assert (claim.attempts, len(claim.entries)) == (1, 2)
    assert commit(redis, claim) == 0


def test_a_production_that_failed_before_is_claimed_alone(redis: Redis) -> None:
    sound, failing, later = new_id(), new_id(), new_id()
    keep(redis, event(failing, 1))
    fail(redis, failing, times=1)
    keep(redis, event(sound, 1), event(later, 1))
    redis.zadd(f"{PREFIX}dirty", {sound: 1, failing: 2, later: 3})
    batches = [[claim.production_id for claim in productions.claim(redis, 10)] for _ in range(4)]
    assert batches == [[sound], [failing], [later], []]


def test_a_failed_production_waits_for_its_pause(redis: Redis) -> None:
    identity = new_id()
    keep(redis, event(identity, 1))
    [claim] = productions.claim(redis, 1)
    productions.failed(redis, claim, timedelta(seconds=20), 6, "x")
    due_in_ms = (redis.zscore(f"{PREFIX}dirty", identity) or 0) - time.time() * 1000
    assert 18_000 < due_in_ms <= 20_000


def test_pages_show_the_newest_first_each_once(redis: Redis) -> None:
    identities = [new_id() for _ in range(5)]
    for place, identity in enumerate(identities):
        take_in(redis, event(identity, 1))
        redis.zadd(f"{PREFIX}index", {identity: place})
    seen: list[str] = []
    after = None
    while len(seen) < 5:
        page, after = productions.newest(redis, 2, after)
        seen += [one.production_id for one in page]
    assert seen == identities[::-1]
    assert after is None
    assert productions.newest(redis, 2, new_id()) == ([], None)


@pytest.mark.parametrize("status", ["Failed", 'W"arten\\ auf \u00e4\n', "\u2028"])
def test_those_in_a_status_are_found_however_it_has_to_be_written(redis: Redis, status: str) -> None:
    sought, other = new_id(), new_id()
    for identity, its in ((sought, status), (other, "Queued")):
        state = Production(identity, datetime.now(UTC), status=its)
        redis.set(f"{PREFIX}production:{identity}", b"1\n" + to_json(state))
        redis.zadd(f"{PREFIX}index", {identity: 1})
    found, _ = productions.newest(redis, 9, naming=(status, None))
    assert [one.production_id for one in found] == [sought]


def test_a_thousand_observations_are_taken_in_whole_and_in_order(redis: Redis) -> None:
    identity = new_id()
    take_in(redis, *(event(identity, number) for number in range(1, 1001)))
    numbers = [one["sequenceNumber"] for one in productions.timeline(redis, identity) if one["kind"] == "event"]
    assert numbers == list(range(1, 1001))
