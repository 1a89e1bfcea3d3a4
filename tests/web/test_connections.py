"""What a request leaves behind in the process that answered it."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from service.runtime import Runtime
from service.settings import load
from service.store.inbox import Arrival
from service.web import webhooks
from service.web.app import Door, create, listen
from service.web.connections import Connection, _WholeAnswer
from tests.deployment import eventually
from tests.store.making import event, logged, new_id
from tests.web.conftest import SECRETS, everything, request

REQUESTS = 200


@contextlib.contextmanager
def running(redis_url: str) -> Iterator[int]:
    """The web's application behind its own protocol, in this process; its port."""
    settings = load({"REDIS_URL": redis_url, "JARAI_WEBHOOK_SECRETS": SECRETS[0]}, dotenv=None)
    config = uvicorn.Config(
        Door(create(Runtime(settings))),
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        limit_concurrency=9,
    )
    server = uvicorn.Server(config)
    listening = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        eventually(lambda: server.started, what="the server's start")
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(15)


def answered(connection: socket.socket, body: bytes) -> None:
    connection.sendall(request(body))
    answer = b""
    while b'"eventId"' not in answer:
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 202 ")


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_a_webhook_leaves_no_garbage_that_only_a_collection_finds(redis_url: str) -> None:
    """Each collection stops every request for as long as it takes: tens of milliseconds among a few thousand events."""
    bodies = [event(new_id(), 1) for _ in range(REQUESTS)]
    with running(redis_url) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        answered(connection, event(new_id(), 1))
        gc.collect()
        for body in bodies:
            answered(connection, body)
        assert gc.collect() < REQUESTS / 2


def test_a_defect_at_the_door_is_answered_500_and_the_log_says_which(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(body: bytes) -> Arrival:
        raise LookupError("a defect of ours")

    monkeypatch.setattr(webhooks, "arrival", broken)
    with logged() as said, running(redis_url) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request(event(new_id(), 1)))
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'"INTERNAL_ERROR"' in answer
    [line] = [line for line in said.getvalue().splitlines() if "library.said" in line]
    assert "LookupError: a defect of ours" in line


class Wire:
    """A transport that only notes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


def test_head_and_body_leave_together_and_leave_to_send_at_once() -> None:
    wire = Wire()
    answer = _WholeAnswer(wire)  # type: ignore[arg-type]
    answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    for part in (b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"two"):
        answer.write(part)
    assert wire.written[1:] == [b"HTTP/1.1 200 OK\r\n\r\none", b"two"]
