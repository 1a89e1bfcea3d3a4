"""What is particular to object stores: nothing half ever shows, no two writers mix, and a refusal holds no secret."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import obstore
import pytest

from service.core.errors import CorruptDownload, SettingsError, StorageUnavailable, TransferStopped
from service.settings import STORAGE_NAMES, load
from service.store.due import DOWNLOAD_LEASE_MS
from tests.deployment import eventually
from tests.servers.stores import Azurite
from tests.workers.places import CHUNK_BYTES, Objects
from tests.workers.test_storage import FILM, FOLDER, append
from workers.storage import open_storage, stores
from workers.storage.folder import LocalStorage
from workers.storage.objects import ObjectStorage, PartialObject
from workers.storage.stores import connect

MEBI = 1024 * 1024


@pytest.fixture(params=["azurite", "s3"])
def place(request: pytest.FixtureRequest) -> Objects:
    if request.param == "azurite":
        return Objects(request.getfixturevalue("azurite").container())
    return Objects(request.getfixturevalue("s3_server").bucket())


def begun(storage: ObjectStorage, content: bytes = FILM) -> PartialObject:
    """A writer that never gets to its end."""
    partial = PartialObject(storage, "one")
    append(partial, content)
    return partial


def after(ticks: int, error: Exception) -> Callable[[], None]:
    """Lets so many pass."""
    left = iter([None] * ticks)

    def tick() -> None:
        if next(left, error) is error:
            raise error

    return tick


@pytest.mark.parametrize("ticks", [0, 2, 3])
def test_who_is_stopped_while_it_is_put_together_leaves_nothing_visible_and_the_next_one_finishes(
    place: Objects, ticks: int
) -> None:
    stopped = TransferStopped("another worker has taken over")
    with place.open().begin("one") as partial:
        append(partial, FILM)
        with pytest.raises(TransferStopped) as raised:
            partial.put_in_place(FOLDER, "film.mp4", after(ticks, stopped))
    assert raised.value is stopped
    assert place.seen() == {}
    if place.bucket.environment["STORAGE_URL"].startswith("s3:"):
        eventually(lambda: place.bucket.unfinished() == 0, what="the end of the upload")
    with place.open().begin("one") as partial:
        assert partial.size_bytes == len(FILM)
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM


def test_a_file_that_fits_in_memory_goes_up_once(place: Objects) -> None:
    with place.open().begin("one") as partial:
        append(partial, FILM[: CHUNK_BYTES - 1])
        partial.sync()
        assert place.left_over() == []
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM[: CHUNK_BYTES - 1]
    assert place.left_over() == []


def test_a_large_file_is_whole_across_the_parts_of_its_upload(place: Objects) -> None:
    film = FILM * 70
    assert len(film) > 2 * 8 * MEBI
    store = connect(place.settings.storage_url, place.settings.storage_environment)
    storage = ObjectStorage(store, place.settings.storage_url)
    with storage.begin("one") as partial:
        for at in range(0, len(film), MEBI):
            partial.append(film[at : at + MEBI])
        partial.put_in_place(FOLDER, "film.mp4")
    assert hashlib.sha256(place.content(f"{FOLDER}/film.mp4")).digest() == hashlib.sha256(film).digest()


def test_bytes_that_the_store_gives_back_wrong_never_become_visible_and_are_fetched_anew(place: Objects) -> None:
    with place.open().begin("one") as partial:
        append(partial, FILM)
        chunk = place.left_over()[1]
        place.put(chunk, bytes(len(place.content(chunk))))
        with pytest.raises(CorruptDownload):
            partial.put_in_place(FOLDER, "film.mp4")
    assert (place.seen(), place.left_over()) == ({}, [])


def test_a_chunk_that_vanished_makes_nothing_visible_and_what_lies_before_it_is_used(place: Objects) -> None:
    storage = place.open()
    with storage.begin("one") as partial:
        append(partial, FILM)
    chunks = [name for name in place.left_over() if not name.endswith("note.json")]
    with storage.begin("one") as partial:
        storage.delete([chunks[1]])
        with pytest.raises(StorageUnavailable, match="gone"):
            partial.put_in_place(FOLDER, "film.mp4")
    assert place.seen() == {}
    with storage.begin("one") as partial:
        assert partial.size_bytes == len(place.content(chunks[0]))


def test_who_goes_on_without_a_claim_neither_overwrites_nor_mixes_with_the_one_that_has_it(place: Objects) -> None:
    """The first one is cut short in the middle of a chunk, the second goes on at another place than it would have."""
    first = begun(place.open(), FILM[:150_000])
    second = PartialObject(place.open(), "one")
    assert 0 < second.size_bytes < 150_000
    append(second, FILM[second.size_bytes :])
    append(first, FILM[150_000:250_000])
    first.restart()
    append(first, b"other bytes" * 20_000)
    first.keep()
    with place.open().begin("one") as third:
        content = b"other bytes" * 20_000
        assert third.size_bytes == len(content), "the note that was written last counts, with its own bytes only"
        third.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == content


def test_chunks_of_two_writers_that_overlap_are_one_row_of_bytes(place: Objects) -> None:
    first = begun(place.open(), FILM[:70_000])
    second = PartialObject(place.open(), "one")
    append(second, FILM[second.size_bytes : 200_000])
    append(first, FILM[70_000:300_000])
    first.keep()
    with place.open().begin("one") as partial:
        assert partial.size_bytes == 300_000
        append(partial, FILM[300_000:])
        partial.put_in_place(FOLDER, "film.mp4")
    assert place.content(f"{FOLDER}/film.mp4") == FILM


def broken_off(storage: ObjectStorage, before: Callable[[PartialObject], None] = lambda _: None) -> None:
    with storage.begin("one") as partial:
        append(partial, b"abc")
        before(partial)
        raise ZeroDivisionError


def test_a_break_keeps_what_is_in_memory_and_is_told_as_it_was(place: Objects) -> None:
    with pytest.raises(ZeroDivisionError):
        broken_off(place.open())
    with place.open().begin("one") as partial:
        assert partial.size_bytes == 3


def test_where_the_store_is_in_trouble_the_first_error_is_the_one_that_is_told(place: Objects) -> None:
    scheme = place.settings.storage_url.partition(":")[0]
    gone = broken(place, STORAGE_URL=f"{scheme}://not-there/films")
    with pytest.raises(ZeroDivisionError):
        broken_off(place.open(), lambda partial: setattr(partial, "_storage", gone))


def test_a_file_type_is_told_so_that_a_browser_shows_it(place: Objects) -> None:
    storage = place.open()
    storage.write("t", FOLDER, "manifest.json", b"{}")
    assert obstore.get(storage._store, f"{FOLDER}/manifest.json").attributes["Content-Type"] == "application/json"


_UPLOAD = """
import resource, sys
from service.settings import load
from workers.storage import open_storage
with open_storage(load(dotenv=None)).begin(sys.argv[1]) as partial:
    for _ in range(int(sys.argv[1])):
        partial.append(bytes(1024 * 1024))
    partial.put_in_place("account/production", sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_stays_flat_however_large_the_file_is(azurite: Azurite) -> None:
    container = azurite.container()

    def peak_kib(mebibytes: int) -> int:
        command, environment = [sys.executable, "-c", _UPLOAD, str(mebibytes)], {**os.environ, **container.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert container.sizes()[f"some/where/{FOLDER}/{mebibytes}"] == mebibytes * MEBI
        return int(done.stdout)

    assert peak_kib(120) - peak_kib(40) <= 40 * 1024, "of 80 MiB more; the parts on their way are not always as many"


# --- refusals -------------------------------------------------------------------------------------------------


def broken(place: Objects, **change: str) -> ObjectStorage:
    settings = load({**place.bucket.environment, **change}, None)
    return ObjectStorage(connect(settings.storage_url, settings.storage_environment), settings.storage_url)


def told(storage: ObjectStorage, secrets: Sequence[str]) -> set[str]:
    """What each thing that can be asked says when it is refused: one sentence, in which no secret can be."""
    sentences = set()
    asked: list[Callable[[], object]] = [
        storage.probe,
        lambda: storage.write("t", FOLDER, "manifest.json", b"{}"),
        lambda: storage.sizes(FOLDER),
        lambda: list(storage.manifests()),
        lambda: begun(storage),
        lambda: storage.read(FOLDER, "manifest.json"),
    ]
    for ask in asked:
        with pytest.raises(StorageUnavailable) as raised:
            ask()
        shown = "".join(traceback.format_exception(raised.value))
        assert not [secret for secret in secrets if secret in shown]
        assert "<?xml" not in shown
        assert "http" not in str(raised.value)
        sentences.add(str(raised.value))
    return sentences


def test_a_wrong_key_is_told_by_the_names_of_the_variables_to_look_at(azurite: Azurite) -> None:
    place, wrong = Objects(azurite.container()), base64.b64encode(b"a wrong key" * 6).decode()
    for sentence in told(broken(place, AZURE_STORAGE_ACCOUNT_KEY=wrong), (wrong, azurite.key)):
        assert "refuses these credentials (403 Auth" in sentence
        assert "AZURE_STORAGE_ACCOUNT_KEY" in sentence


def test_a_key_that_is_none_is_told_without_it(azurite: Azurite) -> None:
    place = Objects(azurite.container())
    with pytest.raises(StorageUnavailable, match="AZURE_STORAGE_ACCOUNT_KEY") as raised:
        broken(place, AZURE_STORAGE_ACCOUNT_KEY="geheim geheim!")
    assert "geheim" not in "".join(traceback.format_exception(raised.value, chain=True)).partition("StorageUnav")[2]


def test_a_bucket_that_is_not_there_is_told(place: Objects) -> None:
    scheme = place.settings.storage_url.partition(":")[0]
    for sentence in told(broken(place, STORAGE_URL=f"{scheme}://not-there/films"), place.settings.secrets):
        assert "no such bucket or container" in sentence


def test_a_store_that_can_not_be_reached_is_told(place: Objects) -> None:
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1/receiver"}
    storage = broken(place, **nowhere)
    with pytest.raises(StorageUnavailable, match="can not be reached"):
        storage.write("t", FOLDER, "manifest.json", b"{}")


def test_no_request_with_all_its_retries_outlasts_a_claim() -> None:
    began_last: timedelta = stores._RETRY["retry_timeout"]  # type: ignore[assignment]
    assert began_last.total_seconds() + int(str(stores._CLIENT["timeout"]).rstrip("s")) < DOWNLOAD_LEASE_MS / 1000


@pytest.mark.parametrize(
    "endpoint",
    ["http://store.example", "http://10.0.0.1:9000", "store.example", "https://", "https://key:geheim@store.example",
     "https://store.example/?sig=geheim", "ftp://store.example", "http://[::1", "http://127.0.0.1:port"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("url", "name"), [("s3://bucket/films", "AWS_ENDPOINT_URL"), ("az://films", "AZURE_STORAGE_ENDPOINT")]
)
def test_an_endpoint_is_https_except_on_this_machine(url: str, name: str, endpoint: str) -> None:
    settings = load({"STORAGE_URL": url, name: endpoint, "AZURE_STORAGE_ACCOUNT_NAME": "account"}, None)
    with pytest.raises(StorageUnavailable, match=f"^{name} is wrong") as raised:
        open_storage(settings)
    assert "geheim" not in str(raised.value)


# --- settings -------------------------------------------------------------------------------------------------


def test_a_folder_needs_none_of_it_and_a_missing_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    for name in ("workers.storage.objects", "workers.storage.stores"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    folder = load({"STORAGE_URL": str(tmp_path / "films"), "STATE_DIR": str(tmp_path)}, None)
    assert isinstance(open_storage(folder), LocalStorage)
    for scheme in ("s3", "az", "gs"):
        with pytest.raises(StorageUnavailable, match=rf"pip install 'jarai-receiver\[{scheme}\]'"):
            open_storage(load({"STORAGE_URL": f"{scheme}://films"}, None))


def test_every_name_that_is_handed_on_is_one_that_the_store_knows() -> None:
    given = dict.fromkeys(STORAGE_NAMES - {"GOOGLE_APPLICATION_CREDENTIALS"}, "")
    given |= {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}
    given |= {"AWS_DISABLE_BULK_DELETE": "true"}
    given |= {"AWS_ENDPOINT_URL_S3": "https://store.example", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=geheim"}
    for url in ("s3://films", "az://films"):
        names = {name: value or "a-value" for name, value in given.items() if "ENDPOINT" not in name or value}
        names |= {"AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://store.example", "AZURE_STORAGE_KEY": "YQ=="}
        names |= {"AZURE_STORAGE_ACCOUNT_KEY": "YQ=="}
        assert open_storage(load({"STORAGE_URL": url, **names}, None)).where == url


@pytest.mark.parametrize("more", [{}, {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json"}])
def test_a_bucket_at_google_is_opened_or_told(more: dict[str, str]) -> None:
    settings = load({"STORAGE_URL": "gs://films/some/where", **more}, None)
    if not more:
        assert open_storage(settings).where == "gs://films/some/where"
    else:
        with pytest.raises(StorageUnavailable, match="GOOGLE_APPLICATION_CREDENTIALS"):
            open_storage(settings)


def test_azure_is_reached_by_each_way_that_its_tools_know(azurite: Azurite) -> None:
    container = azurite.container()
    url, name, key = container.environment["STORAGE_URL"], azurite.account, azurite.key
    sas = "&".join(f"{field}={value.replace('+', '%2B')}" for field, value in azurite.account_sas().items())
    connection = f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};BlobEndpoint={azurite.url};"
    endpoint = {"AZURE_STORAGE_ENDPOINT": azurite.url}
    for ways in (
        {"AZURE_STORAGE_CONNECTION_STRING": connection},
        {"AZURE_STORAGE_ACCOUNT": name, "AZURE_STORAGE_KEY": key, **endpoint},
        {"AZURE_STORAGE_ACCOUNT": name, "AZURE_STORAGE_SAS_TOKEN": f"?{sas}", **endpoint},
    ):
        storage = open_storage(load({"STORAGE_URL": url, **ways}, None))
        storage.write("t", FOLDER, "manifest.json", str(ways).encode())
        assert storage.read(FOLDER, "manifest.json") == str(ways).encode()


def test_the_environment_wins_over_the_env_file_and_no_secret_of_either_is_shown(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AWS_SECRET_ACCESS_KEY=geheim-one\nAWS_ACCESS_KEY_ID=id\nAWS_PROFILE=other\n")
    settings = load(
        {
            "STORAGE_URL": "s3://films/",
            "AWS_SECRET_ACCESS_KEY": "geheim-two",
            "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=geheim+three==;",
            "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=geheim%2Bfour",
        },
        dotenv,
    )
    assert settings.storage_url == "s3://films"
    given = dict(settings.storage_environment)
    assert (given["AWS_SECRET_ACCESS_KEY"], given["AWS_ACCESS_KEY_ID"]) == ("geheim-two", "id")
    assert "AWS_PROFILE" not in given
    assert set(settings.secrets) >= {"geheim-two", "geheim+three==", "geheim%2Bfour", "geheim+four"}
    assert "geheim" not in repr(settings)
    with pytest.raises(SettingsError) as refusal:
        load({"STORAGE_URL": "s3://key:geheim@films"}, dotenv)
    assert "geheim" not in str(refusal.value)
