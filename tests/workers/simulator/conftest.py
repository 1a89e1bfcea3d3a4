"""A receiver that keeps what it gets, and a simulator beside the test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
import urllib3

from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings

T = TypeVar("T")
FAST = Settings(
    api_key="jarai_live_key",
    webhook_secret="c2VjcmV0LXNlY3JldC1zZWNyZXQ",
    seed=7,
    step_seconds=0,
    phase_seconds=0,
    retry_base_seconds=0.01,
)


@dataclass
class Receiver:
    """`answers` are used up one by one; after that every webhook gets 202."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((dict(self.headers), body))
            self.send_response(kept.answers.pop(0) if kept.answers else 202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/webhooks/jarai"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Caller:
    """Speaks to a simulator as a partner does."""

    sim: Running
    pool: urllib3.PoolManager

    def api(self, method: str, path: str, body: object = None, **headers: str) -> urllib3.BaseHTTPResponse:
        sent = {"X-API-Key": self.sim.settings.api_key, **headers}
        return self.pool.request(method, self.sim.api_url + path, json=body, headers=sent, retries=False)

    def get(self, url: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request(method, url, headers=named, retries=False)

    def when_ready(self, production_id: str) -> list[dict[str, Any]]:
        """The deliverables, once there are some."""

        def listed() -> list[dict[str, Any]] | None:
            answer = self.api("GET", f"/productions/{production_id}/deliverables")
            return answer.json()["deliverables"] if answer.status == 200 else None

        return eventually(listed)

    def when_quiet(self, production_id: str) -> dict[str, Any]:
        """The truth about a production that has ended and whose webhooks have all had their fate."""

        def quiet() -> dict[str, Any] | None:
            truth: dict[str, Any] = self.sim.truth()
            found = next(p for p in truth["productions"] if p["productionId"] == production_id)
            over = found["status"] in ("Published", "Failed", "Cancelled")
            return found if over and not truth["counters"]["pending"] else None

        return eventually(quiet)


def eventually(ask: Callable[[], T | None], seconds: float = 5) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := ask()) is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


Starter = Callable[..., Caller]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start a simulator with these settings on top of the fast ones."""
    with contextlib.ExitStack() as stack:

        def started(**settings: Any) -> Caller:
            sim = stack.enter_context(run_in_thread(replace(FAST, **settings)))
            return Caller(sim, stack.enter_context(urllib3.PoolManager()))

        yield started
