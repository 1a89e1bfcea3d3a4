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
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.errors import StorageUnavailable
from workers.storage.kinds import Digest, Stored

_READ_BYTES = 256 * 1024
_MARK = ".jarai-receiver"
_FLUSH_BYTES = 32 * 1024 * 1024


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
        """Make both folders. Raises StorageUnavailable, also where a folder that was in use is not the one it was."""
        with _disk():
            _recognise(root, state_dir)
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
        partial = PartialFile(self, name, descriptor)
        try:
            yield partial if _alone_with(descriptor, path) else None
        finally:
            partial.close()

    def write(
        self, name: str, folder: str, file: str, content: bytes, last_look: Callable[[], None] = lambda: None
    ) -> bool:
        """Put a small file in its place, whole: a reader sees the old or the new one. False: another is at it.

        `last_look` is called right before, under the lock of that `name`; what it raises ends it.
        """
        with self.begin(name) as partial:
            if partial is None:
                return False
            try:
                partial.restart()
                partial.append(content)
                partial.sync()
                last_look()
                partial.put_in_place(folder, file)
            except BaseException:
                partial.discard()
                raise
            return True

    def _place(self, temporary: Path, folder: str, file: str) -> None:
        self._is_there()
        target = self.root / folder
        target.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target / file)
        for directory in (target, target.parent, self.root):
            _sync_directory(directory)

    def _is_there(self) -> None:
        if not (self.root / _MARK).exists():
            raise StorageUnavailable(f"{self.root} is not the folder any more that it was: is its disk mounted?")

    def read(self, folder: str, file: str) -> bytes | None:
        """A small file, or None when there is none."""
        with _disk():
            try:
                return (self.root / folder / file).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def stored(self, folder: str, file: str, tick: Callable[[], None]) -> Stored | None:
        """The file under its final name, read whole, or None when there is none. `tick` is called as it goes."""
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        size = 0
        with _disk():
            try:
                handle = open(self.root / folder / file, "rb")  # noqa: SIM115 - only its absence is expected
            except FileNotFoundError:
                self._is_there()
                return None
            with handle:
                while chunk := handle.read(_READ_BYTES):
                    sha256.update(chunk)
                    md5.update(chunk)
                    size += len(chunk)
                    tick()
        return Stored(size, sha256.hexdigest(), md5.hexdigest())

    def manifests(self) -> Iterator[tuple[str, bytes, Mapping[str, int]]]:
        """Each production's folder with its manifest, and the size of each file in it."""
        with _disk():
            for path in sorted(self.root.glob("*/*/manifest.json")):
                folder = path.parent.relative_to(self.root).as_posix()
                yield folder, path.read_bytes(), self.sizes(folder)

    def sizes(self, folder: str) -> Mapping[str, int]:
        """The bytes of each file in a folder; nothing where there is no such folder."""
        with _disk():
            try:
                files = [one for one in (self.root / folder).iterdir() if one.is_file() and one.name != _MARK]
                return {one.name: one.stat().st_size for one in files}
            except FileNotFoundError:
                return {}

    def take_away(self, folder: str, file: str, tick: Callable[[], None] = lambda: None) -> str | None:
        """Move a damaged file out of its place, for a person to look at; where it lies now, None: it is gone."""
        aside = self._aside() / f"{Path(folder).name}.{file}"
        with _disk():
            try:
                os.replace(self.root / folder / file, aside)
            except FileNotFoundError:
                return None
            _sync_directory(self.root / folder)
        return str(aside)

    def _aside(self) -> Path:
        aside = self.partial.parent / f"{self.partial.name}-aside"
        with _disk():
            aside.mkdir(parents=True, exist_ok=True)
        return aside

    @property
    def where(self) -> str:
        """As a person would look for it."""
        return str(self.root)

    def probe(self) -> int | None:
        """Write and remove a file, to be sure; the bytes that are free."""
        name = f".check-{uuid.uuid4().hex}"
        self.write(name, "", name, b"jarai-receiver check\n")
        with _disk():
            (self.root / name).unlink()
            return shutil.disk_usage(self.root).free

    def forget(self, name: str) -> None:
        """What was noted of a file that is stored, and recorded elsewhere by now."""
        for suffix in (".json", ".part"):
            with contextlib.suppress(OSError):
                (self.partial / f"{name}{suffix}").unlink()


class PartialFile:
    """A file on its way. Its note beside it says what the bytes so far belong to, and survives a crash."""

    def __init__(self, storage: LocalStorage, name: str, descriptor: int) -> None:
        self._storage, self._descriptor = storage, descriptor
        self._path = storage.partial / f"{name}.part"
        self._note_path = storage.partial / f"{name}.json"
        self._written_bytes = 0
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._flush: Future[None] | None = None
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

    def hash_into(self, *digests: Digest, tick: Callable[[], None] = lambda: None) -> None:
        """Feed what is there already, and go on writing behind it. `tick` is called as it goes."""
        with _disk():
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while chunk := os.read(self._descriptor, _READ_BYTES):
                for digest in digests:
                    digest.update(chunk)
                tick()

    def append(self, chunk: bytes | memoryview) -> None:
        with _disk():
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.size_bytes += len(chunk)
        self._written_bytes += len(chunk)
        if self._written_bytes >= _FLUSH_BYTES:
            self._flush_behind()

    def _flush_behind(self) -> None:
        """Let the disk begin, so that little is left to wait for at the end. What it refuses is raised here, later."""
        if self._flush is not None and not self._flush.done():
            return
        self._flushed()
        self._flush = self._flusher.submit(os.fdatasync, self._descriptor)
        self._written_bytes = 0

    def _flushed(self) -> None:
        flush, self._flush = self._flush, None
        if flush is not None:
            with _disk():
                flush.result()

    def check_room(self, more_bytes: int) -> None:
        """Raises StorageUnavailable when so much can't fit: a disk is not filled for a file that will not be whole."""
        with _disk():
            room = os.fstatvfs(self._descriptor)
        if more_bytes > room.f_bavail * room.f_frsize:
            raise StorageUnavailable(f"No space left on device for the {more_bytes} bytes that are to come")

    def sync(self) -> None:
        """What was appended survives a crash of the machine."""
        self._flushed()
        with _disk():
            os.fsync(self._descriptor)

    def close(self) -> None:
        self._flusher.shutdown()  # before its descriptor is another file's
        os.close(self._descriptor)

    def put_in_place(self, folder: str, file: str, tick: Callable[[], None] = lambda: None) -> None:
        """Rename to the final name. Only for bytes that are complete, verified and synced. The note stays."""
        with _disk():
            self._storage._place(self._path, folder, file)

    def set_aside(self, file: str, tick: Callable[[], None] = lambda: None) -> str:
        """Keep the bytes for a person to look at, in place of earlier ones of that name; where they lie now."""
        aside = self._storage._aside() / file
        with _disk():
            os.replace(self._path, aside)
            self._note_path.unlink(missing_ok=True)
        return str(aside)

    def discard(self) -> None:
        """Nothing of it is of use any more."""
        with _disk():
            self._path.unlink(missing_ok=True)
            self._note_path.unlink(missing_ok=True)


def _recognise(root: Path, state_dir: Path) -> None:
    """A folder in use bears a mark, and STATE_DIR remembers which that is: what lies there without its mark is the
    place where a disk was to be mounted, and files would end up underneath."""
    note = state_dir / "storage"
    known = note.read_text() if note.is_file() else ""
    mark = root / _MARK
    if not mark.exists():
        if known == str(root.absolute()):
            raise StorageUnavailable(
                f"{root} is not the folder that it was, its {_MARK} is missing: mount it again. "
                f"If it was emptied or moved on purpose, remove {note}"
            )
        root.mkdir(parents=True, exist_ok=True)
        mark.touch()
    if known != str(root.absolute()):
        state_dir.mkdir(parents=True, exist_ok=True)
        note.write_text(str(root.absolute()))


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
