"""Sends webhooks: at least once, signed, again until a 2xx, and with the faults that were asked for."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import ssl
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from workers.simulator.faults import Faults
from workers.simulator.settings import Settings, secret_bytes
from workers.simulator.world import Event, iso

_MOST_AT_ONCE = 64
_LARGEST_ANSWER_BYTES = 1 << 16
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Subscription:
    """No event types or no account ids means all of them. `ordinal` counts subscriptions, for the seeded dice."""

    webhook_id: str
    url: str
    secret: str = field(repr=False)
    ordinal: int
    event_types: frozenset[str] = frozenset()
    account_ids: frozenset[str] = frozenset()

    def wants(self, event: Event) -> bool:
        if self.event_types and event.event_type not in self.event_types:
            return False
        return not self.account_ids or event.account_id in self.account_ids


@dataclass(frozen=True, slots=True)
class Attempt:
    """`status` is None when there was no answer; `error` then says why."""

    copy: int
    sent_at: datetime
    status: int | None
    error: str = ""

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Fate:
    """What the dice say about one event on its way to one subscription. A double may overlap with the first."""

    lost: bool = False
    doubled: bool = False
    double_gap_seconds: float = 0.0
    late_seconds: float = 0.0


@dataclass(slots=True)
class Delivery:
    """One event for one subscription, and what became of it."""

    subscription: Subscription
    event_id: str
    fate: Fate
    attempts: list[Attempt] = field(default_factory=list)
    ended: bool = False

    @property
    def acknowledged(self) -> bool:
        return any(attempt.accepted for attempt in self.attempts)

    @property
    def given_up(self) -> bool:
        return self.ended and not self.acknowledged

    @property
    def pending(self) -> bool:
        return not (self.fate.lost or self.ended)


def fate(faults: Faults, subscription: Subscription, event: Event) -> Fate:
    """By seed, production, sequence number and subscription; never by timing."""
    key = f"{event.production_id}:{event.sequence_number}:{subscription.ordinal}"
    if faults.strikes("loss", event.event_type, key):
        return Fate(lost=True)
    doubled = faults.strikes("double", event.event_type, key) is not None
    late = faults.strikes("late", event.event_type, key)
    dice = faults.dice("shape", key)
    gap, part = dice.choice((0.0, 0.3)), dice.uniform(0.1, 1.0)
    return Fate(False, doubled, gap if doubled else 0.0, part * late.value if late else 0.0)


def envelope(event: Event, event_id: str) -> bytes:
    """The raw body [docs]; its bytes are what gets signed."""
    return json.dumps(
        {
            "eventId": event_id,
            "eventType": event.event_type,
            "productionId": event.production_id,
            "accountId": event.account_id,
            "timestamp": iso(event.timestamp),
            "sequenceNumber": event.sequence_number,
            "correlationId": event.correlation_id,
            "truncated": event.truncated,
            "data": event.data,
        },
        ensure_ascii=False,
    ).encode()


def signature(webhook_secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret_bytes(webhook_secret), body, hashlib.sha256).hexdigest()


class Sender:
    """Owns subscriptions and every delivery. Without faults, one production's events go out in order."""

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self._settings = settings
        self._faults = faults
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: dict[tuple[str, str], asyncio.Event] = {}
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)
        self._ordinal = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.deliveries: dict[tuple[str, int], list[Delivery]] = {}

    def subscribe(
        self,
        url: str,
        secret: str,
        event_types: frozenset[str] = frozenset(),
        account_ids: frozenset[str] = frozenset(),
    ) -> Subscription:
        secret_bytes(secret)
        self._ordinal += 1
        subscription = Subscription(str(uuid.uuid4()), url, secret, self._ordinal, event_types, account_ids)
        self.subscriptions[subscription.webhook_id] = subscription
        return subscription

    def announce(self, event: Event) -> None:
        """Start every delivery of an event; what becomes of them is found in `deliveries`."""
        started = [self._start(each, event) for each in self.subscriptions.values() if each.wants(event)]
        self.deliveries[event.production_id, event.sequence_number] = started

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, subscription: Subscription, event: Event) -> Delivery:
        delivery = Delivery(subscription, str(uuid.uuid4()), fate(self._faults, subscription, event))
        if not delivery.fate.lost:
            task = asyncio.get_running_loop().create_task(self._deliver(delivery, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return delivery

    async def _deliver(self, delivery: Delivery, event: Event) -> None:
        body = envelope(event, delivery.event_id)
        if delivery.fate.late_seconds:
            await asyncio.sleep(delivery.fate.late_seconds)
            first = await self._try(delivery, body, 1)
        else:
            first = await self._try_in_turn(delivery, body, event.production_id)
        again = [self._retry(delivery, body, 1, first)]
        if delivery.fate.doubled:
            again.append(self._double(delivery, body))
        await asyncio.gather(*again)
        delivery.ended = True

    async def _try_in_turn(self, delivery: Delivery, body: bytes, production_id: str) -> bool:
        """Not before the first try of the production's event before; a retry or a late event holds nobody up."""
        key = (delivery.subscription.webhook_id, production_id)
        before, mine = self._turns.get(key), asyncio.Event()
        self._turns[key] = mine
        try:
            if before is not None:
                await before.wait()
            return await self._try(delivery, body, 1)
        finally:
            mine.set()

    async def _double(self, delivery: Delivery, body: bytes) -> None:
        await asyncio.sleep(delivery.fate.double_gap_seconds)
        await self._retry(delivery, body, 2, await self._try(delivery, body, 2))

    async def _retry(self, delivery: Delivery, body: bytes, copy: int, accepted: bool) -> None:
        for number in range(self._settings.webhook_tries - 1):
            if accepted or delivery.subscription.webhook_id not in self.subscriptions:
                return
            await asyncio.sleep(self._settings.retry_base_seconds * 2**number)
            accepted = await self._try(delivery, body, copy)

    async def _try(self, delivery: Delivery, body: bytes, copy: int) -> bool:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "JARAI-Webhooks/1.0 (simulated)",
            "X-JARAI-Signature": signature(delivery.subscription.secret, body),
        }
        async with self._slots:
            sent_at = datetime.now(UTC)
            try:
                async with asyncio.timeout(self._settings.webhook_timeout_seconds):
                    attempt = Attempt(copy, sent_at, await post(delivery.subscription.url, headers, body))
            except (
                OSError,
                EOFError,
                ValueError,
                asyncio.LimitOverrunError,
            ) as error:  # TimeoutError is an OSError
                attempt = Attempt(copy, sent_at, None, type(error).__name__)
        delivery.attempts.append(attempt)
        return attempt.accepted


async def post(url: str, headers: dict[str, str], body: bytes) -> int:
    """One POST over a connection of its own; the status of the answer."""
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = {"Host": parts.netloc, **headers, "Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        await writer.drain()
        while True:
            status, length = _status_and_length(await reader.readuntil(b"\r\n\r\n"))
            if status >= 200:
                await reader.readexactly(min(length, _LARGEST_ANSWER_BYTES))
                return status
    finally:
        writer.close()


def _status_and_length(head: bytes) -> tuple[int, int]:
    version, status, *_ = head.split(maxsplit=2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not HTTP/1")
    length = _LENGTH.search(head)
    return int(status), int(length[1]) if length else 0
