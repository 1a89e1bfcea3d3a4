"""Connections to the outside, with TLS and without: judged where they really lead, and limited as a whole."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from urllib3.util import Timeout

from service.core.errors import LinkForbidden
from service.outgoing import break_off, open_pool, read_into, within
from tests.workers.hostile import Hostile, head, hostile, whole

TIMEOUT = Timeout(connect=3, read=3)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of a server that is called `localhost`, and of nothing else."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path / "pem"


@contextmanager
def over_tls(server: Hostile, certificate: Path) -> Iterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))
    server.wrap = lambda connection: context.wrap_socket(connection, server_side=True)
    yield


def test_tls_still_verifies_the_name_and_not_the_address(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    seen: list[tuple[str, int, str, bool]] = []
    with hostile(whole(b"film")) as server, over_tls(server, certificate):
        pool = open_pool(TIMEOUT, judge=lambda *what: seen.append(what))
        assert pool.request("GET", f"https://localhost:{server.port}/").data == b"film"
        assert seen == [("localhost", server.port, "127.0.0.1", True)]
        with pytest.raises(urllib3.exceptions.SSLError):
            pool.request("GET", f"https://127.0.0.1:{server.port}/")


def test_the_authorities_are_read_once_for_all_connections(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with hostile(whole(b"film")) as server, over_tls(server, certificate):
        pool = open_pool(TIMEOUT)
        assert pool.request("GET", f"https://localhost:{server.port}/").data == b"film"
        certificate.unlink()
        assert pool.request("GET", f"https://localhost:{server.port}/").data == b"film"


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    with hostile(whole(b"film")) as server, over_tls(server, certificate):
        with pytest.raises(urllib3.exceptions.SSLError):
            open_pool(TIMEOUT).request("GET", f"https://localhost:{server.port}/")
        assert server.asked == []


def test_the_whole_is_limited_over_tls_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with hostile(b"") as server, over_tls(server, certificate):
        server.script = lambda asked: server.endless(b"x", head("Content-Length: 100000"), pause=0.02)
        began = time.monotonic()
        with pytest.raises(urllib3.exceptions.TimeoutError), within(0.5):
            open_pool(TIMEOUT).request("GET", f"https://localhost:{server.port}/")
        assert time.monotonic() - began < 3


@contextmanager
def arrived(server: Hostile) -> Iterator[urllib3.BaseHTTPResponse]:
    """The answer, of which all that was sent waits to be read."""
    answer = open_pool(TIMEOUT).request("GET", f"https://localhost:{server.port}/", preload_content=False)
    time.sleep(0.2)
    try:
        yield answer
    finally:
        answer.close()


def test_what_has_come_over_tls_is_read_at_once_and_nothing_more_is_waited_for(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record after the other, a large file took three times as long."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    go, space = threading.Event(), memoryview(bytearray(1_000_000))

    def script(asked: object) -> Iterator[bytes]:
        yield head("Content-Length: 60001") + b"x" * 60_000
        go.wait(5)
        yield b"y"

    with hostile(script) as server, over_tls(server, certificate), arrived(server) as answer:
        assert read_into(answer, space) == 60_000
        go.set()
        assert (read_into(answer, space), bytes(space[:1]), read_into(answer, space)) == (1, b"y", 0)


def test_an_error_of_tls_comes_after_what_was_sent_before_it(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    space = memoryview(bytearray(1_000_000))
    with hostile(b"") as server, over_tls(server, certificate):
        wrap = server.wrap

        def wrapped(connection: socket.socket) -> socket.socket:
            line = wrap(connection)
            server.script = lambda asked: script(line)
            return line

        def script(line: socket.socket) -> Iterator[bytes]:
            yield head("Content-Length: 100000") + b"x" * 50_000
            socket.socket.sendall(line, b"not TLS" * 100)

        server.wrap = wrapped
        with arrived(server) as answer:
            assert read_into(answer, space) == 50_000
            with pytest.raises(urllib3.exceptions.ProtocolError):
                read_into(answer, space)


def test_what_is_broken_off_over_tls_never_brings_what_was_not_decrypted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come and was not read yet lies in the socket as it came."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    space = memoryview(bytearray(1000))
    with hostile(whole(b"x" * 200_000)) as server, over_tls(server, certificate), arrived(server) as answer:
        read_into(answer, space)
        break_off(answer)
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            while size := read_into(answer, space):
                assert space[:size] == b"x" * size


def test_a_server_that_never_answers_the_handshake_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(urllib3.exceptions.HTTPError), within(0.5):
            open_pool(TIMEOUT).request("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/")
        assert time.monotonic() - began < 3


def test_without_a_limit_each_read_keeps_to_its_own() -> None:
    with hostile(b"") as server:
        server.script = lambda asked: server.endless(b"", head("Content-Length: 1"), pause=0.02)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            open_pool(Timeout(connect=3, read=0.3)).request("GET", server.url)


def test_a_connection_that_is_used_again_has_the_limits_of_each_request() -> None:
    """What one request had left of its time is not what the next one gets."""
    with hostile(b"") as server:
        server.script = lambda asked: [whole(b"one")]
        server.keeps_alive = True
        pool = open_pool(TIMEOUT)
        with within(0.3):
            assert pool.request("GET", server.url).data == b"one"
        go = threading.Event()

        def late(asked: object) -> Iterator[bytes]:
            go.wait(0.6)
            yield whole(b"two")

        server.script = late
        with within(2):
            assert pool.request("GET", server.url).data == b"two"
        assert pool.connection_from_url(server.url).num_connections == 1


def test_a_refusal_comes_before_the_connection() -> None:
    def judge(host: str, port: int, address: str, secure: bool) -> None:
        raise LinkForbidden("no")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        with pytest.raises(LinkForbidden):
            open_pool(TIMEOUT, judge=judge).request("GET", f"http://localhost:{listener.getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(whole(b"film")) as server, hostile(whole(b"of the proxy")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert open_pool(TIMEOUT).request("GET", server.url).data == b"film"
        assert proxy.asked == []


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..example", "-" * 300])
def test_a_name_that_is_none_is_an_error_of_the_line(host: str) -> None:
    with pytest.raises(urllib3.exceptions.HTTPError):
        open_pool(TIMEOUT).request("GET", f"http://{host}/")


def test_where_nobody_listens_the_error_is_one_of_the_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        open_pool(TIMEOUT).request("GET", f"http://127.0.0.1:{port}/")
