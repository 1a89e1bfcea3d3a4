"""A load generator in a process of its own: `python -m tests.bench.load PORT EVENTS [--rate A_SECOND]`.

Closed loop: each connection sends its next request as soon as the last one is answered. With a rate, open loop: each
request is due at its time whatever became of the others, and its latency counts from then, so that a server that stalls
can't slow down the questions that would show it. Requests are made beforehand; one thread, one epoll, no framework.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import hmac
import json
import select
import socket
import time
import uuid
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any

KEY = b"k" * 32
CONNECTIONS = 64
EVENTS_PER_PRODUCTION = 20
_PRODUCTIONS_AT_A_TIME = 50
_SILENCE_SECONDS = 20.0


def event(production: str, number: int, account: str = "") -> bytes:
    """A webhook's body of about 600 bytes."""
    content = {
        "eventId": str(uuid.uuid4()),
        "eventType": "production.step.complete",
        "productionId": production,
        "accountId": account or str(uuid.uuid4()),
        "timestamp": "2026-04-03T14:30:00Z",
        "sequenceNumber": number,
        "correlationId": str(uuid.uuid4()),
        "truncated": False,
        "data": {"step": 3, "name": "render", "detail": "x" * 250},
    }
    return json.dumps(content).encode()


def events(count: int) -> list[bytes]:
    """Bodies of productions with 20 events each, fifty of which run at the same time."""
    made: list[bytes] = []
    while len(made) < count:
        running = [(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(_PRODUCTIONS_AT_A_TIME)]
        numbers = range(1, EVENTS_PER_PRODUCTION + 1)
        made += [event(production, number, account) for number in numbers for production, account in running]
    return made[:count]


def request(body: bytes, key: bytes = KEY) -> bytes:
    """The bytes of a signed webhook."""
    head = (
        f"POST /webhooks/jarai HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"X-JARAI-Signature: sha256={hmac.digest(key, body, hashlib.sha256).hex()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Answers:
    """Knows when an answer is whole. Heads repeat themselves, so each is read once."""

    def __init__(self) -> None:
        self._lengths: dict[bytes, int] = {}

    def whole(self, data: bytes) -> bool:
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            return False
        length = self._lengths.get(head)
        if length is None:
            if head[9:10] != b"2":
                raise RuntimeError(f"unexpected answer: {data[:300]!r}")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._lengths[head] = length
        return len(body) >= length


def run(port: int, requests: Sequence[bytes], rate: float = 0.0, connections: int = CONNECTIONS) -> dict[str, Any]:
    """Send all of them; `rate` in requests a second, 0: as fast as they are answered."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    poll = select.epoll()
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setblocking(False)
        poll.register(one.fileno(), select.EPOLLIN)
    by_file = {one.fileno(): one for one in sockets}
    began, spent = time.perf_counter(), time.process_time()
    latencies = _exchange(poll, by_file, requests, rate)
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    for one in sockets:
        one.close()
    latencies.sort()
    return {
        "per_second": len(requests) / seconds,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "max_ms": 1000 * latencies[-1],
        "busy": spent / seconds,
    }


def _exchange(
    poll: select.epoll, by_file: dict[int, socket.socket], requests: Sequence[bytes], rate: float
) -> list[float]:
    """The latencies in seconds."""
    clock, whole = time.perf_counter, Answers().whole
    free, latencies = deque(by_file), list[float]()
    since: dict[int, float] = {}
    parts: dict[int, bytes] = {}
    interval = 1 / rate if rate else 0.0
    start, position, total = clock(), 0, len(requests)
    while len(latencies) < total:
        due = inf
        while free and position < total:
            now = clock()
            due = start + position * interval if rate else now
            if due > now:
                break
            file = free.popleft()
            since[file] = due
            if by_file[file].send(requests[position]) != len(requests[position]):
                raise RuntimeError("the server reads too slowly for a request")
            position += 1
            due = inf
        for file, _ in _ready(poll, due - clock() if due < inf else _SILENCE_SECONDS, exact=due < inf):
            data = by_file[file].recv(65536)
            if not data:
                raise ConnectionError("the server ended a connection")
            if file in parts:
                data = parts.pop(file) + data
            if whole(data):
                latencies.append(clock() - since[file])
                free.append(file)
            else:
                parts[file] = data
    return latencies


def _ready(poll: select.epoll, seconds: float, exact: bool) -> list[tuple[int, int]]:
    """`exact`: epoll itself counts in milliseconds, which is too coarse for when the next request is due."""
    if exact:
        if seconds > 0:
            select.select([poll], [], [], seconds)
        return poll.poll(0)
    found = poll.poll(seconds)
    if not found:
        raise TimeoutError(f"no answer for {seconds:g} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("events", type=int)
    parser.add_argument("--rate", type=float, default=0.0)
    options = parser.parse_args()
    requests = [request(body) for body in events(options.events)]
    gc.freeze()
    gc.disable()
    print(json.dumps(run(options.port, requests, options.rate)))


if __name__ == "__main__":
    main()
