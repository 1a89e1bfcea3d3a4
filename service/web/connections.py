"""What one connection may cost before anybody knows who it is: time, memory, a place.

uvicorn's own protocol has no limit for a head, none for the time that a request takes to arrive, and lets thousands of
silent connections keep everybody else out. Nothing here knows what a webhook is.
"""

from __future__ import annotations

import asyncio
import json
import resource
from asyncio.events import TimerHandle
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service import log

MOST_HEAD_BYTES = 16 * 1024
MOST_HEADERS = 100
LONGEST_HEAD_SECONDS = 5.0
LONGEST_BODY_SECONDS = 10.0
LONGEST_UNREAD_SECONDS = 10.0
# Of requests that were sent before the one in front of them was answered, of all connections together.
MOST_PIPELINED_BYTES = 32 * 1024 * 1024
_BYTES_OF_A_REQUEST = 4096
_FILES_FOR_OURSELVES = 128
_SECONDS_BETWEEN_LINES = 10.0
_LEAVE_TO_SEND = b"HTTP/1.1 100 "
TOO_SLOW = "too_slow"  # in a request's state: its body did not come in time, and that was answered
_CODES = {400: "INVALID_REQUEST", 408: "REQUEST_TIMEOUT", 431: "HEADERS_TOO_LARGE", 503: "SERVICE_UNAVAILABLE"}


def places(most: int) -> int:
    """How many connections there is room for, at most `most`; lets this process have the files it takes, if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _FILES_FOR_OURSELVES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(most, max(soft, allowed) - _FILES_FOR_OURSELVES))


class Crowd:
    """What all connections of a process have in common."""

    def __init__(self) -> None:
        self.pipelined_bytes = 0
        self._sent_away = 0
        self._quiet = False

    def sent_away(self, loop: asyncio.AbstractEventLoop) -> None:
        """One line for the first, then one for all of the next seconds: a flood must not drown the log."""
        self._sent_away += 1
        if not self._quiet:
            self._say(loop)

    def _say(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet = self._sent_away > 0
        if self._quiet:
            log.get()("webhook.unavailable", reason="too many connections", times=self._sent_away)
            self._sent_away = 0
            loop.call_later(_SECONDS_BETWEEN_LINES, self._say, loop)


class _WholeAnswer:
    """A transport for one answer, whose head waits for the body: one system call instead of two.

    Does not know whose answer it is: a circle for each request would be 50 ms of collecting garbage now and then.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None and not data.startswith(_LEAVE_TO_SEND):
            self._head = data
        else:
            self._transport.write((self._head or b"") + data)
            self._head = self._head and b""

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class _TooMuch(Exception):
    """Raised through the parser, which then takes nothing more of this connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's, with bounds. `limit_concurrency` of the configuration is the number of connections."""

    crowd = Crowd()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most_connections = config.limit_concurrency or 0
        self.limit_concurrency = None  # uvicorn's would count the silent ones and answer everybody 503
        self._begun = False
        self._in_body = False
        self._head_bytes = 0
        self._pipelined_bytes = 0
        self._upgraded = False
        self._refusal = (400, "this is no HTTP request")
        self._deadline: TimerHandle | None = None
        self._unread: TimerHandle | None = None

    # --- the transport ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most_connections:
            self.crowd.sent_away(self.loop)
            self._refuse(503, "too many connections; try again")
        else:
            self._start_deadline(LONGEST_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_unread()
        self._count_pipelined(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._upgraded or self.transport.is_closing():
            return
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._begun and not self._head_bytes and self._deadline is None and not self.pipeline:
            return  # whole requests, each in its turn: nothing to bound
        if self.transport.is_closing():
            return
        if self._head_bytes > MOST_HEAD_BYTES and not self._in_body:
            self._refuse(431, f"the head of a request has at most {MOST_HEAD_BYTES} bytes")
        elif not self._begun and not self._head_bytes:
            self._stop_deadline()
        elif self._deadline is None:
            self._start_deadline(LONGEST_BODY_SECONDS if self._in_body else LONGEST_HEAD_SECONDS)
        self._count_pipelined(len(data) + _BYTES_OF_A_REQUEST * len(self.pipeline) if self.pipeline else 0)
        if self.crowd.pipelined_bytes > MOST_PIPELINED_BYTES:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(LONGEST_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    # --- the parser ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.headers) > MOST_HEADERS:
            self._refusal = (431, f"a request has at most {MOST_HEADERS} headers")
            raise _TooMuch
        if self._head_bytes > MOST_HEAD_BYTES and self._size_of_head() > MOST_HEAD_BYTES:
            self._refusal = (431, f"the head of a request has at most {MOST_HEAD_BYTES} bytes")
            raise _TooMuch
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # where nothing follows the head
            self.cycle.transport = _WholeAnswer(self.transport)  # type: ignore[assignment]
        self._in_body, self._head_bytes = True, 0
        self._stop_deadline()

    def on_message_complete(self) -> None:
        self._begun = self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # first what is here already
            self.flow.pause_reading()
        else:
            self._count_pipelined(0)

    def _unsupported_upgrade_warning(self) -> None:
        """The request gets its answer; what follows it would be in another language."""
        self._upgraded = True
        self.cycle.keep_alive = False

    # --- answers -----------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _refuse(self, status: int, message: str) -> None:
        content = json.dumps({"error": _CODES[status], "message": message}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(content)
        self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _count_pipelined(self, number: int) -> None:
        self.crowd.pipelined_bytes += number - self._pipelined_bytes
        self._pipelined_bytes = number

    def _start_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._too_slow, seconds)

    def _too_slow(self, seconds: float) -> None:
        if self.pipeline:  # it is not read from now: the rest may be on its way
            self._start_deadline(seconds)
        elif self._in_body and not self.cycle.response_started:
            self.scope["state"][TOO_SLOW] = True
            self._refuse(408, "the body took too long to arrive")
        else:
            self.transport.abort()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
