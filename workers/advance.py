"""The queue `advance`: takes in what was observed and writes down what follows. Decides nothing itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from redis import Redis
from redis.exceptions import RedisError

from service import jobs, log, pacing, runtime
from service.core import retry
from service.core.advance import advance
from service.core.production import Change, Production
from service.core.schedule import Intervals
from service.store import productions
from service.store.deadletters import letter_id
from service.store.productions import Claim
from workers import shutdown

_PRODUCTIONS_AT_ONCE = 32
_PRODUCTIONS_AT_A_PACE = 2000


def run() -> None:
    """The job: a bell has rung."""
    here = runtime.current("worker advance")
    settings = here.settings
    try:
        retention, notify = timedelta(days=settings.retention_days), bool(settings.notify_url)
        done = _PRODUCTIONS_AT_A_PACE
        while done >= _PRODUCTIONS_AT_A_PACE:  # what may be asked, and how often, changes under load
            intervals = pacing.read(here.redis, settings).intervals
            done = drain(here.redis, intervals, retention, notify=notify, most=_PRODUCTIONS_AT_A_PACE)
    except RedisError as error:  # the sweep rings again when Redis is back
        log.get()("store.unavailable", error=f"{type(error).__name__}: {error}")


def drain(
    redis: Redis, intervals: Intervals, retention: timedelta, *, notify: bool = False, most: float = math.inf
) -> int:
    """Take in everything that is due, about `most` productions; how many that were. Any number may run together.

    `notify`: somebody is to be told what has become of them.
    """
    done = 0
    while done < most and not shutdown.requested():
        claims = productions.claim(redis, _PRODUCTIONS_AT_ONCE)
        if not claims:
            break
        _step(redis, claims, intervals, retention, notify)
        done += len(claims)
    return done


def _step(redis: Redis, claims: Sequence[Claim], intervals: Intervals, retention: timedelta, notify: bool) -> None:
    changes = []
    for claim in claims:
        try:
            if claim.attempts > retry.MOST_ADVANCE_ATTEMPTS:
                raise RuntimeError("each process that worked on it died")
            before = claim.before
            changes.append((claim, before, advance(before, claim.observations(), claim.now, intervals)))
        except Exception as error:  # noqa: BLE001 - here one production's turn ends: noted, tried again, then buried
            _note_failure(redis, claim, error)
    files = notices = 0
    committed = productions.commit(redis, changes, retention, notify=notify)
    for (claim, before, change), left in zip(changes, committed, strict=True):
        if isinstance(left, Exception):
            _note_failure(redis, claim, left)
        elif left >= 0:  # below: somebody else was faster, and has said it
            _say(change)
            files += _newly_due(before, change.production, claim)
            notices += len(change.notices)
    if files:
        jobs.ring(redis, "download", bells=files)
    if notices and notify:
        jobs.ring(redis, "notify")


def _newly_due(before: Production, after: Production, claim: Claim) -> int:
    was = before.due_downloads
    return sum(1 for key, at in after.due_downloads.items() if at <= claim.now and was.get(key) != at)


def _say(change: Change) -> None:
    say = log.get()
    production = change.production
    who: dict[str, object] = {"production_id": production.production_id, "account_id": production.account_id}
    if production.sandbox:
        who["sandbox"] = True
    for fact in change.facts:
        say(fact.name, **who, **fact.fields)
    for letter in change.dead_letters:
        identity = letter_id(letter.kind, f"{change.production.production_id}-{letter.key}")
        say("deadletter.added", **who, deadletter_id=identity, reason=letter.reason, **letter.fields)


def _note_failure(redis: Redis, claim: Claim, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    pause = retry.after_failed_advance(claim.attempts)
    productions.failed(redis, claim, pause, retry.MOST_ADVANCE_ATTEMPTS, reason)
    say = log.get()
    who = {"production_id": claim.production_id}
    say("production.advance_failed", **who, attempts=claim.attempts, error=reason)
    if claim.attempts >= retry.MOST_ADVANCE_ATTEMPTS:
        say("deadletter.added", **who, deadletter_id=letter_id("production", claim.production_id), reason=reason)
