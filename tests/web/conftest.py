"""A real `jarai-receiver web` for all tests of a module, and the means to send it what no client sends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
from redis import Redis

from tests.deployment import ADMIN_TOKEN, eventually, free_port
from tests.store.making import server, signed

SECRETS = ("c2VjcmV0LW51bWJlci1vbmU", "c2VjcmV0LW51bWJlci10d28=")
MOST_BYTES = 20_000


@dataclass(frozen=True)
class Web:
    """A running web process, its Redis and what it writes."""

    port: int
    redis: Redis
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """With the admin token, unless `headers` bring another Authorization."""
        sent = {"Authorization": f"Bearer {ADMIN_TOKEN}"} | headers
        return urllib3.request(method, self.url + path, body=body, headers=sent, timeout=10, retries=False)

    def post(self, body: bytes, secret: str = SECRETS[0]) -> urllib3.BaseHTTPResponse:
        """A signed webhook."""
        headers = {"X-JARAI-Signature": signed(body, secret)}
        return urllib3.request(
            "POST", f"{self.url}/webhooks/jarai", body=body, headers=headers, timeout=10, retries=False
        )

    def connect(self, timeout: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, request: bytes, timeout: float = 10) -> bytes:
        """The answer to these bytes, up to the end of the connection."""
        with self.connect(timeout) as connection:
            connection.sendall(request)
            return everything(connection)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, answer.data
        return answer.json()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged; anything that is no JSON, such as a traceback, makes this fail."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            got += chunk
    return bytes(got)


def request(body: bytes, *headers: bytes, secret: str = SECRETS[0]) -> bytes:
    """A signed webhook as it goes over the wire."""
    lines = [
        b"POST /webhooks/jarai HTTP/1.1",
        b"Host: x",
        b"X-JARAI-Signature: " + signed(body, secret).encode(),
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextlib.contextmanager
def run_web(
    redis: Redis, folder: Path, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[Web]:
    """The process, ended by SIGTERM with the block unless it has ended already. `prefix`: a command that runs it."""
    port = free_port()
    environment = {
        "REDIS_URL": f"unix://{redis.connection_pool.connection_kwargs['path']}",
        "JARAI_WEBHOOK_SECRETS": ",".join(SECRETS),
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "MAX_BODY_BYTES": str(MOST_BYTES),
        "PORT": str(port),
        "LOG_FORMAT": "json",
    }
    output = folder / "web.log"
    with open(output, "wb") as stream:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "service.cli", "web"],
            env={**os.environ, **environment, **(settings or {})},
            cwd=folder, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    made = Web(port, redis, process, output)
    try:
        eventually(lambda: _answers(made), what="the web's start")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(12)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("the web did not end within 12 seconds of SIGTERM") from None


def _answers(web: Web) -> bool:
    try:
        return urllib3.request("GET", f"{web.url}/healthz", timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture(scope="module")
def _web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with server("--appendonly", "yes", "--save", "") as redis, run_web(redis, tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(_web: Web) -> Web:
    """A web process with an empty Redis. No test may end either."""
    _web.redis.flushall()
    return _web
