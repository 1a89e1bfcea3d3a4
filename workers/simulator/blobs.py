"""The blob store: addresses that expire, and answers to GET and HEAD as Azure Blob Storage gives them.

What to answer is decided by pure functions; `BlobAnswer` sends it. Faults are already part of the decision.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlencode
from xml.sax.saxutils import escape

from starlette.types import Receive, Scope, Send

from workers.simulator.connection import drop, is_gone
from workers.simulator.contents import BLOCK_BYTES, Content, Digests, read
from workers.simulator.faults import Fault, Faults
from workers.simulator.journal import BlobRequest
from workers.simulator.world import Deliverable, iso

_SERVICE_VERSION = "2024-11-04"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer without a file. `code` goes into the XML body and a header."""

    status: int
    code: str
    detail: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Granted:
    """Bytes `start` to `stop` of a file, and how they go wrong: cut and corrupt positions are offsets in the file."""

    status: int
    headers: Mapping[str, str]
    content: Content
    start: int
    stop: int
    cut_at: int | None = None
    corrupt_at: int | None = None
    bytes_per_second: float | None = None


class Signer:
    """Makes and checks the query of a signed address; it covers the path, so it fits no other file."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def query(self, path: str, expires_at: datetime) -> str:
        """`se` in whole seconds as Azure writes it, with a fraction only where a second matters."""
        near = expires_at - datetime.now(UTC) < timedelta(seconds=60)
        fields = {
            "sv": _SERVICE_VERSION,
            "se": iso(expires_at, "milliseconds" if near else "seconds"),
            "sp": "r",
        }
        return urlencode(fields | {"sig": self._signature(path, fields)})

    def refusal(self, path: str, query: str, now: datetime) -> Refused | None:
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        given = fields.pop("sig", "")
        expected = self._signature(path, fields)
        if not hmac.compare_digest(given.encode(), expected.encode()):
            return not_authenticated("The signature does not match the address.")
        if fields.get("sp") != "r" or now >= datetime.fromisoformat(fields["se"]):
            return not_authenticated(f"The signature was valid until {fields['se']}.")
        return None

    def _signature(self, path: str, fields: Mapping[str, str]) -> str:
        text = "\n".join([path, *(f"{name}={fields[name]}" for name in sorted(fields))])
        return base64.b64encode(hmac.digest(self._key, text.encode(), "sha256")).decode()


def not_authenticated(detail: str) -> Refused:
    return Refused(403, "AuthenticationFailed", detail, {})


def etag(content: Content) -> str:
    return f'"0x{hashlib.blake2b(content.key.encode(), digest_size=8).hexdigest().upper()}"'


def decide(deliverable: Deliverable, digests: Digests, headers: Mapping[str, str]) -> Granted | Refused:
    """What a sound store answers; header names in lower case. Anything but one readable range gets the whole file."""
    tag, size = etag(deliverable.content), deliverable.content.size_bytes
    modified = format_datetime(deliverable.modified_at.replace(microsecond=0), usegmt=True)
    if headers.get("if-match", "*") not in ("*", tag):
        return Refused(412, "ConditionNotMet", "The file is not the one that If-Match names.", {"ETag": tag})
    common = {
        "Content-Type": deliverable.content_type,
        "ETag": tag,
        "Last-Modified": modified,
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
    }
    md5 = base64.b64encode(digests.md5).decode()
    span = None
    if headers.get("if-range", tag) in (tag, modified):
        span = wanted_range(headers.get("range", ""), size)
    if span is None:
        return Granted(200, common | {"Content-MD5": md5}, deliverable.content, 0, size)
    start, stop = span
    if start >= stop:
        unsatisfied = {"Content-Range": f"bytes */{size}"}
        return Refused(416, "InvalidRange", "The range lies outside of the file.", unsatisfied)
    partial = common | {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "x-ms-blob-content-md5": md5}
    return Granted(206, partial, deliverable.content, start, stop)


def wanted_range(header: str, size: int) -> tuple[int, int] | None:
    """The first offset and the one after the last; None for no single readable range; start >= stop: unsatisfiable."""
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def refusal_by_fault(faults: Faults, path: str) -> Refused | None:
    if faults.strikes("blob_expired", path):
        return not_authenticated("The signature is no longer valid.")
    if faults.strikes("blob_500", path):
        return Refused(500, "InternalError", "The server encountered an internal error.", {})
    if faults.strikes("blob_503", path):
        return Refused(503, "ServerBusy", "The server is busy.", {"Retry-After": "1"})
    return None


def spoiled(granted: Granted, faults: Faults, request: BlobRequest) -> Granted:
    """The same answer with every fault that strikes. An empty answer can't be spoiled, and spends no fault."""
    if granted.start >= granted.stop:
        return granted
    for name, spoil in _SPOILS.items():
        fault = faults.strikes(name, request.path)
        if fault is not None:
            request.faults.append(name)
            granted = spoil(granted, fault)
    return granted


def _short(granted: Granted, fault: Fault) -> Granted:
    length = granted.stop - granted.start
    missing = min(int(fault.value) or (length + 1) // 2, length)
    return replace(granted, stop=granted.stop - missing)


def _cut(granted: Granted, fault: Fault) -> Granted:
    length = granted.stop - granted.start
    return replace(granted, cut_at=granted.start + max(0, min(int(fault.value) or length // 2, length - 1)))


def _corrupt(granted: Granted, fault: Fault) -> Granted:
    at = int(fault.value) or (granted.start + granted.stop) // 2
    return replace(granted, corrupt_at=at)


def _slow(granted: Granted, fault: Fault) -> Granted:
    return replace(granted, bytes_per_second=max(1.0, fault.value))


_SPOILS = {"blob_short": _short, "blob_cut": _cut, "blob_corrupt": _corrupt, "blob_slow": _slow}


class BlobAnswer:
    """Sends a decision as a plain ASGI application and notes in `request` what went out."""

    def __init__(self, decision: Granted | Refused, request: BlobRequest) -> None:
        self._decision = decision
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._request.status = self._decision.status
        if isinstance(self._decision, Refused):
            await self._refuse(self._decision, scope, send)
        else:
            await self._grant(self._decision, scope, send)

    async def _refuse(self, refused: Refused, scope: Scope, send: Send) -> None:
        body = _xml(refused)
        headers = {**refused.headers, "x-ms-error-code": refused.code, "Content-Type": "application/xml"}
        await _send_head(send, refused.status, headers, len(body))
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        self._request.complete = True

    async def _grant(self, granted: Granted, scope: Scope, send: Send) -> None:
        await _send_head(send, granted.status, granted.headers, granted.stop - granted.start)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            self._request.complete = True
            return
        for piece in _pieces(granted):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._request.sent_bytes += len(piece)
            if is_gone(scope):
                return
            if granted.bytes_per_second is not None:
                await asyncio.sleep(len(piece) / granted.bytes_per_second)
        if granted.cut_at is not None:
            await drop(scope, after_sending=True)
            return
        await send({"type": "http.response.body", "body": b""})
        self._request.complete = True


def _pieces(granted: Granted) -> Iterator[bytes]:
    """What goes out, in big pieces, or when slow in a tenth of a second's worth each."""
    stop = granted.stop if granted.cut_at is None else granted.cut_at
    start = granted.start
    most = BLOCK_BYTES if granted.bytes_per_second is None else max(1, int(granted.bytes_per_second / 10))
    while start < stop:
        piece = read(granted.content, start, min(stop, start + most))
        if granted.corrupt_at is not None and start <= granted.corrupt_at < start + len(piece):
            piece = _flipped(piece, granted.corrupt_at - start)
        start += len(piece)
        yield piece


def _flipped(piece: bytes, at: int) -> bytes:
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


async def _send_head(send: Send, status: int, headers: Mapping[str, str], length: int) -> None:
    all_headers = {**headers, "Content-Length": str(length), "x-ms-request-id": str(uuid.uuid4())}
    all_headers["x-ms-version"] = _SERVICE_VERSION
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


def _xml(refused: Refused) -> bytes:
    text = f"<Code>{refused.code}</Code><Message>{escape(refused.detail)}</Message>"
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error>{text}</Error>'.encode()
