"""Is it such a file as its name says? A look at the content as it passes, without the tools that would play or show it.

Only what no player or reader could use is refused: of what is not known here, nothing is said. A check takes the bytes
in order, cut as they come, and never holds more than a few KiB.
"""

from __future__ import annotations

import re
from typing import Protocol

_MP4 = ("mp4", "m4v", "m4a", "mov", "3gp")
_MARKUP = ("html", "htm", "xhtml", "xml", "ttml", "dfxp", "svg")
_TEXTS = ("txt", "srt", "md", "csv", "json", "sbv", *_MARKUP)
_PAGE = re.compile(rb"\s*(<\?xml|<!doctype|<html|<error)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BOM, _BOMS_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_EDGE_BYTES = 1024


class Look(Protocol):
    """A check, while the file comes."""

    def update(self, chunk: bytes, /) -> None:
        """The next bytes."""

    def problem(self) -> str | None:
        """After the last byte: what is wrong, in a phrase that goes on from «it»; None when nothing is."""


def look_at(file: str) -> Look:
    """The check for a file of this name. One without an ending is taken for what its first bytes say."""
    stem, dot, ending = file.rpartition(".")
    ending = ending.lower() if dot and stem else ""
    if ending in _MP4:
        return _Boxes(old=ending == "mov")
    if ending == "pdf":
        return _Pdf()
    if ending == "vtt":
        return _Text(page=False, webvtt=True)
    if ending in _TEXTS:
        return _Text(page=ending in _MARKUP)
    return _Unknown() if ending else _Unnamed()


class _Unknown:
    def update(self, chunk: bytes, /) -> None:
        pass

    def problem(self) -> str | None:
        return None


class _Unnamed:
    """No ending: what begins as an MP4 or a PDF has to be one."""

    def __init__(self) -> None:
        self._head = b""
        self._look: Look | None = None

    def update(self, chunk: bytes, /) -> None:
        if self._look is not None:
            self._look.update(chunk)
            return
        self._head += bytes(chunk)
        if len(self._head) >= 8:
            self._look = (
                _Boxes() if self._head[4:8] == b"ftyp" else _Pdf() if self._head[:5] == b"%PDF-" else _Unknown()
            )
            self._look.update(self._head)

    def problem(self) -> str | None:
        return None if self._look is None else self._look.problem()


class _Boxes:
    """MP4 and its kin: boxes, one after the other, that fill the file exactly, one of them the `moov` that plays it.

    `old`: QuickTime's files need not begin with `ftyp`.
    """

    def __init__(self, old: bool = False) -> None:
        self._old = old
        self._header = b""
        self._box = ""
        self._left = 0  # bytes of this box that are still to come; -1: it reaches to the end
        self._boxes = 0
        self._moov = False
        self._wrong: str | None = None

    def update(self, chunk: bytes, /) -> None:
        rest = memoryview(chunk)
        while rest and self._wrong is None and self._left >= 0:
            if self._left:
                taken = min(self._left, len(rest))
                self._left -= taken
            else:
                taken = min(self._wanted() - len(self._header), len(rest))
                self._header += bytes(rest[:taken])
                if len(self._header) == self._wanted():
                    self._begin(int.from_bytes(self._header[:4], "big"), self._header[4:8], self._header[8:])
            rest = rest[taken:]

    def _wanted(self) -> int:
        """A header has 8 bytes, and 8 more where the size is a long one."""
        return 16 if len(self._header) >= 8 and self._header[:4] == b"\0\0\0\1" else 8

    def _begin(self, size: int, kind: bytes, long_size: bytes) -> None:
        if self._boxes == 0 and kind != b"ftyp" and not self._old:
            self._wrong = "does not begin as an MP4 does (no ftyp box)"
            return
        if size == 1:
            size = int.from_bytes(long_size, "big")
        padding = size == 0 and kind == b"\0\0\0\0"
        if not padding and not all(0x20 <= one < 0x7F or one == 0xA9 for one in kind):
            self._wrong = "is no row of MP4 boxes"
            return
        if size and size < len(self._header):
            self._wrong = "has an MP4 box that is smaller than its own header"
            return
        self._boxes += 1
        self._box = kind.decode("latin-1")
        self._left = size - len(self._header) if size else -1
        self._moov = self._moov or (kind == b"moov" and self._left != 0)
        self._header = b""

    def problem(self) -> str | None:
        if self._wrong is not None:
            return self._wrong
        if self._header:
            return "ends within the header of an MP4 box"
        if self._left > 0:
            return f"ends {self._left} bytes before its MP4 box {self._box} does"
        if not self._boxes:
            return "is empty"
        return None if self._moov else "has no moov box, and nothing could play it"


class _Edges:
    """The first and the last KiB."""

    def __init__(self) -> None:
        self._first = self._last = b""

    def update(self, chunk: bytes, /) -> None:
        if len(self._first) < _EDGE_BYTES:
            self._first += bytes(chunk[: _EDGE_BYTES - len(self._first)])
        self._last = (self._last + bytes(chunk[-_EDGE_BYTES:]))[-_EDGE_BYTES:]


class _Pdf(_Edges):
    def problem(self) -> str | None:
        if b"%PDF-" not in self._first:
            return "does not begin as a PDF does"
        return None if b"%%EOF" in self._last else "does not end as a PDF does: its end is missing"


class _Text(_Edges):
    """Text in whatever encoding: what has control characters in it is none, and a page may stand in for it.

    An empty one is text; an empty WebVTT lacks its first line.
    """

    def __init__(self, page: bool, webvtt: bool = False) -> None:
        super().__init__()
        self._page, self._webvtt = page, webvtt
        self._binary = False

    def update(self, chunk: bytes, /) -> None:
        super().update(chunk)
        if not self._binary and not self._first.startswith(_BOMS_16):
            self._binary = _CONTROL.search(chunk) is not None

    def problem(self) -> str | None:
        if self._webvtt and not re.match(rb"WEBVTT([ \t\r\n]|$)", self._first.removeprefix(_BOM)):
            return "does not begin with WEBVTT"
        if self._binary:
            return "is not text: there are control characters in it"
        if not self._page and _PAGE.match(self._first.removeprefix(_BOM)):
            return "is a page of markup in place of the text"
        return None
