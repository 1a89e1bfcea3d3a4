"""`verify`: what lies in the folder is read whole, and what is not as it was recorded is fetched again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import StorageUnavailable
from service.runtime import Runtime
from tests.store.making import event, take_in
from tests.workers.receiver import Bench
from workers.verify import Verification


def runtime_of(bench: Bench) -> Runtime:
    runtime = Runtime(bench.settings)
    runtime.__dict__["redis"] = bench.redis
    return runtime


def verified(bench: Bench, only: str | None = None) -> Verification:
    check = Verification(runtime_of(bench))
    check.run(only)
    take_in(bench.redis)
    return check


def stored(bench: Bench) -> tuple[str, Path]:
    """A settled production, and its file."""
    identity = bench.published({"type": "Video", "bytes": 200_000})
    bench.until_quiet()
    return identity, bench.settings.storage_dir / (bench.known(identity).folder or "") / bench.only(identity).file


def test_what_is_whole_is_read_and_left_alone(bench: Bench) -> None:
    identity, path = stored(bench)

    def untouched() -> tuple[int, int, int, int]:  # that it was read may show, where a second begins meanwhile
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    before = untouched()
    check = verified(bench)
    assert (check.productions, check.files, check.bytes, check.damages) == (1, 1, 200_000, [])
    assert untouched() == before
    assert check.wait(0) == 0
    assert bench.known(identity).settled


@pytest.mark.parametrize("problem", ["is gone", "has 3 bytes, 200000 were stored", "has other bytes than were stored"])
def test_a_damaged_file_is_fetched_again_and_its_bytes_are_kept_aside(bench: Bench, problem: str) -> None:
    identity, path = stored(bench)
    content = {"is gone": None, "has 3 bytes, 200000 were stored": b"abc"}.get(problem, b"x" * 200_000)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    check = verified(bench, identity)
    [damage] = check.damages
    assert (damage.file, damage.problem) == (path.name, problem)
    assert not path.exists(), "what is damaged does not lie under its final name"
    if content is not None:
        assert damage.kept is not None
        assert Path(damage.kept).read_bytes() == content
    assert check.wait(0) == 1
    bench.until_quiet()
    assert check.wait(0) == 0
    assert damage.outcome == "repaired"
    bench.is_stored(identity)


def test_a_file_is_not_called_repaired_because_a_worker_takes_the_damage_in_while_it_is_looked_at(bench: Bench) -> None:
    """What was read of a production before its inbox was found empty may be what it was before the damage."""
    identity, path = stored(bench)
    path.unlink()
    here = runtime_of(bench)
    check = Verification(here)
    check.run(identity)

    class Busy:
        """Redis, and a worker that is done in the moment in which somebody looks at an inbox."""

        def __getattr__(self, name: str) -> Any:
            return getattr(bench.redis, name)

        def exists(self, *names: str) -> Any:
            take_in(bench.redis)
            return bench.redis.exists(*names)

    check._redis = Busy()  # type: ignore[assignment]
    assert check.wait(0) == 1
    assert check.damages[0].outcome != "repaired"


def test_while_it_is_damaged_the_manifest_does_not_say_that_all_is_there(bench: Bench) -> None:
    identity, path = stored(bench)
    path.unlink()
    verified(bench)
    bench.fetch()
    told = json.loads((path.parent / "manifest.json").read_text())
    assert (told["settled"], told["deliverables"]) == (False, [])
    bench.until_quiet()
    bench.is_stored(identity)


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_a_damaged_manifest_is_written_again(bench: Bench, content: bytes | None) -> None:
    identity, path = stored(bench)
    written = (path.parent / "manifest.json").read_bytes()
    (path.parent / "manifest.json").unlink()
    if content is not None:
        (path.parent / "manifest.json").write_bytes(content)
    check = verified(bench)
    assert [damage.file for damage in check.damages] == ["manifest.json"]
    bench.until_quiet()
    assert check.wait(0) == 0
    assert (path.parent / "manifest.json").read_bytes() == written
    assert bench.known(identity).settled


def test_a_production_that_redis_has_forgotten_is_verified_by_its_manifest_and_repaired(bench: Bench) -> None:
    identity, path = stored(bench)
    bench.redis.flushdb()
    assert verified(bench).damages == []
    assert bench.redis.zcard("jarai:index") == 0, "what is whole costs nothing"
    path.write_bytes(b"x" * 200_000)
    check = verified(bench, identity)
    assert [damage.problem for damage in check.damages] == ["has other bytes than were stored"]
    bench.until_quiet()
    assert check.wait(0) == 0
    bench.is_stored(identity)


def test_what_jarai_no_longer_has_is_given_up_and_said(bench: Bench) -> None:
    identity, path = stored(bench)
    path.unlink()
    check = verified(bench)
    bench.simulator.set_faults(blob_expired={"next": 100})
    for _ in range(8):
        bench.ask()
        bench.fetch()
    bench.simulator.set_faults(blob_expired={"next": 0})
    assert check.wait(0) == 1
    assert check.damages[0].outcome.startswith("given up")
    assert bench.only(identity).state == "failed"


def test_a_folder_that_can_not_be_read_is_said(bench: Bench, tmp_path: Path) -> None:
    bench.settings.storage_dir.write_text("a file where the folder should be")
    with pytest.raises(StorageUnavailable):
        verified(bench)


def test_a_production_that_begins_while_everything_is_read_is_no_forgotten_one(bench: Bench) -> None:
    """Its manifest lies there by the time that the forgotten ones are looked for, and Redis knows it."""
    identity, path = stored(bench)
    path.write_bytes(b"x" * 200_000)
    check = Verification(runtime_of(bench))
    index = bench.redis.zrange("jarai:index", 0, -1, withscores=True)
    bench.redis.delete("jarai:index")  # as if it had not been listed yet
    check.run()
    assert index
    take_in(bench.redis)
    bench.until_quiet()
    assert check.wait(0) == 0
    assert path.exists()
    bench.is_stored(identity)


def test_a_state_that_can_not_be_read_has_nothing_taken_away(bench: Bench) -> None:
    identity, path = stored(bench)
    path.write_bytes(b"x" * 200_000)
    bench.redis.set(f"jarai:production:{identity}", b"9\nnonsense")
    assert verified(bench).damages == []
    assert path.exists()


def test_a_lost_newest_version_of_a_forgotten_production_is_fetched_and_the_older_one_stays(bench: Bench) -> None:
    identity, path = stored(bench)
    bench.simulator.relist(identity, {"bytes": 100_000})
    take_in(bench.redis, event(identity, 1001, "deliverable.ready", truncated=True, data={}))
    bench.until_quiet()
    first, second = bench.known(identity).deliverables
    (path.parent / second.file).unlink()
    bench.redis.flushdb()
    check = verified(bench)
    assert [damage.file for damage in check.damages] == [second.file]
    bench.until_quiet()
    assert check.wait(0) == 0
    back = {one.version: one for one in bench.known(identity).deliverables}
    assert (back[1].sha256, back[2].sha256) == (first.sha256, second.sha256)
    assert bench.known(identity).settled
    assert (path.parent / second.file).stat().st_size == 100_000
