"""The folder for deliverables: whole files or none, one writer each, and a plain error when the disk refuses."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.core.errors import StorageUnavailable
from workers.storage import Stored
from workers.storage.folder import LocalStorage, _alone_with

_HOLDER = """
import sys
from pathlib import Path
from workers.storage.folder import LocalStorage
with LocalStorage.open(Path(sys.argv[1]), Path(sys.argv[2])).begin("one") as partial:
    print(partial is not None, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.open(tmp_path / "deliverables", tmp_path / "state")


def nothing() -> None: ...


def leftovers(storage: LocalStorage) -> list[str]:
    return sorted(path.name for path in storage.partial.iterdir())


def test_what_was_appended_lies_under_its_final_name_and_nothing_is_left_over(storage: LocalStorage) -> None:
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"abc")
        partial.append(b"def")
        partial.write_note({"etag": '"1"'})
        partial.sync()
        partial.put_in_place("account/production", "film.mp4")
    assert (storage.root / "account/production/film.mp4").read_bytes() == b"abcdef"
    assert leftovers(storage) == ["one.json"], "the note stays until the file has been told of"
    storage.forget("one")
    assert leftovers(storage) == []
    whole = Stored(6, hashlib.sha256(b"abcdef").hexdigest(), hashlib.md5(b"abcdef").hexdigest())
    assert storage.stored("account/production", "film.mp4", nothing) == whole
    assert storage.stored("account/production", "other.mp4", nothing) is None


def test_an_interrupted_file_goes_on_where_it_was_with_its_note(storage: LocalStorage) -> None:
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"abc")
        partial.write_note({"etag": '"1"'})
    with storage.begin("one") as partial:
        assert partial is not None
        assert (partial.size_bytes, partial.note) == (3, {"etag": '"1"'})
        digest = hashlib.sha256()
        partial.hash_into(digest)
        assert digest.hexdigest() == hashlib.sha256(b"abc").hexdigest()
        partial.append(b"def")
        partial.put_in_place("a", "b")
    assert (storage.root / "a/b").read_bytes() == b"abcdef"


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[1]", b"\xff"])
def test_a_note_that_can_not_be_read_is_none(storage: LocalStorage, spoilt: bytes) -> None:
    (storage.partial / "one.json").write_bytes(spoilt)
    with storage.begin("one") as partial:
        assert partial is not None
        assert partial.note == {}


def test_only_one_process_has_a_partial_file_and_its_death_frees_it(storage: LocalStorage, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(storage.root), str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        with storage.begin("one") as partial:
            assert partial is None
        with storage.begin("two") as partial:
            assert partial is not None
        holder.kill()
    with storage.begin("one") as partial:
        assert partial is not None


def test_of_many_threads_one_has_the_partial_file(storage: LocalStorage) -> None:
    gate, done, got = threading.Barrier(8), threading.Barrier(8), []

    def run() -> None:
        gate.wait()
        with storage.begin("one") as partial:
            got.append(partial is not None)
            done.wait()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_finished_file_is_never_touched_by_whoever_opened_the_partial_before(storage: LocalStorage) -> None:
    """Opened before the rename, locked after it: the file behind the descriptor is the finished one by then."""
    path = storage.partial / "one.part"
    with storage.begin("one") as first:
        assert first is not None
        first.append(b"whole")
        early = os.open(path, os.O_RDWR)
        first.put_in_place("a", "film")
    assert not _alone_with(early, path)
    os.close(early)
    with storage.begin("one") as second:
        assert second is not None
        second.restart()
    assert (storage.root / "a/film").read_bytes() == b"whole"


def test_a_reader_of_a_small_file_sees_the_old_or_the_new_one(storage: LocalStorage) -> None:
    contents = [bytes([65 + number]) * 50_000 for number in range(2)]
    storage.write("t", "a", "manifest.json", contents[0])
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add((storage.root / "a/manifest.json").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        storage.write(f"t{turn}", "a", "manifest.json", contents[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)
    assert leftovers(storage) == []


def test_discarding_leaves_nothing(storage: LocalStorage) -> None:
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"x")
        partial.write_note({})
        partial.discard()
    assert leftovers(storage) == []


@pytest.mark.parametrize("place", ["file/below", "/proc/nowhere", "loop"])
def test_a_folder_that_can_not_be_made_is_storage_unavailable(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageUnavailable):
        LocalStorage.open(tmp_path / place, tmp_path / "state")
    with pytest.raises(StorageUnavailable):
        LocalStorage.open(tmp_path / "deliverables", tmp_path / place)


def test_a_file_where_the_production_should_have_its_folder_is_storage_unavailable(storage: LocalStorage) -> None:
    (storage.root / "account").write_text("not a folder")
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"x")
        with pytest.raises(StorageUnavailable):
            partial.put_in_place("account/production", "film")
    assert (storage.partial / "one.part").read_bytes() == b"x"
    with pytest.raises(StorageUnavailable):
        storage.stored("account/production", "film", nothing)


def test_a_small_file_that_can_not_be_placed_leaves_nothing_over(storage: LocalStorage) -> None:
    (storage.root / "account").write_text("not a folder")
    for token in ("t1", "t2", "t3"):
        with pytest.raises(StorageUnavailable):
            storage.write(token, "account/production", "manifest.json", b"{}")
    assert leftovers(storage) == []


def test_a_full_disk_is_storage_unavailable(storage: LocalStorage) -> None:
    (storage.partial / "one.part").symlink_to("/dev/full")
    with storage.begin("one") as partial:
        assert partial is not None
        with pytest.raises(StorageUnavailable, match="No space"):
            partial.append(b"x")


def test_partial_files_begin_anew_where_their_folder_vanished(storage: LocalStorage) -> None:
    storage.partial.rmdir()
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"x")
        partial.put_in_place("a", "b")
    assert (storage.root / "a/b").read_bytes() == b"x"


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty folder"])
def test_a_disk_that_is_not_mounted_is_said_and_nothing_is_put_in_its_place(
    storage: LocalStorage, tmp_path: Path, there: bool
) -> None:
    root, state = tmp_path / "deliverables", tmp_path / "state"
    with storage.begin("one") as partial:
        assert partial is not None
        partial.append(b"x")
        root.rename(tmp_path / "unmounted")
        if there:
            root.mkdir()
        with pytest.raises(StorageUnavailable, match="not the folder"):
            partial.put_in_place("a", "b")
        with pytest.raises(StorageUnavailable, match="not the folder"):
            storage.stored("a", "b", nothing)
    with pytest.raises(StorageUnavailable, match="mount it again"):
        LocalStorage.open(root, state)
    assert root.is_dir() is there
    assert not there or list(root.iterdir()) == []
    if there:
        root.rmdir()
    (tmp_path / "unmounted").rename(root)
    assert LocalStorage.open(root, state) == storage


def test_a_folder_that_was_emptied_on_purpose_is_used_again_once_that_is_said(
    storage: LocalStorage, tmp_path: Path
) -> None:
    root, state = tmp_path / "deliverables", tmp_path / "state"
    (root / ".jarai-receiver").unlink()
    with pytest.raises(StorageUnavailable, match=str(state / "storage")):
        LocalStorage.open(root, state)
    (state / "storage").unlink()
    assert LocalStorage.open(root, state) == storage


def test_deliverables_may_move_to_another_folder(storage: LocalStorage, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert LocalStorage.open(tmp_path / "elsewhere", state).root == tmp_path / "elsewhere"
    assert LocalStorage.open(tmp_path / "deliverables", state) == storage


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system here")
def test_partial_files_lie_beside_the_deliverables_where_the_state_is_on_another_file_system(tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"jarai-{os.getpid()}"
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    try:
        storage = LocalStorage.open(tmp_path / "deliverables", other)
        assert storage.partial == storage.root / ".partial"
        with storage.begin("one") as partial:
            assert partial is not None
            partial.append(b"x")
            partial.put_in_place("a", "b")
        assert (storage.root / "a/b").read_bytes() == b"x"
    finally:
        shutil.rmtree(other)
