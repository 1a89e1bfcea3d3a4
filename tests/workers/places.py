"""Each kind of store as a test uses it: opened anew like by another host, and looked at from outside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.settings import Settings, load
from tests.servers.stores import Bucket
from workers.storage import Storage
from workers.storage.folder import LocalStorage
from workers.storage.objects import ObjectStorage
from workers.storage.stores import connect

PREFIX = "some/where/"
CHUNK_BYTES = 64 * 1024


class Place(Protocol):
    """Where a deployment keeps its deliverables."""

    def open(self) -> Storage:
        """As another process does, with nothing in hand."""

    def seen(self) -> Mapping[str, int]:
        """The files that a reader sees, by name, with their sizes; nothing of what is on its way."""

    def left_over(self) -> list[str]:
        """What lies there of files on their way."""

    def content(self, name: str) -> bytes: ...

    def spoil_note(self, name: str, content: bytes) -> None: ...


class Folder:
    """A folder on this disk."""

    def __init__(self, folder: Path) -> None:
        self._final, self._state = folder / "deliverables", folder / "state"

    def open(self) -> LocalStorage:
        return LocalStorage.open(self._final, self._state)

    def seen(self) -> Mapping[str, int]:
        files = (path for path in self._final.rglob("*") if path.is_file() and path.name != ".jarai-receiver")
        return {path.relative_to(self._final).as_posix(): path.stat().st_size for path in files}

    def left_over(self) -> list[str]:
        return sorted(path.name for path in (self._state / "partial").iterdir())

    def content(self, name: str) -> bytes:
        return (self._final / name).read_bytes()

    def spoil_note(self, name: str, content: bytes) -> None:
        (self._state / "partial" / f"{name}.json").write_bytes(content)


class Objects:
    """A bucket of some server's; chunks are small, so that little makes many."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    @property
    def settings(self) -> Settings:
        return load(self.bucket.environment, None)

    def open(self) -> ObjectStorage:
        settings = self.settings
        store = connect.__wrapped__(settings.storage_url, settings.storage_environment)
        return ObjectStorage(store, settings.storage_url, CHUNK_BYTES)

    def seen(self) -> Mapping[str, int]:
        return {name: size for name, size in self._all().items() if not name.startswith(".")}

    def left_over(self) -> list[str]:
        return sorted(name for name in self._all() if name.startswith(".partial/"))

    def content(self, name: str) -> bytes:
        return self.bucket.get(PREFIX + name)

    def put(self, name: str, content: bytes) -> None:
        self.bucket.put(PREFIX + name, content)

    def spoil_note(self, name: str, content: bytes) -> None:
        self.put(f".partial/{name}/note.json", content)

    def _all(self) -> Mapping[str, int]:
        found = self.bucket.sizes()
        assert all(name.startswith(PREFIX) for name in found), "nothing is written beside the prefix"
        return {name.removeprefix(PREFIX): size for name, size in found.items()}
