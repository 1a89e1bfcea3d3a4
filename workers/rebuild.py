"""`jarai-receiver rebuild`: brings back, from the manifests in the storage folder, what a lost Redis knew."""

from __future__ import annotations

from dataclasses import dataclass

from service import jobs
from service.core import manifest
from service.core.observations import OperatorAsked
from service.runtime import Runtime
from service.store import deployment, inbox, productions
from workers.storage import open_storage


@dataclass(slots=True)
class Outcome:
    """What became of the manifests. `unreadable` names the folders of those that are none of ours."""

    rebuilt: int
    asked: int
    known: int
    unreadable: list[str]


def rebuild(runtime: Runtime) -> Outcome:
    """Idempotent: what Redis knows already is left alone. Raises StorageUnavailable.

    A production that was final comes back whole, and costs no request; each other is asked about. A file that lies
    whole in its place is not fetched again.
    """
    redis, settings = runtime.redis, runtime.settings
    outcome = Outcome(0, 0, 0, [])
    for folder, content, sizes in open_storage(settings).manifests():
        try:
            read = manifest.parse(content)
        except ValueError:
            outcome.unreadable.append(folder)
            continue
        identity = str(read.production_id)
        known = productions.read(redis, identity)
        if known is not None and known.status is not None:
            outcome.known += 1
            continue
        found = read.found(folder, sizes, productions.now(redis))
        inbox.observe(redis, identity, found)
        whole = {one.file for one in found.deliverables}
        for key in manifest.to_fetch_again(read, whole):
            inbox.observe(redis, identity, OperatorAsked(found.at, "redownload", key=key))
        outcome.rebuilt += 1
        outcome.asked += not found.settled
    deployment.recognise(redis, settings.state_dir)
    jobs.ring(redis, "advance", bells=1 + outcome.rebuilt // 32)
    return outcome
