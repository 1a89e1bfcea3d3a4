"""The queue `download`: one file at a time from its address to its place, verified, and reported to the inbox."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import replace
from datetime import datetime
from time import monotonic

from redis import Redis
from redis.exceptions import RedisError

from service import jobs, log, runtime
from service.core import manifest, retry
from service.core.deliverables import Deliverable
from service.core.errors import (
    CorruptDownload,
    LinkExpired,
    LinkForbidden,
    StorageUnavailable,
    TransferFailed,
    TransferStopped,
    UnreadableState,
)
from service.core.observations import MANIFEST, DownloadFailed, DownloadStored, ManifestFound, ManifestWritten, Written
from service.core.production import Production, adoptable
from service.core.retry import Failure
from service.settings import Settings
from service.store import due, inbox, productions
from service.store.due import DownloadClaim
from workers import shutdown
from workers.storage import Partial, Storage, Stored, open_storage
from workers.transfer import Transfer, open_pool

MANIFEST_FILE = "manifest.json"
_RENEW_SECONDS = 1.0
_LEASE_SECONDS = due.DOWNLOAD_LEASE_MS / 1000
_STALL_SECONDS, _STALL_BYTES = 60.0, 64 * 1024


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker download")
    try:
        Downloader(here.redis, here.settings).drain()
    except RedisError as error:  # the claim runs out and the sweep rings again
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


class Downloader:
    """Fetches what is due, one file after the other. Any number may run at the same time, on any host."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings = redis, settings
        self._pool = open_pool(settings.download_hosts)
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
            if isinstance(result, DownloadStored):
                self._forget_note(claim)  # and not before it has been told
            done += 1
        return done

    def _attempt(self, claim: DownloadClaim) -> Written | None:
        """What came of it; None when the claim has gone to somebody else, who will tell."""
        progress = _Progress(self._redis, claim)
        if claim.tries > retry.MOST_CLAIMS:
            died = TransferFailed(f"each of {retry.MOST_CLAIMS} processes that worked on it died or hung")
            return self._failure(claim, "died", died, progress)
        try:
            storage = open_storage(self._settings)
            work = self._write_manifest if claim.key == MANIFEST else self._fetch
            result: Written | None = work(claim, storage, progress)
            if due.storage_works(self._redis, getattr(result, "bytes", 0)):
                self._log("storage.available")
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

    def _forget_note(self, claim: DownloadClaim) -> None:
        with contextlib.suppress(StorageUnavailable):  # the manifest's writer clears up what stays
            open_storage(self._settings).forget(_name(claim))

    def _failure(self, claim: DownloadClaim, kind: Failure, error: Exception, progress: _Progress) -> DownloadFailed:
        at = productions.now(self._redis)
        tried = claim.deliverable
        link = tried.link_expires_at if tried is not None else None
        return DownloadFailed(at, claim.key, kind, str(error), progress.progressed, link)

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
        if not storage.write(_name(claim), production.folder or "", MANIFEST_FILE, content, progress.renew):
            raise TransferFailed("another process still holds the manifest")
        if production.complete:
            for one in production.deliverables:
                storage.forget(f"{claim.production_id}.{one.key}")
        return ManifestWritten(productions.now(self._redis), production.manifest_revision)

    def _fetch(self, claim: DownloadClaim, storage: Storage, progress: _Progress) -> DownloadStored | None:
        deliverable = claim.deliverable
        if deliverable is None or deliverable.state != "wanted":
            due.drop_download(self._redis, claim)
            return None
        folder = claim.production.folder or ""
        with storage.begin(_name(claim)) as partial:
            if partial is None:
                raise TransferFailed("another process still holds the partial file")
            progress.start_bytes = partial.size_bytes
            here = _already_here(storage, folder, deliverable, partial, progress)
            if here is not None:
                return self._stored(claim, here.bytes, here.sha256, progress)
            if not claim.url:
                raise LinkExpired("there is no valid address")
            try:
                sha256 = Transfer(self._pool, self._settings.download_hosts, deliverable, partial, progress).run(
                    claim.url
                )
            except CorruptDownload:
                partial.discard()
                raise
            progress.renew()
            partial.write_note({**partial.note, "stored": [partial.size_bytes, sha256]})
            partial.put_in_place(folder, deliverable.file, progress.tick)
            return self._stored(claim, partial.size_bytes, sha256, progress)

    def _stored(self, claim: DownloadClaim, size: int, sha256: str, progress: _Progress) -> DownloadStored:
        return DownloadStored(productions.now(self._redis), claim.key, size, sha256, progress.seconds)


def _name(claim: DownloadClaim) -> str:
    return f"{claim.production_id}.{claim.key}"


def _found(storage: Storage, production: Production, now: datetime, progress: _Progress) -> ManifestFound | None:
    """What an earlier manifest tells of files that lie there whole, and that this production knows nothing of."""
    folder = production.folder or ""
    content = storage.read(folder, MANIFEST_FILE)
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
    known = partial.note.get("stored") or _in_manifest(storage.read(folder, MANIFEST_FILE), wanted)
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
        now = monotonic()
        if now - self._window > _STALL_SECONDS:
            if self._window_bytes < _STALL_BYTES:
                raise TransferFailed(f"only {self._window_bytes} bytes came in {_STALL_SECONDS:.0f} seconds")
            self._window, self._window_bytes = now, 0
        self.tick()

    def tick(self) -> None:
        """Raises TransferStopped when it is time to end, or the claim is another's by now."""
        if shutdown.requested():
            raise TransferStopped("this worker ends")
        if monotonic() - self._tried >= _RENEW_SECONDS:
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
