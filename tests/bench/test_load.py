"""The load generator: what it sends, when an answer is whole, and from when a latency counts."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from service.core.events import parse_envelope
from service.core.signature import verify
from tests.bench import load

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"


def test_every_request_is_a_webhook_that_is_authentic_and_understood() -> None:
    head, _, body = load.request(load.event("0f6b8b0e-5f0c-4f0b-9d2e-3a4b5c6d7e8f", 3)).partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert verify(body, headers[b"x-jarai-signature"], [load.KEY]) == 0
    assert int(headers[b"content-length"]) == len(body)
    assert 550 < len(body) < 650
    assert parse_envelope(body)


def test_each_production_has_twenty_events_in_order() -> None:
    found = [parse_envelope(body) for body in load.events(2000)]
    assert set(Counter(one.production_id for one in found).values()) == {load.EVENTS_PER_PRODUCTION}
    mine = [one.sequence_number for one in found if one.production_id == found[0].production_id]
    assert mine == list(range(1, load.EVENTS_PER_PRODUCTION + 1))


def test_an_answer_is_whole_with_the_last_byte_of_its_body() -> None:
    answers = load.Answers()
    assert [answers.whole(ANSWER[:end]) for end in (10, len(ANSWER) - 1, len(ANSWER))] == [False, False, True]


def test_an_answer_that_is_no_2xx_ends_the_measurement() -> None:
    with pytest.raises(RuntimeError, match="503"):
        load.Answers().whole(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def stalling() -> Iterator[int]:
    """A server for one connection, that lets the first request wait for 200 ms."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for number in range(20):
                    connection.recv(65536)
                    time.sleep(0.2 if number == 0 else 0)
                    connection.sendall(ANSWER)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def test_in_an_open_loop_a_stall_counts_for_everybody_who_was_due_meanwhile(stalling: int) -> None:
    found = load.run(stalling, [b"request"] * 20, rate=100, connections=1)
    assert found["p50_ms"] > 50


def test_in_a_closed_loop_it_counts_for_one(stalling: int) -> None:
    found = load.run(stalling, [b"request"] * 20, connections=1)
    assert found["p50_ms"] < 50 < 200 <= found["max_ms"]
