"""One request for one file: the address is checked, the answer is judged, the bytes are verified.

What follows from a failure is not decided here, and nothing gets its final name here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urljoin

import urllib3
from urllib3.util import Timeout

from service.core.deliverables import Deliverable, check_address, decode_digest
from service.core.errors import CorruptDownload, LinkExpired, TransferFailed, TransferStopped
from service.jarai import USER_AGENT
from workers import shutdown
from workers.storage import PartialFile

_TIMEOUT = Timeout(connect=5, read=8)
_CHUNK_BYTES = 1024 * 1024
_LARGEST_UNANNOUNCED_BYTES = 16 * 1024**3
_MOST_REDIRECTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Progress(Protocol):
    """Whoever waits for the bytes, and may want no more of them."""

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        """So many bytes came, so many are here now. Raises TransferStopped or TransferFailed."""


def open_pool(hosts: tuple[str, ...]) -> urllib3.PoolManager:
    """The connections that transfers share. A failed request is never repeated in here."""
    return urllib3.PoolManager(
        retries=False, timeout=_TIMEOUT, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    )


class Transfer:
    """One request for one file, appended to what an earlier one brought."""

    def __init__(
        self,
        pool: urllib3.PoolManager,
        hosts: tuple[str, ...],
        deliverable: Deliverable,
        partial: PartialFile,
        progress: Progress,
    ) -> None:
        self._pool, self._hosts = pool, hosts
        self._deliverable, self._partial, self._progress = deliverable, partial, progress

    def run(self, url: str) -> str:
        """The SHA-256 of the complete, verified and synced bytes. Raises DownloadError or StorageUnavailable."""
        etag = self._partial.note.get("etag")
        if self._partial.size_bytes and not isinstance(etag, str):
            self._partial.restart()
        if self._partial.size_bytes and self._partial.size_bytes == self._partial.note.get("total"):
            self._partial.shorten()
        with self._answer(url, etag) as answer:
            total = self._total(answer, etag)
            return self._receive(answer, total)

    @contextmanager
    def _answer(self, url: str, etag: str | None) -> Iterator[urllib3.BaseHTTPResponse]:
        headers = dict(self._pool.headers)
        if self._partial.size_bytes and etag:
            headers |= {"Range": f"bytes={self._partial.size_bytes}-", "If-Range": etag}
        with _plain_errors():
            answer = self._follow(url, headers)
        with shutdown.interrupting(answer.shutdown):
            try:
                yield answer
            finally:
                answer.close()
                answer.release_conn()

    def _follow(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        for _ in range(_MOST_REDIRECTS + 1):
            check_address(url, self._hosts)
            answer = self._pool.request("GET", url, headers=headers, redirect=False, preload_content=False)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            url = urljoin(url, answer.headers.get("Location", ""))
            answer.close()
        raise TransferFailed("the address leads from one redirect to the next")

    def _total(self, answer: urllib3.BaseHTTPResponse, etag: str | None) -> int | None:
        """Judge the answer's head; the length of the whole file, None where the server does not tell."""
        if answer.status in (401, 403, 404, 410):
            raise LinkExpired(f"the address is answered with {answer.status}")
        if answer.status in (412, 416):
            self._partial.discard()
            self._partial.restart()
        if answer.status not in (200, 206):
            raise TransferFailed(f"the address is answered with {answer.status}")
        if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise CorruptDownload("the bytes come compressed though nobody asked for that")
        if answer.status == 200:
            if self._partial.size_bytes:
                self._partial.restart()
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isascii() and length.isdigit() else None
        else:
            total = self._resumed_total(answer, etag)
        announced = self._deliverable.bytes
        if announced is not None and total is not None and total != announced:
            raise CorruptDownload(f"JARAI announced {announced} bytes, the address has {total}")
        new_etag = answer.headers.get("ETag", "")
        if answer.status == 200 and new_etag and not new_etag.startswith("W/"):
            self._partial.write_note({"etag": new_etag, "total": total})
        return total

    def _resumed_total(self, answer: urllib3.BaseHTTPResponse, etag: str | None) -> int:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != self._partial.size_bytes or answer.headers.get("ETag") != etag:
            raise CorruptDownload("the server continues with other bytes than those that are missing")
        if int(match[2]) != int(match[3]) - 1:
            raise TransferFailed("the server leaves out the end")
        return int(match[3])

    def _receive(self, answer: urllib3.BaseHTTPResponse, total: int | None) -> str:
        expected_md5 = self._md5(answer)
        sha256 = hashlib.sha256()
        md5 = hashlib.md5(usedforsecurity=False) if expected_md5 else None
        digests = (sha256,) if md5 is None else (sha256, md5)
        if self._partial.size_bytes:
            self._partial.hash_into(*digests)
        most = total if total is not None else self._deliverable.bytes or _LARGEST_UNANNOUNCED_BYTES
        for chunk in self._chunks(answer):
            for digest in digests:
                digest.update(chunk)
            self._partial.append(chunk)
            self._progress.gained(len(chunk), self._partial.size_bytes)
            if self._partial.size_bytes > most:
                raise CorruptDownload(f"more than {most} bytes come")
        self._verify(total, sha256.hexdigest(), md5.hexdigest() if md5 else None, expected_md5)
        self._partial.sync()
        return sha256.hexdigest()

    def _chunks(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        while True:
            with _plain_errors():
                chunk = answer.read1(_CHUNK_BYTES)  # read() would throw away what came before a break
            if not chunk:
                if shutdown.requested():
                    raise TransferStopped("this worker ends")
                return
            yield chunk

    def _md5(self, answer: urllib3.BaseHTTPResponse) -> str | None:
        """The MD5 of the whole file in hex, where JARAI or Azure Blob tells it."""
        header = answer.headers.get("x-ms-blob-content-md5")
        if header is None and answer.status == 200:
            header = answer.headers.get("Content-MD5")
        return self._deliverable.md5 or (decode_digest(header, 16) if header else None)

    def _verify(self, total: int | None, sha256: str, md5: str | None, expected_md5: str | None) -> None:
        size, announced = self._partial.size_bytes, self._deliverable.bytes
        if total is not None and size < total:
            raise TransferFailed(f"the line broke at {size} of {total} bytes")
        if announced is not None and size != announced:
            raise CorruptDownload(f"JARAI announced {announced} bytes, {size} came")
        if expected_md5 is not None and md5 != expected_md5:
            raise CorruptDownload("the bytes do not match the MD5 that was announced")
        if self._deliverable.sha256 is not None and sha256 != self._deliverable.sha256:
            raise CorruptDownload("the bytes do not match the SHA-256 that was announced")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """urllib3's errors, which hold the address, as ours, which do not."""
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        if shutdown.requested():
            raise TransferStopped("this worker ends") from None
        raise TransferFailed(f"the line broke: {type(error).__name__}") from None
