"""No field of a request can forge a line of the log, in either format: a line is one line, its event one of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.log import CATALOGUE
from tests.deployment import eventually
from tests.fuzz.conftest import examples
from tests.fuzz.mutations import TEXTS
from tests.store.making import event, new_id, server, signed
from tests.web.conftest import SECRETS, Web, run_web

BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\x00\x1b\x9b\u202e\u2066\u200b\ufeff"
FORGED = [
    "x\n2026-01-01T00:00:00.000000Z [info     ] service.stopped",
    'x"}\n{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "service.stopped", "process": "web"}',
    *(f"a{one}forged" for one in BREAKS),
    "\r\nforged", "a\x1b[2K\x1b[1Gforged", "a\x1b]0;title\x07", "\x08" * 40 + "forged",
    '"', "\\", "\\n", "{}", "%s%d", "' level=error '",
]  # fmt: skip
texts = st.sampled_from(FORGED + [text for text in TEXTS if len(text) < 200]) | st.text(max_size=40)
CONSOLE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[(debug|info|warning|error) +\] ([a-z]+\.[a-z_]+)( .*)?")


@pytest.fixture(scope="module", params=["json", "console"])
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder, settings = tmp_path_factory.mktemp("log"), {"LOG_FORMAT": request.param, "LOG_LEVEL": "debug"}
    with server("--save", "") as redis, run_web(redis, folder, settings) as made:
        yield made


def said(web: Web) -> list[str]:
    """The event of each line; fails on what is no line of ours."""
    events = []
    # Not splitlines() of text: that is what a reader may or may not do, and both must find the same lines.
    raw = web.output.read_bytes()
    lines = raw.decode().splitlines()
    assert len(lines) == raw.count(b"\n")
    for line in lines:
        assert line.isprintable(), line
        if line.startswith("{"):
            fields = json.loads(line, object_pairs_hook=_once)
            assert list(fields)[:3] == ["timestamp", "level", "event"]
            events.append(fields["event"])
        else:
            found = CONSOLE.fullmatch(line)
            assert found, line
            events.append(found[2])
    assert set(events) <= set(CATALOGUE)
    return events


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), "a field stands twice in one line"
    return dict(pairs)


def test_each_event_is_one_line_whatever_its_fields_say(web: Web) -> None:
    @examples(60)
    @given(texts, texts)
    def run(kind: str, correlation: str) -> None:
        before = said(web)
        for body in (
            event(new_id(), 1, kind, correlationId=correlation),
            event(new_id(), 1, "webhook.test", correlationId=correlation),
            event(new_id(), 1, **{kind: correlation}, timestamp=correlation),
            json.dumps({kind: correlation}).encode(),
        ):
            assert web.post(body).status == 202
        # The line of an event that was kept is written after its answer.
        eventually(lambda: len(said(web)) >= len(before) + 4, 5, "a line for each")
        added = said(web)[len(before) :]
        assert len(added) == 4
        assert set(added) <= {"webhook.accepted", "webhook.test", "webhook.quarantined"}

    run()


def test_no_header_no_path_and_no_query_adds_a_line_of_its_own(web: Web) -> None:
    @examples(60)
    @given(texts)
    def run(text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        body = event(new_id(), 1)
        genuine = signed(body, SECRETS[0]).encode()
        length = b"Content-Length: %d" % len(body)
        heads = [
            [b"POST /webhooks/jarai HTTP/1.1", b"X-JARAI-Signature: " + raw, length],
            [b"POST /webhooks/jarai HTTP/1.1", raw + b": x", b"X-JARAI-Signature: " + genuine, length],
            [b"POST /webhooks/jarai HTTP/1.1", b"User-Agent: " + raw, b"X-Forwarded-For: " + raw, length],
            [b"POST /" + raw + b" HTTP/1.1", length],
            [b"GET /productions/" + raw + b"?status=" + raw + b" HTTP/1.1", b"Authorization: Bearer " + raw],
            [raw + b" / HTTP/1.1"],
        ]
        for lines in heads:
            web.raw(b"\r\n".join([*lines, b"Host: x", b"Connection: close", b"", body]))
            sent.append(lines)
        assert set(said(web)[len(before) :]) <= {"webhook.rejected", "webhook.accepted", "library.said"}

    before, sent = said(web), list[list[bytes]]()
    run()
    assert len(said(web)) - len(before) <= len(sent)


def test_a_bad_signature_is_logged_without_the_signature(web: Web) -> None:
    body = event(new_id(), 1)
    head = (
        b"POST /webhooks/jarai HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-JARAI-Signature: sha256=forgedforged\r\n"
    )
    assert web.raw(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)).startswith(b"HTTP/1.1 401 ")
    assert "forgedforged" not in Path(web.output).read_text()
