"""Azure Blob as the source, by an emulator of Microsoft's own: signed addresses, ranges, ETags, digests, expiry."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from pathlib import Path

import pytest

from service.core.deliverables import Deliverable
from service.core.errors import CorruptDownload, LinkExpired, TransferFailed
from tests.servers.stores import Azurite, Container
from workers.storage.folder import LocalStorage
from workers.transfer import Transfer, open_pool

FILM = bytes(range(251)) * 20_000
FILE = Deliverable("0" * 16, "d", "Video", "Video_film_0.bin")
HOSTS = ("127.0.0.1",)
BLOB = "films/a film (1).mp4"


class Breaks:
    """The line breaks behind so many bytes."""

    def __init__(self, at: int | None = None) -> None:
        self._at = at

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        if self._at is not None and size_bytes >= self._at:
            raise TransferFailed("the line broke")

    def tick(self) -> None: ...


@pytest.fixture
def container(azurite: Azurite) -> Container:
    made = azurite.container()
    made.put(BLOB, FILM)
    return made


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage.open(tmp_path / "final", tmp_path / "state")


def fetch(storage: LocalStorage, url: str, breaks: Breaks | None = None) -> bytes:
    """The bytes, verified. Raises DownloadError."""
    with storage.begin("file") as partial:
        assert partial is not None
        try:
            sha256 = Transfer(open_pool(HOSTS), HOSTS, FILE, partial, breaks or Breaks()).run(url).sha256
        except CorruptDownload:  # as the downloader does
            partial.discard()
            raise
        content = (storage.partial / "file.part").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        return content


def here(storage: LocalStorage) -> int:
    with storage.begin("file") as partial:
        assert partial is not None
        return partial.size_bytes


def break_off(storage: LocalStorage, container: Container) -> int:
    """How much came before the line broke."""
    with pytest.raises(TransferFailed):
        fetch(storage, container.sas(BLOB), Breaks(at=2_000_000))
    assert 2_000_000 <= here(storage) < len(FILM)
    return here(storage)


def test_a_signed_address_brings_the_film(storage: LocalStorage, container: Container) -> None:
    assert fetch(storage, container.sas(BLOB)) == FILM


def test_a_broken_line_goes_on_under_another_signed_address_of_the_same_blob(
    storage: LocalStorage, container: Container
) -> None:
    break_off(storage, container)
    assert fetch(storage, container.sas(BLOB, 1800)) == FILM


def test_the_bytes_so_far_are_not_asked_for_again(storage: LocalStorage, container: Container) -> None:
    before = break_off(storage, container)
    sizes: list[int] = []

    class Counts(Breaks):
        def gained(self, chunk_bytes: int, size_bytes: int) -> None:
            sizes.append(size_bytes - chunk_bytes)

    assert fetch(storage, container.sas(BLOB), Counts()) == FILM
    assert sizes[0] == before


def test_a_blob_that_was_replaced_meanwhile_is_mixed_with_nothing_and_begun_anew(
    storage: LocalStorage, container: Container
) -> None:
    """If-Range is none of the conditions that Azure documents, and the emulator ignores it: the ETag tells."""
    break_off(storage, container)
    container.put(BLOB, FILM[::-1])
    with suppress(CorruptDownload):
        assert fetch(storage, container.sas(BLOB)) == FILM[::-1]
    assert fetch(storage, container.sas(BLOB)) == FILM[::-1]


@pytest.mark.parametrize("break_first", [False, True])
def test_the_digest_that_the_blob_was_stored_with_is_checked(
    storage: LocalStorage, container: Container, break_first: bool
) -> None:
    """Also where the answer brings only the rest; JARAI announces nothing here."""
    wrong = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
    container.say_md5(BLOB, wrong)
    if break_first:
        break_off(storage, container)
    with pytest.raises(CorruptDownload, match="MD5"):
        fetch(storage, container.sas(BLOB))


def test_an_expired_address_is_told_and_the_bytes_so_far_are_kept(storage: LocalStorage, container: Container) -> None:
    before = break_off(storage, container)
    for url in (container.sas(BLOB, -30), container.sas(BLOB).replace("sig=", "sig=x"), container.sas("films/none")):
        with pytest.raises(LinkExpired) as raised:
            fetch(storage, url)
        assert "sig" not in str(raised.value)
    assert here(storage) == before
    assert fetch(storage, container.sas(BLOB)) == FILM


def test_a_film_that_is_here_whole_costs_one_byte(storage: LocalStorage, container: Container) -> None:
    fetch(storage, container.sas(BLOB))
    assert fetch(storage, container.sas(BLOB)) == FILM
