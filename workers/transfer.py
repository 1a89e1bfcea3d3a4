"""One file from its address: the address is checked, the answer is judged, the bytes are verified.

What follows from a failure is not decided here, and nothing gets its final name here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urljoin

import urllib3
from urllib3.util import Timeout

from service import outgoing
from service.core.addresses import check_address, check_resolved
from service.core.content import Anything, look_at
from service.core.deliverables import Deliverable, decode_digest
from service.core.errors import (
    CorruptDownload,
    LinkExpired,
    LinkForbidden,
    SameFile,
    TransferFailed,
    TransferStopped,
    UnsoundContent,
)
from service.core.retry import resumes_at_once
from service.jarai import USER_AGENT
from workers import shutdown
from workers.hashing import Ring, Sums
from workers.storage import Partial

_TIMEOUT = Timeout(connect=5, read=8)
_LARGEST_UNANNOUNCED_BYTES = 16 * 1024**3
_MOST_REDIRECTS = 3
_ETAG = re.compile(r'"?[\x21\x23-\x7e]{1,200}"?')
# What a proxy or a gateway answers in place of a file, and the files that may well be of these kinds.
_PAGES = ("text/html", "application/xhtml+xml", "text/xml", "application/xml")
_PAGE_ENDINGS = ("htm", "html", "xhtml", "xml", "ttml", "dfxp", "svg", "srt", "vtt", "txt")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take: until its answer begins, redirects included, and for any next byte of the file.

    Both well within a claim, which is kept only when bytes arrive.
    """

    head_seconds: float = 20.0
    read_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Known:
    """A file that is stored already, to see by the answer's head whether the address leads to another one.

    `etag` only if it was given to the same address. `md5` in hex, or how to find it out.
    """

    bytes: int
    etag: str | None
    md5: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came. Digests in hex; `md5` where there was one to hold it against, `etag` where it is a strong one."""

    sha256: str
    md5: str | None
    etag: str | None


class Progress(Protocol):
    """Whoever waits for the bytes, and may want no more of them."""

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        """So many bytes came, so many are here now. Raises TransferStopped or TransferFailed."""

    def tick(self) -> None:
        """Time passes without bytes. Raises TransferStopped."""


def open_pool(hosts: tuple[str, ...]) -> urllib3.PoolManager:
    """The connections that transfers share; each leads only where `hosts` allow."""

    def judge(host: str, port: int, address: str, secure: bool) -> None:
        check_resolved(host, port, address, hosts, secure=secure)

    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    return outgoing.open_pool(_TIMEOUT, headers, judge)


class _LineBroke(TransferFailed):
    """In the middle of the file."""


class _Changed(TransferFailed):
    """It is another file by now: what is here of it is of no use."""


class Transfer:
    """One file, appended to what an earlier attempt brought."""

    def __init__(
        self,
        pool: urllib3.PoolManager,
        hosts: tuple[str, ...],
        deliverable: Deliverable,
        partial: Partial,
        progress: Progress,
        patience: Patience = Patience(),
        known: Known | None = None,
        synthetic: bool = False,
    ) -> None:
        self._pool, self._hosts, self._patience = pool, hosts, patience
        self._deliverable, self._partial, self._progress = deliverable, partial, progress
        self._known = known
        self._synthetic = synthetic  # CONTRACT [docs]: a sandbox makes them up, so nobody has to be able to open them
        self._whole = False  # ask for the file from its beginning
        self._expected_md5: str | None = None
        self._sums: Sums | None = None

    def run(self, url: str) -> Fetched:
        """The complete bytes, verified and synced, lie in the partial file.

        A line that breaks is taken up again at once as long as it brings something. Raises SameFile where `known` is
        what the address leads to, UnsoundContent with the bytes left as they are, any other DownloadError, or
        StorageUnavailable.
        """
        if self._partial.size_bytes and self._etag is None:
            self._partial.restart()
        if self._partial.size_bytes and self._partial.size_bytes == self._partial.note.get("total"):
            self._partial.shorten()
        breaks = 0
        while True:
            before_bytes = self._partial.size_bytes
            try:
                return self._verified(self._receive(url))
            except _LineBroke:
                breaks += 1
                gained_bytes = self._partial.size_bytes - before_bytes
                if self._etag is None or not resumes_at_once(breaks, gained_bytes):
                    raise
            except _Changed:  # the bytes so far stay until others begin to come
                self._whole = True

    @property
    def _etag(self) -> str | None:
        """Of the bytes so far."""
        return _strong(self._partial.note.get("etag"))

    def _receive(self, url: str) -> Sums:
        """Append what one request brings; the sums of all that is here then."""
        etag = self._etag
        with self._answer(url, etag) as answer:
            total = self._total(answer, etag)
            sums = self._summed(answer)
            if total is not None:
                self._partial.check_room(total - self._partial.size_bytes)
            most = total if total is not None else self._most()
            with Ring(sums) as ring:
                while size := self._read(answer, space := ring.space()):
                    if self._partial.size_bytes + size > most:
                        raise CorruptDownload(f"more than {most} bytes come")
                    self._partial.append(space[:size])
                    ring.give(size)
                    self._progress.gained(size, self._partial.size_bytes)
        if total is not None and self._partial.size_bytes < total:
            raise _LineBroke(f"the line broke at {self._partial.size_bytes} of {total} bytes")
        return sums

    @contextmanager
    def _answer(self, url: str, etag: str | None) -> Iterator[urllib3.BaseHTTPResponse]:
        headers = dict(self._pool.headers)
        if self._partial.size_bytes and etag and not self._whole:
            headers |= {"Range": f"bytes={self._partial.size_bytes}-", "If-Match": etag, "If-Range": etag}
        with _plain_errors(self._patience.head_seconds):
            answer = self._follow(url, headers)
        with shutdown.interrupting(lambda: outgoing.break_off(answer)):
            try:
                yield answer
            finally:
                answer.close()
                answer.release_conn()

    def _follow(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        for _ in range(_MOST_REDIRECTS + 1):
            check_address(url, self._hosts)
            answer = self._pool.request(
                "GET", url, headers=headers, redirect=False, preload_content=False, decode_content=False
            )
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            answer.close()
            answer.release_conn()
            url = _next_address(url, answer.headers.get("Location", ""))
        raise TransferFailed("the address leads from one redirect to the next")

    def _total(self, answer: urllib3.BaseHTTPResponse, etag: str | None) -> int | None:
        """Judge the answer's head; the length of the whole file, None where the server does not tell."""
        if answer.status in (401, 403, 404, 410):
            raise LinkExpired(f"the address is answered with {answer.status}")
        if answer.status in (412, 416) and self._partial.size_bytes and not self._whole:
            raise _Changed(f"the address is answered with {answer.status}: the file is not the one that was begun")
        if answer.status not in (200, 206):
            raise TransferFailed(f"the address is answered with {answer.status}")
        if answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
            raise CorruptDownload("the bytes come compressed though nobody asked for that")
        if answer.headers.get("Transfer-Encoding", "chunked").lower() != "chunked":  # exactly what http.client undoes
            raise TransferFailed("the bytes come in a framing that nobody asked for")
        if answer.status == 200:
            if self._partial.size_bytes:
                self._partial.restart()
            self._whole = False
            total = _length(answer)
        else:
            total = self._resumed_total(answer, etag)
        announced = self._deliverable.bytes
        if announced is not None and total is not None and total != announced:
            raise CorruptDownload(f"JARAI announced {announced} bytes, the address has {total}")
        if total is not None and total > self._most():
            raise CorruptDownload(f"the address has {total} bytes, and JARAI announced no such size")
        if answer.status == 200:
            self._judge_unannounced(answer, total)
            self._judge_known(answer, total)
            # Also without an ETag: the bytes to come must not be continued under that of the earlier ones.
            etag = _strong(answer.headers.get("ETag"))
            self._partial.write_note({"etag": etag, "total": total, "md5": _told_md5(answer)})
        return total

    def _resumed_total(self, answer: urllib3.BaseHTTPResponse, etag: str | None) -> int:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._partial.size_bytes or answer.headers.get("ETag") != etag:
            raise CorruptDownload("the server continues with other bytes than those that are missing")
        if int(match[3]) != (self._partial.note.get("total") or int(match[3])):
            raise CorruptDownload("the server continues with a file of another length")
        if answer.headers.get("Content-Type", "").strip().lower().startswith("multipart/"):
            raise CorruptDownload("the server continues in several parts, and nobody asked for that")
        if int(match[2]) != int(match[3]) - 1:
            raise TransferFailed("the server leaves out the end")
        return int(match[3])

    def _judge_unannounced(self, answer: urllib3.BaseHTTPResponse, total: int | None) -> None:
        """Where nobody says what the bytes should be, a page in place of a file and a cut have to show otherwise."""
        known = self._deliverable
        if known.bytes is not None or known.sha256 is not None or self._md5(answer) is not None:
            return
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        ending = known.file.rpartition(".")[2].lower() if "." in known.file else ""
        if kind in _PAGES and ending and ending not in _PAGE_ENDINGS:
            raise TransferFailed(f"the address is answered with a page ({kind}), not with a file")
        if total is None and "Transfer-Encoding" not in answer.headers:
            raise TransferFailed("neither JARAI nor the address says how long the file is")

    def _judge_known(self, answer: urllib3.BaseHTTPResponse, total: int | None) -> None:
        """Raises SameFile where the head proves it; where it leaves a doubt, the bytes will show."""
        known = self._known
        if known is None or total != known.bytes:
            return
        etag, md5 = _strong(answer.headers.get("ETag")), _told_md5(answer)
        if (etag is not None and etag == known.etag) or (md5 is not None and md5 == known.md5()):
            raise SameFile("the address leads to what is stored already")

    def _most(self) -> int:
        announced = self._deliverable.bytes
        return _LARGEST_UNANNOUNCED_BYTES if announced is None else announced

    def _summed(self, answer: urllib3.BaseHTTPResponse) -> Sums:
        """The sums of what is here: as the last request left them, or else read from the beginning."""
        sums = self._sums
        if sums is None or sums.size_bytes != self._partial.size_bytes or answer.status == 200:
            self._expected_md5 = self._md5(answer)
            look = Anything() if self._synthetic else look_at(self._deliverable.file)
            sums = Sums(look, with_md5=self._expected_md5 is not None)
            if self._partial.size_bytes:
                self._partial.hash_into(sums, tick=self._progress.tick)
            self._sums = sums
        return sums

    def _read(self, answer: urllib3.BaseHTTPResponse, space: memoryview) -> int:
        with _plain_errors(self._patience.read_seconds, _LineBroke):
            size = outgoing.read_into(answer, space)
        if not size and shutdown.requested():
            raise TransferStopped("this worker ends")
        return size

    def _md5(self, answer: urllib3.BaseHTTPResponse) -> str | None:
        """The MD5 of the whole file in hex, where JARAI or Azure Blob tells it, or told it when the file began."""
        noted = self._partial.note.get("md5") if answer.status == 206 else None
        return self._deliverable.md5 or _told_md5(answer) or (noted if isinstance(noted, str) else None)

    def _verified(self, sums: Sums) -> Fetched:
        sha256, md5, problem = sums.sha256, sums.md5, sums.check.problem()
        size, announced = self._partial.size_bytes, self._deliverable.bytes
        if announced is not None and size != announced:
            raise CorruptDownload(f"JARAI announced {announced} bytes, {size} came")
        if self._expected_md5 is not None and md5 != self._expected_md5:
            raise CorruptDownload("the bytes do not match the MD5 that was announced")
        if self._deliverable.sha256 is not None and sha256 != self._deliverable.sha256:
            raise CorruptDownload("the bytes do not match the SHA-256 that was announced")
        if problem is not None:
            raise UnsoundContent(f"the file {problem}")
        self._partial.sync()
        return Fetched(sha256, md5, self._etag)


def _told_md5(answer: urllib3.BaseHTTPResponse) -> str | None:
    header = answer.headers.get("x-ms-blob-content-md5")
    if header is None and answer.status == 200:
        header = answer.headers.get("Content-MD5")
    return decode_digest(header, 16) if header else None


def _strong(etag: object) -> str | None:
    """An ETag that can be sent back and stands for these very bytes; None for anything else."""
    return etag if isinstance(etag, str) and _ETAG.fullmatch(etag) else None


def _length(answer: urllib3.BaseHTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _next_address(url: str, location: str) -> str:
    if not location:
        raise TransferFailed("the address leads to a redirect that names no other")
    try:
        return urljoin(url, location)
    except ValueError:
        raise LinkForbidden("the address leads to a redirect that can't be read") from None


@contextmanager
def _plain_errors(seconds: float, broken: type[TransferFailed] = TransferFailed) -> Iterator[None]:
    """urllib3's errors, which hold the address, as ours, which do not; also when it takes longer than that."""
    try:
        with outgoing.within(seconds):
            yield
    except urllib3.exceptions.HTTPError as error:
        if shutdown.requested():
            raise TransferStopped("this worker ends") from None
        raise broken(f"the line broke: {type(error).__name__}") from None
