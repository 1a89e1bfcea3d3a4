"""Whatever JARAI's address answers: asking ends in time, what is known stays readable, and no storm follows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
import zlib
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.core.observations import OperatorAsked
from service.core.partner_api import LARGEST_ANSWER_BYTES
from service.core.production import Production
from service.jarai import Jarai
from service.settings import load
from service.store import inbox, productions
from service.store.scripts import PREFIX
from tests.core.given import json_values
from tests.store.making import event, logged, new_id, take_in, values_of
from tests.workers.hostile import Hostile, chunked, head, hostile, whole
from workers.asker import Asker

KEY = "jarai_test_s3cr3ts3cr3ts3cr3t"
SHORT_SECONDS = 0.6


def ask(redis: Redis, server: Hostile, *, wants_list: bool = False) -> Production:
    """One question about a new production, and what must hold whatever the answer was."""
    identity = new_id()
    if wants_list:
        take_in(redis, event(identity, 1, "deliverable.ready", truncated=True, data={}))
    inbox.observe(redis, identity, OperatorAsked(productions.now(redis), "refresh"))
    take_in(redis)
    asker = Asker(redis, Jarai(server.url, KEY, SHORT_SECONDS), load({}, dotenv=None))
    before, began = len(server.asked), time.monotonic()
    with logged() as lines:
        assert asker.ask_once()
        assert time.monotonic() - began < SHORT_SECONDS + 5
        for _ in range(2):  # the list may follow the status, or the status the list; then it is quiet
            take_in(redis)
            asker.ask_once()
        take_in(redis)
        assert not asker.ask_once()
    assert 1 <= len(server.asked) - before <= 2
    assert redis.zcard(f"{PREFIX}requests:flying") == 0
    assert KEY not in lines.getvalue()
    assert "s3cr3t" not in lines.getvalue()
    assert all(isinstance(json.loads(line), dict) for line in lines.getvalue().splitlines())
    known = productions.read(redis, identity)
    assert known is not None
    assert known.due_to_ask_at is not None or known.settled or known.refused is not None
    return known


def fresh(redis: Redis) -> None:
    for key in redis.scan_iter(f"{PREFIX}*"):
        redis.delete(key)


STATUS = b'{"status": "Producing"}'
USELESS = {
    "nothing": b"",
    "not HTTP": b"\x16\x03\x01\x00\xa5 hello\r\n\r\n",
    "another version": b"HTTP/5.0 200 OK\r\n\r\n" + STATUS,
    "no number": b"HTTP/1.1 twohundred OK\r\n\r\n",
    "a number without end": b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a flood of headers": head(*["A: b"] * 20_000) + STATUS,
    "large headers": head("Content-Length: 2", *["A: " + "b" * 60_000] * 98) + b"{}",
    "a header without end": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 300_000,
    "lines that are no headers": head("no colon here", "  folded", ": empty", "\x00: \x01") + b"{}",
    "a length that is too long": head("Content-Length: 999") + STATUS,
    "two lengths": head("Content-Length: 5", "Content-Length: 23") + STATUS,
    "a length of many digits": head("Content-Length: " + "9" * 5000) + STATUS[:-1],
    "chunks that break off": head("Transfer-Encoding: chunked") + chunked([STATUS], b""),
    "a chunk of no size": head("Transfer-Encoding: chunked") + b"film\r\n" + STATUS,
    "a chunk of a negative size": head("Transfer-Encoding: chunked") + b"-5\r\n" + STATUS,
    "an endless size of a chunk": head("Transfer-Encoding: chunked") + b"1" * 100_000,
    "no gzip": whole(STATUS, "Content-Encoding: gzip"),
    "half a gzip": whole(gzip.compress(STATUS * 100)[:-30], "Content-Encoding: gzip"),
    "gzip again and again": whole(STATUS, "Content-Encoding: " + ", ".join(["gzip"] * 50)),
    "an unknown coding": whole(b"\x01" + STATUS, "Content-Encoding: made-up"),
    "a page": whole(b"<html>", "Content-Type: text/html"),
    "XML": whole(b"<?xml version='1.0'?><status>Producing</status>"),
    "a text": whole(b'"Producing"'),
    "a number": whole(b"1e999"),
    "not a number": whole(b'{"status": NaN}'),
    "deep": whole(b"[" * 100_000),
    "deep objects": whole(b'{"a":' * 100_000),
    "another code page": whole(b'{"status": "\xff\xfe"}'),
    "half a surrogate": whole(b'{"status": "\\ud800"}'),
    "a status in control characters": whole(b'{"status": "Produ\\u001b[2Jcing\\n"}'),
    "a number of many digits": whole(b'{"status": ' + b"9" * 100_000 + b"}"),
    "no content": head(status="204 No Content"),
    "not modified": head(status="304 Not Modified"),
    "too large": whole(b" " * (LARGEST_ANSWER_BYTES + 1)),
    "a bomb": whole(gzip.compress(bytes(64 * 1024 * 1024)), "Content-Encoding: gzip"),
    "a bomb in a bomb": whole(zlib.compress(zlib.compress(bytes(64 * 1024**2))), "Content-Encoding: deflate, deflate"),
}


@pytest.mark.parametrize("wants_list", [False, True])
@pytest.mark.parametrize("what", USELESS)
def test_an_answer_that_is_no_use_is_asked_for_again_later(redis: Redis, what: str, wants_list: bool) -> None:
    with hostile(USELESS[what]) as server:
        known = ask(redis, server, wants_list=wants_list)
    assert known.status != "Producing"
    assert known.status is None or known.status.isprintable()


@pytest.mark.parametrize(
    ("begin", "piece", "pause"),
    [
        (b"", b"H", 0.02),
        (b"HTTP/1.1 200 OK\r\n", b"a", 0.02),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.02),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
        (head("Content-Length: 100000"), b" ", 0.02),
        (head("Transfer-Encoding: chunked"), b"0", 0.02),
        (head("Transfer-Encoding: chunked") + b"1;", b"x", 0.02),
        (head("Transfer-Encoding: chunked") + b"0\r\n", b"A: b\r\n", 0.0),
        (head("Transfer-Encoding: chunked"), b"1\r\n \r\n", 0.02),
        (head(), b" " * 65536, 0.0),
        (head("Content-Encoding: gzip") + gzip.compress(b"", mtime=0)[:10], b"\x00\x00\x00\xff\xff", 0.0),
    ],
)
def test_an_answer_without_end_is_left_in_time(redis: Redis, begin: bytes, piece: bytes, pause: float) -> None:
    """Each single read would be in time; their sum is what has no end."""
    with hostile(b"") as server:
        server.script = lambda asked: server.endless(piece, begin, pause)
        assert ask(redis, server).ask_failures == 1


_READ = """
import resource, sys
from datetime import UTC, datetime
from service.core.errors import JaraiError
from service.core.partner_api import Request, read_deliverables
from service.jarai import Jarai
jarai = Jarai(sys.argv[1], "")
for number in range(int(sys.argv[2])):
    try:
        read_deliverables(jarai.call(Request("GET", f"/{number}")), datetime.now(UTC))
    except JaraiError:
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
LARGE = {
    "lists": b"[" + b"[]," * (LARGEST_ANSWER_BYTES // 3 - 1) + b"0]",
    "objects": b"[" + b"{}," * (LARGEST_ANSWER_BYTES // 3 - 1) + b"0]",
    "addresses": b"[" + b'{"sasUrl":"a"},' * (LARGEST_ANSWER_BYTES // 15 - 1) + b"0]",
    "a text": b'["' + b"x" * (LARGEST_ANSWER_BYTES - 4) + b'"]',
}


def test_memory_stays_bounded_whatever_is_answered() -> None:
    answers = [whole(b"[]"), *map(whole, LARGE.values()), USELESS["a bomb"], USELESS["large headers"]]
    with hostile(lambda asked: answers[int(asked.path[1:])]) as server:
        server.keeps_alive = True  # a question that crosses with a hanging up would not be counted
        done = subprocess.run(
            [sys.executable, "-c", _READ, server.url, str(len(answers))],
            capture_output=True, text=True, check=True, timeout=50,
        )  # fmt: skip
    usual, *peaks = [int(line) for line in done.stdout.split()]
    assert len(server.asked) == len(answers)
    assert peaks[-1] - usual <= 120, "MiB"


@pytest.mark.parametrize("location", ["/elsewhere", "http://127.0.0.1:{port}/elsewhere", "//evil.example/", "file:///"])
@pytest.mark.parametrize("status", ["301 M", "302 F", "307 T", "308 P"])
def test_a_redirect_is_never_followed_with_the_key(redis: Redis, location: str, status: str) -> None:
    with hostile(whole(STATUS)) as other, hostile(b"") as server:
        answer = whole(b"", f"Location: {location.format(port=other.port)}", status=status)
        server.script = lambda asked: answer
        assert ask(redis, server).status is None
        assert other.asked == []


HEADERS = {
    "no limits": ["X-RateLimit-Limit: -1", "X-RateLimit-Remaining: NaN", "X-RateLimit-Reset: soon"],
    "huge limits": [f"X-RateLimit-{name}: {'9' * 5000}" for name in ("Limit", "Remaining", "Reset")],
    "two limits": ["X-RateLimit-Limit: 5", "X-RateLimit-Limit: 500", "X-RateLimit-Remaining: 1, 2"],
    "limits in other digits": ["X-RateLimit-Limit: \xb2\xb3", "X-RateLimit-Remaining: \xbd"],
    "no date": ["Date: yesterday"],
    "an empty date": ["Date:"],
    "a date before time": ["Date: Mon, 01 Jan 0001 00:00:00 +2359"],
    "a date behind time": ["Date: Fri, 31 Dec 9999 23:59:59 -2359"],
    "a date of many digits": ["Date: Fri, 31 Dec " + "9" * 5000 + " 23:59:59 GMT"],
    "a date in no zone": ["Date: Fri, 03 Apr 2026 14:30:00 -0000"],
    "a date in a zone without end": ["Date: Fri, 03 Apr 2026 14:30:00 +99999999999999999999"],
    "two dates": ["Date: Fri, 03 Apr 2026 14:30:00 GMT", "Date: Fri, 03 Apr 2026 14:30:01 GMT"],
    "control characters": ["X-Correlation-Id: a\x00\x1b[31m\x07\x7f\x9b\xa0", "X-Correlation-Id: b\x0b\x0c\x85"],
    "a long correlation id": ["X-Correlation-Id: " + "c" * 60_000],
    "the key": [f"X-Correlation-Id: {KEY}"],
    "a wrong type": ["Content-Type: image/png; charset=utf-32"],
    "cookies": ["Set-Cookie: a=b"] * 50,
    "hang on": ["Connection: keep-alive, upgrade", "Upgrade: h2c", "Keep-Alive: timeout=999999"],
}


@pytest.mark.parametrize("what", HEADERS)
def test_nonsense_in_the_headers_does_not_spoil_an_answer(redis: Redis, what: str) -> None:
    with hostile(whole(STATUS, *HEADERS[what])) as server:
        known = ask(redis, server)
    assert known.status == "Producing"
    assert known.due_to_ask_at is not None
    assert known.due_to_ask_at < productions.now(redis) + timedelta(minutes=10)
    for text in values_of(redis).values():
        assert not any(mark in text for mark in ("\\x1b", "\x1b", "\\u001b", "\\x85", "\x85"))


@pytest.mark.parametrize("status", [401, 404, 429, 503, 999])
@pytest.mark.parametrize(
    "advice",
    [
        (b"{}", "Retry-After: 0"),
        (b"{}", "Retry-After: -1"),
        (b"{}", "Retry-After: " + "9" * 5000),
        (b"{}", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"),
        (b'{"retryAfterSeconds": 0}', "X-RateLimit-Limit: 999999"),
        (b'{"retryAfterSeconds": 1e-300}', "X-RateLimit-Remaining: 999999"),
        (b'{"retryAfterSeconds": -0.0}', "Retry-After: 0"),
        (b'{"retryAfterSeconds": 1e999}', "Retry-After: 0"),
        (b'{"retryAfterSeconds": NaN, "error": 5, "message": {}}', "X-RateLimit-Reset: 0"),
        (b'{"error": "\\u001b[2J", "message": "' + KEY.encode() + b'\\nforged"}', "Content-Type: text/plain"),
    ],
)
def test_no_error_and_no_advice_in_it_makes_a_storm(redis: Redis, status: int, advice: tuple[bytes, str]) -> None:
    body, header = advice
    with hostile(whole(body, header, status=f"{status} No")) as server:
        ask(redis, server)


def test_being_told_to_come_back_at_once_again_and_again_makes_no_storm(redis: Redis) -> None:
    """A limit without end and a pause of nothing: what is asked in a second stays countable on one hand."""
    answer = whole(b'{"retryAfterSeconds": 0}', "X-RateLimit-Limit: 999999999", status="429 Too Many")
    with hostile(answer) as server:
        inbox.observe(redis, new_id(), OperatorAsked(productions.now(redis), "refresh"))
        take_in(redis)
        began = time.monotonic()
        asker = Asker(redis, Jarai(server.url, KEY, SHORT_SECONDS), load({}, dotenv=None))
        while time.monotonic() - began < 1.5:
            asker.ask_once()
            asker._not_before = 0.0  # as many pollers would
        assert 1 <= len(server.asked) <= 3


# --- JSON of every wrong shape --------------------------------------------------------------------------------

ODD: st.SearchStrategy[object] = st.sampled_from(
    [
        *(
            "../../etc",
            "C:\\x",
            "CON",
            "",
            " ",
            "\x00",
            "\u202e",
            "x" * 5000,
            f"urn:uuid:{'0' * 32}",
            f"{{{'0' * 32}}}",
        ),
        *("9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00-23:59", "24:00", "2026-W01-1"),
        *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"),
        *("Published", "Failed", "Queued", "AwaitingApproval"),
        *(
            f"https://127.0.0.1/{'a' * 9000}?sig=s3cr3t",
            "https://h/\u2028?sig=s3cr3t",
            "?sig=s3cr3t",
            "//h/x?sig=s3cr3t",
        ),
        *(10**300, -(10**300), 2**63, 1e308, -0.0, True, None, [], {}),
    ]
)
FIELDS = st.sampled_from(
    [
        *("status", "accountId", "errorCode", "errorMessage", "expiresAt", "sandbox", "data", "deliverables"),
        *("sasUrl", "id", "deliverableId", "type", "fileName", "sizeBytes", "size", "md5", "sha256", "checksum"),
    ]
)
SHAPES = st.recursive(
    ODD | json_values,
    lambda inner: st.dictionaries(FIELDS, inner, max_size=5) | st.lists(inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize(
    "date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "1 Jan 2150 00:00 GMT"]
)
@pytest.mark.parametrize("expiry", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None])
def test_a_list_out_of_its_time_is_taken_in_all_the_same(redis: Redis, date: str, expiry: str | None) -> None:
    listed = {"id": "d", "sasUrl": "https://h/film.mp4?sig=s3cr3t", "expiresAt": expiry}
    with hostile(whole(json.dumps([listed]).encode(), f"Date: {date}")) as server:
        known = ask(redis, server, wants_list=True)
    assert [one.id for one in known.deliverables] == ["d"]
    assert not redis.zcard(f"{PREFIX}deadletters")


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("status", ["Queued", "Producing", "Published"])
def test_an_expiry_out_of_its_time_does_not_stop_the_asking(redis: Redis, instant: str, status: str) -> None:
    answer = json.dumps({"status": status, "expiresAt": instant}).encode()
    with hostile(whole(answer, "Date: Fri, 31 Dec 9999 23:59:59 GMT")) as server:
        known = ask(redis, server)
    assert known.status == status
    take_in(
        redis,
        event(known.production_id, 5, "production.step.complete"),
        event(known.production_id, 6, "production.published"),
    )
    later = productions.read(redis, known.production_id)
    assert later is not None
    assert later.status == "Published"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(SHAPES, st.booleans())
@example({"status": "Published", "accountId": "../../x"}, False)
@example({"status": "Queued", "expiresAt": "9999-12-31T23:59:59-23:59"}, False)
@example({"sasUrl": "https://h/p?sig=s3cr3t", "sizeBytes": 10**300, "type": "../..", "fileName": "..\\..\\CON"}, True)
@example([{"sasUrl": f"https://h/{n}", "id": "same"} for n in range(50)], True)
def test_json_of_any_shape_is_taken_in_or_asked_for_again(redis: Redis, shape: object, wants_list: bool) -> None:
    fresh(redis)
    with hostile(whole(json.dumps(shape).encode())) as server:
        known = ask(redis, server, wants_list=wants_list)
    for one in known.deliverables:
        place = PurePosixPath(known.folder or "") / one.file
        assert ".." not in place.parts
        assert len(place.parts) == 3


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["cut", "double", "flip", "insert"]), st.integers(0, 400), st.binary(max_size=9))
    )
)
def test_an_answer_that_was_damaged_on_its_way_is_taken_in_or_asked_for_again(
    redis: Redis, damages: list[tuple[str, int, bytes]]
) -> None:
    fresh(redis)
    answer = bytearray(
        head("Date: Fri, 03 Apr 2026 14:30:00 GMT", "X-RateLimit-Limit: 60", "Transfer-Encoding: chunked")
        + chunked([STATUS, b" " * 20])
    )
    for kind, place, what in damages:
        place = min(place, len(answer))
        if kind == "cut":
            del answer[place:]
        elif kind == "double":
            answer[place:place] = answer[place : place + 40]
        elif kind == "flip" and place < len(answer):
            answer[place] ^= 1 + place % 255
        else:
            answer[place:place] = what
    with hostile(bytes(answer)) as server:
        ask(redis, server)
