"""Dead letters: what could not be used or was given up, kept whole until a person retries or discards it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from redis import Redis

from service.core.redaction import redact
from service.store.scripts import PREFIX, moment

Kind = Literal["event", "production", "deliverable", "question", "notice"]
INDEX = f"{PREFIX}deadletters"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `body` is the request's, byte for byte, where it is an event."""

    id: str
    kind: Kind
    reason: str
    added_at: datetime
    production_id: str | None
    details: Mapping[str, Any]
    body: bytes | None

    def describe(self) -> dict[str, Any]:
        """As JSON to show: the body as text, without the secret part of any address in it."""
        shown: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "reason": self.reason,
            "addedAt": self.added_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "productionId": self.production_id,
            "details": dict(self.details),
        }
        if self.body is not None:
            shown |= {"bodyBytes": len(self.body), "body": redact(self.body.decode("utf-8", "replace"))}
        return shown


def event_key(body: bytes) -> str:
    """The same body is the same dead letter."""
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def fields(
    kind: Kind, reason: str, *, production_id: str = "", body: bytes | None = None, **details: Any
) -> list[str | bytes]:
    """Field, value, … as a script takes them."""
    flat: list[str | bytes] = ["kind", kind, "reason", redact(reason)[:1000], "production_id", production_id]
    flat += ["details", redact(json.dumps(details, default=str))]
    return flat if body is None else [*flat, "body", body]


def letter_id(kind: Kind, key: str) -> str:
    return f"{kind}-{key}"


def event_letter(body: bytes, reason: str, production_id: str) -> list[Any]:
    """One event among the arguments of BURY; the same one twice is one dead letter."""
    flat = fields("event", reason, production_id=production_id, body=body)
    return [letter_id("event", event_key(body)), len(flat), *flat]


def newest(redis: Redis, limit: int) -> list[DeadLetter]:
    """The newest dead letters first, without their bodies' weight being bounded by anything but `limit`."""
    ids: Any = redis.zrevrange(INDEX, 0, limit - 1)
    return [letter for letter in (find(redis, one.decode()) for one in ids) if letter is not None]


def count(redis: Redis) -> int:
    return int(redis.zcard(INDEX))


def find(redis: Redis, letter: str) -> DeadLetter | None:
    """The dead letter of that id, or None."""
    raw: Any = redis.hgetall(f"{PREFIX}deadletter:{letter}")
    if not raw:
        return None
    return DeadLetter(
        id=letter,
        kind=raw[b"kind"].decode(),
        reason=raw[b"reason"].decode(),
        added_at=moment(int(raw[b"at"])),
        production_id=raw.get(b"production_id", b"").decode() or None,
        details=json.loads(raw.get(b"details", b"{}")),
        body=raw.get(b"body"),
    )


def remove(redis: Redis, letter: str) -> bool:
    """Forget a dead letter; False when there was none. Idempotent."""
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.zrem(INDEX, letter)
        pipeline.delete(f"{PREFIX}deadletter:{letter}")
        return bool(pipeline.execute()[0])
