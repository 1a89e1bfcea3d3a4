"""Checksums of bytes as they come, and the look at what they are, computed beside the thread that fetches them.

A file of any size costs the same few buffers; a small one costs no thread.
"""

from __future__ import annotations

import hashlib
from queue import SimpleQueue
from threading import Thread
from types import TracebackType

from service.core.content import Look

_BUFFER_BYTES = 1024 * 1024
_MOST_BUFFERS = 8
_ALONE_BYTES = 1024 * 1024  # a file of up to so much is done before a thread would have begun


class Sums:
    """What is known of the bytes so far: of `size_bytes` of them."""

    def __init__(self, check: Look, with_md5: bool) -> None:
        self.size_bytes = 0
        self.check = check
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def update(self, data: bytes | memoryview, /) -> None:
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        self.check.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str | None:
        return None if self._md5 is None else self._md5.hexdigest()


class Ring:
    """A few buffers that go round: filled by the caller, summed up here, filled again.

    When the block ends, however it ends, the thread has ended and the sums hold all that was given. What goes wrong
    in the thread is raised in the caller: at the next `space`, or at the end of the block.
    """

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._buffers = 1
        self._present = memoryview(bytearray(_BUFFER_BYTES))
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
        if error is None:
            self._check()

    def space(self) -> memoryview:
        """Where the next bytes go. Its content stays until it has been given, and this is called again."""
        self._check()
        return self._present

    def give(self, size_bytes: int) -> None:
        """So many bytes lie in what `space` gave last. They may still be read until the next call of `space`."""
        if self._thread is None:
            self._sums.update(self._present[:size_bytes])
            if self._sums.size_bytes > _ALONE_BYTES:
                self._thread = Thread(target=self._work, name="hashing", daemon=True)
                self._thread.start()
            return
        self._full.put((self._present, size_bytes))
        if self._buffers < _MOST_BUFFERS and self._free.empty():
            self._buffers += 1
            self._present = memoryview(bytearray(_BUFFER_BYTES))
        else:
            self._present = self._free.get()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (given := self._full.get()) is not None:
            buffer, size_bytes = given
            try:
                if self._failure is None:
                    self._sums.update(buffer[:size_bytes])
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and the buffers have to go on round
                self._failure = error
            self._free.put(buffer)
