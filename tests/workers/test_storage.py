"""What every store promises, whichever it is: whole files or none, and whoever comes next goes on."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3

from service.core.errors import TransferStopped
from tests.workers.places import Folder, Objects, Place
from workers.storage import Partial, Stored

FILM = bytes(range(251)) * 1300  # some chunks, and a rest
FOLDER = "account/production"


@pytest.fixture(params=["folder", "azurite", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    match request.param:
        case "azurite":
            return Objects(request.getfixturevalue("azurite").container())
        case "s3":
            return Objects(request.getfixturevalue("s3_server").bucket())
        case _:
            return Folder(tmp_path)


def nothing() -> None: ...


def append(partial: Partial, content: bytes) -> None:
    for at in range(0, len(content), 50_000):
        partial.append(content[at : at + 50_000])


def digest_of(partial: Partial) -> str:
    digest = hashlib.sha256()
    partial.hash_into(digest, tick=nothing)
    return digest.hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", b"a", FILM], ids=["empty", "short", "long"])
def test_what_was_appended_lies_under_its_final_name_when_it_is_whole_and_not_before(
    place: Place, content: bytes
) -> None:
    storage = place.open()
    with storage.begin("one") as partial:
        assert partial is not None
        partial.write_note({"etag": '"1"'})
        append(partial, content)
        partial.sync()
        assert (partial.size_bytes, dict(place.seen())) == (len(content), {})
        partial.put_in_place(FOLDER, "film.mp4")
        assert partial.size_bytes == len(content), "it can still be told how large it is"
    assert place.content(f"{FOLDER}/film.mp4") == content
    assert len(place.left_over()) == 1, "the note stays until the file has been told of"
    storage.forget("one")
    assert place.left_over() == []
    whole = Stored(len(content), sha256(content), hashlib.md5(content).hexdigest())
    assert storage.stored(FOLDER, "film.mp4", nothing) == whole
    assert storage.stored(FOLDER, "other.mp4", nothing) is None


def test_another_host_goes_on_where_the_first_was_interrupted(place: Place) -> None:
    for part in range(0, len(FILM), 100_000):
        with suppress(TransferStopped), place.open().begin("one") as partial:
            assert partial is not None
            assert partial.size_bytes == part
            assert partial.note == ({"etag": '"1"'} if part else {})
            assert digest_of(partial) == sha256(FILM[:part])
            partial.write_note({"etag": '"1"'})
            append(partial, FILM[part : part + 100_000])
            raise TransferStopped("this worker ends")
    with place.open().begin("one") as partial:
        assert partial is not None
        assert digest_of(partial) == sha256(FILM)
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[1]", b"\xff", b'{"note": 1}'])
def test_a_note_that_can_not_be_read_is_none(place: Place, spoilt: bytes) -> None:
    storage = place.open()
    with storage.begin("one") as partial:
        assert partial is not None
        partial.write_note({"etag": '"1"'})
    place.spoil_note("one", spoilt)
    with storage.begin("one") as partial:
        assert partial is not None
        assert partial.note in ({}, {"note": 1})
        append(partial, FILM)
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM


def test_what_was_thrown_away_is_in_no_file(place: Place) -> None:
    with place.open().begin("one") as partial:
        assert partial is not None
        append(partial, b"x" * 300_000)
        partial.restart()
        assert partial.size_bytes == 0
        partial.write_note({"etag": '"2"'})
        append(partial, FILM)
    with place.open().begin("one") as partial:
        assert partial is not None
        assert (partial.size_bytes, partial.note) == (len(FILM), {"etag": '"2"'})
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM


@pytest.mark.parametrize("content", [b"a", FILM], ids=["short", "long"])
def test_the_last_byte_can_be_dropped_and_come_again(place: Place, content: bytes) -> None:
    with place.open().begin("one") as partial:
        assert partial is not None
        append(partial, content)
    with place.open().begin("one") as partial:
        assert partial is not None
        partial.shorten()
        assert partial.size_bytes == len(content) - 1
        assert digest_of(partial) == sha256(content[:-1])
        partial.append(content[-1:])
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == content


def test_a_file_takes_the_place_of_another_whole_while_it_is_read(place: Place) -> None:
    """An answer that is none counts for nothing: moto gives some when an object is replaced while it is read."""
    storage, stop, seen = place.open(), threading.Event(), set()
    contents = [bytes([65 + number]) * 200_000 for number in range(2)]
    storage.write("t", FOLDER, "film.mp4", contents[0])

    def read() -> None:
        while not stop.is_set():
            with suppress(AssertionError, urllib3.exceptions.HTTPError):
                seen.add(place.content(f"{FOLDER}/film.mp4"))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(10):
        with storage.begin(f"t{turn}") as partial:
            assert partial is not None
            append(partial, contents[turn % 2])
            partial.put_in_place(FOLDER, "film.mp4")
    stop.set()
    reader.join()
    assert seen
    assert seen <= set(contents)


def test_a_small_file_is_written_whole_unless_the_last_look_forbids_it(place: Place) -> None:
    storage = place.open()
    assert storage.write("t", FOLDER, "manifest.json", b"{}")
    assert storage.read(FOLDER, "manifest.json") == b"{}"
    assert storage.read(FOLDER, "other.json") is None

    def forbid() -> None:
        raise TransferStopped("another worker has taken over")

    with pytest.raises(TransferStopped):
        storage.write("t", FOLDER, "manifest.json", b"{1}", forbid)
    assert storage.read(FOLDER, "manifest.json") == b"{}"
    assert place.left_over() == []


def test_the_manifests_are_found_with_the_sizes_of_what_lies_beside_them(place: Place) -> None:
    storage = place.open()
    assert storage.sizes(FOLDER) == {}
    for folder in ("a/one", "a/two"):
        storage.write("t", folder, "manifest.json", folder.encode())
        storage.write("t", folder, "film.mp4", b"film")
    storage.write("t", "a/three", "film.mp4", b"film")
    with storage.begin("manifest.json") as partial:
        assert partial is not None
        partial.write_note({})
    found = {folder: (content, dict(sizes)) for folder, content, sizes in storage.manifests()}
    expected = {folder: (folder.encode(), {"manifest.json": 5, "film.mp4": 4}) for folder in ("a/one", "a/two")}
    assert found == expected
    assert storage.sizes("a/three") == {"film.mp4": 4}


@pytest.mark.parametrize("content", [b"a", FILM], ids=["short", "long"])
def test_what_is_set_aside_or_taken_away_is_kept_out_of_sight(place: Place, content: bytes) -> None:
    storage = place.open()
    with storage.begin("one") as partial:
        assert partial is not None
        partial.write_note({})
        append(partial, content)
        kept = partial.set_aside("one.film.mp4")
    assert place.left_over() == []
    storage.write("t", FOLDER, "film.mp4", content)
    taken = storage.take_away(FOLDER, "film.mp4")
    assert taken is not None
    assert taken.endswith("production.film.mp4")
    assert kept.endswith("one.film.mp4")
    assert storage.take_away(FOLDER, "film.mp4") is None
    assert list(place.seen()) == []
    assert storage.stored(FOLDER, "film.mp4", nothing) is None


def test_discarding_leaves_nothing(place: Place) -> None:
    storage = place.open()
    with suppress(TransferStopped), storage.begin("one") as partial:
        assert partial is not None
        partial.write_note({})
        append(partial, FILM)
        partial.discard()
        raise TransferStopped("this worker ends")
    storage.forget("one")
    storage.forget("never begun")
    assert place.left_over() == []


def test_what_is_forgotten_of_one_file_is_kept_of_another_with_a_longer_name(place: Place) -> None:
    storage = place.open()
    for name in ("one", "one.more", "onerous"):
        with storage.begin(name) as partial:
            assert partial is not None
            partial.write_note({})
            append(partial, FILM)
    storage.forget("one")
    for name in ("one.more", "onerous"):
        with storage.begin(name) as partial:
            assert partial is not None
            assert partial.size_bytes == len(FILM)


def test_a_probe_leaves_nothing_behind(place: Place) -> None:
    storage = place.open()
    storage.probe()
    assert dict(place.seen()) == {}
