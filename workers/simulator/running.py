"""A simulator on a real socket: as a server for whoever owns the process, or in a thread beside a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from workers.simulator.app import application
from workers.simulator.connection import Protocol
from workers.simulator.settings import Settings

_START_SECONDS = 10


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the process, and ends at once: nobody's download is waited for."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)  # the protocols hear of it
        for task in list(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(settings: Settings) -> socket.socket:
    """A listening socket; OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=1024)


def public_url(settings: Settings, bound: socket.socket) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - nothing is bound here
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def server(settings: Settings, bound: socket.socket) -> uvicorn.Server:
    config = uvicorn.Config(
        _ending_quietly(application(settings, public_url(settings, bound))),
        http=Protocol,
        ws="none",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    return _Server(config)


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """A request that is cancelled was cut off by `shutdown`, which is nothing to report."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise

    return quiet


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator in this process. Calls raise RuntimeError on an answer that is not 2xx."""

    url: str
    settings: Settings
    _pool: urllib3.PoolManager

    @property
    def api_url(self) -> str:
        return f"{self.url}/v1/partner"

    def truth(self) -> dict[str, Any]:
        return self._control("GET", "/truth")

    def counters(self) -> dict[str, Any]:
        return self._control("GET", "/counters")

    def produce(self, plan: Mapping[str, object] | None = None) -> str:
        """Start a production by a plan, as `POST /_simulator/productions` takes it; its id."""
        return str(self._control("POST", "/productions", plan or {})["productionId"])

    def release(self, production_id: str) -> None:
        self._control("POST", f"/productions/{production_id}/release", {})

    def relist(self, production_id: str, wanted: Mapping[str, object] | None = None) -> dict[str, Any]:
        return self._control("POST", f"/productions/{production_id}/deliverables", wanted or {})

    def emit(self, event: Mapping[str, object] | None = None) -> dict[str, Any]:
        return self._control("POST", "/events", event or {})

    def subscribe(self, url: str, secret: str) -> str:
        return str(self._control("POST", "/subscriptions", {"url": url, "secret": secret})["webhookId"])

    def set_faults(self, **faults: object) -> None:
        self._control("PATCH", "/faults", faults)

    def _control(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body)
        answer = self._pool.request(method, f"{self.url}/_simulator{path}", body=payload, retries=False)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data.decode()}")
        said: dict[str, Any] = answer.json()
        return said


@contextlib.contextmanager
def run_in_thread(settings: Settings) -> Iterator[Running]:
    """Starts before the block and is gone after it: socket, thread and everything that was under way."""
    bound = bind(settings)
    uvicorn_server = server(settings, bound)
    thread = threading.Thread(target=uvicorn_server.run, args=([bound],), name="simulator", daemon=True)
    thread.start()
    pool = urllib3.PoolManager(maxsize=4)
    running = Running(public_url(settings, bound), settings, pool)
    try:
        pool.request("GET", f"{running.url}/_simulator/health", timeout=_START_SECONDS, retries=False)
        yield running
    finally:
        pool.clear()
        uvicorn_server.should_exit = True
        thread.join()
        bound.close()
