"""Notices: what other systems are told of a production, under which id, and what follows from their answer.

The id is made of nothing but the fact, so that whoever is told twice can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from service.core import manifest, retry
from service.core.production import Notice, Production
from service.core.view import error_of, instant

MOST_LISTED = 100
GONE = 410  # Standard Webhooks: the receiver wants no more of this
_BUSY = (429, 503)


def settled(production: Production, at: datetime) -> Notice:
    """It is published and everything lies there. Other files, or other bytes in them, are another fact."""
    current = sorted([one["file"], one["sha256"]] for one in _current(production))
    return Notice(_id(production, "production.settled", current), "production.settled", at, _data(production))


def failed(production: Production, at: datetime) -> Notice:
    """It has failed or was cancelled. The status alone makes the fact: a poll and an event may word the error each
    in its own way."""
    return Notice(_id(production, "production.failed", production.status), "production.failed", at, _data(production))


def body(notice: Notice) -> str:
    """The notice as it is kept, signed and sent, to the byte."""
    told = {"type": notice.type, "timestamp": instant(notice.at), "data": notice.data}
    return json.dumps(told, separators=(",", ":"))


def _id(production: Production, kind: str, content: object) -> str:
    said = json.dumps([production.production_id, kind, content]).encode()
    return f"msg_{hashlib.blake2b(said, digest_size=16).hexdigest()}"


def _current(production: Production) -> list[dict[str, Any]]:
    return [one for one in manifest.describe(production)["deliverables"] if one["current"]]


def _data(production: Production) -> Mapping[str, Any]:
    """Holds no address and no secret: of a file only what its manifest says."""
    files = _current(production)
    return {
        "productionId": production.production_id,
        "accountId": production.account_id,
        "status": production.status,
        "sandbox": production.sandbox,
        "error": error_of(production),
        "folder": production.folder,
        "manifest": f"{production.folder}/{manifest.FILE}" if production.folder else None,
        "files": len(files),
        "bytes": sum(one["bytes"] for one in files),
        "deliverables": files[:MOST_LISTED],
        "truncated": len(files) > MOST_LISTED,
    }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from one attempt. `again_in` None: it is given up, unless it was delivered.

    `others_wait`: nothing else is sent for so long, since it is the receiver that fails and not the notice.
    """

    delivered: bool = False
    again_in: timedelta | None = None
    others_wait: timedelta = timedelta(0)


def judge(
    status: int | None, retry_after: timedelta, *, attempts: int, receiver_failures: int, notice_id: str
) -> Verdict:
    """`status`: of the answer, None when none came. `attempts` and `receiver_failures` count failures in a row before
    this attempt: of this notice, and of whatever was sent to this receiver."""
    if status is not None and 200 <= status < 300:
        return Verdict(delivered=True)
    if status == GONE:
        return Verdict()
    again_in = retry.after_failed_notice(attempts + 1, retry_after, notice_id)
    if status is not None and status < 500 and status not in _BUSY:
        return Verdict(again_in=again_in)
    return Verdict(again_in=again_in, others_wait=retry.after_failed_receiver(receiver_failures + 1, retry_after))


def retry_after(status: int, header: str, now: datetime) -> timedelta:
    """How long a busy receiver asks to be left alone: it says so in seconds, or as an instant; nothing else counts."""
    if status not in _BUSY:
        return timedelta(0)
    if header.isascii() and header.isdigit():
        return timedelta(seconds=int(header) if len(header) < 10 else 10**9)
    try:
        asked = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return timedelta(0)
    return max(timedelta(0), asked.replace(tzinfo=asked.tzinfo or UTC) - now)
