"""Connections to the outside: judged at the address that is really connected to, and never waited for without end.

urllib3 limits each read, not their sum: an answer that drips, byte by byte or line by line, would take days. Within
`within`, the whole of what is waited for is limited. No proxy is ever used: the environment is not asked for one.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from time import monotonic
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.util import Timeout
from urllib3.util.ssl_ import create_urllib3_context

# host, port, address that the host's name resolves to, whether TLS will be spoken; raises what the caller shall get
Judge = Callable[[str, int, str, bool], None]
_MOST_ADDRESSES = 8
_CONNECTIONS_PER_HOST = 2  # kept for the next request: a large file's, and those of the small ones beside it

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is waited for in this block, on a connection of `open_pool`, ends in time, or as urllib3's TimeoutError."""
    token = _deadline.set(monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def open_pool(
    timeout: Timeout,
    headers: dict[str, str] | None = None,
    judge: Judge | None = None,
    kept: int = _CONNECTIONS_PER_HOST,
) -> _Pools:
    """Connections that never repeat a failed request. `judge` sees each address before it is connected to.

    `kept`: so many to one host stay open for the next request.
    """
    return _Pools(judge, timeout, headers, kept)


def _patience(most: float | None) -> float | None:
    """How long the next step may take. Raises TimeoutError when there is no time left."""
    deadline = _deadline.get()
    if deadline is None:
        return most
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the whole takes too long")
    return left if most is None else min(most, left)


class _Reader(io.RawIOBase):
    """A socket's incoming bytes, each read of which also keeps to the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock = raw, sock
        self._most = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(_patience(self._most))
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):  # the connection may be gone
                self._sock.settimeout(self._most)
            self._raw.close()
        super().close()


class _SecureReader(_Reader):
    """Waits for one record of TLS, 16 KiB at most, and takes along those that have come with it.

    One at a time, what is done for each read cost more than the decryption.
    """

    _failure: OSError | None = None

    def readinto(self, buffer: Any, /) -> int | None:
        if self._failure is not None:
            raise self._failure
        size = latest = super().readinto(buffer) or 0
        space = memoryview(buffer)
        self._sock.settimeout(0)
        try:
            while latest and size < len(space):
                latest = self._sock.recv_into(space[size:])
                size += latest
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as failure:  # to be told after what came before it
            self._failure = failure
        return size


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.line = sock
        reader = _SecureReader if isinstance(sock, ssl.SSLSocket) else _Reader
        self.fp: io.BufferedReader = io.BufferedReader(reader(self.fp.detach(), sock))

    def read_into(self, space: memoryview) -> int:
        """One read of a body that is not chunked, straight from the line; 0 at its end, and when it breaks off."""
        if self.fp is None or self.length == 0:
            return 0
        read = self.fp.readinto1(space if self.length is None else space[: self.length])
        if self.length is not None:
            self.length -= read
        return read


def _connect(connection: HTTPConnection, host: str, judge: Judge | None, secure: bool) -> socket.socket:
    """Resolve the name once, judge every address it has, and connect to one of those that were judged.

    One address that is refused refuses them all: a name that also leads inside is not to be trusted with the rest.
    """
    name = host.strip("[]")
    try:
        name.encode("idna")
        found = socket.getaddrinfo(name, connection.port, type=socket.SOCK_STREAM)[:_MOST_ADDRESSES]
    except UnicodeError:
        raise NewConnectionError(connection, "the name of the host is none") from None
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    if judge is not None:
        for *_, place in found:
            judge(connection.host, connection.port, str(place[0]), secure)
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in found:
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_patience(connection.timeout))
            sock.connect(place)
            return sock
        except OSError as error:
            failure = error
            if sock is not None:
                sock.close()
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, "the connection takes too long") from failure
    raise NewConnectionError(connection, f"no connection: {failure}") from failure


class _Plain(HTTPConnection):
    response_class = _Answer

    def __init__(self, *args: Any, judge: Judge | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._judge = judge

    def _new_conn(self) -> socket.socket:
        return _connect(self, self._dns_host, self._judge, secure=False)


class _Secure(HTTPSConnection):
    response_class = _Answer

    def __init__(self, *args: Any, judge: Judge | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._judge = judge

    def _new_conn(self) -> socket.socket:
        return _connect(self, self._dns_host, self._judge, secure=True)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Pools(urllib3.PoolManager):
    def __init__(self, judge: Judge | None, timeout: Timeout, headers: dict[str, str] | None, kept: int) -> None:
        super().__init__(headers=headers, retries=False, timeout=timeout, maxsize=kept)
        self._judge = judge
        self.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Made once: to read the authorities takes longer than all else that a connection needs."""
        context = create_urllib3_context()
        context.load_default_certs()
        return context

    def _new_pool(self, scheme: str, host: str, port: int, request_context: Any = None) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw["judge"] = self._judge
        if scheme == "https":
            pool.conn_kw["ssl_context"] = self._trusted
        return pool


def read_into(answer: urllib3.BaseHTTPResponse, space: memoryview) -> int:
    """The next bytes of the body as they come, at most as many as there is space for; 0 at its end.

    0 also where a body whose length was announced breaks off: whoever cares counts. Raises urllib3's HTTPError.
    urllib3 itself copies each byte twice and hands out a new object each time, which is a third of a download's time.
    """
    body = getattr(answer, "_fp", None)  # where urllib3 keeps what our connections gave it
    if not isinstance(body, _Answer) or body.chunked:
        chunk = answer.read1(len(space))  # read() would throw away what came before a break
        space[: len(chunk)] = chunk
        return len(chunk)
    try:
        return body.read_into(space)
    except TimeoutError as error:
        raise urllib3.exceptions.TimeoutError("the line is silent") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: it was closed meanwhile
        raise ProtocolError("the line broke") from error


def break_off(answer: urllib3.BaseHTTPResponse) -> None:
    """End whatever waits for more of this answer. For signal handlers: never raises."""
    body = getattr(answer, "_fp", None)
    if isinstance(body, _Answer) and answer.connection is not None:  # else it has all come, the line is another's
        with suppress(OSError):  # it is gone
            # Not what TLS makes of it: that forgets the keys, and hands over as it is what has come and was not read.
            socket.socket.shutdown(body.line, socket.SHUT_RD)
