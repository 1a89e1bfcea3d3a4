"""A load generator of its own process: many connections, each sends its next request when the last is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
import time
import uuid

KEY = b"k" * 32
CONNECTIONS = 64
EVENTS_PER_PRODUCTION = 20


class _Connection(asyncio.Protocol):
    def __init__(self, requests: list[bytes], latencies: list[float], done: asyncio.Future[None]) -> None:
        self._requests, self._latencies, self._done = requests, latencies, done
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self._done.set_exception(RuntimeError(f"unexpected answer: {head[:200]!r}"))
            return
        self._answer = b""
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server ended the connection"))

    def _next(self) -> None:
        assert self._transport is not None
        if not self._requests:
            self._done.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests.pop())


def _requests(count: int) -> list[bytes]:
    made = []
    production = account = ""
    for number in range(count):
        if number % EVENTS_PER_PRODUCTION == 0:
            production, account = str(uuid.uuid4()), str(uuid.uuid4())
        event = {
            "eventId": str(uuid.uuid4()),
            "eventType": "production.step.complete",
            "productionId": production,
            "accountId": account,
            "timestamp": "2026-04-03T14:30:00Z",
            "sequenceNumber": number % EVENTS_PER_PRODUCTION + 1,
            "correlationId": str(uuid.uuid4()),
            "truncated": False,
            "data": {"step": 3, "name": "render", "detail": "x" * 250},
        }
        body = json.dumps(event).encode()
        signature = hmac.new(KEY, body, hashlib.sha256).hexdigest()
        head = (
            f"POST /webhooks/jarai HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"X-JARAI-Signature: sha256={signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def _run(port: int, count: int) -> dict[str, float]:
    requests = _requests(count)
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(CONNECTIONS)]
    shares = [requests[first::CONNECTIONS] for first in range(CONNECTIONS)]
    started = time.perf_counter()
    for share, end in zip(shares, ends, strict=True):
        await loop.create_connection(lambda s=share, e=end: _Connection(s, latencies, e), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - started
    latencies.sort()
    return {"per_second": count / seconds, "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2])))))
