"""What a partner's own systems have JARAI do over HTTP, and secrets that change while `web` runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import urllib3
from click.testing import CliRunner
from starlette.requests import Request

from service.cli import main
from service.core.errors import JaraiRefused
from service.core.signature import decode_secret, fingerprint
from service.store import heard, productions
from service.store.scripts import PREFIX
from service.web.partner import refused
from tests.deployment import eventually
from tests.store.making import event, new_id, server, take_in
from tests.web.conftest import Web, run_web
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings

FIRST, SECOND = "c2VjcmV0LW51bWJlci1vbmU", "c2VjcmV0LW51bWJlci10d28"


@pytest.fixture(scope="module")
def jarai() -> Iterator[Running]:
    with run_in_thread(Settings(seed=1, steps=3, step_seconds=0.05, phase_seconds=0.05)) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("partner")
    (made / ".env").write_text(f"JARAI_WEBHOOK_SECRETS={FIRST}\n")
    return made


@pytest.fixture(scope="module")
def _partner(jarai: Running, folder: Path) -> Iterator[Web]:
    environment = {
        "JARAI_API_URL": jarai.api_url,
        "JARAI_API_KEY": jarai.settings.api_key,
        "JARAI_WEBHOOK_SECRETS": "",
        "RETRY_EXPIRED": "1",
    }
    with server("--appendonly", "yes", "--save", "") as redis, run_web(redis, folder, environment) as made:
        yield made


@pytest.fixture
def web(_partner: Web, jarai: Running) -> Web:
    _partner.redis.flushall()
    return _partner


@pytest.fixture
def wish(jarai: Running) -> dict[str, Any]:
    headers = {"X-API-Key": jarai.settings.api_key}
    account = urllib3.request("GET", f"{jarai.api_url}/accounts", headers=headers).json()["accounts"][0]
    ids = {"languageId": new_id(), "countryId": new_id(), "avatarId": account["avatars"][0]["avatarId"]}
    return {"accountId": account["accountId"], "topic": f"Harbours {new_id()}", **ids}


def post(web: Web, wish: object) -> urllib3.BaseHTTPResponse:
    return web.call("POST", "/productions", json.dumps(wish).encode())


def test_a_triggered_production_is_followed(web: Web, wish: dict[str, Any]) -> None:
    answer = post(web, wish)
    assert (answer.status, answer.json()["status"]) == (202, "triggered")
    take_in(web.redis)
    shown = web.get(f"/productions/{answer.json()['productionId']}")
    assert shown["accountId"] == wish["accountId"]
    assert web.redis.keys(f"{PREFIX}trigger:*") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"topic": ""}, "topic is empty"),
        ({"accountId": "x"}, "accountId"),
        ({"topik": "x"}, "topik"),
        ({"again": "yes"}, "again"),
        ({"retryExpired": 11}, "retryExpired"),
        ({"metadataMD": "x" * 4097}, "4,097"),
    ],
)
def test_a_wrong_field_is_400_and_named(web: Web, wish: dict[str, Any], change: dict[str, Any], word: str) -> None:
    answer = post(web, wish | change)
    assert (answer.status, answer.json()["error"]) == (400, "INVALID_REQUEST")
    assert word in answer.json()["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 50_000])
def test_a_body_that_is_no_wish_is_400(web: Web, body: bytes) -> None:
    assert web.call("POST", "/productions", body).status == 400
    assert web.call("POST", "/productions", b" " * 70_000).status == 413


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"api_budget_gate": {"next": 1}}, 409, "BUDGET_GATE_1_FAILED"),
        ({"api_account_inactive": {"next": 1}}, 403, "ACCOUNT_NOT_ACTIVE"),
        ({"api_partner_inactive": {"next": 1}}, 502, "PARTNER_NOT_ACTIVE"),
        ({"api_429": {"next": 1, "value": 7}}, 429, "RATE_LIMIT_EXCEEDED"),
        ({"api_500": {"next": 1}}, 502, "OUTCOME_UNKNOWN"),
        ({"api_drop": {"next": 1}}, 502, "OUTCOME_UNKNOWN"),
    ],
)
def test_jarais_refusals_become_answers_that_nobody_confuses_with_ours(
    web: Web, wish: dict[str, Any], jarai: Running, fault: dict[str, Any], status: int, code: str
) -> None:
    jarai.set_faults(**fault)
    answer = post(web, wish)
    assert (answer.status, answer.json()["error"]) == (status, code)
    if status == 429:
        assert answer.headers["Retry-After"] == "7"
        again = post(web, wish)
        assert (again.status, int(again.headers["Retry-After"]) <= 7) == (429, True)


def test_a_trigger_whose_answer_got_lost_is_not_sent_twice(web: Web, wish: dict[str, Any], jarai: Running) -> None:
    jarai.set_faults(api_drop={"next": 1})
    answers = [post(web, wish), post(web, wish), post(web, wish | {"again": True})]
    assert [(one.status, one.json().get("error")) for one in answers] == [
        (502, "OUTCOME_UNKNOWN"), (409, "OUTCOME_UNKNOWN"), (202, None),
    ]  # fmt: skip
    assert len([one for one in jarai.truth()["productions"] if one["accountId"] == wish["accountId"]]) >= 2


def test_an_unknown_account_or_production_is_jarais_404(web: Web, wish: dict[str, Any]) -> None:
    assert post(web, wish | {"accountId": new_id()}).status == 404
    assert web.call("DELETE", f"/productions/{new_id()}").status == 404
    assert web.call("DELETE", "/productions/x").status == 400


def test_cancelling_reaches_jarai_and_the_status_is_asked_for(web: Web, jarai: Running) -> None:
    identity = jarai.produce({"hold": "Queued"})
    answer = web.call("DELETE", f"/productions/{identity}")
    assert (answer.status, answer.json()) == (202, {"status": "cancelling", "productionId": identity})
    take_in(web.redis)
    known = productions.read(web.redis, identity)
    assert known is not None
    assert known.refresh_wanted
    assert web.call("DELETE", f"/productions/{identity}").status == 409


def test_a_missing_key_of_ours_is_503_that_says_so(web: Web, wish: dict[str, Any], tmp_path: Path) -> None:
    with run_web(web.redis, tmp_path, {"JARAI_API_KEY": ""}) as other:
        answer = post(other, wish)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
        assert "JARAI_API_KEY" in answer.json()["message"]


def test_a_key_of_ours_that_jarai_rejects_is_no_401() -> None:
    rejected = JaraiRefused("JARAI answers 401 UNAUTHORIZED", status=401, code="UNAUTHORIZED")
    answer = asyncio.run(refused(Request({"type": "http"}), rejected))
    assert (answer.status_code, json.loads(bytes(answer.body))["error"]) == (502, "UNAUTHORIZED")


def test_secrets_that_change_in_the_file_are_gone_by_without_a_restart(web: Web, folder: Path) -> None:
    def accepted(secret: str) -> bool:
        return web.post(event(new_id(), 1), secret).status == 202

    assert (accepted(FIRST), accepted(SECOND)) == (True, False)
    (folder / ".env").write_text(f"JARAI_WEBHOOK_SECRETS={FIRST},{SECOND}\n")
    eventually(lambda: accepted(SECOND), 8)
    assert accepted(FIRST)
    (folder / ".env").write_text(f"JARAI_WEBHOOK_SECRETS={FIRST},not base64\n")
    eventually(lambda: any(line["event"] == "settings.refused" for line in web.lines()), 8)
    assert accepted(SECOND), "what was read stays"
    (folder / ".env").write_text(f"JARAI_WEBHOOK_SECRETS={FIRST}\n")
    eventually(lambda: not accepted(SECOND), 8)
    assert SECOND not in web.output.read_text()


def test_a_rotation_beside_a_running_web_loses_no_event(
    web: Web, jarai: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    place = web.redis.connection_pool.connection_kwargs["path"]
    environment = {
        "REDIS_URL": f"unix://{place}",
        "JARAI_API_URL": jarai.api_url,
        "JARAI_API_KEY": jarai.settings.api_key,
    }

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(main, arguments, env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    old = command("webhooks", "register", f"{web.url}/webhooks/jarai", "--save")
    (folder / ".env").write_text(f"JARAI_WEBHOOK_SECRETS={old}\n")
    eventually(lambda: web.post(event(new_id(), 1), old).status == 202, 8)
    identity = jarai.produce({"steps": 30, "stepSeconds": 0.15})
    new = command("webhooks", "rotate", "--save", "--wait", "30")
    assert (folder / ".env").read_text() == f"JARAI_WEBHOOK_SECRETS={new}\n"
    assert fingerprint(decode_secret(new)) in heard.read(web.redis).by_key
    [truth] = [one for one in jarai.truth()["productions"] if one["productionId"] == identity]
    numbers = {one["sequenceNumber"] for one in truth["events"]}
    kept: Any = web.redis.hkeys(f"{PREFIX}events:{identity}")
    assert {int(one) for one in kept} >= set(range(1, max(numbers) - 1))


def test_a_jarai_that_is_slow_keeps_neither_health_checks_nor_listings_waiting(
    web: Web, wish: dict[str, Any], jarai: Running
) -> None:
    jarai.set_faults(api_slow={"next": 8, "value": 3})
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(post, web, wish | {"topic": f"Harbour {number}"}) for number in range(50)]
        eventually(lambda: list(web.redis.scan_iter(f"{PREFIX}trigger:*")), what="the first request")
        began = monotonic()
        web.get("/readyz")
        web.get("/productions")
        assert monotonic() - began < 2
        assert {one.result().status for one in waiting} == {202}


def test_when_too_many_wait_for_jarai_the_next_is_told_to_come_again(
    web: Web, wish: dict[str, Any], jarai: Running
) -> None:
    jarai.set_faults(api_slow={"next": 8, "value": 2})
    with ThreadPoolExecutor(90) as pool:
        answers = list(pool.map(lambda number: post(web, wish | {"topic": f"Port {number}"}), range(90)))
    refused_ones = [one for one in answers if one.status == 503]
    assert refused_ones
    assert {one.headers["Retry-After"] for one in refused_ones} == {"10"}
    assert {one.status for one in answers} <= {202, 503}
