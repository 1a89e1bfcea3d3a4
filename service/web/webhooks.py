"""`POST /webhooks/jarai`: read, verify, keep, answer. A plain ASGI endpoint, because it is the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from service import log
from service.core import signature
from service.core.errors import InvalidSignature, StoreUnavailable, UnknownKey
from service.store import heard
from service.store.inbox import Arrival, arrival
from service.web.connections import TOO_SLOW
from service.web.hearing import Hearing
from service.web.intake import Intake

_MOST_READING_BYTES = 64 * 1024 * 1024  # of all bodies that are arriving, before anybody knows who sent them
_JSON = (b"content-type", b"application/json")
_RETRY = (b"retry-after", b"2")
_CLOSE = (b"connection", b"close")


class _Refused(Exception):
    """The body can't be had: an answer instead of it (None: nobody is there any more)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class WebhookEndpoint:
    """Where JARAI delivers."""

    def __init__(self, intake: Intake, hearing: Hearing, keys: Sequence[bytes], max_body_bytes: int) -> None:
        self._intake, self._hearing, self._max_body_bytes = intake, hearing, max_body_bytes
        self.use(keys)
        self._reading_bytes = 0
        self._log = log.get()

    def use(self, keys: Sequence[bytes]) -> None:
        """Accept from now on what is signed with one of these keys."""
        self._keys, self._fingerprints = keys, [signature.fingerprint(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            body = await self._read(headers, receive)
            if body is None:
                if scope["state"].get(TOO_SLOW):
                    self._count_rejected(408, "the body took too long to arrive")
                else:
                    self._count_rejected(400, "the sender went away before the body was complete")
                return
            signed_with = signature.verify(body, headers.get(signature.HEADER), self._keys)
        except InvalidSignature as error:
            if isinstance(error, UnknownKey):  # anybody may send what looks like no signature
                self._hearing.heard(heard.REFUSED)
            await self._reject(send, 401, "INVALID_SIGNATURE", str(error))
        except _Refused as error:
            await self._reject(send, error.status, error.code, str(error))
        else:
            self._hearing.heard(self._fingerprints[signed_with])
            await self._keep(arrival(body), send)

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
        """The raw body, at most `max_body_bytes` of it; None when the sender went away."""
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise _Refused(413, "PAYLOAD_TOO_LARGE", f"a webhook has at most {self._max_body_bytes} bytes")
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk = message.get("body", b"")
                size += len(chunk)
                self._reading_bytes += len(chunk)
                if size > self._max_body_bytes:
                    raise _Refused(413, "PAYLOAD_TOO_LARGE", f"a webhook has at most {self._max_body_bytes} bytes")
                if self._reading_bytes > max(_MOST_READING_BYTES, self._max_body_bytes):
                    raise _Refused(503, "SERVICE_UNAVAILABLE", "too much is arriving at once; send it again")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
        finally:
            self._reading_bytes -= size

    async def _keep(self, arrived: Arrival, send: Send) -> None:
        envelope = arrived.envelope
        if envelope is not None and not envelope.about_production:
            self._log("webhook.test", event_id=envelope.event_id, correlation_id=envelope.correlation_id)
            await _answer(send, 202, {"status": "accepted", "eventId": envelope.event_id})
            return
        try:
            kept = await self._intake.hand_in(arrived)
        except StoreUnavailable:
            await _answer(
                send, 503, {"error": "SERVICE_UNAVAILABLE", "message": "the event can't be kept now; send it again"},
                (_RETRY,),
            )  # fmt: skip
            return
        answer: dict[str, str] = {"status": kept.verdict}
        if kept.reason:
            answer["reason"] = kept.reason
        if envelope is not None:
            answer["eventId"] = envelope.event_id
        await _answer(send, 200 if kept.verdict == "duplicate" else 202, answer)

    async def _reject(self, send: Send, status: int, code: str, message: str) -> None:
        self._count_rejected(status, message)
        # What may still be on its way is not read: the connection ends with the answer.
        headers = () if status == 401 else (_CLOSE, _RETRY) if status == 503 else (_CLOSE,)
        await _answer(send, status, {"error": code, "message": message}, headers)

    def _count_rejected(self, status: int, reason: str) -> None:
        self._intake.counts["rejected"] += 1
        self._log("webhook.rejected", status=status, reason=reason)


async def _answer(
    send: Send, status: int, body: Mapping[str, str], more_headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    content = to_json(body)
    headers = [_JSON, (b"content-length", b"%d" % len(content)), *more_headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
