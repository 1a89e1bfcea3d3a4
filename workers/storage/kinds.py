"""What a store for deliverables has to be able to do, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


class Digest(Protocol):
    """What hashlib gives."""

    def update(self, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies there. Digests are lower-case hex."""

    bytes: int
    sha256: str
    md5: str


class Partial(Protocol):
    """A file on its way. Its note says what the bytes so far belong to, and survives a crash."""

    size_bytes: int

    @property
    def note(self) -> Mapping[str, Any]:
        """What was noted last; empty when nothing was, or the note can't be read."""

    def write_note(self, note: Mapping[str, Any]) -> None: ...

    def shorten(self) -> None:
        """Drop the last byte, so that there is something left to ask for."""

    def restart(self) -> None:
        """Throw away the bytes so far."""

    def hash_into(self, *digests: Digest, tick: Callable[[], None] = ...) -> None:
        """Feed what is there already, and go on writing behind it. `tick` is called as it goes."""

    def append(self, chunk: bytes | memoryview) -> None:
        """The chunk is the caller's again afterwards: whoever keeps it copies it."""

    def check_room(self, more_bytes: int) -> None:
        """Raises StorageUnavailable when so much can't fit."""

    def sync(self) -> None:
        """What was appended survives a crash of the machine."""

    def put_in_place(self, folder: str, file: str, tick: Callable[[], None] = ...) -> None:
        """Give it its final name, in one step. Only for bytes that are complete, verified, synced. The note stays.

        `tick` is called where that takes its time; what it raises ends it, and nothing has become visible.
        """

    def set_aside(self, file: str, tick: Callable[[], None] = ...) -> str:
        """Keep the bytes for a person to look at, in place of earlier ones of that name; where they lie now."""

    def discard(self) -> None:
        """Nothing of it is of use any more."""


class Storage(Protocol):
    """A place for deliverables. Relative paths given to it come from `Production.folder` and `Deliverable.file`.

    Whatever the store refuses is StorageUnavailable.
    """

    def begin(self, name: str) -> AbstractContextManager[Partial | None]:
        """The partial file of that name; None while another process of this machine still holds it."""

    def write(self, name: str, folder: str, file: str, content: bytes, last_look: Callable[[], None] = ...) -> bool:
        """Put a small file in its place, whole: a reader sees the old or the new one. False: another is at it.

        `last_look` is called right before; what it raises ends it.
        """

    def read(self, folder: str, file: str) -> bytes | None:
        """A small file, or None when there is none."""

    def stored(self, folder: str, file: str, tick: Callable[[], None]) -> Stored | None:
        """The file under its final name, read whole, or None when there is none. `tick` is called as it goes."""

    def manifests(self) -> Iterator[tuple[str, bytes, Mapping[str, int]]]:
        """Each production's folder with its manifest, and the size of each file in it."""

    def sizes(self, folder: str) -> Mapping[str, int]:
        """The bytes of each file in a folder; nothing where there is no such folder."""

    def take_away(self, folder: str, file: str, tick: Callable[[], None] = ...) -> str | None:
        """Move a damaged file out of its place, for a person to look at; where it lies now, None: it is gone."""

    def forget(self, name: str) -> None:
        """What was noted of a file that is stored, and recorded elsewhere by now."""

    @property
    def where(self) -> str:
        """As a person would look for it; holds no secret."""

    def probe(self) -> int | None:
        """Write and remove a file, to be sure; the bytes that are free, None where nobody counts them."""
