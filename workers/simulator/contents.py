"""The bytes of deliverables: made from a key and a size, block by block, never held as a whole."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

BLOCK_BYTES = 1 << 20
_LINE_BYTES = 64
_WORDS = [
    "the",
    "camera",
    "light",
    "a",
    "voice",
    "says",
    "harbour",
    "morning",
    "slowly",
    "people",
    "walk",
    "city",
    "rain",
    "music",
    "begins",
]
_TEXT_KINDS = frozenset({"txt", "vtt"})
_PDF_TAIL = b"\nstartxref\n0\n%%EOF\n"

EXTENSIONS = {
    "Video": ("mp4", "video/mp4"),
    "ClosedCaptions": ("vtt", "text/vtt"),
    "Transcript": ("txt", "text/plain; charset=utf-8"),
    "AudioDescription": ("mp3", "audio/mpeg"),
    "ComplianceCertificate": ("pdf", "application/pdf"),
}
OTHER = ("bin", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Content:
    """`key` decides every byte; `kind` is the file extension, which decides how the file begins and ends."""

    key: str
    size_bytes: int
    kind: str


@dataclass(frozen=True, slots=True)
class Digests:
    md5: bytes
    sha256: bytes


def read(content: Content, start: int, stop: int) -> bytes:
    """The bytes from `start`, up to `stop` or the end of the block that `start` lies in, whichever comes first."""
    index, offset = divmod(start, BLOCK_BYTES)
    stop = min(stop, (index + 1) * BLOCK_BYTES, content.size_bytes)
    mark, turn = _fingerprint(content)
    begin = turn + offset
    piece = bytearray(_twice(content.kind in _TEXT_KINDS)[begin : begin + stop - start])
    _lay(piece, start, f"{mark}{index:08x}".encode(), index * BLOCK_BYTES)
    _lay(piece, start, _head(content.kind, content.size_bytes), 0)
    if content.kind == "pdf":
        _lay(piece, start, _PDF_TAIL, content.size_bytes - len(_PDF_TAIL))
    elif content.kind in _TEXT_KINDS:
        _lay(piece, start, b"\n", content.size_bytes - 1)
    return bytes(piece)


def blocks(content: Content, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        piece = read(content, start, stop)
        start += len(piece)
        yield piece


class DigestCache:
    """Digests, computed once per content and in a thread, so that the loop goes on serving."""

    def __init__(self) -> None:
        self._tasks: dict[Content, asyncio.Task[Digests]] = {}
        self._closed = threading.Event()

    def begin(self, content: Content) -> asyncio.Task[Digests]:
        if content not in self._tasks:
            work = asyncio.to_thread(_digest, content, self._closed)
            self._tasks[content] = asyncio.get_running_loop().create_task(work)
        return self._tasks[content]

    async def of(self, content: Content) -> Digests:
        return await asyncio.shield(self.begin(content))

    def close(self) -> None:
        self._closed.set()
        for task in self._tasks.values():
            task.cancel()


def _digest(content: Content, closed: threading.Event) -> Digests:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for piece in blocks(content, 0, content.size_bytes):
        if closed.is_set():
            raise asyncio.CancelledError
        md5.update(piece)
        sha256.update(piece)
    return Digests(md5.digest(), sha256.digest())


def _lay(piece: bytearray, piece_start: int, patch: bytes, patch_start: int) -> None:
    """Write that part of `patch` over `piece` which lies inside it; both starts are offsets in the file."""
    begin = max(piece_start, patch_start)
    end = min(piece_start + len(piece), patch_start + len(patch))
    if begin < end:
        piece[begin - piece_start : end - piece_start] = patch[begin - patch_start : end - patch_start]


@lru_cache(maxsize=4096)
def _fingerprint(content: Content) -> tuple[str, int]:
    """A mark for each block, and where in the doubled block the file begins: two keys share no long run of bytes."""
    digest = hashlib.blake2b(content.key.encode(), digest_size=12).hexdigest()
    return digest[:8], int(digest[8:], 16) % (BLOCK_BYTES // _LINE_BYTES) * _LINE_BYTES


@lru_cache(maxsize=2)
def _twice(text: bool) -> bytes:
    dice = Random("simulator")
    return (_text_block(dice) if text else dice.randbytes(BLOCK_BYTES)) * 2


def _text_block(dice: Random) -> bytes:
    lines = BLOCK_BYTES // _LINE_BYTES
    made = (" ".join(dice.choices(_WORDS, k=24))[: _LINE_BYTES - 1] + "\n" for _ in range(lines))
    return "".join(made).encode()


@lru_cache(maxsize=4096)
def _head(kind: str, size_bytes: int) -> bytes:
    if kind == "mp4":
        return _mp4_head(size_bytes)
    plain = {
        "vtt": b"WEBVTT\n\n00:00:00.000 --> 01:00:00.000\n",
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "txt": "Transcript – simulated\n\n".encode(),
        "mp3": b"ID3\x04\x00\x00\x00\x00\x00\x00\xff\xfb\x90\x64",
    }
    return plain.get(kind, b"")


def _mp4_head(size_bytes: int) -> bytes:
    """ftyp, a moov with a movie header and no track, and the header of an mdat that takes the rest of the file."""
    ftyp = _box(b"ftyp", b"isom" + (512).to_bytes(4, "big") + b"isomiso2mp41")
    unity = b"".join(n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    times = b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 1000, 30_000, 0x10000))
    mvhd = _box(b"mvhd", times + b"\x01\x00" + bytes(10) + unity + bytes(24) + b"\x00\x00\x00\x01")
    start = ftyp + _box(b"moov", mvhd)
    rest = max(8, size_bytes - len(start))
    if rest < 1 << 32:
        return start + rest.to_bytes(4, "big") + b"mdat"
    return start + (1).to_bytes(4, "big") + b"mdat" + rest.to_bytes(8, "big")


def _box(name: bytes, payload: bytes) -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + name + payload
