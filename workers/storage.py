"""The folder for deliverables: partial files on their way, and the step that puts a verified one in its place.

What lies under its final name is complete. What is on its way lies in STATE_DIR, or beside the deliverables (in
`.partial`) where STATE_DIR is on another file system: a rename is only one step within one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.core.errors import StorageUnavailable

_READ_BYTES = 1024 * 1024


class Digest(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Whatever the disk refuses is one kind of error: a person has to make room, or mount it again."""
    try:
        yield
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        raise StorageUnavailable(f"{error.strerror or error}{name}") from error


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """A folder. Relative paths given to it come from `Production.folder` and `Deliverable.file`, both made safe."""

    root: Path
    partial: Path

    @classmethod
    def open(cls, root: Path, state_dir: Path) -> LocalStorage:
        """Make both folders. Raises StorageUnavailable."""
        with _disk():
            root.mkdir(parents=True, exist_ok=True)
            partial = state_dir / "partial"
            partial.mkdir(parents=True, exist_ok=True)
            if partial.stat().st_dev != root.stat().st_dev:
                partial = root / ".partial"
                partial.mkdir(exist_ok=True)
        return cls(root.resolve(), partial.resolve())

    @contextlib.contextmanager
    def begin(self, name: str) -> Iterator[PartialFile | None]:
        """The partial file of that name, for this process alone; None while another process still holds it."""
        path = self.partial / f"{name}.part"
        with _disk():
            self.partial.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            yield PartialFile(self, name, descriptor) if _alone_with(descriptor, path) else None
        finally:
            os.close(descriptor)

    def write(self, folder: str, file: str, content: bytes, token: str) -> None:
        """Put a small file in its place, whole: a reader sees the old or the new one."""
        temporary = self.partial / f"{token}.tmp"
        with _disk():
            try:
                with open(temporary, "wb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
                self._place(temporary, folder, file)
            finally:
                with contextlib.suppress(OSError):  # gone when it was put in its place
                    temporary.unlink()

    def _place(self, temporary: Path, folder: str, file: str) -> None:
        target = self.root / folder
        target.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target / file)
        for directory in (target, target.parent, self.root):
            _sync_directory(directory)

    def stored_sha256(self, folder: str, file: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file under its final name, or None when there is none."""
        with _disk():
            try:
                with open(self.root / folder / file, "rb") as handle:
                    digest = hashlib.file_digest(handle, "sha256")
                    return handle.tell(), digest.hexdigest()
            except FileNotFoundError:
                return None


class PartialFile:
    """A file on its way. Its note beside it says what the bytes so far belong to, and survives a crash."""

    def __init__(self, storage: LocalStorage, name: str, descriptor: int) -> None:
        self._storage, self._descriptor = storage, descriptor
        self._path = storage.partial / f"{name}.part"
        self._note_path = storage.partial / f"{name}.json"
        with _disk():
            self.size_bytes = os.fstat(descriptor).st_size

    @property
    def note(self) -> Mapping[str, Any]:
        """What was noted last; empty when nothing was, or the note can't be read."""
        try:
            value = json.loads(self._note_path.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_note(self, note: Mapping[str, Any]) -> None:
        temporary = self._note_path.with_suffix(".tmp")
        with _disk():
            temporary.write_text(json.dumps(note))
            os.replace(temporary, self._note_path)

    def shorten(self) -> None:
        """Drop the last byte, so that there is something left to ask for."""
        self.size_bytes -= 1
        with _disk():
            os.ftruncate(self._descriptor, self.size_bytes)

    def restart(self) -> None:
        """Throw away the bytes so far."""
        with _disk():
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size_bytes = 0

    def hash_into(self, *digests: Digest) -> None:
        """Feed what is there already, and go on writing behind it."""
        with _disk():
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self._descriptor, _READ_BYTES):
                for digest in digests:
                    digest.update(chunk)

    def append(self, chunk: bytes) -> None:
        with _disk():
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.size_bytes += len(chunk)

    def sync(self) -> None:
        with _disk():
            os.fsync(self._descriptor)

    def put_in_place(self, folder: str, file: str) -> None:
        """Rename to the final name. Only for bytes that are complete, verified and synced."""
        with _disk():
            self._storage._place(self._path, folder, file)
            self.forget()

    def forget(self) -> None:
        """Remove what is left of it."""
        self._note_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Nothing of it is of use any more."""
        with _disk():
            self._path.unlink(missing_ok=True)
            self.forget()


def _alone_with(descriptor: int, path: Path) -> bool:
    """Lock the file. Not alone either when it has been put in its place since it was opened: it is not ours then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
