"""Connections by the thousand, slow, endless and silent ones: what they may cost, and that the door stays open."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.deployment import ADMIN_TOKEN, eventually
from tests.fuzz.conftest import MOST_BYTES, assert_well_formed, memory_mib, reset_peak, split_answers
from tests.store.making import event, keep, new_id, server
from tests.web.conftest import Web, everything, request, run_web

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process in /proc")

# The promise of SECURITY.md.
MOST_MIB = 512
HEAD = b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\n"


def answered_within(web: Web, seconds: float) -> None:
    started = time.monotonic()
    assert web.post(event(new_id(), 1)).status == 202
    assert time.monotonic() - started < seconds


def sent_until_refused(connection: socket.socket, piece: bytes, most: int) -> int:
    """How many bytes the other side took before it closed, or `most`."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
            if select.select([connection], [], [], 0)[0]:
                break
    return sent


@contextlib.contextmanager
def open_connections(web: Web, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(web.connect()) for _ in range(number)]


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", b"a" * 65_536),
        (HEAD, b"X-Filler: " + b"a" * 65_536),
        (HEAD + b"X-Filler: ", b"a" * 65_536),
        (HEAD, b"X-Filler: a\r\n" * 5_000),
        (HEAD, b"a:\r\n" * 16_000),
        (HEAD + b"X-Folded: a\r\n", b" a\r\n" * 16_000),
        (b"", b"\r\n" * 32_000),
    ],
    ids=["address", "header", "value", "many headers", "many tiny headers", "folded header", "blank lines"],
)
def test_a_head_without_end_is_refused_soon_and_costs_nothing(web: Web, start: bytes, piece: bytes) -> None:
    before = memory_mib(web)
    with web.connect() as connection:
        connection.sendall(start)
        sent = sent_until_refused(connection, piece, 64 * MOST_BYTES)
        assert sent < 16 * MOST_BYTES, "it went on reading"
    assert memory_mib(web) - before < 16
    answered_within(web, 2)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"a" * 20_000,
        HEAD + b"X: a\r\n" * 200,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x",
    ],
    ids=["large header", "many headers", "long address"],
)
def test_too_large_a_head_is_answered_431_in_the_form_of_every_error(web: Web, head: bytes) -> None:
    [(status, headers, body)] = split_answers(web.raw(head + b"\r\n\r\n"))
    assert status == 431
    assert headers["connection"] == "close"
    assert assert_well_formed(status, body)["error"] == "HEADERS_TOO_LARGE"


def test_what_is_no_http_is_answered_400_in_the_form_of_every_error(web: Web) -> None:
    [(status, headers, body)] = split_answers(web.raw(b"nonsense\r\n\r\n"))
    assert (status, headers["connection"], headers["content-type"]) == (400, "close", "application/json")
    assert assert_well_formed(status, body)["error"] == "INVALID_REQUEST"


SLOW: dict[str, bytes] = {
    "says nothing": b"",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 10\r\n\r\nabc",
    "a body nobody reads": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    "half of a second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nPOST /web",
}
DRIPS: dict[str, bytes] = {
    "a head": HEAD + b"X: ",
    "a body": HEAD + b"Content-Length: 100000\r\n\r\n",
    "a body nobody reads": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    "blank lines": b"\r\n",
}


def closed(connection: socket.socket, drip: bytes) -> bool:
    try:
        if drip:
            connection.send(drip)
        return connection.recv(65_536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_connection_that_does_not_bring_a_whole_request_is_closed_in_time(web: Web) -> None:
    """Else a few thousand keep everybody out for ever; also where something always comes, a byte at a time."""
    with contextlib.ExitStack() as stack:
        opened = {name: (stack.enter_context(web.connect()), b"") for name in SLOW}
        opened |= {f"drips {name}": (stack.enter_context(web.connect()), b"\n") for name in DRIPS}
        for name, (connection, _) in opened.items():
            connection.sendall({**SLOW, **{f"drips {name}": start for name, start in DRIPS.items()}}[name])
            connection.setblocking(False)

        def all_closed() -> bool:
            for name in [name for name, (connection, drip) in opened.items() if closed(connection, drip)]:
                del opened[name]
            return not opened

        with contextlib.suppress(AssertionError):
            eventually(all_closed, 20)
        assert list(opened) == []


def test_whoever_asks_for_more_than_it_reads_costs_little(web: Web) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", web.port))
        connection.setblocking(False)
        asked = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 500
        before = memory_mib(web)
        deadline = time.monotonic() + 3
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < deadline:
                try:
                    connection.send(asked)
                except BlockingIOError:
                    writable([connection.fileno()])
        assert memory_mib(web) - before < 32
    answered_within(web, 2)


def test_whoever_does_not_read_its_answers_is_cut_off(web: Web) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % ADMIN_TOKEN.encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", web.port))
        connection.sendall(ask * 500)
        port = connection.getsockname()[1]

        def is_open() -> bool:
            opened = psutil.Process(web.process.pid).net_connections("tcp")
            return any(one.raddr and one.raddr.port == port for one in opened)

        eventually(is_open, 5, "the connection")
        eventually(lambda: not is_open(), 20, "the end of a connection that reads nothing")


def test_thousands_of_silent_connections_keep_nobody_out_for_long(web: Web, many_files: int) -> None:
    """More than are taken at all: those beyond are sent away at once, the silent ones after a while."""
    number = min(5_000, many_files - 500)
    with open_connections(web, number):
        assert psutil.Process(web.process.pid).num_fds() < 4_096 + 128
        eventually(lambda: _accepts(web), 25, "a place at the door")
        assert memory_mib(web) < MOST_MIB
    answered_within(web, 5)


def test_a_process_with_few_files_still_answers_behind_a_crowd(tmp_path: Path, many_files: int) -> None:
    few = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    with server("--appendonly", "yes", "--save", "") as redis, run_web(redis, tmp_path, prefix=few) as web:
        with open_connections(web, 600):
            eventually(lambda: _accepts(web), 25, "a place at the door")
            assert web.call("GET", "/readyz").status == 200
        answered_within(web, 5)
        assert not [line for line in web.lines() if "exception" in line]


def test_memory_is_bounded_while_thousands_of_connections_bring_the_largest_bodies(web: Web, many_files: int) -> None:
    """3,000 connections: each announces the largest body, brings most of it as far as it may, and waits."""
    number = min(3_000, many_files - 500)
    answered_within(web, 2)
    reset_peak(web)
    body = b"x" * (MOST_BYTES - 1_000)
    head = HEAD + b"Content-Length: %d\r\n\r\n" % MOST_BYTES
    with open_connections(web, number) as opened:
        for connection in opened:
            connection.setblocking(False)
        waiting = {connection.fileno(): (connection, memoryview(head + body)) for connection in opened}
        deadline = time.monotonic() + 8
        while waiting and time.monotonic() < deadline:
            for fileno in writable(list(waiting)):
                connection, left = waiting[fileno]
                try:
                    left = left[connection.send(left[:65_536]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    del waiting[fileno]
                    continue
                waiting[fileno] = (connection, left)
                if not left:
                    del waiting[fileno]
            assert web.process.poll() is None
    peak = memory_mib(web, "VmHWM")
    print(f"peak {peak} MiB")
    assert peak < MOST_MIB
    assert len(list(web.redis.scan_iter("*events*"))) == 1
    eventually(lambda: _accepts(web), 10, "a place at the door")
    answered_within(web, 2)


def writable(files: list[int]) -> list[int]:
    """Those that take more now; `select` knows no more than 1,024 files."""
    poll = select.poll()
    for fileno in files:
        poll.register(fileno, select.POLLOUT)
    return [fileno for fileno, _ in poll.poll(200)]


def filled(filling: bytes) -> bytes:
    """A sound event that is as large as it may be, full of `filling`."""
    body = event(new_id(), 1, data={"x": [0]})
    return body.replace(b"[0]", b"[0" + filling * ((MOST_BYTES - len(body)) // len(filling)) + b"]")


@pytest.mark.parametrize("filling", [b",[]", b',"a"'], ids=lambda filling: filling.decode())
def test_memory_is_bounded_while_many_of_the_largest_signed_events_wait_for_redis(web: Web, filling: bytes) -> None:
    """Small values are the dearest once they have been parsed: thirty times the size of their text."""
    bodies = [request(filled(filling), b"Connection: close") for _ in range(8)]
    answered_within(web, 2)
    reset_peak(web)
    with ThreadPoolExecutor(16) as pool:
        for answer in pool.map(lambda place: web.raw(bodies[place % 8], 40), range(24)):
            [(status, _, body)] = split_answers(answer)
            assert status in (200, 202, 503)
            assert_well_formed(status, body)
    peak = memory_mib(web, "VmHWM")
    print(f"peak {peak} MiB")
    assert peak < MOST_MIB
    eventually(lambda: _accepts(web), 10, "a place at the door")


def test_listing_dead_letters_with_the_largest_bodies_costs_no_memory(web: Web) -> None:
    for number in range(100):
        keep(web.redis, b"%d" % number + b"x" * (MOST_BYTES - 10))
    before = memory_mib(web)
    reset_peak(web)
    shown = web.get("/deadletters")["deadletters"]
    assert [one["bodyBytes"] for one in shown] == [MOST_BYTES - 8] * 90 + [MOST_BYTES - 9] * 10
    assert memory_mib(web, "VmHWM") - before < 32


def test_thousands_of_pipelined_requests_are_answered_one_by_one(web: Web) -> None:
    bodies = [event(new_id(), 1) for _ in range(2_000)]
    whole = b"".join(request(body) for body in bodies) + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
    reset_peak(web)
    with web.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(whole,))
        sender.start()
        answers = split_answers(everything(connection))
        sender.join()
    assert [status for status, _, _ in answers] == [202] * 2_000 + [200]
    assert memory_mib(web, "VmHWM") < MOST_MIB


def _accepts(web: Web) -> bool:
    body = event(new_id(), 1)
    try:
        with web.connect() as connection:
            connection.sendall(request(body, b"Connection: close"))
            return everything(connection).startswith(b"HTTP/1.1 202 ")
    except OSError:
        return False
