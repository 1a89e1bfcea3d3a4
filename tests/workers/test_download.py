"""One file from its address to its place: against the simulator's blob store, a real Redis and a real folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from service import operator
from service.core.production import to_json
from service.core.retry import MOST_LIST_ATTEMPTS
from service.store import deadletters, due, productions
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import event, listing, new_id, take_in
from tests.workers.receiver import Bench
from workers.download import Downloader
from workers.storage.folder import LocalStorage

MEBI = 1024 * 1024


def with_hosts(bench: Bench, *hosts: str) -> Bench:
    return Bench(bench.redis, bench.simulator, bench.settings.model_copy(update={"download_hosts": hosts}))


def test_a_file_is_stored_verified_and_in_its_manifest(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 3 * MEBI + 7, "checksum": "sha256"}, {"type": "Transcript"})
    bench.until_quiet()
    bench.is_stored(identity)
    known = bench.known(identity)
    manifest = json.loads((bench.settings.storage_dir / (known.folder or "") / "manifest.json").read_text())
    assert [one["sha256"] for one in manifest["deliverables"]] == [one.sha256 for one in known.deliverables]
    assert len(bench.blob_requests()) == 2


def test_an_empty_file_is_a_file(bench: Bench) -> None:
    identity = bench.published({"type": "Transcript", "bytes": 0, "checksum": "md5"})
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_cut_line_goes_on_from_where_it_broke(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 4 * MEBI, "checksum": "md5"})
    bench.simulator.set_faults(blob_cut={"next": 2, "value": MEBI})
    bench.until_quiet()
    bench.is_stored(identity)
    first, second, third = bench.blob_requests()
    assert first["range"] == ""
    assert (second["range"], second["status"]) == (f"bytes={first['bytes']}-", 206)
    assert (third["range"], third["status"]) == (f"bytes={first['bytes'] + second['bytes']}-", 206)
    assert first["bytes"] + second["bytes"] + third["bytes"] == 4 * MEBI


@pytest.mark.parametrize("size", [1, 2 * MEBI])
def test_a_partial_file_that_is_complete_is_not_fetched_again(bench: Bench, size: int) -> None:
    """A worker was killed behind the last byte and before the rename."""
    identity = bench.published({"type": "Transcript", "bytes": size, "checksum": "md5"})
    take_in(bench.redis)
    name = f"{identity}.{bench.only(identity).key}"
    url = bench.redis.get(f"{PREFIX}link:{identity}:{bench.only(identity).key}")
    assert isinstance(url, bytes)
    whole = urllib3.request("GET", url.decode())
    partial = bench.settings.state_dir / "partial"
    partial.mkdir(parents=True)
    (partial / f"{name}.part").write_bytes(whole.data)
    (partial / f"{name}.json").write_text(json.dumps({"etag": whole.headers["ETag"], "total": size}))
    bench.until_quiet()
    bench.is_stored(identity)
    assert bench.only(identity).attempts == 0
    assert [one["bytes"] for one in bench.blob_requests()[1:]] == [1]


def test_a_line_that_breaks_again_and_again_brings_the_file_at_last(bench: Bench) -> None:
    """Each connection brings half a MiB: whatever arrived is kept, so the tenth one brings the end."""
    identity = bench.published({"type": "Video", "bytes": 4 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_cut={"next": 9, "value": 450_000})
    bench.until_quiet()
    bench.is_stored(identity)
    assert bench.blob_requests()[1]["range"] == "bytes=450000-"


def test_a_line_that_breaks_is_taken_up_again_in_the_same_attempt_as_long_as_it_brings_something(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 16 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_cut={"next": 10, "value": 1_500_000})
    bench.hurry("download")
    assert Downloader(bench.redis, bench.settings).drain() == 1
    take_in(bench.redis)
    assert bench.only(identity).state == "stored"
    asked = bench.blob_requests()
    assert len(asked) == 11
    assert sum(one["bytes"] for one in asked) == 16 * MEBI, "no byte was sent twice"
    assert not bench.known(identity).list_wanted


def test_a_file_that_changes_at_a_break_is_begun_anew_and_never_stitched(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 6 * MEBI})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 3 * MEBI}, blob_slow={"next": 1, "value": 3 * MEBI})
    bench.hurry("download")
    working = threading.Thread(target=Downloader(bench.redis, bench.settings).drain)
    working.start()
    eventually(lambda: bench.blob_requests(), what="the first request")
    bench.simulator.relist(identity)
    working.join()
    take_in(bench.redis)
    truth = bench.truth(identity)["deliverables"][0]
    assert bench.only(identity).sha256 == truth["sha256"]
    assert [one["status"] for one in bench.blob_requests()] == [200, 412, 200]


def test_bytes_that_are_no_such_file_are_set_aside_and_a_dead_letter_says_what_is_wrong(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 50, "checksum": "md5"})
    bench.until_quiet()
    assert bench.only(identity).state == "failed"
    [letter] = deadletters.newest(bench.redis, 9)
    assert "Video: the file ends" in letter.reason
    kept = Path(letter.details["kept"])
    assert kept.stat().st_size == 50
    assert not kept.is_relative_to(bench.settings.storage_dir)
    assert list(bench.settings.storage_dir.rglob("*.mp4")) == []
    assert list((bench.settings.state_dir / "partial").iterdir()) == []


def test_what_a_sandbox_makes_up_need_not_be_such_a_file(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 50, "checksum": "md5"})
    known = bench.known(identity)
    bench.redis.set(
        f"{PREFIX}production:{identity}", b"%d\n%s" % (known.version, to_json(replace(known, sandbox=True)))
    )
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_file_that_changed_meanwhile_is_begun_anew(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 2 * MEBI})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 900_000})
    bench.fetch()
    bench.simulator.relist(identity)
    take_in(bench.redis, event(identity, 1001, "deliverable.ready", truncated=True))
    bench.ask()
    bench.until_quiet()
    bench.is_stored(identity)
    assert bench.blob_requests()[-1]["status"] == 200


def test_a_file_that_is_listed_anew_with_another_size_before_it_is_here_is_stored(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 2 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 900_000})
    bench.fetch()
    bench.simulator.relist(identity, {"bytes": MEBI + 5})
    take_in(bench.redis, event(identity, 1001, "deliverable.ready", truncated=True))
    bench.ask()
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_server_that_ignores_ranges_brings_the_whole_file_again(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 2 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 900_000}, blob_ignore_range={"rate": 1})
    bench.until_quiet()
    bench.is_stored(identity)
    assert [request["status"] for request in bench.blob_requests()] == [200, 200]


@pytest.mark.parametrize("fault", ["blob_500", "blob_503"])
def test_a_server_in_trouble_is_asked_again_later(bench: Bench, fault: str) -> None:
    identity = bench.published({"type": "Transcript"})
    bench.simulator.set_faults(**{fault: {"next": 2}})
    bench.fetch()
    waiting = bench.only(identity)
    assert (waiting.state, waiting.attempts) == ("wanted", 1)
    assert waiting.next_at is not None
    assert waiting.next_at > productions.now(bench.redis)
    assert Downloader(bench.redis, bench.settings).drain() == 0
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_server_that_stays_in_trouble_ends_in_a_dead_letter_that_a_retry_brings_back(bench: Bench) -> None:
    identity = bench.published({"type": "Transcript"})
    bench.simulator.set_faults(blob_500={"rate": 1})
    bench.until_quiet()
    [letter] = deadletters.newest(bench.redis, 9)
    assert (letter.kind, letter.production_id, bench.only(identity).state) == ("deliverable", identity, "failed")
    assert "500" in letter.reason
    assert 2 <= len(bench.blob_requests()) <= 12
    bench.simulator.set_faults(blob_500={"rate": 0})
    operator.retry(bench.redis, letter)
    take_in(bench.redis)
    bench.until_quiet()
    bench.is_stored(identity)


@pytest.mark.parametrize(
    ("fault", "checksum"), [("blob_corrupt", "md5"), ("blob_corrupt", "sha256"), ("blob_short", "")]
)
def test_bytes_that_stay_wrong_are_never_stored_and_end_in_a_dead_letter(
    bench: Bench, fault: str, checksum: str
) -> None:
    identity = bench.published({"type": "Video", "bytes": 300_000, "checksum": checksum})
    bench.simulator.set_faults(**{fault: {"rate": 1}})
    bench.until_quiet()
    [letter] = deadletters.newest(bench.redis, 9)
    assert bench.only(identity).state == "failed"
    assert "announced" in letter.reason
    assert 2 <= len(bench.blob_requests()) <= 6
    assert list(bench.settings.storage_dir.rglob("*.mp4")) == []
    assert list((bench.settings.state_dir / "partial").iterdir()) == []


@pytest.mark.parametrize("fault", ["blob_corrupt", "blob_short"])
def test_bytes_that_were_wrong_once_are_fetched_anew(bench: Bench, fault: str) -> None:
    identity = bench.published({"type": "Video", "bytes": 300_000, "checksum": "sha256"})
    bench.simulator.set_faults(**{fault: {"next": 1}})
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_checksum_that_jarai_announces_wrong_ends_in_a_dead_letter(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 3000, "checksum": "wrong"})
    bench.until_quiet()
    assert bench.only(identity).state == "failed"
    assert "SHA-256" in deadletters.newest(bench.redis, 1)[0].reason


def test_the_md5_of_the_store_is_checked_where_jarai_announces_nothing(bare_bench: Bench) -> None:
    identity = bare_bench.published({"type": "Video", "bytes": 300_000})
    bare_bench.simulator.set_faults(blob_corrupt={"next": 1})
    bare_bench.until_quiet()
    assert bare_bench.only(identity).state == "stored"
    assert len(bare_bench.blob_requests()) == 2
    truth = bare_bench.truth(identity)["deliverables"][0]
    assert bare_bench.only(identity).sha256 == truth["sha256"]


def test_an_expired_address_makes_it_ask_for_a_new_list_and_the_bytes_so_far_are_kept(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 2 * MEBI})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 900_000})
    bench.fetch()
    bench.simulator.set_faults(blob_expired={"next": 1})
    bench.fetch()
    waiting = bench.only(identity)
    assert (waiting.state, waiting.link_expires_at, waiting.next_at) == ("wanted", None, None)
    assert bench.known(identity).list_at is not None
    asked = len(bench.simulator.truth()["apiRequests"])
    bench.until_quiet()
    bench.is_stored(identity)
    assert [one["path"].endswith("/deliverables") for one in bench.simulator.truth()["apiRequests"][asked:]] == [True]
    assert bench.blob_requests()[-1]["status"] == 206


def test_an_address_that_is_always_expired_is_given_up_at_last(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 1000})
    bench.simulator.set_faults(blob_expired={"rate": 1})
    bench.until_quiet(40)
    assert bench.only(identity).state == "failed"
    assert len(bench.blob_requests()) <= 2 * MOST_LIST_ATTEMPTS


def test_a_forbidden_host_is_never_asked_and_the_dead_letter_names_the_setting(bench: Bench) -> None:
    elsewhere = with_hosts(bench, "*.blob.core.windows.net")
    identity = elsewhere.published({"type": "Video", "bytes": 1000})
    elsewhere.fetch()
    assert elsewhere.only(identity).state == "failed"
    [letter] = deadletters.newest(bench.redis, 9)
    assert "DOWNLOAD_HOSTS" in letter.reason
    assert "127.0.0.1" in letter.reason
    assert bench.blob_requests() == []


@pytest.mark.parametrize(
    "address",
    [
        "http://store.blob.core.windows.net/film.mp4",
        "ftp://127.0.0.1/film.mp4",
        "file:///etc/passwd",
        "https://user:word@store.blob.core.windows.net/x",
        "https://127.0.0.1\\.blob.core.windows.net/film.mp4",
        "https://127.0.0.1:9\\@store.blob.core.windows.net/film.mp4",
        "https://127.0.0.1#.blob.core.windows.net/film.mp4",
        "https://127.0.0.1?.blob.core.windows.net/film.mp4",
        "https:///film.mp4",
        "https://[::1/film.mp4",
        "film.mp4",
        "//127.0.0.1/film.mp4",
    ],
)
def test_an_address_that_leads_elsewhere_is_refused_without_a_request(bench: Bench, address: str) -> None:
    azure = with_hosts(bench, "*.blob.core.windows.net")
    identity = new_id()
    take_in(bench.redis, event(identity, 1, "deliverable.ready", data=listing(address)))
    azure.fetch()
    given_up = azure.only(identity)
    assert given_up.state == "failed", given_up.error
    [letter] = deadletters.newest(bench.redis, 9)
    assert letter.details["failure"] == "forbidden"


@pytest.mark.parametrize("address", ["https://[::1/film.mp4", "https://a.b:port/film.mp4", "?sig=1", "https://\ud7ff"])
def test_an_address_that_can_not_be_read_is_a_dead_letter_also_without_a_file_name(bench: Bench, address: str) -> None:
    identity, data = new_id(), {"deliverables": [{"deliverableId": "d", "type": "Video", "sasUrl": address}]}
    take_in(bench.redis, event(identity, 1, "deliverable.ready", data=data))
    assert productions.read(bench.redis, identity) is not None
    bench.fetch()
    assert bench.known(identity).sequence == 1


def placed_but_not_told(bench: Bench, identity: str, content: bytes) -> None:
    """What a process leaves that dies between the rename and its report."""
    known, one = bench.known(identity), bench.only(identity)
    storage = LocalStorage.open(bench.settings.storage_dir, bench.settings.state_dir)
    with storage.begin(f"{identity}.{one.key}") as partial:
        assert partial is not None
        partial.append(content)
        partial.write_note({"stored": [len(content), hashlib.sha256(content).hexdigest()]})
    (storage.root / (known.folder or "")).mkdir(parents=True)
    os.rename(storage.partial / f"{identity}.{one.key}.part", storage.root / (known.folder or "") / one.file)


def test_a_file_that_was_put_in_its_place_before_a_crash_is_not_fetched_again(bare_bench: Bench) -> None:
    bench = bare_bench
    identity = bench.published({"type": "Transcript"})
    placed_but_not_told(bench, identity, b"the whole file")
    bench.until_quiet()
    assert bench.only(identity).sha256 == hashlib.sha256(b"the whole file").hexdigest()
    assert bench.known(identity).settled
    assert bench.blob_requests() == []
    assert list((bench.settings.state_dir / "partial").iterdir()) == []


def test_a_file_that_is_not_what_jarai_announces_is_fetched_although_a_note_says_that_it_is_stored(
    bench: Bench,
) -> None:
    identity = bench.published({"type": "Transcript"})
    placed_but_not_told(bench, identity, b"the whole file")
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_file_that_was_damaged_after_a_crash_is_fetched_again(bench: Bench) -> None:
    identity = bench.published({"type": "Transcript"})
    placed_but_not_told(bench, identity, b"the whole file")
    known = bench.known(identity)
    (bench.settings.storage_dir / (known.folder or "") / bench.only(identity).file).write_bytes(b"the whole fil3")
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_lost_claim_never_renames_and_reports_nothing(bench: Bench) -> None:
    identity = bench.published({"type": "Video", "bytes": 400_000})
    bench.simulator.set_faults(blob_slow={"next": 1, "value": 800_000})
    slow = threading.Thread(target=Downloader(bench.redis, bench.settings).drain)
    slow.start()
    eventually(lambda: bench.blob_requests())
    bench.hurry("download")
    other = due.claim_download(bench.redis, "another worker")
    assert other is not None
    slow.join()
    assert list(bench.settings.storage_dir.rglob("*.mp4")) == []
    assert bench.redis.llen(f"{PREFIX}inbox:{identity}") == 0
    assert due.renew_download(bench.redis, other, 0) is not None
    bench.until_quiet()
    bench.is_stored(identity)


def test_a_folder_that_is_not_there_keeps_files_waiting_without_counting_attempts(bench: Bench) -> None:
    identity = bench.published({"type": "Transcript"})
    bench.settings.storage_dir.write_text("a file where the folder should be")
    for _ in range(15):
        bench.fetch()
    waiting = bench.only(identity)
    assert (waiting.state, waiting.attempts) == ("wanted", 0)
    assert bench.blob_requests() == []
    bench.settings.storage_dir.unlink()
    bench.until_quiet()
    bench.is_stored(identity)


def test_many_downloaders_share_the_work_and_fetch_each_file_once(bench: Bench) -> None:
    identity = bench.published(*({"type": "Transcript", "bytes": 20_000} for _ in range(30)))
    threads = [threading.Thread(target=Downloader(bench.redis, bench.settings).drain) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    take_in(bench.redis)
    bench.until_quiet()
    bench.is_stored(identity)
    paths = [request["path"] for request in bench.blob_requests()]
    assert len(paths) == len(set(paths)) == 30


def test_an_unreadable_production_holds_no_other_file_up(bench: Bench) -> None:
    spoilt = bench.published({"type": "Transcript"})
    sound = bench.published({"type": "Transcript"})
    bench.redis.set(f"{PREFIX}production:{spoilt}", b"9\n{unreadable")
    bench.redis.zadd(f"{PREFIX}download", {f"{spoilt}:x": 0})
    Downloader(bench.redis, bench.settings).drain()
    take_in(bench.redis)
    assert bench.only(sound).state == "stored"


_FETCH = """
import resource, sys
from redis import Redis
from service import log
from service.settings import load
from tests.workers.receiver import Bench
from workers.download import Downloader
settings = load(dotenv=None)
log.configure("json", "error", (), sys.stderr)
with Redis.from_url(settings.redis_url) as redis:
    assert Downloader(redis, settings).drain() == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat_however_large_the_file_is(bench: Bench, redis_url: str) -> None:
    def peak_kib(size_bytes: int) -> int:
        identity = bench.published({"type": "Video", "bytes": size_bytes})
        environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "DOWNLOAD_HOSTS": "127.0.0.1",
            "STORAGE_URL": str(bench.settings.storage_dir),
            "STATE_DIR": str(bench.settings.state_dir),
        }
        done = subprocess.run(
            [sys.executable, "-c", _FETCH], env=environment, capture_output=True, text=True, check=True, timeout=50
        )
        take_in(bench.redis)
        assert bench.only(identity).state == "stored"
        bench.until_quiet()
        return int(done.stdout)

    assert peak_kib(200_000_000) - peak_kib(2_000_000) <= 16 * 1024


def test_a_small_file_that_falls_due_is_fetched_beside_a_large_one(bench: Bench) -> None:
    bench.simulator.set_faults(blob_slow={"next": 1, "value": 5_000_000})
    large = bench.published({"type": "Video", "bytes": 20_000_000})
    working = threading.Thread(target=Downloader(bench.redis, bench.settings).drain)
    bench.hurry("download")
    working.start()
    eventually(lambda: bench.blob_requests(), what="the large one's request")
    small = bench.published({"type": "ClosedCaptions", "bytes": 2_000})
    bench.hurry("download")

    def small_is_stored() -> bool:
        take_in(bench.redis)
        return bench.only(small).state == "stored"

    eventually(small_is_stored, what="the small one")
    assert working.is_alive(), "the large one is still on its way"
    assert bench.only(large).state == "wanted"
    working.join()
    take_in(bench.redis)
    bench.until_quiet()
    bench.is_stored(large)
    bench.is_stored(small)


def test_what_all_downloads_take_of_the_line_is_held_to_its_limit(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"download_bytes_per_second": 500_000})
    identity = bench.published({"type": "Video", "bytes": 1_000_000})
    began = time.monotonic()
    bench.until_quiet()
    assert time.monotonic() - began > 1.5
    bench.is_stored(identity)


def test_progress_is_told_while_a_file_comes(bench: Bench) -> None:
    bench.simulator.set_faults(blob_slow={"next": 1, "value": 1_000_000})
    identity = bench.published({"type": "Video", "bytes": 3_000_000})
    bench.hurry("download")
    working = threading.Thread(target=Downloader(bench.redis, bench.settings).drain)
    working.start()
    told = eventually(lambda: productions.progress(bench.redis, bench.known(identity)), what="progress")
    working.join()
    [progress] = told.values()
    assert 0 < progress.bytes < 3_000_000
    assert 100_000 < progress.bytes_per_second < 10_000_000
