"""A partner's own system: takes notices as Standard Webhooks describe them, or answers whatever a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8G"
PATH = "/hooks/geheim-geheim-geheim"


@dataclass(frozen=True)
class Got:
    """One request. Whoever reads its notice has seen that the signature is right."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def notice(self) -> dict[str, Any]:
        read: dict[str, Any] = Webhook(SECRET).verify(self.body, dict(self.headers))
        return read


@dataclass
class Partner:
    """`answers`: a status and headers for each request to come, the last one for all that follow. `before_answer` is
    called when a request has come, and before anything is said."""

    url: str
    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=lambda: [(204, {})])
    got: list[Got] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None

    @property
    def notices(self) -> list[dict[str, Any]]:
        return [one.notice for one in self.got]

    def will_answer(self, *statuses: int, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers = [(status, named) for status in statuses]

    def take(self, one: Got) -> tuple[int, Mapping[str, str]]:
        self.got.append(one)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.before_answer()
        return answer


@contextlib.contextmanager
def partner(port: int = 0) -> Iterator[Partner]:
    """Listens within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender has died
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more = made.take(Got(self.path, headers, body))
            said = json.dumps({"said": "by the partner"}).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {**more, "Content-Length": str(len(said))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as listening:
        made = Partner(f"http://127.0.0.1:{listening.server_port}{PATH}?key=geheim-key")
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield made
        finally:
            listening.shutdown()
            thread.join()
