"""What docs/handover.md tells other people to rely on is so."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema_rs
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError
from standardwebhooks import Webhook

from service.core.notices import MOST_LISTED
from service.core.retry import MOST_NOTICE_ATTEMPTS, after_failed_notice
from tests.house.sources import ROOT
from tests.partner import SECRET
from workers import notify

GUIDE = (ROOT / "docs" / "handover.md").read_text()
FACT = {"type": "production.failed", "data": {}}


def example(language: str, place: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    return found[place]


def function(source: str, **around: Any) -> Callable[..., Any]:
    scope: dict[str, Any] = dict(around)
    exec(source, scope)
    made: Callable[..., Any] = scope["take"]
    return made


def test_the_example_of_a_fact_is_one() -> None:
    schema = json.loads((ROOT / "docs" / "facts.schema.json").read_text())
    jsonschema_rs.meta.validate(schema)
    filled = example("json").replace('"productionId": "…"', '"productionId": "3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"')
    fact = json.loads(filled.replace('"sha256": "…"', f'"sha256": "{"a" * 64}"'))
    assert list(jsonschema_rs.validator_for(schema).iter_errors(fact)) == []


def test_the_numbers_are_those_of_the_code() -> None:
    pauses = re.search(r"after a pause of at most \| (.*) \|", GUIDE)
    assert pauses is not None
    *seconds, rest = pauses[1].split(" | ")
    stated = [int(one.removesuffix(" s")) for one in seconds] + [6 * 3600] * (MOST_NOTICE_ATTEMPTS - 1 - len(seconds))
    assert rest == "6 h each"
    for attempt, most in enumerate(stated, 1):
        pause = after_failed_notice(attempt, timedelta(0), "salt")
        assert pause is not None
        assert 0.75 * most - 1e-3 <= pause.total_seconds() <= most
    assert f"After {MOST_NOTICE_ATTEMPTS} attempts" in GUIDE
    assert f"of more than {MOST_LISTED} the first {MOST_LISTED}" in GUIDE
    assert f"within {notify._ANSWER_SECONDS:.0f} seconds" in GUIDE


@contextlib.contextmanager
def reader(redis: Redis) -> Iterator[Redis]:
    """A client with the rights that the guide gives to whoever reads the stream."""
    wanted = re.search(r"^(ACL SETUSER (\w+) .*)$", GUIDE, re.M)
    assert wanted is not None
    redis.execute_command(*wanted[1].split())  # type: ignore[no-untyped-call]
    path = redis.connection_pool.connection_kwargs["path"]
    try:
        with Redis(unix_socket_path=path, username=wanted[2], password="PASSWORD") as client:
            yield client
    finally:
        redis.acl_deluser(wanted[2])


def test_the_reader_of_the_stream_takes_each_fact_and_goes_on_where_it_was_broken_off(redis: Redis) -> None:
    redis.xgroup_create("jarai:facts", "delivery", "0", mkstream=True)
    for number in range(25):
        redis.xadd("jarai:facts", {"id": f"msg_{number}", "type": "production.failed", "body": json.dumps(FACT)})
    take = function(example("python"))
    seen: list[str] = []

    def handle(identity: str, fact: dict[str, Any]) -> None:
        if len(seen) == 7:
            seen.append("broken off")
            raise RuntimeError
        assert fact == FACT
        seen.append(identity)

    with reader(redis) as allowed:
        with pytest.raises(RuntimeError):
            take(allowed, "one", handle)
        take(allowed, "one", handle)
        with pytest.raises(NoPermissionError):
            allowed.get("jarai:production:x")
        with pytest.raises(NoPermissionError):
            allowed.xadd("jarai:facts", {"id": "msg_forged"})
    assert [one for one in seen if one != "broken off"] == [f"msg_{number}" for number in range(25)]


def test_the_receiver_of_the_webhook_keeps_what_is_signed_once_and_nothing_else() -> None:
    kept: dict[str, Any] = {}
    take = function(example("python", 1), NOTIFY_SECRET=SECRET, seen=kept.__contains__, keep=kept.__setitem__)
    now = datetime.now(UTC)
    body = json.dumps(FACT)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp()))}
    assert take(headers | {"webhook-signature": "v1,AAAA"}, body) == 401
    signature = Webhook(SECRET).sign("msg_1", now, body)
    assert [take(headers | {"webhook-signature": signature}, body) for _ in range(2)] == [204, 204]
    assert kept == {"msg_1": FACT}
