"""Requests that are no requests: heads of every wrong shape, over bare sockets, signed and unsigned."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conftest import assert_well_formed, examples, split_answers
from tests.store.making import event, new_id, signed
from tests.web.conftest import SECRETS, Web, everything, request

POST = b"POST /webhooks/jarai HTTP/1.1\r\n"


def exchange(web: Web, sent: bytes, patience_seconds: float = 10) -> bytes:
    """What is answered to these bytes. Whoever says nothing for so long is told that nothing more comes."""
    got = bytearray()
    with web.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(sent)
        connection.settimeout(patience_seconds)
        try:
            while chunk := connection.recv(65_536):
                got += chunk
        except TimeoutError:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            got += everything(connection)
    return bytes(got)


def events_kept(web: Web) -> int:
    return sum(1 for key in web.redis.scan_iter("jarai:*") if key not in (b"jarai:ready", b"jarai:heard"))


def signature(body: bytes) -> bytes:
    return b"X-JARAI-Signature: " + signed(body, SECRETS[0]).encode()


Make = Callable[[bytes], bytes]


def head(*lines: bytes) -> Make:
    """A signed POST with these lines; `%d` stands for the length of the body."""

    def make(body: bytes) -> bytes:
        filled = [line.replace(b"%d", b"%d" % len(body)) for line in lines]
        return POST + b"\r\n".join([b"Host: x", b"Connection: close", signature(body), *filled, b"", body])

    return make


def chunked(*lines: bytes, extra: bytes = b"", size: Callable[[int], bytes] = lambda n: b"%x" % n) -> Make:
    def make(body: bytes) -> bytes:
        whole = size(len(body)) + extra + b"\r\n" + body + b"\r\n0\r\n\r\n"
        return POST + b"\r\n".join([b"Host: x", b"Connection: close", signature(body), *lines, b"", whole])

    return make


SECOND = b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
# Two readers of one of these may disagree about where the request ends. Ours takes it in one way, or not at all.
AMBIGUOUS: dict[str, Make] = {
    "two lengths": head(b"Content-Length: %d", b"Content-Length: 5"),
    "two lengths in one": head(b"Content-Length: %d, 5"),
    "a length of nothing": head(b"Content-Length:"),
    "a negative length": head(b"Content-Length: -%d"),
    "a length with a sign": head(b"Content-Length: +%d"),
    "a length in hex": head(b"Content-Length: 0x%d"),
    "a length and something": head(b"Content-Length: %d x"),
    "a length beyond numbers": head(b"Content-Length: " + b"9" * 5_000),
    "a length of 2**64": head(b"Content-Length: 18446744073709551616"),
    "a length before a blank": head(b"Content-Length : %d"),
    "a length after a control character": head(b"Content-Length: \x0b%d"),
    "a length on the next line": head(b"Content-Length:\r\n %d"),
    "length and chunks": lambda body: chunked(b"Content-Length: 5", b"Transfer-Encoding: chunked")(body),
    "chunks and length": lambda body: chunked(b"Transfer-Encoding: chunked", b"Content-Length: 5")(body),
    "chunks twice": chunked(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunks of chunks": chunked(b"Transfer-Encoding: chunked, chunked"),
    "not quite chunks": chunked(b"Transfer-Encoding: xchunked"),
    "chunks, then identity": chunked(b"Transfer-Encoding: chunked, identity"),
    "identity": head(b"Content-Length: %d", b"Transfer-Encoding: identity"),
    "chunks after a tab": chunked(b"Transfer-Encoding:\tchunked"),
    "chunks after a control character": chunked(b"Transfer-Encoding: \x0bchunked"),
    "chunks on the next line": chunked(b"Transfer-Encoding:\r\n chunked"),
    "chunks before a blank": chunked(b"Transfer-Encoding : chunked"),
    "a chunk of negative size": chunked(b"Transfer-Encoding: chunked", size=lambda n: b"-%x" % n),
    "a chunk of too large a size": chunked(b"Transfer-Encoding: chunked", size=lambda n: b"f" * 17),
    "a chunk of size 0x": chunked(b"Transfer-Encoding: chunked", size=lambda n: b"0x%x" % n),
    "a chunk with an endless extension": chunked(b"Transfer-Encoding: chunked", extra=b";" + b"x" * 60_000),
    "a chunk with a line feed": chunked(b"Transfer-Encoding: chunked", extra=b";a\nb"),
    "a second request in the body": lambda body: head(b"Content-Length: 0")(b"") + body + SECOND,
    "a bare line feed": lambda body: head(b"Content-Length: %d")(body).replace(b"\r\n", b"\n", 4),
    "a bare carriage return": head(b"X: a\rContent-Length: %d"),
    "a NUL in a value": head(b"X: a\x00b", b"Content-Length: %d"),
    "a NUL in a name": head(b"X\x00Y: b", b"Content-Length: %d"),
    "a header without a name": head(b": b", b"Content-Length: %d"),
    "a header without a colon": head(b"nonsense", b"Content-Length: %d"),
    "a folded header": head(b"X: a\r\n b", b"Content-Length: %d"),
    "an upgrade": head(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d"),
    "a websocket": head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Content-Length: %d"),
    "expects to go on": head(b"Expect: 100-continue", b"Content-Length: %d"),
    "expects the impossible": head(b"Expect: 999-nonsense", b"Content-Length: %d"),
    "compressed": head(b"Content-Encoding: gzip", b"Content-Length: %d"),
    "another method behind": head(b"X-HTTP-Method-Override: DELETE", b"Content-Length: %d"),
}


@pytest.mark.parametrize("make", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_taken_in_one_or_refused(web: Web, make: Make) -> None:
    body = event(new_id(), 1)
    answers = split_answers(exchange(web, make(body)))
    assert answers
    said = [assert_well_formed(status, text).get("status") for status, _, text in answers]
    assert len([one for one in said if one == "accepted"]) == len(list(web.redis.scan_iter("jarai:events:*"))) <= 1
    for kept in web.redis.scan_iter("jarai:events:*"):
        assert web.redis.hvals(kept) == [body]
    assert web.post(event(new_id(), 1)).status == 202


@pytest.mark.parametrize("name", [b"x-jarai-signature", b"X-JARAI-SIGNATURE", b"x-JaRaI-sIgNaTuRe"])
@pytest.mark.parametrize("blank", [b" ", b"", b"\t", b"   "])
def test_the_name_of_the_signature_is_known_in_any_case_and_blanks_around_its_value_do_not_count(
    web: Web, name: bytes, blank: bytes
) -> None:
    body = event(new_id(), 1)
    sent = request(body, b"Connection: close").replace(b"X-JARAI-Signature: ", name + b":" + blank)
    assert web.raw(sent).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    "lines",
    [
        [b"X_JARAI_Signature: %s"],
        [b"X-JARAI-Signature-: %s"],
        [b"X-JARAI-Signature : %s"],
        [b" X-JARAI-Signature: %s"],
        [b"Cookie: X-JARAI-Signature=%s"],
        [b"X: a\nX-JARAI-Signature: %s"],
        [b"X: a\rX-JARAI-Signature: %s"],
        [b"X-JARAI-Signature: %s\x00"],
        [b"X-JARAI-Signature: %s, %s"],
        [b"X-JARAI-Signature: %s;"],
        [b'X-JARAI-Signature: "%s"'],
        [b"X-JARAI-Signature: %s", b"X-JARAI-Signature: sha256=" + b"0" * 64],
    ],
    ids=range(12),
)
def test_a_signature_anywhere_else_or_in_any_other_form_is_none(web: Web, lines: list[bytes]) -> None:
    body = event(new_id(), 1)
    given = [line.replace(b"%s", signed(body, SECRETS[0]).encode()) for line in lines]
    sent = POST + b"\r\n".join([b"Host: x", b"Connection: close", *given, b"Content-Length: %d" % len(body), b"", body])
    [(status, _, text)] = split_answers(exchange(web, sent))
    assert status in (400, 401), text
    assert events_kept(web) == 0


METHODS = [
    b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get", b"P O", b"",
]  # fmt: skip
PATHS = [
    b"/", b"*", b"//", b"/webhooks/jarai", b"/webhooks/jarai/", b"/webhooks//jarai", b"/webhooks/jarai?x=%00",
    b"/webhooks/jarai#f", b"/webhooks/%6aarai", b"/webhooks/jarai%00", b"/healthz", b"/healthz/", b"/../healthz",
    b"/productions/%2e%2e/x", b"/productions/%ff", b"/productions/%", b"/productions?limit=%ff&after=%00",
    b"/deadletters/%0d%0aX:y", b"/deadletters/\xc3\xa9/retry", b"/metrics", b"http://other/healthz",
    b"http://x:y@/", b"https:///", b"other:80", b"/" + b"a" * 9000, b"/?" + b"&" * 9000, b"", b"/\x00", b"/ /",
]  # fmt: skip
VERSIONS = [
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"http/1.1", b"HTTP/1.1 x", b"", b"HTTP/",
]  # fmt: skip
NAMES = [
    b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect",
    b"X-JARAI-Signature", b"Authorization", b"Content-Type", b"X-Forwarded-For", b"X-Forwarded-Proto", b"Forwarded",
    b"TE", b"Trailer", b"Range", b"Cookie", b"",
]  # fmt: skip
VALUES = [
    b"", b"0", b"5", b"-1", b"chunked", b"identity", b"close", b"keep-alive", b"upgrade", b"h2c", b"websocket",
    b"100-continue", b"Bearer \xff", b"Bearer", b"sha256=" + b"0" * 64, b"sha256=", b"\x00", b"a" * 9000,
    b"\x1b[2J", b"127.0.0.1", b"bytes=0-",
]  # fmt: skip
ENDS = [b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n ", b"\r\r\n", b"\x00\r\n"]
headers = st.tuples(st.sampled_from(NAMES) | st.binary(max_size=8), st.sampled_from(VALUES) | st.binary(max_size=20))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    line = b" ".join(draw(st.sampled_from(part)) for part in (METHODS, PATHS, VERSIONS))
    lines = [name + b": " + value for name, value in draw(st.lists(headers, max_size=6))]
    ends = st.sampled_from(ENDS)
    return b"".join(part + draw(ends) for part in [line, *lines]) + draw(ends) + draw(st.binary(max_size=30))


def test_whatever_comes_is_answered_as_documented_or_the_connection_ends(web: Web) -> None:
    """Several on one connection, cut off anywhere, none of them signed."""
    before = len(web.lines())

    @examples(300)
    @given(st.lists(requests(), min_size=1, max_size=3), st.none() | st.integers(0, 400))
    def run(sent: list[bytes], cut: int | None) -> None:
        got = exchange(web, b"".join(sent)[:cut], 0.03)
        assert b"Traceback" not in got
        if b"HEAD" in b"".join(sent):  # the length of its answer is that of a body which is not sent
            assert b"HTTP/1.1 5" not in got
            return
        for status, _, text in split_answers(got):
            if (status, text) == (200, b'{"status":"ok"}'):
                continue
            assert_well_formed(status, text)

    run()
    assert events_kept(web) == 0
    assert web.post(event(new_id(), 1)).status == 202
    for line in web.lines()[before:]:
        assert "exception" not in line, line
        assert line["level"] != "error", line
