"""Which file is fetched first, how many at a time from one host, and how much of the line they take together."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from service.core.observations import DownloadStored, ManifestWritten
from service.core.view import Progress
from service.store import due, inbox, productions
from service.store.scripts import PREFIX
from tests.store.making import event, new_id, take_in, values_of


def due_files(redis: Redis, *files: tuple[str, str], host: str = "one.blob.core.windows.net") -> str:
    """A production with files of these types and names, all due."""
    identity = new_id()
    listed: list[dict[str, Any]] = [
        {"deliverableId": f"d{place}", "type": kind, "fileName": name, "sasUrl": f"https://{host}/{place}/{name}?sig=1"}
        for place, (kind, name) in enumerate(files)
    ]
    take_in(redis, event(identity, 1, "deliverable.ready", data={"deliverables": listed}))
    inbox.observe(redis, identity, ManifestWritten(productions.now(redis), 1))
    take_in(redis)
    return identity


def claimed(redis: Redis, **limits: Any) -> due.DownloadClaim | None:
    return due.claim_download(redis, new_id(), **limits)


def kinds(redis: Redis, times: int, **limits: Any) -> list[str]:
    found = [claimed(redis, **limits) for _ in range(times)]
    return [one.deliverable.type for one in found if one is not None and one.deliverable is not None]


def test_small_files_do_not_wait_behind_large_ones(redis: Redis) -> None:
    due_files(redis, ("Video", "a.mp4"), ("Video", "b.mp4"))
    due_files(redis, ("Video", "c.mp4"), ("ClosedCaptions", "c.vtt"), ("Transcript", "c.txt"))
    assert sorted(kinds(redis, 2)) == ["ClosedCaptions", "Transcript"]
    assert kinds(redis, 9) == ["Video"] * 3


def test_ten_thousand_large_files_do_not_slow_whoever_asks_for_a_small_one(redis: Redis) -> None:
    """As after an outage. Counted in what Redis looks at: every claim does, and each download every second."""
    due_files(redis, ("Video", "a.mp4"))
    large = claimed(redis)
    assert large is not None
    redis.zadd(f"{PREFIX}download", {f"{new_id()}:d": 1 for _ in range(10_000)})
    before = _commands(redis)
    assert due.renew_download(redis, large, 1) == 0
    assert claimed(redis, small_only=True) is None
    assert _commands(redis) - before < 40


def _commands(redis: Redis) -> int:
    return int(redis.info("stats")["total_commands_processed"])


def test_a_file_that_an_earlier_version_left_due_is_fetched_although_it_is_in_no_lane(redis: Redis) -> None:
    due_files(redis, ("Transcript", "a.txt"), ("Video", "a.mp4"))
    redis.delete(f"{PREFIX}download:small")
    assert sorted(kinds(redis, 3)) == ["Transcript", "Video"]


def test_a_small_file_that_an_earlier_version_has_claimed_is_its(redis: Redis) -> None:
    """It knows of one list only; both versions may run side by side."""
    due_files(redis, ("Transcript", "a.txt"))
    members: Any = redis.zrange(f"{PREFIX}download", 0, -1)
    redis.zadd(f"{PREFIX}download", {members[0]: productions.now(redis).timestamp() * 1000 + 30_000})
    assert kinds(redis, 1) == []


def test_who_has_time_for_small_ones_only_gets_no_large_one(redis: Redis) -> None:
    due_files(redis, ("Video", "a.mp4"), ("ClosedCaptions", "a.vtt"))
    assert kinds(redis, 3, small_only=True) == ["ClosedCaptions"]
    assert kinds(redis, 3) == ["Video"]


def test_who_fetches_a_large_one_hears_of_small_ones_that_wait(redis: Redis) -> None:
    due_files(redis, ("Video", "a.mp4"))
    large = claimed(redis)
    assert large is not None
    assert due.renew_download(redis, large, 1) == 0
    due_files(redis, ("ClosedCaptions", "b.vtt"), ("Video", "b.mp4"))
    assert due.renew_download(redis, large, 2) == 1
    assert kinds(redis, 1, small_only=True) == ["ClosedCaptions"]
    assert due.renew_download(redis, large, 3) == 0


def test_no_more_files_at_a_time_from_one_host_than_it_is_allowed(redis: Redis) -> None:
    due_files(redis, *[("Video", f"{number}.mp4") for number in range(3)])
    due_files(redis, ("Video", "x.mp4"), host="other.blob.core.windows.net")
    found = [claimed(redis, most_per_host=2) for _ in range(5)]
    hosts = [one.url.split("/")[2].split(".")[0] for one in found if one is not None]
    assert sorted(hosts) == ["one", "one", "other"]


@pytest.mark.parametrize("ending", ["told", "dropped", "died"])
def test_a_file_that_has_ended_makes_room_for_the_next_of_its_host(redis: Redis, ending: str) -> None:
    due_files(redis, ("Video", "a.mp4"), ("Video", "b.mp4"))
    first = claimed(redis, most_per_host=1)
    assert first is not None
    assert claimed(redis, most_per_host=1) is None
    if ending == "told":
        stored = DownloadStored(productions.now(redis), first.key, 5, "ab" * 32, 0.1)
        inbox.observe(redis, first.production_id, stored)
    elif ending == "dropped":
        due.drop_download(redis, first)
    else:
        for key in (f"{PREFIX}download", f"{PREFIX}fetching:one.blob.core.windows.net"):
            redis.zadd(key, {first.member: 0}, xx=True)  # its lease runs out
    second = claimed(redis, most_per_host=1)
    assert second is not None
    assert (second.member != first.member) or ending == "died"
    assert claimed(redis, most_per_host=1) is None


def test_a_claim_that_is_renewed_keeps_its_place_at_the_host(redis: Redis) -> None:
    due_files(redis, ("Video", "a.mp4"), ("Video", "b.mp4"))
    first = claimed(redis, most_per_host=1)
    assert first is not None
    key = f"{PREFIX}fetching:one.blob.core.windows.net"
    redis.zadd(key, {first.member: 0}, xx=True)
    due.renew_download(redis, first, 10)
    assert claimed(redis, most_per_host=1) is None


def test_what_is_stored_leaves_nothing_of_its_lane_or_its_host(redis: Redis) -> None:
    identity = due_files(redis, ("Video", "a.mp4"), ("ClosedCaptions", "a.vtt"))
    found = [one for one in (claimed(redis, most_per_host=4) for _ in range(2)) if one is not None]
    assert len(found) == 2
    for one in found:
        due.renew_download(redis, one, 3, 99)
        inbox.observe(redis, identity, DownloadStored(productions.now(redis), one.key, 5, "ab" * 32, 0.1))
    take_in(redis)
    kept = values_of(redis)
    assert [key for key, value in kept.items() for one in found if one.member in value or one.member in key] == []


def test_progress_tells_how_far_and_how_fast_until_it_is_there(redis: Redis) -> None:
    identity = due_files(redis, ("Video", "a.mp4"))
    found = claimed(redis)
    assert found is not None
    due.renew_download(redis, found, 5_000, 2_500)
    assert productions.progress(redis, found.production) == {found.key: Progress(5_000, 2_500)}
    assert productions.downloads(redis) == [Progress(5_000, 2_500)]
    inbox.observe(redis, identity, DownloadStored(productions.now(redis), found.key, 5, "ab" * 32, 0.1))
    take_in(redis)
    assert productions.downloads(redis) == []


def test_the_line_is_shared_by_all_who_take_of_it(redis: Redis) -> None:
    first = due.take_bandwidth(redis, 1_000_000, 1_000_000)
    second = due.take_bandwidth(redis, 1_000_000, 1_000_000)
    assert 0.9 < first <= 1.001
    assert 1.5 < second <= 2.001


def test_a_line_that_was_not_used_saves_nothing_up(redis: Redis) -> None:
    redis.set(f"{PREFIX}bandwidth", "1")
    assert due.take_bandwidth(redis, 1_000_000, 1_000_000) > 0.9


def test_a_host_without_a_free_place_keeps_no_other_host_and_no_small_file_waiting(redis: Redis) -> None:
    for _ in range(3):
        due_files(redis, *[("Video", f"{number}.mp4") for number in range(100)])
    held = claimed(redis, most_per_host=1)
    assert held is not None
    due_files(redis, ("Transcript", "b.txt"), ("Video", "b.mp4"), host="other.blob.core.windows.net")
    assert kinds(redis, 3, most_per_host=1) == ["Transcript"]
    redis.zremrangebyrank(f"{PREFIX}fetching:other.blob.core.windows.net", 0, -1)
    assert kinds(redis, 3, most_per_host=1) == ["Video"]
    assert due.renew_download(redis, held, 1) == 0


def test_nobody_is_woken_for_files_that_wait_for_a_place_at_their_host(redis: Redis) -> None:
    due_files(redis, ("Video", "a.mp4"), ("Video", "b.mp4"))
    held = claimed(redis, most_per_host=1)
    assert held is not None
    assert due.sweep(redis).download == 1
    assert claimed(redis, most_per_host=1) is None
    assert due.sweep(redis).download == 0
    inbox.observe(redis, held.production_id, DownloadStored(productions.now(redis), held.key, 5, "ab" * 32, 0.1))
    assert due.sweep(redis).download == 1
