"""`POST /webhooks/jarai`, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import urllib3

from service.core.signature import decode_secret, fingerprint
from service.store import deadletters, heard, productions
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import event, new_id, other_delivery, signed, take_in
from tests.web.conftest import MOST_BYTES, SECRETS, Web, everything, request

PATH = "/webhooks/jarai"


def posted(web: Web, body: bytes, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("POST", web.url + PATH, body=body, headers=headers, timeout=10, retries=False)


def nothing_kept(web: Web) -> bool:
    """Of the webhook: that something came is noted, and `ready` is the health check's."""
    return set(web.redis.scan_iter(f"{PREFIX}*")) <= {f"{PREFIX}{name}".encode() for name in ("ready", "heard")}


def test_an_event_is_answered_only_after_redis_has_it(web: Web) -> None:
    identity = new_id()
    body = event(identity, 1)
    answer = web.post(body)
    assert web.redis.hget(f"{PREFIX}events:{identity}", "1") == body
    assert (answer.status, answer.json()) == (202, {"status": "accepted", "eventId": json.loads(body)["eventId"]})
    assert answer.headers["Content-Type"] == "application/json"


def test_the_same_event_again_is_answered_200_also_under_another_id(web: Web) -> None:
    body = event(new_id(), 1)
    web.post(body)
    for again in (body, other_delivery(body)):
        answer = web.post(again)
        assert (answer.status, answer.json()["status"]) == (200, "duplicate")
        assert answer.json()["eventId"] == json.loads(again)["eventId"]


def test_any_of_the_configured_secrets_is_good(web: Web) -> None:
    assert [web.post(event(new_id(), 1), secret).status for secret in SECRETS] == [202, 202]


def test_it_is_noted_with_which_key_a_webhook_was_signed_and_that_one_was_refused(web: Web) -> None:
    web.redis.delete(f"{PREFIX}heard")
    web.post(event(new_id(), 1), SECRETS[1])
    web.post(event(new_id(), 1), "c29tZWJvZHkgZWxzZQ")
    key = fingerprint(decode_secret(SECRETS[1]))
    eventually(lambda: key in heard.read(web.redis).by_key, what="the note of the key")
    eventually(lambda: heard.read(web.redis).refused_at is not None, what="the note of the refusal")
    known = heard.read(web.redis)
    assert known.last_at is not None
    assert productions.now(web.redis) - known.last_at < timedelta(seconds=10)


def test_upper_case_hex_is_the_same_signature(web: Web) -> None:
    body = event(new_id(), 1)
    digest = signed(body, SECRETS[0]).removeprefix("sha256=")
    assert posted(web, body, **{"X-JARAI-Signature": "sha256=" + digest.upper()}).status == 202


@pytest.mark.parametrize(
    "spoil",
    [
        lambda signature: "",
        lambda signature: signature[:-1] + ("0" if signature[-1] != "0" else "1"),
        lambda signature: signature.removeprefix("sha256="),
        lambda signature: "sha1=" + signature[7:],
        lambda signature: signature + "00",
        lambda signature: signature[:-2],
        lambda signature: signature + "," + signature,
        lambda signature: "sha256=" + "é" * 64,
        lambda signature: "sha256=" + "0" * 64,
        lambda signature: "s" * 8_000,
    ],
)
def test_a_wrong_signature_is_refused_and_nothing_is_kept(web: Web, spoil: Callable[[str], str]) -> None:
    body = event(new_id(), 1)
    spoilt = spoil(signed(body, SECRETS[0])).encode()
    head = b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-JARAI-Signature: %s\r\n" % spoilt
    answer = web.raw(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"INVALID_SIGNATURE" in answer
    assert nothing_kept(web)


def test_no_signature_and_one_made_with_another_secret_are_refused(web: Web) -> None:
    body = event(new_id(), 1)
    assert posted(web, body).status == 401
    assert web.post(body, "YW5vdGhlciBzZWNyZXQ").status == 401
    assert web.post(b"").status == 202  # signed, but nothing: quarantined
    assert posted(web, b"").status == 401


def test_the_signature_covers_every_byte_of_the_body(web: Web) -> None:
    body = event(new_id(), 1)
    signature = signed(body, SECRETS[0])
    assert posted(web, body + b" ", **{"X-JARAI-Signature": signature}).status == 401
    assert nothing_kept(web)


def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_is_not(web: Web) -> None:
    body = event(new_id(), 1, data={"filler": ""})
    filler = "x" * (MOST_BYTES - len(body))
    assert web.post(body.replace(b'"filler": ""', b'"filler": "%s"' % filler.encode())).status == 202
    too_large = body.replace(b'"filler": ""', b'"filler": "%sx"' % filler.encode())
    answer = web.post(too_large)
    assert (answer.status, answer.json()["error"]) == (413, "PAYLOAD_TOO_LARGE")


def test_an_announced_body_that_is_too_large_is_refused_before_it_comes(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000000\r\n\r\n" % PATH.encode())
        assert everything(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_an_announced_length_is_cut_off_at_the_limit(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode())
        sent = 0
        try:
            while sent < 100_000_000:
                connection.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
                sent += 0x4000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert sent < 30_000_000, "the server went on reading"
    assert web.call("GET", "/healthz").status == 200
    eventually(lambda: any(line.get("status") == 413 for line in web.lines()), what="its line in the log")


def test_the_answer_to_an_endless_body_arrives_and_ends_the_connection(web: Web) -> None:
    with web.connect() as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode())
        connection.sendall(b"%x\r\n" % (MOST_BYTES + 1) + b"x" * (MOST_BYTES + 1) + b"\r\n")
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "NONSENSE"])
def test_every_other_method_is_405(web: Web, method: str) -> None:
    answer = web.call(method, PATH)
    assert answer.status in ((405,) if method != "NONSENSE" else (400, 405))
    if answer.status == 405:
        assert answer.headers["Allow"] == "POST"
        assert method == "HEAD" or answer.json()["error"] == "METHOD_NOT_ALLOWED"


def test_an_unknown_type_of_event_is_accepted_and_kept(web: Web) -> None:
    identity = new_id()
    body = event(identity, 1, "production.rêverie", futureField={"x": [1, None]})
    assert web.post(body).status == 202
    assert web.redis.hget(f"{PREFIX}events:{identity}", "1") == body


def test_a_test_event_makes_no_production(web: Web) -> None:
    nil = "00000000-0000-0000-0000-000000000000"
    answer = web.post(event(nil, 1, "webhook.test", accountId=nil))
    assert (answer.status, answer.json()["status"]) == (202, "accepted")
    assert nothing_kept(web)


ENVELOPE = json.loads(event("3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11", 1))
REQUIRED = ("eventId", "eventType", "productionId", "accountId", "timestamp", "sequenceNumber")
WRONG: dict[str, bytes] = {
    "not JSON": b"not json",
    "empty": b"",
    "only spaces": b"  \r\n",
    "a list": b"[]",
    "null": b"null",
    "cut off": json.dumps(ENVELOPE).encode()[:-1],
    "two documents": json.dumps(ENVELOPE).encode() * 2,
    "bad UTF-8": json.dumps(ENVELOPE).encode().replace(b"production.step", b"\xff\xfe.step"),
    "UTF-16": json.dumps(ENVELOPE).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(ENVELOPE).encode(),
    "NaN": json.dumps(ENVELOPE | {"data": {"x": float("nan")}}).encode(),
    "Infinity": json.dumps(ENVELOPE | {"data": {"x": float("-inf")}}).encode(),
    "a lone surrogate": json.dumps(ENVELOPE | {"data": {"x": "\ud800"}}).encode(),
    "5,000 deep": json.dumps(ENVELOPE).encode().replace(b"{}", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "5,000 deep, unclosed": b"[" * 5000,
    "5,000 digits": json.dumps(ENVELOPE).encode().replace(b"{}", b'{"x":' + b"7" * 5000 + b"}"),
    "a number of 5,000 digits": json.dumps(ENVELOPE).encode().replace(b": 1,", b": " + b"7" * 5000 + b","),
    **{f"no {name}": json.dumps({k: v for k, v in ENVELOPE.items() if k != name}).encode() for name in REQUIRED},
    **{f"{name} null": json.dumps(ENVELOPE | {name: None}).encode() for name in REQUIRED},
    **{f"{name} a list": json.dumps(ENVELOPE | {name: []}).encode() for name in REQUIRED},
    "a negative number": json.dumps(ENVELOPE | {"sequenceNumber": -1}).encode(),
    "a number as text": json.dumps(ENVELOPE | {"sequenceNumber": "1"}).encode(),
    "half a number": json.dumps(ENVELOPE | {"sequenceNumber": 1.5}).encode(),
    "a truth value for a number": json.dumps(ENVELOPE | {"sequenceNumber": True}).encode(),
    "too large a number": json.dumps(ENVELOPE | {"sequenceNumber": 2**53}).encode(),
    "no instant": json.dumps(ENVELOPE | {"timestamp": "yesterday"}).encode(),
    "an instant before time": json.dumps(ENVELOPE | {"timestamp": "0001-01-01T00:00:00+14:00"}).encode(),
    "no id": json.dumps(ENVELOPE | {"productionId": "../../etc"}).encode(),
    "data a list": json.dumps(ENVELOPE | {"data": []}).encode(),
    "truncated a text": json.dumps(ENVELOPE | {"truncated": "yes"}).encode(),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_a_signed_body_that_can_not_be_used_is_kept_byte_for_byte(web: Web, body: bytes) -> None:
    answer = web.post(body)
    assert (answer.status, answer.json()["status"]) == (202, "quarantined")
    [letter] = deadletters.newest(web.redis, 9)
    assert (letter.body, letter.reason) == (body, answer.json()["reason"])
    assert not list(web.redis.scan_iter(f"{PREFIX}inbox:*"))


def test_another_event_under_a_number_that_is_taken_is_quarantined_with_its_id(web: Web) -> None:
    identity = new_id()
    web.post(event(identity, 1))
    other = event(identity, 1, data={"step": 2})
    answer = web.post(other)
    assert (answer.status, answer.json()["status"]) == (202, "quarantined")
    assert answer.json()["eventId"] == json.loads(other)["eventId"]


def test_a_number_that_overflows_does_not_break_the_timeline(web: Web) -> None:
    identity = new_id()
    body = event(identity, 1, "production.extra", data={"x": "!"}).replace(b'"!"', b"1e999")
    answer = web.post(body)
    assert answer.status == 202
    if answer.json()["status"] == "accepted":
        take_in(web.redis)
        assert web.call("GET", f"/productions/{identity}/timeline").status == 200


def test_pipelined_requests_each_get_their_answer_in_order(web: Web) -> None:
    identity = new_id()
    bodies = [event(identity, number) for number in range(1, 21)]
    answers = web.raw(b"".join(request(body) for body in bodies[:-1]) + request(bodies[-1], b"Connection: close"))
    ids = [json.loads(body)["eventId"].encode() for body in bodies]
    assert answers.count(b"HTTP/1.1 202 ") == 20
    assert [answers.index(one) for one in ids] == sorted(answers.index(one) for one in ids)
    assert web.redis.llen(f"{PREFIX}inbox:{identity}") == 20


def test_a_slow_body_is_taken_and_holds_nobody_up(web: Web) -> None:
    whole = request(event(new_id(), 1), b"Connection: close")
    with web.connect() as slow:
        slow.sendall(whole[:-30])
        assert web.post(event(new_id(), 1)).status == 202
        for place in range(len(whole) - 30, len(whole)):
            slow.sendall(whole[place : place + 1])
        assert everything(slow).startswith(b"HTTP/1.1 202 ")


def test_a_sender_that_goes_away_in_the_middle_leaves_nothing(web: Web) -> None:
    before = len(web.lines())
    for _ in range(5):
        with web.connect() as connection:
            connection.sendall(request(event(new_id(), 1))[:-30])
    assert web.post(event(new_id(), 1)).status == 202
    assert len(list(web.redis.scan_iter(f"{PREFIX}events:*"))) == 1
    assert all(line["level"] in ("info", "warning") for line in web.lines()[before:])


def test_a_hundred_posts_at_once_are_all_answered_and_kept(web: Web) -> None:
    bodies = [event(new_id(), 1) for _ in range(100)]
    with ThreadPoolExecutor(100) as pool:
        assert [answer.status for answer in pool.map(web.post, bodies)] == [202] * 100
    assert web.redis.zcard(f"{PREFIX}dirty") == 100


def test_the_same_event_a_hundred_times_at_once_is_accepted_once(web: Web) -> None:
    body = event(new_id(), 1)
    with ThreadPoolExecutor(50) as pool:
        statuses = sorted(answer.status for answer in pool.map(lambda _: web.post(body), range(100)))
    assert statuses == [200] * 99 + [202]


HOSTILE = [
    b"GET /%ff%fe/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /productions/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"GET /productions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: \xc3\xa9\xff\r\n\r\n",
    b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /productions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"y" * 60_000 + b"\r\n\r\n",
    b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /webhooks/jarai HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"nonsense\r\n\r\n",
]


@pytest.mark.parametrize("sent", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_is_sent_makes_a_traceback_or_a_500(web: Web, sent: bytes) -> None:
    before = len(web.lines())
    answer = web.raw(sent)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
    assert b"Traceback" not in answer
    assert web.post(event(new_id(), 1)).status == 202
    for line in web.lines()[before:]:
        assert "exception" not in line, line
        assert line["level"] != "error", line


def test_answers_come_while_another_connection_says_nothing(web: Web) -> None:
    silent = [web.connect() for _ in range(50)]
    try:
        started = time.monotonic()
        assert web.post(event(new_id(), 1)).status == 202
        assert time.monotonic() - started < 2
    finally:
        for connection in silent:
            connection.close()


def test_one_connection_can_bring_many_events(web: Web) -> None:
    identity = new_id()
    with urllib3.HTTPConnectionPool("127.0.0.1", web.port, maxsize=1) as pool:
        for number in range(1, 51):
            body = event(identity, number)
            answer = pool.request("POST", PATH, body=body, headers={"X-JARAI-Signature": signed(body, SECRETS[1])})
            assert answer.status == 202
        assert pool.num_connections == 1
    assert web.redis.llen(f"{PREFIX}inbox:{identity}") == 50


def test_a_worker_is_rung_for_what_was_accepted(web: Web) -> None:
    web.post(event(new_id(), 1))
    eventually(lambda: web.redis.llen("rq:queue:advance") == 1, what="the bell")


def test_kept_events_become_the_production_that_is_shown(web: Web) -> None:
    identity = new_id()
    web.post(event(identity, 2, "production.published"))
    take_in(web.redis)
    shown = productions.read(web.redis, identity)
    assert shown is not None
    assert web.get(f"/productions/{identity}")["status"] == shown.status == "Published"


def test_uploads_in_parallel_that_never_end_do_not_keep_events_out(web: Web) -> None:
    stop = threading.Event()

    def drip() -> None:
        with web.connect() as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" % PATH.encode())
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    threads = [threading.Thread(target=drip) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        assert all(web.post(event(new_id(), 1)).status == 202 for _ in range(20))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_connection_reset_in_the_middle_of_an_answer_hurts_nobody(web: Web) -> None:
    for _ in range(10):
        connection = web.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        connection.sendall(request(event(new_id(), 1)))
        connection.close()
    assert web.post(event(new_id(), 1)).status == 202


def test_a_body_that_does_not_come_in_time_is_answered_408_and_logged_as_that(web: Web) -> None:
    whole = request(event(new_id(), 1))
    with web.connect(timeout=15) as slow:
        slow.sendall(whole[:-1])
        answer = everything(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"REQUEST_TIMEOUT"' in answer
    eventually(lambda: [line for line in web.lines() if line.get("status") == 408], 5, "the line that says so")


def test_a_sender_that_waits_for_leave_to_send_its_body_gets_it(web: Web) -> None:
    whole = request(event(new_id(), 1), b"Expect: 100-continue", b"Connection: close")
    head, _, body = whole.partition(b"\r\n\r\n")
    with web.connect() as polite:
        polite.sendall(head + b"\r\n\r\n")
        assert polite.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        polite.sendall(body)
        assert everything(polite).startswith(b"HTTP/1.1 202 ")
