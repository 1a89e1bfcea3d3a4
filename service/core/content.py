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
_CONTROLS = bytes([*range(0x09), *range(0x0E, 0x1A), *range(0x1C, 0x20)])
_MOST_CONTROLS = 1 / 50
_BOM, _BOMS_16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_EDGE_BYTES = 1024
_TAIL_BYTES = 64 * 1024
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid")


class Look(Protocol):
    """A check, while the file comes."""

    def update(self, chunk: bytes | memoryview, /) -> None:
        """The next bytes; they are the caller's again afterwards."""

    def problem(self) -> str | None:
        """After the last byte: what is wrong, in a phrase that goes on from «it»; None when nothing is."""


def look_at(file: str) -> Look:
    """The check for a file of this name. One without an ending is taken for what its first bytes say."""
    stem, dot, ending = file.rpartition(".")
    ending = ending.lower() if dot and stem else ""
    if ending in _MP4:
        return _Boxes()
    if ending == "pdf":
        return _Pdf()
    if ending == "vtt":
        return _Text(page=False, webvtt=True)
    if ending in _TEXTS:
        return _Text(page=ending in _MARKUP)
    return Anything() if ending else _Unnamed()


class Anything:
    """Whatever it is, it is right."""

    def update(self, chunk: bytes | memoryview, /) -> None:
        pass

    def problem(self) -> str | None:
        return None


class _Unnamed:
    """No ending: what begins as an MP4 or a PDF has to be one."""

    def __init__(self) -> None:
        self._head = b""
        self._look: Look | None = None

    def update(self, chunk: bytes | memoryview, /) -> None:
        if self._look is not None:
            self._look.update(chunk)
            return
        self._head += bytes(chunk)
        if len(self._head) >= 8:
            self._look = (
                _Boxes() if self._head[4:8] == b"ftyp" else _Pdf() if self._head[:5] == b"%PDF-" else Anything()
            )
            self._look.update(self._head)

    def problem(self) -> str | None:
        return None if self._look is None else self._look.problem()


class _Boxes:
    """MP4 and its kin: boxes, one after the other, all of them whole, one of them the `moov` that plays it.

    What stands behind all that a player needs is left alone: cameras and tools append what they like.
    """

    def __init__(self) -> None:
        self._header = b""
        self._box = ""
        self._left = 0  # bytes of this box that are still to come; -1: it reaches to the end
        self._boxes = 0
        self._moov = self._media = False
        self._wrong: str | None = None

    def update(self, chunk: bytes | memoryview, /) -> None:
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
        if self._boxes == 0 and kind not in _FIRST_BOXES:
            self._wrong = "does not begin as an MP4 does"
            return
        if size == 1:
            size = int.from_bytes(long_size, "big")
        is_box = all(0x20 <= one < 0x7F or one == 0xA9 for one in kind) and (not size or size >= len(self._header))
        if not is_box and self._playable:
            self._left, self._header = -1, b""
            return
        if not is_box:
            self._wrong = "is no row of MP4 boxes"
            return
        self._boxes += 1
        self._box = kind.decode("latin-1")
        self._left = size - len(self._header) if size else -1
        self._moov = self._moov or (kind == b"moov" and self._left != 0)
        self._media = self._media or kind in (b"mdat", b"moof")
        self._header = b""

    @property
    def _playable(self) -> bool:
        return self._moov and self._media

    def problem(self) -> str | None:
        if self._wrong is not None:
            return self._wrong
        if self._header and not self._playable:
            return "ends within the header of an MP4 box"
        if self._left > 0:
            return f"ends {self._left} bytes before its MP4 box {self._box} does"
        if not self._boxes:
            return "is empty"
        return None if self._moov else "has no moov box, and nothing could play it"


class _Beginning:
    """The first KiB."""

    def __init__(self) -> None:
        self._first = b""

    def update(self, chunk: bytes | memoryview, /) -> None:
        if len(self._first) < _EDGE_BYTES:
            self._first += bytes(chunk[: _EDGE_BYTES - len(self._first)])


class _Pdf(_Beginning):
    def __init__(self) -> None:
        super().__init__()
        self._last = b""

    def update(self, chunk: bytes | memoryview, /) -> None:
        super().update(chunk)
        self._last = (self._last + bytes(chunk[-_TAIL_BYTES:]))[-_TAIL_BYTES:]

    def problem(self) -> str | None:
        if b"%PDF-" not in self._first:
            return "does not begin as a PDF does"
        return None if b"%%EOF" in self._last else "does not end as a PDF does: its end is missing"


class _Text(_Beginning):
    """Text in whatever encoding: what is full of control characters is none, and a page may stand in for it.

    An empty one is text; an empty WebVTT lacks its first line.
    """

    def __init__(self, page: bool, webvtt: bool = False) -> None:
        super().__init__()
        self._page, self._webvtt = page, webvtt
        self._bytes = self._controls = 0

    def update(self, chunk: bytes | memoryview, /) -> None:
        super().update(chunk)
        self._bytes += len(chunk)
        self._controls += len(chunk) - len(bytes(chunk).translate(None, _CONTROLS))

    def problem(self) -> str | None:
        if self._webvtt and not re.match(rb"WEBVTT([ \t\r\n]|$)", self._first.removeprefix(_BOM)):
            return "does not begin with WEBVTT"
        if self._controls > self._bytes * _MOST_CONTROLS and not self._has_two_bytes_each:
            return "is not text: it is full of control characters"
        if not self._page and _PAGE.match(self._first.removeprefix(_BOM)):
            return "is a page of markup in place of the text"
        return None

    @property
    def _has_two_bytes_each(self) -> bool:
        """UTF-16, with its mark or by the zeros in every other place."""
        even, odd = self._first[::2].count(0), self._first[1::2].count(0)
        return self._first.startswith(_BOMS_16) or (min(even, odd) == 0 and max(even, odd) > len(self._first) / 4)
