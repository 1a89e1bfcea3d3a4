"""What others get to see of a production: the HTTP answer and the CLI's `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from service.core.deliverables import Deliverable, current_files
from service.core.production import Production


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file has come, as last told, about once a second."""

    bytes: int
    bytes_per_second: int


def describe(production: Production, progress: Mapping[str, Progress] = MappingProxyType({})) -> dict[str, Any]:
    """A production as INTERFACE promises it. Holds no address and no secret. `progress` by a deliverable's key."""
    p = production
    current = current_files(p.deliverables)
    return {
        "productionId": p.production_id,
        "accountId": p.account_id,
        "status": p.status,
        "terminal": p.terminal,
        "settled": p.settled,
        "sequenceNumber": p.sequence if p.sequence >= 0 else None,
        "updatedAt": instant(p.updated_at or p.created_at),
        "source": p.source,
        "sandbox": p.sandbox,
        "expiresAt": instant(p.expires_at) if p.status == "Queued" else None,
        "error": error_of(p),
        "retryOf": p.retry_of,
        "retriedAs": p.retried_as,
        "refused": p.refused or p.list_refused,
        "nextPollAt": instant(p.due_to_ask_at),
        "folder": p.folder,
        "deliverables": [
            _describe_deliverable(one, one.key in current, progress.get(one.key)) for one in p.deliverables
        ],
    }


def error_of(production: Production) -> dict[str, str | None] | None:
    """What JARAI says of its failure; None where nothing has failed."""
    p = production
    failed = p.status == "Failed" or p.error_code is not None or p.error_message is not None
    return {"code": p.error_code, "message": p.error_message} if failed else None


def instant(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with a `Z`."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _describe_deliverable(one: Deliverable, current: bool, progress: Progress | None) -> dict[str, Any]:
    return {
        "id": one.id,
        "type": one.type,
        "state": one.state,
        "file": one.file,
        "bytes": one.bytes,
        "sha256": one.sha256,
        "storedAt": instant(one.stored_at),
        "version": one.version,
        "current": current,
        "receivedBytes": one.bytes if one.state == "stored" else progress.bytes if progress else 0,
        "bytesPerSecond": progress.bytes_per_second if progress else None,
        "attempts": one.attempts,
        "error": one.error,
        "nextAttemptAt": instant(one.next_at),
    }
