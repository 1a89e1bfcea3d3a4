"""`jarai-receiver verify`: reads stored files whole, and has those fetched again that are not what was recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service import jobs
from service.core import manifest
from service.core.errors import UnreadableState
from service.core.observations import MANIFEST, FileDamaged, OperatorAsked, Written
from service.core.production import Production
from service.runtime import Runtime
from service.store import inbox, productions
from service.store.scripts import PREFIX
from workers.storage import Storage, open_storage

_PAGE = 200
_LOOK_SECONDS = 0.2


@dataclass(slots=True)
class Damage:
    """A file that is not what was recorded. `kept`: where its bytes lie now."""

    production_id: str
    key: str
    file: str
    problem: str
    kept: str | None = None
    outcome: str = "being fetched again"

    def describe(self) -> dict[str, Any]:
        return {
            "productionId": self.production_id,
            "file": self.file,
            "problem": self.problem,
            "keptAt": self.kept,
            "outcome": self.outcome,
        }


@dataclass(frozen=True, slots=True)
class _Recorded:
    key: str
    file: str
    bytes: int
    sha256: str


class Verification:
    """One run. `productions`, `files` and `bytes` count what was read."""

    def __init__(self, runtime: Runtime) -> None:
        self._redis = runtime.redis
        self._storage: Storage = open_storage(runtime.settings)
        self.productions = self.files = self.bytes = 0
        self.damages: list[Damage] = []

    def run(self, only: str | None = None) -> None:
        """Read everything, or one production, and have what is damaged fetched again. Raises StorageUnavailable."""
        seen = set()
        for production in self._known(only):
            seen.add(production.production_id)
            self._check_known(production)
        for folder, content, sizes in self._storage.manifests():
            identity = folder.rpartition("/")[2]
            if identity in seen or only not in (None, identity):
                continue
            try:  # it may have begun meanwhile
                known = productions.read(self._redis, identity)
            except UnreadableState:
                continue  # the log tells of it; nothing is touched
            if known is None:
                self._check_forgotten(folder, content, sizes)
            else:
                self._check_known(known)
        if self.damages:
            jobs.ring(self._redis, "advance")

    def wait(self, seconds: float) -> int:
        """Until everything is repaired, or so long; how much is not."""
        deadline = time.monotonic() + seconds
        while True:
            left = [one for one in self.damages if not self._is_repaired(one)]
            if not left or time.monotonic() > deadline:
                return len(left)
            time.sleep(_LOOK_SECONDS)

    def _known(self, only: str | None) -> Iterator[Production]:
        if only is not None:
            found = productions.read(self._redis, only)
            yield from [] if found is None else [found]
            return
        after: str | None = None
        while True:
            page, after = productions.newest(self._redis, _PAGE, after)
            yield from page
            if after is None:
                return

    def _check_known(self, production: Production) -> None:
        identity, folder = production.production_id, production.folder or ""
        self.productions += 1
        for one in production.deliverables:
            if one.state != "stored":
                continue
            problem = self._problem(folder, _Recorded(one.key, one.file, one.bytes or 0, one.sha256 or ""))
            now = productions.read(self._redis, identity)
            if problem is None or now is None or one not in now.deliverables:
                continue  # whole, or another one took its place while it was read
            self._damaged(folder, Damage(identity, one.key, one.file, problem))
        if production.manifest_written == production.manifest_revision > 0:
            written = self._storage.read(folder, manifest.FILE)
            now = productions.read(self._redis, identity)
            if now is not None and now.manifest_revision == production.manifest_revision and not _tells(written, now):
                problem = "is gone" if written is None else "does not tell what is stored"
                self._damaged(folder, Damage(identity, MANIFEST, manifest.FILE, problem))

    def _check_forgotten(self, folder: str, content: bytes, sizes: Mapping[str, int]) -> None:
        """One that Redis does not know (any more): its manifest is all there is to go by."""
        try:
            told = manifest.parse(content)
        except ValueError:
            return  # `rebuild` names those
        self.productions += 1
        whole, damages = {}, []
        for one in told.deliverables:
            problem = self._problem(folder, _Recorded(one.key, one.file, one.size_bytes, one.sha256))
            if problem is None:
                whole[one.file] = one.size_bytes
            else:
                damages.append(Damage(str(told.production_id), one.key, one.file, problem))
        if not damages:
            return
        for damage in damages:
            damage.kept = self._storage.take_away(folder, damage.file)
        self.damages += damages
        now = productions.now(self._redis)
        inbox.observe(self._redis, str(told.production_id), told.found(folder, whole, now))
        for key in manifest.to_fetch_again(told, whole):
            inbox.observe(self._redis, str(told.production_id), OperatorAsked(now, "redownload", key=key))

    def _problem(self, folder: str, recorded: _Recorded) -> str | None:
        self.files += 1
        found = self._storage.stored(folder, recorded.file, lambda: None)
        if found is None:
            return "is gone"
        self.bytes += found.bytes
        if found.bytes != recorded.bytes:
            return f"has {found.bytes} bytes, {recorded.bytes} were stored"
        return None if found.sha256 == recorded.sha256 else "has other bytes than were stored"

    def _damaged(self, folder: str, damage: Damage) -> None:
        if damage.key != MANIFEST:  # which the next one takes the place of
            damage.kept = self._storage.take_away(folder, damage.file)
        self.damages.append(damage)
        observed: Written = FileDamaged(productions.now(self._redis), damage.key, damage.problem)
        inbox.observe(self._redis, damage.production_id, observed)

    def _is_repaired(self, damage: Damage) -> bool:
        """Also when nothing more can be done: an older version is listed by nobody any more."""
        if self._redis.exists(f"{PREFIX}inbox:{damage.production_id}"):  # first: what is read then knows of the damage
            return False
        production = productions.read(self._redis, damage.production_id)
        if production is None:
            return False
        if damage.key == MANIFEST:
            repaired = production.manifest_written == production.manifest_revision
            damage.outcome = "repaired" if repaired else damage.outcome
            return repaired
        one = next((one for one in production.deliverables if one.key == damage.key), None)
        if one is None:
            damage.outcome = "lost: JARAI lists a newer version by now"
            return production.status is not None
        damage.outcome = {"stored": "repaired", "failed": f"given up: {one.error}"}.get(one.state, damage.outcome)
        return one.state == "stored"


def _tells(written: bytes | None, production: Production) -> bool:
    """Whether a manifest lists exactly the files that are stored, and says rightly whether that is all."""
    try:
        told = manifest.parse(written or b"")
    except ValueError:
        return False
    stored = {(one.file, one.bytes, one.sha256) for one in production.deliverables if one.state == "stored"}
    listed = {(one.file, one.size_bytes, one.sha256) for one in told.deliverables}
    return listed == stored and told.settled == production.complete
