"""What a person, or a partner's own system, may ask for: over HTTP and from the command line alike."""

from __future__ import annotations

from uuid import UUID

from redis import Redis

from service import jobs, log
from service.core.deliverables import newest_versions
from service.core.errors import ReceiverError
from service.core.observations import OperatorAsked
from service.core.production import Production
from service.core.replay import Difference, differences, from_events
from service.store import deadletters, inbox, notices, productions


def production_id(text: str) -> str:
    """A production's id as it is kept. Raises ReceiverError when it is no UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        raise ReceiverError("a production's id is a UUID, such as 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11") from None


def track(redis: Redis, identity: str, account_id: str | None = None) -> None:
    """Follow a production that was triggered elsewhere; idempotent."""
    _ask(redis, identity, OperatorAsked(productions.now(redis), "track", account_id=account_id))
    log.get()("production.tracked", production_id=identity)


def refresh(redis: Redis, identity: str) -> None:
    """Ask JARAI for the status as soon as the budget allows."""
    _ask(redis, identity, OperatorAsked(productions.now(redis), "refresh"))


def redownload(redis: Redis, stored: Production, file: str = "") -> int:
    """Fetch again what is stored, or one file of it, and compare; how many files that are.

    `file` is its name or its deliverable's id. What differs is kept beside the old one, what is damaged is mended.
    Raises ReceiverError when there is no such file.
    """
    current = newest_versions(stored.deliverables).values()
    chosen = [one for one in current if file in ("", one.file, one.id)]
    if not chosen:
        raise ReceiverError(f"no file {file} is known of this production" if file else "it has no files yet")
    for key in {""} if not file else {one.key for one in chosen}:
        _ask(redis, stored.production_id, OperatorAsked(productions.now(redis), "redownload", key=key))
    return len(chosen)


def replay(redis: Redis, identity: str) -> None:
    """Make the state anew from the kept events, then ask JARAI; files that are stored stay stored."""
    productions.replay(redis, identity, OperatorAsked(productions.now(redis), "replay"))
    jobs.ring(redis, "advance")


def replay_dry(redis: Redis, stored: Production) -> tuple[int, tuple[Difference, ...]]:
    """How many events are kept, and what they alone tell otherwise than what is stored. Changes nothing."""
    kept = productions.kept_events(redis, stored.production_id)
    return len(kept), differences(stored, from_events(stored.production_id, kept, productions.now(redis)))


def retry(redis: Redis, letter: deadletters.DeadLetter) -> bool:
    """Try again what was given up. False: it can't be used (still, or any more), and stays."""
    if letter.kind == "event":
        if not inbox.keep_after_all(redis, letter.body or b""):
            return False
        jobs.ring(redis, "advance")
    elif letter.kind == "production":
        productions.revive(redis, letter.production_id or "")
        jobs.ring(redis, "advance")
    elif letter.kind == "notice":
        notices.keep_again(redis, letter)
        jobs.ring(redis, "notify")
    elif productions.read(redis, letter.production_id or "") is None:
        return False  # forgotten meanwhile
    else:
        key = str(letter.details.get("key", ""))
        _ask(redis, letter.production_id or "", OperatorAsked(productions.now(redis), "retry", key=key))
    deadletters.remove(redis, letter.id)
    log.get()("deadletter.retried", deadletter_id=letter.id, production_id=letter.production_id)
    return True


def discard(redis: Redis, letter: str) -> bool:
    """Throw a dead letter away; False when there is none of that id."""
    found = deadletters.remove(redis, letter)
    if found:
        log.get()("deadletter.discarded", deadletter_id=letter)
    return found


def _ask(redis: Redis, identity: str, wish: OperatorAsked) -> None:
    inbox.observe(redis, identity, wish)
    jobs.ring(redis, "advance")
