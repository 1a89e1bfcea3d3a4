"""The queue `download`: one file at a time from its address to its place, verified, and reported to the inbox."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic, sleep

from redis import Redis
from redis.exceptions import RedisError
from urllib3 import PoolManager

from service import jobs, log, runtime
from service.core import manifest, retry
from service.core.deliverables import Deliverable
from service.core.errors import (
    CorruptDownload,
    LinkExpired,
    LinkForbidden,
    SameFile,
    StorageUnavailable,
    TransferFailed,
    TransferStopped,
    UnreadableState,
    UnsoundContent,
)
from service.core.observations import (
    MANIFEST,
    DownloadFailed,
    DownloadSame,
    DownloadStored,
    ManifestFound,
    ManifestWritten,
    Written,
)
from service.core.production import Production, adoptable
from service.core.retry import Failure
from service.settings import Settings
from service.store import due, inbox, productions
from service.store.due import DownloadClaim
from workers import shutdown
from workers.storage import Partial, Storage, Stored, open_storage
from workers.transfer import Fetched, Known, Transfer, open_pool

_RENEW_SECONDS = 1.0
_LEASE_SECONDS = due.DOWNLOAD_LEASE_MS / 1000
_STALL_SECONDS, _STALL_BYTES = 60.0, 64 * 1024
_BANDWIDTH_STEP_BYTES = 256 * 1024
_LONGEST_REST_SECONDS = 0.25
_Brought = DownloadStored | DownloadSame


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker download")
    try:
        Downloader(here.redis, here.settings).drain()
    except RedisError as error:  # the claim runs out and the sweep rings again
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


class Downloader:
    """Fetches what is due, one file after the other. Any number may run at the same time, on any host.

    While a large file is on its way, small ones that fall due are fetched beside it, in a thread of their own.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings = redis, settings
        self._pool = open_pool(settings.download_hosts)
        self._log = log.get()
        self._beside: threading.Thread | None = None

    def drain(self) -> int:
        """Fetch everything that is due; how many attempts that were, in this thread."""
        done = self._drain(small_only=False)
        while self._beside is not None and self._beside.is_alive():
            self._beside.join(_RENEW_SECONDS)  # a slow one must not keep the next large file waiting
            done += self._drain(small_only=False)
        return done

    def _drain(self, small_only: bool) -> int:
        done = 0
        while not shutdown.requested():
            try:
                claim = due.claim_download(
                    self._redis,
                    uuid.uuid4().hex,
                    most_per_host=self._settings.downloads_per_host,
                    small_only=small_only,
                )
            except UnreadableState as error:
                self._log("production.unreadable", error=str(error))
                continue
            if claim is None:
                break
            result = self._attempt(claim)
            if result is not None and inbox.observe(self._redis, claim.production_id, result):
                jobs.ring(self._redis, "advance")
            if isinstance(result, DownloadStored):
                self._forget_note(claim)  # and not before it has been told
            done += 1
        return done

    def _small_ones_wait(self) -> None:
        if threading.current_thread() is self._beside or (self._beside is not None and self._beside.is_alive()):
            return
        self._beside = threading.Thread(target=copy_context().run, args=(self._drain_beside,), daemon=True)
        self._beside.start()

    def _drain_beside(self) -> None:
        with contextlib.suppress(RedisError):  # the claim runs out and the sweep rings again
            self._drain(small_only=True)

    def _attempt(self, claim: DownloadClaim) -> Written | None:
        """What came of it; None when the claim has gone to somebody else, who will tell."""
        large = claim.deliverable is not None and not claim.deliverable.small
        beside = self._small_ones_wait if large else lambda: None
        progress = _Progress(self._redis, claim, int(self._settings.download_bytes_per_second), beside)
        if claim.tries > retry.MOST_CLAIMS:
            died = TransferFailed(f"each of {retry.MOST_CLAIMS} processes that worked on it died or hung")
            return self._failure(claim, "died", died, progress)
        try:
            storage = open_storage(self._settings)
            work = self._write_manifest if claim.key == MANIFEST else self._fetch
            result: Written | None = work(claim, storage, progress)
            if isinstance(result, DownloadStored | ManifestWritten):
                self._storage_works(result)
            return result
        except LinkExpired as error:
            return self._failure(claim, "expired", error, progress)
        except LinkForbidden as error:
            return self._failure(claim, "forbidden", error, progress)
        except UnsoundContent as error:
            return self._failure(claim, "unsound", error, progress)
        except CorruptDownload as error:
            return self._failure(claim, "corrupt", error, progress)
        except TransferFailed as error:
            return self._failure(claim, "transfer", error, progress)
        except StorageUnavailable as error:
            needed_bytes = (claim.deliverable.bytes or 0) if claim.deliverable is not None else 0
            if due.storage_failed(self._redis, needed_bytes):
                self._log("storage.unavailable", error=str(error))
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

    def _storage_works(self, result: DownloadStored | ManifestWritten) -> None:
        if due.storage_works(self._redis, result.bytes if isinstance(result, DownloadStored) else 0):
            self._log("storage.available")

    def _forget_note(self, claim: DownloadClaim) -> None:
        with contextlib.suppress(StorageUnavailable):  # the manifest's writer clears up what stays
            open_storage(self._settings).forget(_name(claim))

    def _failure(self, claim: DownloadClaim, kind: Failure, error: Exception, progress: _Progress) -> DownloadFailed:
        at = productions.now(self._redis)
        tried = claim.deliverable
        link = tried.link_expires_at if tried is not None else None
        return DownloadFailed(at, claim.key, kind, str(error), progress.progressed, link, progress.kept_at)

    def _write_manifest(
        self, claim: DownloadClaim, storage: Storage, progress: _Progress
    ) -> ManifestWritten | ManifestFound:
        """Under the same lock and claim as a file: who was stopped meanwhile never puts an old one over a new one.

        One that knows more than we do (Redis was emptied) is taken in before another takes its place.
        """
        production = claim.production
        found = _found(storage, production, claim.now, progress)
        if found is not None:
            return found
        content = json.dumps(manifest.describe(production), indent=2).encode() + b"\n"
        if not storage.write(_name(claim), production.folder or "", manifest.FILE, content, progress.renew):
            raise TransferFailed("another process still holds the manifest")
        if production.complete:
            for one in production.deliverables:
                storage.forget(f"{claim.production_id}.{one.key}")
        return ManifestWritten(productions.now(self._redis), production.manifest_revision)

    def _fetch(self, claim: DownloadClaim, storage: Storage, progress: _Progress) -> _Brought | None:
        deliverable = claim.deliverable
        if deliverable is None or deliverable.state != "wanted":
            due.drop_download(self._redis, claim)
            return None
        with storage.begin(_name(claim)) as partial:
            if partial is None:
                raise TransferFailed("another process still holds the partial file")
            progress.start_bytes = partial.size_bytes
            fetch = _Fetch(self._pool, self._settings.download_hosts, claim, deliverable, storage, partial, progress)
            found = fetch.run()
        at = productions.now(self._redis)
        if isinstance(found, _Same):
            return DownloadSame(at, claim.key, found.repaired, found.etag)
        return DownloadStored(
            at,
            claim.key,
            found.bytes,
            found.sha256,
            progress.seconds,
            found.md5,
            found.etag,
            deliverable.listed_at,
            deliverable.place,
        )


@dataclass(frozen=True, slots=True)
class _New:
    """A file lies verified in its place."""

    bytes: int
    sha256: str
    md5: str | None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class _Same:
    """JARAI has what was stored already."""

    etag: str | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One attempt at one file, from its address to its place."""

    pool: PoolManager
    hosts: tuple[str, ...]
    claim: DownloadClaim
    deliverable: Deliverable
    storage: Storage
    partial: Partial
    progress: _Progress

    @property
    def folder(self) -> str:
        return self.claim.production.folder or ""

    @property
    def before(self) -> Deliverable | None:
        """The version that is stored already, where this is another one."""
        return self.claim.production.predecessor(self.deliverable)

    def run(self) -> _New | _Same:
        """Raises DownloadError or StorageUnavailable; what came so far stays, unless it is of no use."""
        here = _already_here(self.storage, self.folder, self.deliverable, self.partial, self.progress)
        if here is not None:
            return _New(here.bytes, here.sha256, here.md5)
        if not self.claim.url:
            raise LinkExpired("there is no valid address")
        transfer = Transfer(
            self.pool,
            self.hosts,
            self.deliverable,
            self.partial,
            self.progress,
            known=self._known(self.before),
            synthetic=self.claim.production.sandbox,
        )
        try:
            fetched = transfer.run(self.claim.url)
        except SameFile:
            self.partial.discard()
            return _Same()
        except UnsoundContent:
            aside = f"{self.claim.production_id}.{self.deliverable.file}"
            self.progress.kept_at = self.partial.set_aside(aside, self.progress.tick)
            raise
        except CorruptDownload:
            self.partial.discard()
            raise
        self.progress.renew()
        if self.before is not None and fetched.sha256 == self.before.sha256:
            return self._compared(self.before, fetched)
        size = self.partial.size_bytes
        self.partial.write_note({**self.partial.note, "stored": [size, fetched.sha256]})
        self.partial.put_in_place(self.folder, self.deliverable.file, self.progress.tick)
        return _New(size, fetched.sha256, fetched.md5, fetched.etag)

    def _known(self, before: Deliverable | None) -> Known | None:
        """What the head of the answer may be held against, where that is enough and the file lies there."""
        if before is None or self.deliverable.compare != "head":
            return None
        if self.storage.sizes(self.folder).get(before.file) != before.bytes:
            return None

        def md5() -> str | None:
            found = self.storage.stored(self.folder, before.file, self.progress.tick)
            return found.md5 if found is not None and found.sha256 == before.sha256 else None

        # Only from one address do two equal ETags stand for the same bytes.
        etag = before.etag if before.place == self.deliverable.place else None
        return Known(before.bytes or 0, etag, (lambda: before.md5) if before.md5 else md5)

    def _compared(self, before: Deliverable, fetched: Fetched) -> _Same:
        """JARAI has what was stored; if that does not lie there whole any more, it does now."""
        there = self.storage.stored(self.folder, before.file, self.progress.tick)
        whole = there is not None and there.sha256 == before.sha256
        if whole:
            self.partial.discard()
        else:
            self.partial.put_in_place(self.folder, before.file, self.progress.tick)
            self.storage.forget(_name(self.claim))
        return _Same(fetched.etag, repaired=not whole)


def _name(claim: DownloadClaim) -> str:
    return f"{claim.production_id}.{claim.key}"


def _found(storage: Storage, production: Production, now: datetime, progress: _Progress) -> ManifestFound | None:
    """What an earlier manifest tells of files that lie there whole, and that this production knows nothing of."""
    folder = production.folder or ""
    content = storage.read(folder, manifest.FILE)
    try:
        found = manifest.parse(content or b"").found(folder, storage.sizes(folder) if content else {}, now)
    except ValueError:
        return None
    known = {one.key: one for one in production.deliverables}
    whole = []
    for one in adoptable(production, found):
        here = storage.stored(folder, one.file, progress.tick)
        announced_md5 = known[one.key].md5 if one.key in known else None
        if here is not None and (here.bytes, here.sha256) == (one.bytes, one.sha256):
            whole += [one] if announced_md5 in (None, here.md5) else []
    return replace(found, deliverables=tuple(whole)) if whole else None


def _already_here(
    storage: Storage, folder: str, wanted: Deliverable, partial: Partial, progress: _Progress
) -> Stored | None:
    """The file, if it lies in its place, whole: whoever put it there died before it could say so, or Redis was emptied.

    Whole is what equals its note, or its line in the manifest, and whatever JARAI announced.
    """
    known = partial.note.get("stored") or _in_manifest(storage.read(folder, manifest.FILE), wanted)
    if not known:
        return None
    found = storage.stored(folder, wanted.file, progress.tick)
    if found is None or [found.bytes, found.sha256] != known:
        return None
    announced = ((wanted.bytes, found.bytes), (wanted.sha256, found.sha256), (wanted.md5, found.md5))
    return found if all(said in (None, is_) for said, is_ in announced) else None


def _in_manifest(content: bytes | None, wanted: Deliverable) -> list[object] | None:
    try:
        entries = manifest.parse(content or b"").deliverables
    except ValueError:
        return None
    return next(([one.size_bytes, one.sha256] for one in entries if one.file == wanted.file), None)


class _Progress:
    """Keeps the claim while bytes arrive; notices when it is lost, when nothing comes, and when it is time to end.

    Holds back where the line is to be left to others as well, and says when small files wait for somebody.
    """

    def __init__(
        self, redis: Redis, claim: DownloadClaim, bytes_per_second: int, small_ones_wait: Callable[[], None]
    ) -> None:
        self._redis, self._claim = redis, claim
        self._limit_bytes_per_second, self._small_ones_wait = bytes_per_second, small_ones_wait
        self._started = self._renewed = self._tried = self._window = monotonic()
        self._window_bytes = self._untold_bytes = self._unpaid_bytes = 0
        self._size_bytes = 0
        self.start_bytes = 0
        self.kept_at: str | None = None

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
        self._untold_bytes += chunk_bytes
        self._size_bytes = size_bytes
        now = monotonic()
        if now - self._window > _STALL_SECONDS:
            if self._window_bytes < _STALL_BYTES:
                raise TransferFailed(f"only {self._window_bytes} bytes came in {_STALL_SECONDS:.0f} seconds")
            self._window, self._window_bytes = now, 0
        self.tick()
        if self._limit_bytes_per_second:
            self._hold_back(chunk_bytes)

    def tick(self) -> None:
        """Raises TransferStopped when it is time to end, or the claim is another's by now."""
        if shutdown.requested():
            raise TransferStopped("this worker ends")
        if monotonic() - self._tried >= _RENEW_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Raises TransferStopped when the claim is another's by now, or may be."""
        now = monotonic()
        rate = int(self._untold_bytes / max(now - self._tried, 0.001))
        self._tried, self._untold_bytes = now, 0
        try:
            waiting = due.renew_download(self._redis, self._claim, self._size_bytes, rate)
        except RedisError:
            if now - self._renewed < _LEASE_SECONDS - 5:
                return
            waiting = None
        if waiting is None:
            raise TransferStopped("another worker has taken over")
        self._renewed = now
        if waiting:
            self._small_ones_wait()

    def _hold_back(self, chunk_bytes: int) -> None:
        """DOWNLOAD_BYTES_PER_SECOND is for all workers together."""
        self._unpaid_bytes += chunk_bytes
        if self._unpaid_bytes < min(_BANDWIDTH_STEP_BYTES, self._limit_bytes_per_second // 4):
            return
        with contextlib.suppress(RedisError):
            rest = due.take_bandwidth(self._redis, self._unpaid_bytes, self._limit_bytes_per_second)
            self._unpaid_bytes = 0
            until = monotonic() + rest
            while (left := until - monotonic()) > 0:
                sleep(min(left, _LONGEST_REST_SECONDS))
                self.tick()
