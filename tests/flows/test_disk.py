"""A disk that is full, read-only or gone: said once, no storm, events go on, and files as soon as there is room."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually
from workers.simulator.running import Running

MIB = 1024 * 1024
DOWNLOADERS = 3
_HURRY = """
for _, member in ipairs(redis.call('ZRANGE', 'jarai:download', 0, -1)) do
  if redis.call('HEXISTS', 'jarai:claims', member) == 0 then redis.call('ZADD', 'jarai:download', 0, member) end
end
return redis.call('DEL', 'jarai:storage:try')
"""
BIG: dict[str, object] = {"type": "Video", "bytes": 3 * MIB}
SMALL: dict[str, object] = {"type": "ClosedCaptions", "bytes": 4_000}


class Disk:
    """A file system of its own, as small as a test wants it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> bool:
        """False while somebody has a file open for writing."""
        return subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """4 MiB with 2 MiB left. Whoever uses it is ended before it goes."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a file system of the test's own can't be mounted here: {made.stderr.strip()}")
    try:
        (path / "ballast").write_bytes(bytes(2 * MIB))
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def placed(disk: Disk, deployment: Deployment) -> Deployment:
    """A deployment with its files on that disk; settles by webhooks alone, so that polling plays no part."""
    deployment.environment |= {
        "STORAGE_URL": str(disk.path / "deliverables"),
        "STATE_DIR": str(disk.path / "state"),
        "WEBHOOK_SILENCE_SECONDS": "120",
    }
    return deployment


class Watch:
    """What is seen of the trouble from outside."""

    def __init__(self, deployment: Deployment, simulator: Running, redis: Redis) -> None:
        self.deployment, self.simulator, self.redis = deployment, simulator, redis

    def said(self, event: str) -> int:
        return len(self.deployment.log(event))

    def fetched(self) -> int:
        return len(self.simulator.truth()["blobRequests"])

    def hurry(self) -> None:
        """Whatever waits for the disk, and is not being tried, is tried now instead of in up to thirty seconds."""
        self.redis.eval(_HURRY, 0)

    def settled_in_a_hurry(self, *identities: str) -> None:
        for identity in identities:
            eventually(partial(self._is_settled_in_a_hurry, identity), 45, "settling")

    def _is_settled_in_a_hurry(self, identity: str) -> bool:
        self.hurry()
        return bool((self.deployment.production(identity) or {}).get("settled"))

    def probe(self) -> None:
        """Have one more attempt made, and see it end."""
        self.hurry()
        eventually(lambda: self.redis.exists(f"{PREFIX}storage:try"), what="an attempt")
        eventually(lambda: self.redis.zcount(f"{PREFIX}dirty", "-inf", "+inf") == 0, what="its result's being taken in")

    def is_whole(self, identity: str) -> None:
        """Every file lies there, and is JARAI's to the byte."""
        productions = self.simulator.truth()["productions"]
        truth = next(one for one in productions if one["productionId"] == identity)["deliverables"]
        shown = self.deployment.production(identity)
        assert shown is not None
        here = {one["id"]: one for one in shown["deliverables"]}
        folder = Path(self.deployment.environment["STORAGE_URL"]) / shown["folder"]
        for file in truth:
            content = (folder / here[file["deliverableId"]]["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert (folder / "manifest.json").is_file()


@pytest.fixture
def watch(placed: Deployment, simulator: Running, redis: Redis) -> Watch:
    placed.start_all()
    eventually(lambda: redis.scard("rq:workers") == 1 + DOWNLOADERS, what="the workers' listening")
    return Watch(placed, simulator, redis)


def _is(deployment: Deployment, identity: str, status: str) -> bool:
    return (deployment.production(identity) or {}).get("status") == status


def _nothing_partial(deployment: Deployment) -> None:
    assert list((Path(deployment.environment["STATE_DIR"]) / "partial").iterdir()) == []


def _goes_on(watch: Watch) -> None:
    """Webhooks are accepted and move their productions, whatever the disk does."""
    failing = watch.simulator.produce({"outcome": "Failed"})
    eventually(partial(_is, watch.deployment, failing, "Failed"), 10, "going on")


@pytest.mark.timeout(120)
def test_a_full_disk_is_said_once_and_downloads_go_on_by_themselves_when_there_is_room(
    watch: Watch, disk: Disk
) -> None:
    """Nobody helps: the pause is ten seconds between two tries at the disk, and thirty for a file that was tried."""
    began = monotonic()
    ids = [watch.simulator.produce({"deliverables": [BIG]}) for _ in range(6)]
    eventually(lambda: watch.said("storage.unavailable"), what="the one line")
    for identity in ids:
        eventually(partial(_is, watch.deployment, identity, "Published"), what="going on")
    _goes_on(watch)
    tries = DOWNLOADERS + int(monotonic() - began) // 10
    assert watch.fetched() <= tries, "only who had begun already has tried, and then one every ten seconds"
    (disk.path / "ballast").unlink()
    assert disk.remount("size=64m")
    watch.deployment.settled(*ids, seconds=45)
    for identity in ids:
        watch.is_whole(identity)
    assert (watch.said("storage.unavailable"), watch.said("storage.available")) == (1, 1)
    assert watch.fetched() <= tries + 1 + len(ids)
    assert watch.deployment.get("/deadletters")["deadletters"] == []
    _nothing_partial(watch.deployment)


@pytest.mark.timeout(120)
def test_a_disk_that_stays_full_is_tried_with_one_file_at_a_time_and_not_talked_about(watch: Watch, disk: Disk) -> None:
    """Small files still fit: that they do is no news, and does not set everybody on the big ones again."""
    ids = [watch.simulator.produce({"deliverables": [BIG, SMALL]}) for _ in range(6)]
    eventually(lambda: watch.said("storage.unavailable"), what="the one line")
    for identity in ids:
        eventually(partial(_is, watch.deployment, identity, "Published"), what="going on")
    for _ in range(12):
        watch.probe()
    _goes_on(watch)
    small = len(ids)
    assert watch.fetched() <= DOWNLOADERS + 12 + small
    assert watch.said("storage.unavailable") == 1
    assert watch.said("storage.available") == 0
    assert watch.said("deliverable.retrying") <= 2 * len(ids)
    assert disk.remount("size=64m")
    watch.settled_in_a_hurry(*ids)
    for identity in ids:
        watch.is_whole(identity)
    assert (watch.said("storage.unavailable"), watch.said("storage.available")) == (1, 1)


@pytest.mark.timeout(120)
def test_a_folder_that_takes_nothing_is_said_once_and_used_again_when_it_does(watch: Watch, disk: Disk) -> None:
    """First its file system is read-only, then a file lies in its place."""
    assert disk.remount("size=64m")
    folder = Path(watch.deployment.environment["STORAGE_URL"])
    eventually(lambda: disk.remount("ro"), what="the remount")
    _nothing_is_fetched_until(watch, partial(disk.remount, "rw"), times=1)
    folder.rename(folder.with_suffix(".away"))
    folder.write_text("")

    def put_back() -> None:
        folder.unlink()
        folder.with_suffix(".away").rename(folder)

    _nothing_is_fetched_until(watch, put_back, times=2)
    _nothing_partial(watch.deployment)


def _nothing_is_fetched_until(watch: Watch, mend: Callable[[], object], times: int) -> None:
    before = watch.fetched()
    ids = [watch.simulator.produce({"deliverables": [BIG, SMALL]}) for _ in range(3)]
    eventually(lambda: watch.said("storage.unavailable") == times, what="the one line")
    for identity in ids:
        eventually(partial(_is, watch.deployment, identity, "Published"), what="going on")
    for _ in range(8):
        watch.probe()
    _goes_on(watch)
    assert watch.fetched() == before, "nothing is fetched for a folder that can't take it"
    mend()
    watch.settled_in_a_hurry(*ids)
    for identity in ids:
        watch.is_whole(identity)
    assert (watch.said("storage.unavailable"), watch.said("storage.available")) == (times, times)
    assert watch.fetched() == before + 2 * len(ids)


@pytest.mark.timeout(120)
def test_folders_that_are_moved_away_amid_a_download_are_made_again(watch: Watch, disk: Disk) -> None:
    assert disk.remount("size=64m")
    watch.simulator.set_faults(blob_slow={"rate": 1.0, "value": 2_000_000})
    identity = watch.simulator.produce({"deliverables": [BIG, SMALL]})
    state, files = (Path(watch.deployment.environment[name]) for name in ("STATE_DIR", "STORAGE_URL"))
    eventually(lambda: any(one.stat().st_size > MIB for one in state.glob("partial/*.part")), what="the download")
    for folder in (state, files):
        folder.rename(folder.with_suffix(".away"))
    watch.simulator.set_faults(blob_slow=0)
    eventually(lambda: watch.said("storage.unavailable"), what="the one line")
    watch.settled_in_a_hurry(identity)
    assert (watch.said("storage.unavailable"), watch.said("storage.available")) == (1, 1)
    _nothing_partial(watch.deployment)
