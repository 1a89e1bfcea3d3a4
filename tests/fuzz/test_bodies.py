"""Bodies of every wrong shape at the door: answered as documented, kept whole or not at all, and harmless behind it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from service.core.schedule import Intervals
from service.store import deadletters, productions
from service.store.scripts import PREFIX
from tests.fuzz.conftest import assert_well_formed, examples
from tests.fuzz.mutations import LITERALS, TEXTS, bodies
from tests.store.making import RETENTION, event, new_id, signed, values_of
from tests.web.conftest import SECRETS, Web
from workers.advance import drain

PRODUCTION = "3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"
OTHER_SECRET = "YW5vdGhlciBzZWNyZXQ"


def post(pool: urllib3.HTTPConnectionPool, body: bytes, signature: str) -> tuple[int, dict[str, Any]]:
    answer = pool.request("POST", "/webhooks/jarai", body=body, headers={"X-JARAI-Signature": signature}, timeout=20)
    return answer.status, assert_well_formed(answer.status, answer.data)


def strictly(body: bytes) -> Any:
    """What was accepted is JSON for everybody."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was accepted")

    return json.loads(body, parse_constant=refuse)


def kept(web: Web) -> dict[str, str]:
    """All that lies in Redis, but for what the health check and the bells leave, and when something was heard."""
    other = ("rq:", f"{PREFIX}ready", f"{PREFIX}heard")
    return {name: value for name, value in values_of(web.redis).items() if not name.startswith(other)}


def archived(web: Web) -> Counter[bytes]:
    """Every body that is kept for a production, as often as it is."""
    found: Counter[bytes] = Counter()
    for key in list(web.redis.scan_iter(f"{PREFIX}events:*")):
        values: Any = web.redis.hvals(key)
        found.update(values)
    return found


def assert_taken_in(web: Web) -> None:
    """Everything that waits is taken in without trouble, and can be read by everybody afterwards."""
    waiting: Any = [key.decode().rpartition(":")[2] for key in web.redis.scan_iter(f"{PREFIX}inbox:*")]
    drain(web.redis, Intervals(), RETENTION)
    letters = {letter.kind for letter in deadletters.newest(web.redis, 99)}
    assert "production" not in letters
    assert web.redis.zcard(f"{PREFIX}dirty") == 0
    for identity in waiting:
        assert web.redis.llen(f"{PREFIX}inbox:{identity}") == 0
        assert productions.read(web.redis, identity) is not None
        for path in (f"/productions/{identity}", f"/productions/{identity}/timeline"):
            assert web.get(path)["productionId"] == identity
    assert len(web.get("/productions")["productions"]) == len(waiting)
    assert web.get("/deadletters")["total"] == web.redis.zcard(deadletters.INDEX)


def test_whatever_is_signed_is_kept_once_and_whole_and_taken_in(web: Web) -> None:
    @examples(250)
    @given(st.lists(bodies(PRODUCTION), min_size=1, max_size=3))
    def run(sent: list[bytes]) -> None:
        web.redis.flushall()
        used: Counter[bytes] = Counter()
        buried: set[bytes] = set()
        for body in sent:
            status, said = post(pool, body, signed(body, SECRETS[0]))
            assert status in (200, 202), (status, said)
            if said["status"] == "accepted" and strictly(body)["eventType"] != "webhook.test":
                used[body] += 1
            elif said["status"] == "quarantined":
                buried.add(body)
            elif said["status"] == "duplicate":
                assert used, "a duplicate of nothing"
        assert archived(web) == used
        assert {letter.body for letter in deadletters.newest(web.redis, 9)} == buried
        assert_taken_in(web)

    with urllib3.HTTPConnectionPool("127.0.0.1", web.port, maxsize=1) as pool:
        run()
    assert not [line for line in web.lines() if "exception" in line]


@pytest.mark.parametrize("place", ["data", "data.x", "data.status", "data.deliverables", "correlationId"])
def test_no_value_in_any_place_does_harm(web: Web, place: str) -> None:
    """Each value that is known to hurt, in a production of its own."""
    with urllib3.HTTPConnectionPool("127.0.0.1", web.port, maxsize=1) as pool:
        for value in (*LITERALS, *(json.dumps(text) for text in TEXTS)):
            name, _, inner = place.partition(".")
            kind = "deliverable.ready" if inner == "deliverables" else "production.step.complete"
            body = event(new_id(), 1, kind, **{name: {inner: "!"} if inner else "!"})
            body = body.replace(b'"!"', value.encode("utf-8", "surrogatepass"))
            status, said = post(pool, body, signed(body, SECRETS[0]))
            assert status == 202
            if said["status"] == "accepted":
                strictly(body)
    for _ in range(9):
        if not drain(web.redis, Intervals(), RETENTION):
            break
    identities = [key.decode().rpartition(":")[2] for key in web.redis.scan_iter(f"{PREFIX}events:*")]
    assert identities
    for identity in identities:
        assert web.get(f"/productions/{identity}")["productionId"] == identity
        assert web.get(f"/productions/{identity}/timeline")["timeline"]
    assert {letter.kind for letter in deadletters.newest(web.redis, 999)} <= {"event", "deliverable"}


def test_nothing_is_kept_of_what_was_not_signed(web: Web) -> None:
    known = event(PRODUCTION, 1)
    assert web.post(known).status == 202
    before = kept(web)
    genuine = signed(known, SECRETS[0])
    wrong = st.sampled_from(
        [
            "",
            "sha256=",
            genuine,
            genuine.upper(),
            "sha256=" + "0" * 64,
            f"{genuine},{genuine}",
            f"{genuine} x",
            "sha1=" + "0" * 40,
        ]
    ) | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=80)

    @examples(250)
    @given(bodies(PRODUCTION), wrong | st.none())
    def run(body: bytes, signature: str | None) -> None:
        other = body + b" " if body == known else body
        sent = signed(other, OTHER_SECRET) if signature is None else signature
        status, said = post(pool, other, sent)
        assert (status, said["error"]) == (401, "INVALID_SIGNATURE")

    with urllib3.HTTPConnectionPool("127.0.0.1", web.port, maxsize=1) as pool:
        run()
    assert kept(web) == before
    assert web.post(event(new_id(), 1)).status == 202
