"""What partner systems are told: a production settled, or came to another end. See docs/handover.md for the schema.

A notice's id follows from what it says, so that the same fact has the same id, however often it is come to.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from service.core.deliverables import current_files
from service.core.production import Notice, NoticeType, Production
from service.core.view import instant, stored_file

_MOST_LISTED = 100
ENDED_OTHERWISE = frozenset({"Failed", "Cancelled"})


def body(notice: Notice) -> str:
    """As it is sent: the payload that Standard Webhooks recommends."""
    return json.dumps({"type": notice.type, "timestamp": instant(notice.at), "data": notice.data})


def settled(production: Production, at: datetime) -> Notice:
    """Published, and every file stored. Another set of files is another fact."""
    files = [f"{file['file']} {file['sha256']}" for file in _files(production)]
    return _notice("production.settled", production, at, *sorted(files))


def failed(production: Production, at: datetime) -> Notice:
    """Failed or cancelled: nothing more will come of it."""
    return _notice("production.failed", production, at, production.status or "")


def _notice(kind: NoticeType, production: Production, at: datetime, *said: str) -> Notice:
    p = production
    text = "\n".join((p.production_id, kind, *said))
    files = _files(p)
    data = {
        "productionId": p.production_id,
        "accountId": p.account_id,
        "status": p.status,
        "sandbox": p.sandbox,
        "error": {"code": p.error_code, "message": p.error_message} if p.error_code or p.error_message else None,
        "folder": p.folder,
        "manifest": f"{p.folder}/manifest.json" if p.folder else None,
        "files": len(files),
        "bytes": sum(file["bytes"] or 0 for file in files),
        "deliverables": files[:_MOST_LISTED],
        "truncated": len(files) > _MOST_LISTED,
    }
    return Notice("msg_" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), kind, at, data)


def _files(production: Production) -> list[dict[str, Any]]:
    """The current version of each stored deliverable."""
    current = current_files(production.deliverables)
    return [stored_file(one, current=True) for one in production.deliverables if one.key in current]
