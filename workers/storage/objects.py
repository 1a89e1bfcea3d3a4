"""An object store for deliverables. An object is whole or not there: whatever is put becomes visible at its end.

What lies under its final name is complete. What is on its way lies under `.partial` in the same bucket, so that a
worker on any host goes on with it: chunks, each an object of its own that is never written again, and a note. When
all have come they are read back, checked and put together under the final name. The last bytes wait in memory; a file
that fits there goes up once, and no crash costs more than those.

Nothing locks an object: who may work on a file is the claim's affair. Each writer gives its chunks names of their own,
and each new beginning is another generation, named in the note beside what the bytes belong to. So whoever goes on
although the claim is lost neither overwrites a chunk of the other's nor gets between them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mimetypes
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import obstore

from service.core.errors import CorruptDownload, StorageUnavailable
from service.settings import Settings
from workers.storage.kinds import Digest, Stored
from workers.storage.stores import Store, connect, refusals

_CHUNK_BYTES = 8 * 1024 * 1024
_CONCURRENT_PARTS = 2
_MOST_PARTS = 9_000  # of the 10,000 that S3 allows
_MANIFEST = re.compile(r"([^./][^/]*/[^./][^/]*)/manifest\.json")
_CHUNK = re.compile(r"(\d{15})\.[0-9a-f]+")


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some bytes of an object; with `etag`, only as long as it is still that very object."""

    path: str
    start: int
    end: int
    etag: str | None = None


class ObjectStorage:
    """A bucket, or what of it lies under a prefix."""

    def __init__(self, store: Store, where: str, chunk_bytes: int = _CHUNK_BYTES) -> None:
        self._store, self._where, self.chunk_bytes = store, where, chunk_bytes

    @classmethod
    def open(cls, settings: Settings) -> ObjectStorage:
        """Nothing is asked of the store yet. Raises StorageUnavailable."""
        return cls(connect(settings.storage_url, settings.storage_environment), settings.storage_url)

    @contextlib.contextmanager
    def begin(self, name: str) -> Iterator[PartialObject]:
        """The partial file of that name, by whomever and wherever it was begun."""
        partial = PartialObject(self, name)
        try:
            yield partial
        except StorageUnavailable:  # nothing more is asked of a store in trouble
            raise
        except Exception:
            with contextlib.suppress(StorageUnavailable):
                partial.keep()
            raise
        partial.keep()

    def write(
        self, name: str, folder: str, file: str, content: bytes, last_look: Callable[[], None] = _nothing
    ) -> bool:
        """Put a small file in its place, whole. The claim that `last_look` renews outlasts this one request."""
        last_look()
        self.put(_path(folder, file), content)
        return True

    def read(self, folder: str, file: str) -> bytes | None:
        """A small file, or None when there is none."""
        return self.get(_path(folder, file))

    def stored(self, folder: str, file: str, tick: Callable[[], None]) -> Stored | None:
        """The file under its final name, read whole, or None when there is none. `tick` is called as it goes."""
        pieces = self._pieces(_path(folder, file))
        if pieces is None:
            return None
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            for content in self.contents(pieces):
                sha256.update(content)
                md5.update(content)
                tick()
        except FileNotFoundError:
            return None
        return Stored(sum(one.end - one.start for one in pieces), sha256.hexdigest(), md5.hexdigest())

    def manifests(self) -> Iterator[tuple[str, bytes, Mapping[str, int]]]:
        """Each production's folder with its manifest, and the size of each file in it."""
        for path, _ in self.listed(""):
            match = _MANIFEST.fullmatch(path)
            content = self.get(path) if match else None
            if match and content is not None:
                yield match[1], content, self.sizes(match[1])

    def sizes(self, folder: str) -> Mapping[str, int]:
        """The bytes of each file in a folder; nothing where there is no such folder."""
        with refusals(self._where):
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        return {PurePosixPath(one["path"]).name: one["size"] for one in found}

    def take_away(self, folder: str, file: str, tick: Callable[[], None] = _nothing) -> str | None:
        """Move a damaged file out of its place, for a person to look at; where it lies now, None: it is gone.

        Through this process, though stores can copy by themselves: S3 not more than 5 GiB, and Azure may say that it
        has done so before it has.
        """
        path, aside = _path(folder, file), f".aside/{PurePosixPath(folder).name}.{file}"
        pieces = self._pieces(path)
        if pieces is None:
            return None
        try:
            self.put_together(aside, pieces, tick)
        except FileNotFoundError:
            return None
        self.delete([path])
        return f"{self._where}/{aside}"

    @property
    def where(self) -> str:
        """As a person would look for it."""
        return self._where

    def probe(self) -> None:
        """Write and remove an object, to be sure; nobody counts what is free."""
        name = f".check-{uuid.uuid4().hex}"
        self.put(name, b"jarai-receiver check\n")
        self.sizes("")
        self.delete([name])

    def forget(self, name: str) -> None:
        """What was noted of a file that is stored, and recorded elsewhere by now."""
        with contextlib.suppress(StorageUnavailable):
            self.delete([path for path, _ in self.listed(f".partial/{name}")])

    # --- what the parts of this module share -------------------------------------------------------------------

    def put(self, path: str, content: bytes) -> None:
        with self._present():
            obstore.put(self._store, path, content, attributes=_kind(path), use_multipart=False)

    def put_together(
        self, path: str, pieces: Sequence[_Piece], tick: Callable[[], None] = _nothing,
        check: Callable[[Iterator[bytes]], Iterator[bytes]] = iter,
    ) -> None:  # fmt: skip
        """These bytes as one object, visible when it is whole. `check` sees them go by; what it raises undoes it all.

        FileNotFoundError: a piece is gone.
        """

        def passing() -> Iterator[bytes]:
            for content in check(self.contents(pieces)):
                tick()
                yield content

        part_bytes = max(_CHUNK_BYTES, -(-sum(one.end - one.start for one in pieces) // _MOST_PARTS))
        with refusals(self._where):
            obstore.put(
                self._store, path, passing(), attributes=_kind(path), use_multipart=True,
                chunk_size=part_bytes, max_concurrency=_CONCURRENT_PARTS,
            )  # fmt: skip

    def get(self, path: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError), refusals(self._where):
            return obstore.get(self._store, path).bytes().to_bytes()
        return None

    def contents(self, pieces: Sequence[_Piece]) -> Iterator[bytes]:
        """One after the other, the next one read ahead. FileNotFoundError: a piece is gone.

        By a thread, also because obstore can't be asked for anything while it asks an iterator for the next bytes.
        """
        if not pieces:
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, pieces[0])
            for following in pieces[1:]:
                content, ahead = ahead.result(), reader.submit(self._read, following)
                yield content
            yield ahead.result()

    def listed(self, folder: str) -> Iterator[tuple[str, int]]:
        """Everything below the folder, with its size."""
        with refusals(self._where):
            for page in obstore.list(self._store, folder):
                for one in page:
                    yield one["path"], one["size"]

    def delete(self, paths: Sequence[str]) -> None:
        """One that is gone already is no error; where the store names it as one, the others go one by one."""
        if not paths:
            return
        with contextlib.suppress(FileNotFoundError), refusals(self._where):
            obstore.delete(self._store, paths)
            return
        for path in paths:
            with contextlib.suppress(FileNotFoundError), refusals(self._where):
                obstore.delete(self._store, path)

    def _read(self, piece: _Piece) -> bytes:
        wanted: Any = {"range": (piece.start, piece.end)} | ({"if_match": piece.etag} if piece.etag else {})
        with refusals(self._where):
            content = obstore.get(self._store, piece.path, options=wanted).bytes().to_bytes()
        if len(content) != piece.end - piece.start:
            raise StorageUnavailable(f"{self._where}: an object is shorter than it was listed")
        return content

    def _pieces(self, path: str) -> list[_Piece] | None:
        try:
            with refusals(self._where):
                found = obstore.head(self._store, path)
        except FileNotFoundError:
            return None
        starts = range(0, found["size"], _CHUNK_BYTES)
        return [_Piece(path, at, min(at + _CHUNK_BYTES, found["size"]), found["e_tag"]) for at in starts]

    @contextlib.contextmanager
    def _present(self) -> Iterator[None]:
        """As `refusals`, where no object has to be there."""
        try:
            with refusals(self._where):
                yield
        except FileNotFoundError:
            raise StorageUnavailable(f"{self._where} answers 404") from None


class PartialObject:
    """A file on its way: chunks that lie in the store, and behind them the last bytes, in memory."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage, self._folder, self._writer = storage, f".partial/{name}", uuid.uuid4().hex[:12]
        noted = _read_note(storage.get(self._note_path))
        self._note: Mapping[str, Any] = noted.get("note", {})
        self._generation: str = noted.get("generation", "")
        self._pieces = _chain(storage.listed(f"{self._folder}/{self._generation}")) if self._generation else []
        self._generation = self._generation or uuid.uuid4().hex
        self._noted = bool(noted)
        self._tail = bytearray()
        self._sha256 = None if self._pieces else hashlib.sha256()
        self.size_bytes = _size(self._pieces)

    @property
    def _note_path(self) -> str:
        return f"{self._folder}/note.json"

    @property
    def note(self) -> Mapping[str, Any]:
        """What was noted last; empty when nothing was, or the note can't be read."""
        return self._note

    def write_note(self, note: Mapping[str, Any]) -> None:
        content = json.dumps({"generation": self._generation, "note": dict(note)}).encode()
        self._storage.put(self._note_path, content)
        self._note, self._noted = dict(note), True

    def shorten(self) -> None:
        """Drop the last byte, so that there is something left to ask for. In the store it stays, unused."""
        if self._tail:
            del self._tail[-1]
        else:
            last = self._pieces.pop()
            self._pieces += [replace(last, end=last.end - 1)] if last.end - last.start > 1 else []
        self.size_bytes -= 1
        self._sha256 = None

    def restart(self) -> None:
        """Throw away the bytes so far. Those to come are of another generation, noted before the first of them."""
        self._storage.delete([one.path for one in self._pieces])
        self._empty()
        self._generation, self._noted = uuid.uuid4().hex, False
        self._sha256 = hashlib.sha256()

    def hash_into(self, *digests: Digest, tick: Callable[[], None] = _nothing) -> None:
        """Feed what is there already, and go on writing behind it. `tick` is called as it goes."""
        self._sha256 = hashlib.sha256()
        try:
            for content in self._contents():
                for digest in (self._sha256, *digests):
                    digest.update(content)
                tick()
        except FileNotFoundError:
            raise StorageUnavailable(f"{self._storage.where}: a chunk of a partial file is gone") from None

    def append(self, chunk: bytes | memoryview) -> None:
        self._tail += chunk
        self.size_bytes += len(chunk)
        if self._sha256 is not None:
            self._sha256.update(chunk)
        if len(self._tail) >= self._storage.chunk_bytes:
            self.keep()

    def check_room(self, more_bytes: int) -> None:
        """A bucket has room."""

    def sync(self) -> None:
        """Nothing to do: each chunk is durable when it has been put, and what is left follows with the whole."""

    def keep(self) -> None:
        """What is still in memory becomes a chunk."""
        if not self._tail:
            return
        if not self._noted:
            self.write_note(self._note)
        offset = self.size_bytes - len(self._tail)
        path = f"{self._folder}/{self._generation}/{offset:015d}.{self._writer}"
        self._storage.put(path, bytes(self._tail))
        self._pieces.append(_Piece(path, 0, len(self._tail)))
        self._tail.clear()

    def put_in_place(self, folder: str, file: str, tick: Callable[[], None] = _nothing) -> None:
        """Give it its final name. Only for bytes that are complete and verified. The note stays.

        Raises CorruptDownload when the store gives back other bytes than it was given; it is begun anew then.
        """
        path = _path(folder, file)
        if self._pieces:
            self._put_together(path, tick, self._checked)
        else:
            self._storage.put(path, bytes(self._tail))
        used, size_bytes = [one.path for one in self._pieces], self.size_bytes
        self._empty()
        self.size_bytes = size_bytes  # of the file that is in its place; asked for by whoever tells of it
        with contextlib.suppress(StorageUnavailable):  # it is in its place; `forget` clears up what stays
            self._storage.delete(used)

    def set_aside(self, file: str, tick: Callable[[], None] = _nothing) -> str:
        """Keep the bytes for a person to look at, in place of earlier ones of that name; where they lie now."""
        path = f".aside/{file}"
        self._put_together(path, tick)
        self.discard()
        return f"{self._storage.where}/{path}"

    def discard(self) -> None:
        """Nothing of it is of use any more."""
        self._empty()
        self._storage.delete([path for path, _ in self._storage.listed(self._folder)])

    def _put_together(
        self, path: str, tick: Callable[[], None], check: Callable[[Iterator[bytes]], Iterator[bytes]] = iter
    ) -> None:
        try:
            self._storage.put_together(path, self._pieces, tick, lambda chunks: check(self._with_tail(chunks)))
        except CorruptDownload:
            self.discard()
            raise
        except FileNotFoundError:
            raise StorageUnavailable(f"{self._storage.where}: a chunk of a partial file is gone") from None

    def _contents(self) -> Iterator[bytes]:
        return self._with_tail(self._storage.contents(self._pieces))

    def _with_tail(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        if self._tail:
            yield bytes(self._tail)

    def _checked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """What goes by is what was appended, or else nothing of it becomes visible."""
        sha256 = hashlib.sha256()
        for chunk in chunks:
            sha256.update(chunk)
            yield chunk
        if self._sha256 is not None and sha256.digest() != self._sha256.digest():
            raise CorruptDownload("the store gives back other bytes than it was given")

    def _empty(self) -> None:
        self._pieces, self.size_bytes = [], 0
        self._tail.clear()


def _chain(chunks: Iterator[tuple[str, int]]) -> list[_Piece]:
    """What of the chunks follows on one another from the first byte on. Of two that overlap, what the second adds."""
    found = []
    for path, size in chunks:
        match = _CHUNK.fullmatch(PurePosixPath(path).name)
        if match:
            found.append((int(match[1]), size, path))
    pieces: list[_Piece] = []
    position = 0
    for offset, size, path in sorted(found):
        if offset > position:
            break
        if offset + size > position:
            pieces.append(_Piece(path, position - offset, size))
            position = offset + size
    return pieces


def _size(pieces: Sequence[_Piece]) -> int:
    return sum(one.end - one.start for one in pieces)


def _read_note(content: bytes | None) -> Mapping[str, Any]:
    """Empty unless it is one of ours, whole."""
    try:
        value = json.loads(content or b"")
        sound = isinstance(value["note"], dict) and re.fullmatch(r"[0-9a-f]{32}", value["generation"])
    except (ValueError, TypeError, KeyError):
        return {}
    return value if sound else {}


def _path(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _kind(path: str) -> Any:
    """So that a browser that is given the object's address shows the film instead of saving it."""
    guessed, _ = mimetypes.MimeTypes().guess_type(path, strict=False)
    return {"Content-Type": guessed or "application/octet-stream"}
