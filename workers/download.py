"""The queue `download`: one file at a time from its address to its place, verified, and reported to the inbox."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from urllib.parse import urljoin

import urllib3
from redis import Redis
from redis.exceptions import RedisError
from urllib3.util import Timeout

from service import jobs, log, runtime
from service.core.deliverables import Deliverable, check_address, decode_digest
from service.core.errors import (
    CorruptDownload,
    LinkExpired,
    LinkForbidden,
    StorageUnavailable,
    TransferFailed,
    TransferStopped,
    UnreadableState,
)
from service.core.observations import MANIFEST, DownloadFailed, DownloadStored, ManifestWritten, Written
from service.core.retry import Failure
from service.core.view import manifest
from service.jarai import USER_AGENT
from service.settings import Settings
from service.store import due, inbox, productions
from service.store.due import DownloadClaim
from workers import shutdown
from workers.storage import LocalStorage, PartialFile

_TIMEOUT = Timeout(connect=5, read=8)
_CHUNK_BYTES = 1024 * 1024
_RENEW_SECONDS = 1.0
_LEASE_SECONDS = due.DOWNLOAD_LEASE_MS / 1000
_STALL_SECONDS, _STALL_BYTES = 60.0, 64 * 1024
_LARGEST_UNANNOUNCED_BYTES = 16 * 1024**3
_MOST_REDIRECTS = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker download")
    try:
        Downloader(here.redis, here.settings).drain()
    except RedisError as error:  # the claim runs out and the sweep rings again
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


class Downloader:
    """Fetches what is due, one file after the other. Any number may run at the same time, on any host."""

    _storage_down = False

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings = redis, settings
        self._pool = urllib3.PoolManager(
            retries=False, timeout=_TIMEOUT, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        )
        self._log = log.get()

    def drain(self) -> int:
        """Fetch everything that is due; how many attempts that were."""
        done = 0
        while not shutdown.requested():
            try:
                claim = due.claim_download(self._redis, uuid.uuid4().hex)
            except UnreadableState as error:
                self._log("production.unreadable", error=str(error))
                continue
            if claim is None:
                break
            result = self._attempt(claim)
            if result is not None and inbox.observe(self._redis, claim.production_id, result):
                jobs.ring(self._redis, "advance")
            done += 1
        return done

    def _attempt(self, claim: DownloadClaim) -> Written | None:
        """What came of it; None when the claim has gone to somebody else, who will tell."""
        progress = _Progress(self._redis, claim)
        try:
            storage = LocalStorage.open(self._settings.storage_dir, self._settings.state_dir)
            result = (
                self._write_manifest(claim, storage) if claim.key == MANIFEST else self._fetch(claim, storage, progress)
            )
            self._note_storage(None)
            return result
        except LinkExpired as error:
            return self._failure(claim, "expired", error, progress)
        except LinkForbidden as error:
            return self._failure(claim, "forbidden", error, progress)
        except CorruptDownload as error:
            return self._failure(claim, "corrupt", error, progress)
        except TransferFailed as error:
            return self._failure(claim, "transfer", error, progress)
        except StorageUnavailable as error:
            self._note_storage(str(error))
            return self._failure(claim, "storage", error, progress)
        except TransferStopped as error:
            return self._failure(claim, "stopped", error, progress) if shutdown.requested() else None
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - here one file's turn ends: noted, tried again, then buried
            self._log(
                "download.unexpected", production_id=claim.production_id, error=f"{type(error).__name__}: {error}"
            )
            return self._failure(claim, "transfer", TransferFailed(f"unexpected {type(error).__name__}"), progress)

    def _failure(self, claim: DownloadClaim, kind: Failure, error: Exception, progress: _Progress) -> DownloadFailed:
        at = productions.now(self._redis)
        tried = _deliverable(claim)
        link = tried.link_expires_at if tried is not None else None
        return DownloadFailed(at, claim.key, kind, str(error), progress.progressed, link)

    def _write_manifest(self, claim: DownloadClaim, storage: LocalStorage) -> ManifestWritten:
        production = claim.production
        content = json.dumps(manifest(production), indent=2).encode() + b"\n"
        storage.write(production.folder or "", "manifest.json", content, claim.token)
        return ManifestWritten(productions.now(self._redis), production.manifest_revision)

    def _fetch(self, claim: DownloadClaim, storage: LocalStorage, progress: _Progress) -> DownloadStored | None:
        deliverable = _deliverable(claim)
        if deliverable is None or deliverable.state != "wanted":
            due.drop_download(self._redis, claim)
            return None
        folder = claim.production.folder or ""
        with storage.begin(f"{claim.production_id}.{claim.key}") as partial:
            if partial is None:
                raise TransferFailed("another process still holds the partial file")
            progress.start_bytes = partial.size_bytes
            done = partial.note.get("stored")
            found = storage.stored_sha256(folder, deliverable.file) if done else None
            if found is not None and list(found) == done:
                # It was put in its place, and the process died before it could say so.
                partial.discard()
                return self._stored(claim, *found, progress)
            if not claim.url:
                raise LinkExpired("there is no valid address")
            try:
                sha256 = _Transfer(self._pool, self._settings.download_hosts, deliverable, partial, progress).run(
                    claim.url
                )
            except CorruptDownload:
                partial.discard()
                raise
            progress.renew()
            partial.write_note({"stored": [partial.size_bytes, sha256]})
            partial.put_in_place(folder, deliverable.file)
            return self._stored(claim, partial.size_bytes, sha256, progress)

    def _stored(self, claim: DownloadClaim, size: int, sha256: str, progress: _Progress) -> DownloadStored:
        return DownloadStored(productions.now(self._redis), claim.key, size, sha256, progress.seconds)

    def _note_storage(self, problem: str | None) -> None:
        """One line when the folder fails and one when it is back, not one for every file."""
        if problem is not None and not Downloader._storage_down:
            self._log("storage.unavailable", error=problem)
        if problem is None and Downloader._storage_down:
            self._log("storage.available")
        Downloader._storage_down = problem is not None


def _deliverable(claim: DownloadClaim) -> Deliverable | None:
    return next((one for one in claim.production.deliverables if one.key == claim.key), None)


class _Progress:
    """Keeps the claim while bytes arrive; notices when it is lost, when nothing comes, and when it is time to end."""

    def __init__(self, redis: Redis, claim: DownloadClaim) -> None:
        self._redis, self._claim = redis, claim
        self._started = self._renewed = self._tried = self._window = monotonic()
        self._window_bytes = 0
        self._size_bytes = 0
        self.start_bytes = 0

    @property
    def seconds(self) -> float:
        return monotonic() - self._started

    @property
    def progressed(self) -> bool:
        """Whether more of the file is here than before this attempt."""
        return self._size_bytes > self.start_bytes

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        """Raises TransferStopped or TransferFailed."""
        self._window_bytes += chunk_bytes
        self._size_bytes = size_bytes
        if shutdown.requested():
            raise TransferStopped("this worker ends")
        now = monotonic()
        if now - self._window > _STALL_SECONDS:
            if self._window_bytes < _STALL_BYTES:
                raise TransferFailed(f"only {self._window_bytes} bytes came in {_STALL_SECONDS:.0f} seconds")
            self._window, self._window_bytes = now, 0
        if now - self._tried >= _RENEW_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Raises TransferStopped when the claim is another's by now, or may be."""
        self._tried = monotonic()
        try:
            held = due.renew_download(self._redis, self._claim, self._size_bytes)
        except RedisError:
            held = self._tried - self._renewed < _LEASE_SECONDS - 5
            if held:
                return
        if not held:
            raise TransferStopped("another worker has taken over")
        self._renewed = self._tried


class _Transfer:
    """One request for one file, appended to what an earlier one brought."""

    def __init__(
        self,
        pool: urllib3.PoolManager,
        hosts: tuple[str, ...],
        deliverable: Deliverable,
        partial: PartialFile,
        progress: _Progress,
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
