"""Whole productions into an object store: broken lines, killed workers, another host; JARAI's side is simulated."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis

from service.runtime import Runtime
from service.settings import load
from service.store import deadletters
from tests.deployment import eventually
from tests.store.making import take_in
from tests.workers.places import Objects
from tests.workers.receiver import Bench
from workers.rebuild import rebuild
from workers.simulator.running import Running

MEBI = 1024 * 1024


@dataclass
class Scene:
    """A receiver that keeps its files in a bucket."""

    bench: Bench
    place: Objects
    environment: dict[str, str]

    def is_stored(self, identity: str) -> None:
        """Every file lies there, is JARAI's to the byte and in the manifest, and nothing is left over."""
        truth = {one["deliverableId"]: one["sha256"] for one in self.bench.truth(identity)["deliverables"]}
        known = self.bench.known(identity)
        assert known.settled
        manifest = json.loads(self.place.content(f"{known.folder}/manifest.json"))
        told = {one["file"]: (one["bytes"], one["sha256"]) for one in manifest["deliverables"]}
        for one in known.deliverables:
            content = self.place.content(f"{known.folder}/{one.file}")
            assert hashlib.sha256(content).hexdigest() == one.sha256 == truth[one.id]
            assert told[one.file] == (len(content), one.sha256)
        assert set(self.place.seen()) == {f"{known.folder}/{name}" for name in (*told, "manifest.json")}
        assert self.place.left_over() == []
        assert deadletters.count(self.bench.redis) == 0

    def worker(self) -> subprocess.Popen[bytes]:
        """Another process, that fetches whatever is due."""
        return subprocess.Popen([sys.executable, "-c", _FETCH], env={**os.environ, **self.environment})


_FETCH = """
import sys
from redis import Redis
from service import log
from service.settings import load
from workers.download import Downloader
settings = load(dotenv=None)
log.configure("json", "error", (), sys.stderr)
with Redis.from_url(settings.redis_url) as redis:
    Downloader(redis, settings).drain()
"""


@pytest.fixture(params=["azurite", "s3"])
def scene(request: pytest.FixtureRequest, redis: Redis, redis_url: str, simulator: Running, tmp_path: Path) -> Scene:
    if request.param == "azurite":
        place = Objects(request.getfixturevalue("azurite").container())
    else:
        place = Objects(request.getfixturevalue("s3_server").bucket())
    environment = {
        **place.bucket.environment,
        "DOWNLOAD_HOSTS": "127.0.0.1",
        "REDIS_URL": redis_url,
        "STATE_DIR": str(tmp_path / "state"),
    }
    return Scene(Bench(redis, simulator, load(environment, None)), place, environment)


def test_a_production_lies_in_the_bucket_with_its_manifest_and_nothing_on_this_disk(
    scene: Scene, tmp_path: Path
) -> None:
    bench = scene.bench
    identity = bench.published(
        {"type": "Video", "bytes": 18 * MEBI + 7, "checksum": "sha256"},
        {"type": "Transcript"},
        {"type": "Thumbnail", "bytes": 0, "checksum": "md5"},
    )
    bench.until_quiet()
    scene.is_stored(identity)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_line_that_breaks_goes_on_where_it_broke_also_from_another_host(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Video", "bytes": 20 * MEBI, "checksum": "md5"})
    bench.simulator.set_faults(blob_cut={"next": 2, "value": 900_000})
    bench.fetch()
    assert scene.place.seen() == {}
    bench.hurry("download")
    assert scene.worker().wait(30) == 0
    take_in(bench.redis)
    bench.until_quiet()
    scene.is_stored(identity)
    first, second, third = bench.blob_requests()
    assert second["range"] == f"bytes={first['bytes']}-"
    assert first["bytes"] + second["bytes"] + third["bytes"] == 20 * MEBI


def test_an_address_that_expired_meanwhile_costs_no_byte(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Video", "bytes": 2 * MEBI})
    bench.simulator.set_faults(blob_cut={"next": 1, "value": 900_000})
    bench.fetch()
    bench.simulator.set_faults(blob_expired={"next": 1})
    bench.until_quiet()
    scene.is_stored(identity)
    assert bench.blob_requests()[-1]["range"] == "bytes=900000-"


def test_bytes_that_are_wrong_are_never_visible(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Video", "bytes": 9 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_corrupt={"next": 1})
    bench.fetch()
    assert (scene.place.seen(), scene.place.left_over()) == ({}, [])
    bench.until_quiet()
    scene.is_stored(identity)


def test_a_worker_that_is_killed_while_bytes_come_is_followed_by_one_that_goes_on(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Video", "bytes": 30 * MEBI, "checksum": "sha256"})
    bench.simulator.set_faults(blob_slow={"next": 1, "value": 10 * MEBI})
    worker = scene.worker()
    eventually(lambda: any("/00000" in name for name in scene.place.left_over()), what="the first chunk")
    worker.kill()
    worker.wait()
    assert scene.place.seen() == {}
    bench.until_quiet()
    scene.is_stored(identity)
    assert bench.blob_requests()[-1]["status"] == 206


def test_a_worker_that_is_killed_while_it_puts_a_film_together_leaves_nothing_half_visible(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Video", "bytes": 26 * MEBI, "checksum": "sha256"})
    worker = scene.worker()
    eventually(lambda: scene.place.bucket.unfinished() == 1, what="the upload of the whole")
    worker.kill()
    worker.wait()
    assert scene.place.seen() == {}
    bench.until_quiet()
    scene.is_stored(identity)
    assert sum(one["bytes"] for one in bench.blob_requests()) < 40 * MEBI, "the chunks that lay there were used"


def test_an_emptied_redis_is_filled_again_from_the_manifests_in_the_bucket(scene: Scene) -> None:
    bench = scene.bench
    identity = bench.published({"type": "Transcript"}, {"type": "Transcript"})
    bench.until_quiet()
    asked = len(bench.blob_requests())
    bench.redis.flushall()
    outcome = rebuild(Runtime(bench.settings))
    assert (outcome.rebuilt, outcome.asked) == (1, 0)
    take_in(bench.redis)
    bench.until_quiet()
    scene.is_stored(identity)
    assert len(bench.blob_requests()) == asked


def test_a_bucket_that_is_not_there_keeps_files_waiting_without_counting_attempts(scene: Scene) -> None:
    bench = scene.bench
    scheme = bench.settings.storage_url.partition(":")[0]
    gone = bench.settings.model_copy(update={"storage_url": f"{scheme}://not-there"})
    identity = bench.published({"type": "Transcript"})
    for _ in range(12):
        Bench(bench.redis, bench.simulator, gone).fetch()
    waiting = bench.only(identity)
    assert (waiting.state, waiting.attempts) == ("wanted", 0)
    bench.until_quiet()
    scene.is_stored(identity)
