"""When to try again, and when to give up. Only this module decides it; clients make one attempt."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Literal

Failure = Literal["expired", "transfer", "corrupt", "unsound", "forbidden", "died", "storage", "stopped"]

# How many failures in a row end in a dead letter. A missing disk and a shutdown are nobody's fault and never do.
# Bytes that arrive as announced and are no such file are fetched once more: a proxy may have answered.
_MOST_ATTEMPTS: dict[Failure, int] = {
    "expired": 6,
    "transfer": 12,
    "corrupt": 4,
    "unsound": 2,
    "forbidden": 1,
    "died": 1,
}
_STORAGE_PAUSE = timedelta(seconds=30)
_MOST_BREAKS = 20
_LEAST_GAIN_BYTES = 1024 * 1024
MOST_ADVANCE_ATTEMPTS = 6
MOST_CLAIMS = 6  # of a file or a question, each ended by the death of its process
MOST_LIST_ATTEMPTS = 6
MOST_EMPTY_LISTS = 3
MOST_NOTICE_ATTEMPTS = 26  # about three days
_LONGEST_RETRY_AFTER = timedelta(days=1)


def backoff(attempt: int, *, first_seconds: float, longest_seconds: float, salt: str = "") -> timedelta:
    """The pause after the `attempt`-th failure in a row (from 1): doubling, capped, spread over 75–100 %.

    The spread comes from `salt` instead of dice, so that the same failure always gives the same pause.
    """
    doubled = min(longest_seconds, first_seconds * 2.0 ** min(max(attempt, 1) - 1, 32))
    share = hashlib.blake2b(f"{salt}{attempt}".encode(), digest_size=2).digest()
    return timedelta(seconds=doubled * (0.75 + int.from_bytes(share, "big") / 0xFFFF / 4))


def after_download_failure(failure: Failure, attempts: int, alike: int, salt: str) -> timedelta | None:
    """The pause before the file's next attempt, or None to give up.

    `attempts` counts the failures in a row, `alike` those of them that count towards this kind's limit; this one too.
    """
    if failure == "stopped":
        return timedelta(0)
    if failure == "storage":
        return _STORAGE_PAUSE
    if alike >= _MOST_ATTEMPTS[failure]:
        return None
    return backoff(attempts, first_seconds=1, longest_seconds=600, salt=salt)


def resumes_at_once(breaks: int, gained_bytes: int) -> bool:
    """Whether a file whose line broke for the `breaks`-th time is gone on with in the same attempt, without a pause.

    Only a line that brings something each time: what does not is left to the pauses between attempts.
    """
    return breaks <= _MOST_BREAKS and gained_bytes >= _LEAST_GAIN_BYTES


def after_failed_ask(failures: int, salt: str) -> timedelta:
    """The pause before JARAI is asked again about a production, after `failures` answers that were no use."""
    return backoff(failures, first_seconds=2, longest_seconds=900, salt=salt)


def after_failed_advance(attempts: int) -> timedelta:
    """The pause before a production whose processing raised is tried again."""
    return backoff(attempts, first_seconds=0.5, longest_seconds=60)


def after_failed_notice(attempts: int, retry_after: timedelta, salt: str) -> timedelta | None:
    """The pause before a notice is sent again after `attempts` failures in a row, or None to give up.

    `retry_after`: what the receiver asks for; never shorter than that, unless it asks for more than a day.
    """
    if attempts >= MOST_NOTICE_ATTEMPTS:
        return None
    pause = backoff(attempts, first_seconds=5, longest_seconds=6 * 3600, salt=salt)
    return max(pause, min(retry_after, _LONGEST_RETRY_AFTER))


def after_failed_receiver(failures: int, retry_after: timedelta) -> timedelta:
    """The pause before anything is sent to a receiver that was down or overloaded `failures` times in a row."""
    pause = backoff(failures, first_seconds=2, longest_seconds=300)
    return max(pause, min(retry_after, _LONGEST_RETRY_AFTER))
