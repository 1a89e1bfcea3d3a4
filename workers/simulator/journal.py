"""What was asked of the simulator and what it answered, without queries and bodies."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

_MOST_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """`status` 0: the connection was dropped."""

    at: datetime
    method: str
    path: str
    status: int
    faults: tuple[str, ...]


@dataclass(slots=True)
class BlobRequest:
    """`sent_bytes` is what was handed to the socket; `complete` when that is all that Content-Length promised."""

    at: datetime
    method: str
    path: str
    range: str
    status: int = 0
    sent_bytes: int = 0
    complete: bool = False
    faults: list[str] = field(default_factory=list)


class Journal:
    """The latest requests in full, and counts of all."""

    def __init__(self) -> None:
        self.api: deque[ApiRequest] = deque(maxlen=_MOST_KEPT)
        self.blob: deque[BlobRequest] = deque(maxlen=_MOST_KEPT)
        self.counts: Counter[str] = Counter()

    def add_api(self, request: ApiRequest) -> None:
        self.api.append(request)
        self.counts["apiRequests"] += 1
        self.counts[f"api{request.status}"] += 1

    def add_blob(self, request: BlobRequest) -> None:
        """Added before it is answered, and filled in while the answer goes out."""
        self.blob.append(request)
        self.counts["blobRequests"] += 1
