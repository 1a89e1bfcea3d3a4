"""A server that answers whatever a test wants, byte for byte: the wrong status line, half a header, no end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Bytes = bytes | Iterable[bytes]


@dataclass(frozen=True)
class Asked:
    """A request as it came: its first line, and its headers by lower-case names."""

    line: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


Script = Callable[[Asked], Bytes]


@dataclass
class Hostile:
    """Answers each request with what `script` gives, and hangs up. One thread for each connection."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    wrap: Callable[[socket.socket], socket.socket] = lambda connection: connection
    keeps_alive: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def endless(self, piece: bytes, begin: bytes = b"", pause: float = 0.0) -> Iterator[bytes]:
        """`piece` again and again, until the other side has had enough or the test ends."""
        yield begin
        while not self.ended.wait(pause):
            yield piece

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with contextlib.suppress(OSError), self.wrap(connection) as line:
            while self._answer(line) and self.keeps_alive:
                pass
            line.shutdown(socket.SHUT_WR)
            while line.recv(65536):  # lets what was sent arrive, in place of a reset
                pass

    def _answer(self, line: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = line.recv(65536)
            if not piece:
                return False
            head += piece
        first, *rest = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
        pairs = (header.partition(": ") for header in rest)
        asked = Asked(first, {name.lower(): value for name, _, value in pairs})
        self.asked.append(asked)
        answer = self.script(asked)
        for piece in [answer] if isinstance(answer, bytes) else answer:
            line.sendall(piece)
        return True

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def hostile(script: Script | Bytes) -> Iterator[Hostile]:
    """Runs within the block."""
    server = Hostile(script if callable(script) else lambda asked: script)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join(timeout=5)


def head(*lines: str, status: str = "200 OK") -> bytes:
    """The head of an answer, with these header lines as they are."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """An answer as it should be, with these further header lines."""
    return head(f"Content-Length: {len(body)}", *lines, status=status) + body


def chunked(pieces: Sequence[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end
