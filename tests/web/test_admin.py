"""What the operator and a partner's own systems see and ask for over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store import deadletters, productions
from service.store.scripts import PREFIX
from tests.store.making import ACCOUNT, event, keep, listing, new_id, server, signed, take_in
from tests.web.conftest import Web, run_web

GUARDED = [
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/productions"),
    ("POST", "/productions"),
    ("GET", "/productions/3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"),
    ("DELETE", "/productions/3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11"),
    ("GET", "/productions/3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11/timeline"),
    ("POST", "/productions/3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11/track"),
    ("POST", "/productions/3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11/refresh"),
    ("GET", "/deadletters"),
    ("POST", "/deadletters/event-1/retry"),
    ("DELETE", "/deadletters/event-1"),
]
SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[a-z._]+"\})? (-?[0-9.e+]+)')


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A web process without admin token and secrets, on a Redis that keeps nothing."""
    without = {"ADMIN_TOKEN": "", "JARAI_WEBHOOK_SECRETS": ""}
    with server("--save", "") as redis, run_web(redis, tmp_path_factory.mktemp("bare"), without) as made:
        yield made


@pytest.fixture
def five(web: Web) -> list[str]:
    """Five productions, the newest first; every other one has failed, the last belongs to another account."""
    identities = [new_id() for _ in range(5)]
    for place, identity in enumerate(identities):
        kind = "production.failed" if place % 2 else "production.step.complete"
        account = {"accountId": new_id()} if place == 4 else {}
        take_in(web.redis, event(identity, 1, kind, **account))
        web.redis.zadd(f"{PREFIX}index", {identity: -place})
    return identities


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_an_admin_token_there_is_no_such_place(bare: Web, method: str, path: str) -> None:
    assert bare.call(method, path).status == 404


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("given", ["Bearer wrong", "admin-token-of-the-tests", "Basic YTpi", ""])
def test_a_wrong_token_is_401(web: Web, method: str, path: str, given: str) -> None:
    answer = web.call(method, path, Authorization=given)
    assert (answer.status, answer.json()["error"]) == (401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_webhook_and_the_health_checks_need_no_token(bare: Web) -> None:
    assert bare.call("GET", "/healthz", Authorization="").status == 200
    assert bare.call("POST", "/webhooks/jarai", b"{}", Authorization="").status == 401


def test_a_deployment_without_secrets_is_not_ready_and_says_why(bare: Web) -> None:
    answer = bare.call("GET", "/readyz")
    assert answer.status == 503
    assert "JARAI_WEBHOOK_SECRETS" in answer.json()["problems"]["secrets"]
    assert any("appendonly" in warning for warning in answer.json()["warnings"])
    assert {line["event"] for line in bare.lines()} >= {"service.secret_missing", "store.unsafe"}


def test_a_sound_deployment_is_ready(web: Web) -> None:
    assert web.get("/readyz") == {"ready": True, "problems": {}, "warnings": []}


def test_pages_bring_each_production_once_the_newest_first(web: Web, five: list[str]) -> None:
    seen: list[str] = []
    after = ""
    for _ in range(9):
        page = web.get(f"/productions?limit=2&after={after}")
        seen += [one["productionId"] for one in page["productions"]]
        after = page["next"]
        if after is None:
            break
    assert seen == five


def test_productions_are_filtered_by_status_and_account(web: Web, five: list[str]) -> None:
    failed = web.get("/productions?status=Failed&limit=1")
    assert [one["productionId"] for one in failed["productions"]] == [five[1]]
    rest = web.get(f"/productions?status=Failed&after={failed['next']}")
    assert [one["productionId"] for one in rest["productions"]] == [five[3]]
    mine = web.get(f"/productions?account={ACCOUNT}")
    assert [one["productionId"] for one in mine["productions"]] == five[:4]
    assert web.get("/productions?status=Nonsense")["productions"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "limit=%C2%B2", "limit=" + "9" * 5000, "after=nonsense"],
)
def test_a_wrong_page_is_400(web: Web, query: str) -> None:
    answer = web.call("GET", f"/productions?{query}")
    assert (answer.status, answer.json()["error"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("identity", ["x", "1", "%00", "%ff", "..%2f..", "0" * 5000, "é"])
@pytest.mark.parametrize("call", ["GET ", "GET /timeline", "POST /track", "POST /refresh"])
def test_a_bad_id_is_400(web: Web, identity: str, call: str) -> None:
    method, _, rest = call.partition(" ")
    assert web.call(method, f"/productions/{identity}{rest}").status in (400, 404)


def test_an_id_is_known_in_any_spelling(web: Web, five: list[str]) -> None:
    for spelling in (five[0].upper(), five[0].replace("-", ""), f"%7B{five[0]}%7D"):
        assert web.get(f"/productions/{spelling}")["productionId"] == five[0]


def test_an_unknown_production_is_404(web: Web) -> None:
    for method, rest in (("GET", ""), ("GET", "/timeline"), ("POST", "/refresh")):
        assert web.call(method, f"/productions/{new_id()}{rest}").status == 404


def test_a_production_is_shown_as_promised_and_holds_no_address(web: Web) -> None:
    identity = new_id()
    data = listing("https://store.blob.core.windows.net/film.mp4?sig=SeCrEt")
    take_in(web.redis, event(identity, 1, "deliverable.ready", data=data))
    take_in(web.redis, event(identity, 2, "production.failed", data={"errorCode": "E", "errorMessage": "because"}))
    shown = web.get(f"/productions/{identity}")
    assert {name: shown[name] for name in ("productionId", "accountId", "status", "terminal", "sequenceNumber")} == {
        "productionId": identity, "accountId": ACCOUNT, "status": "Failed", "terminal": True, "sequenceNumber": 2,
    }  # fmt: skip
    assert shown["error"] == {"code": "E", "message": "because"}
    assert shown["deliverables"][0]["state"] == "wanted"
    assert shown["updatedAt"].endswith("Z")
    whole = json.dumps([shown, web.get(f"/productions/{identity}/timeline"), web.get("/productions")])
    assert "SeCrEt" not in whole


def test_the_timeline_of_a_production_brings_its_events_as_they_came(web: Web) -> None:
    identity = new_id()
    take_in(web.redis, event(identity, 3, data={"step": 1, "name": "Ærø"}))
    entries = web.get(f"/productions/{identity}/timeline")["timeline"]
    assert entries[0]["kind"] == "event"
    assert (entries[0]["sequenceNumber"], entries[0]["data"]) == (3, {"step": 1, "name": "Ærø"})


def test_tracking_makes_a_production_that_jarai_is_asked_about(web: Web) -> None:
    identity = new_id()
    answer = web.call("POST", f"/productions/{identity}/track", json.dumps({"accountId": ACCOUNT}).encode())
    assert answer.status == 202
    take_in(web.redis)
    shown = web.get(f"/productions/{identity}")
    assert (shown["accountId"], shown["status"]) == (ACCOUNT, None)
    assert shown["nextPollAt"] is not None
    assert web.call("POST", f"/productions/{identity}/track").status == 202


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff", b"[1]", b'"x"', b"5", b'{"accountId": 5}', b'{"accountId": "x"}', b"[" * 50_000, b"9" * 5000,
     b'{"accountId": ["a"]}', b"null", b"false"],
)  # fmt: skip
def test_a_wrong_body_of_track_is_400_and_tracks_nothing(web: Web, body: bytes) -> None:
    assert web.call("POST", f"/productions/{new_id()}/track", body).status == 400
    assert web.redis.zcard(f"{PREFIX}dirty") == 0


def test_too_large_a_body_of_track_is_413(web: Web) -> None:
    assert web.call("POST", f"/productions/{new_id()}/track", b" " * 70_000).status == 413


def test_refresh_makes_a_known_production_due_for_a_question(web: Web, five: list[str]) -> None:
    assert web.call("POST", f"/productions/{five[1]}/refresh").status == 202
    take_in(web.redis)
    known = productions.read(web.redis, five[1])
    assert known is not None
    assert known.refresh_wanted


def test_dead_letters_are_listed_without_their_bodies(web: Web) -> None:
    keep(web.redis, b"x" * 10_000, b'{"sasUrl": "https://a.b/c?sig=SeCrEt"}')
    shown = web.get("/deadletters")
    assert shown["total"] == len(shown["deadletters"]) == 2
    assert {one["kind"] for one in shown["deadletters"]} == {"event"}
    assert all("body" not in one for one in shown["deadletters"])
    assert "SeCrEt" not in json.dumps(shown)


def test_retrying_what_is_still_wrong_is_409_and_keeps_it(web: Web) -> None:
    keep(web.redis, b"x")
    [letter] = deadletters.newest(web.redis, 1)
    assert web.call("POST", f"/deadletters/{letter.id}/retry").status == 409
    assert deadletters.count(web.redis) == 1


def test_discarding_is_done_once(web: Web) -> None:
    keep(web.redis, b"x")
    [letter] = deadletters.newest(web.redis, 1)
    assert web.call("DELETE", f"/deadletters/{letter.id}").status == 200
    assert web.call("DELETE", f"/deadletters/{letter.id}").status == 404
    assert web.call("POST", f"/deadletters/{letter.id}/retry").status == 404


def test_a_dead_letter_that_can_be_used_again_is_retried(web: Web) -> None:
    identity = new_id()
    keep(web.redis, event(identity, 1), event(identity, 1, data={"step": 2}))
    [letter] = deadletters.newest(web.redis, 1)
    web.redis.delete(f"{PREFIX}events:{identity}")
    answer = web.call("POST", f"/deadletters/{letter.id}/retry")
    assert (answer.status, answer.json()) == (202, {"status": "retrying", "id": letter.id})
    assert deadletters.count(web.redis) == 0


def test_every_line_of_the_metrics_parses_and_each_name_is_described_once(web: Web, five: list[str]) -> None:
    web.post(event(new_id(), 1))
    web.post(b"x")
    answer = web.call("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.data.decode().splitlines()
    described = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(described) == len(set(described))
    samples = [line for line in lines if not line.startswith("#")]
    for line in samples:
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert line.split("{")[0].split(" ")[0] in described
    assert len({line.rpartition(" ")[0] for line in samples}) == len(samples)
    assert "jarai_productions 5" in samples
    assert "jarai_deadletters 1" in samples
    assert "jarai_notices 0" in samples
    assert 'jarai_facts_total{event="notice.delivered"} 0' in samples


def test_the_metrics_count_each_answer_to_a_webhook(web: Web) -> None:
    def counted(verdict: str) -> float:
        text = web.call("GET", "/metrics").data.decode()
        found = re.search(rf'^jarai_webhooks_total{{verdict="{verdict}"}} (\S+)$', text, re.MULTILINE)
        assert found
        return float(found[1])

    names = ("accepted", "duplicate", "quarantined", "rejected")
    before = [counted(name) for name in names]
    body = event(new_id(), 1)
    for sent in (body, body, b"x"):
        web.post(sent)
    web.post(body, "YW5vdGhlciBzZWNyZXQ")
    assert [counted(name) for name in names] == [number + 1 for number in before]


def test_an_unreadable_production_does_not_take_the_listing_down(web: Web, five: list[str]) -> None:
    web.redis.set(f"{PREFIX}production:{five[2]}", b"1\n{unreadable")
    answer = web.call("GET", "/productions")
    assert answer.status == 200
    assert five[0] in answer.data.decode()


@pytest.mark.parametrize("call", ["GET ", "POST /refresh"])
def test_an_unreadable_production_is_503_in_the_form_of_every_error(web: Web, five: list[str], call: str) -> None:
    web.redis.set(f"{PREFIX}production:{five[2]}", b"1\n{unreadable")
    method, _, rest = call.partition(" ")
    answer = web.call(method, f"/productions/{five[2]}{rest}")
    assert (answer.status, answer.json()["error"]) == (503, "STATE_UNREADABLE")
    assert int(answer.headers["Retry-After"]) > 0


def test_a_defect_of_ours_is_told_without_what_it_was(web: Web) -> None:
    identity = new_id()
    web.redis.rpush(f"{PREFIX}timeline:{identity}", "{no json")
    answer = web.call("GET", f"/productions/{identity}/timeline")
    assert (answer.status, answer.json()["error"]) == (500, "INTERNAL_ERROR")
    assert b"json" not in answer.data.lower()
    assert answer.headers["Connection"] == "close", "it ends here, and who would use it again has to know"
    assert web.call("GET", "/healthz").status == 200


def test_an_address_with_a_slash_behind_it_leads_nowhere_else(web: Web) -> None:
    for method, path in (("GET", "/healthz/"), ("GET", "/productions/"), ("POST", "/webhooks/jarai/")):
        answer = web.call(method, path, Host="evil.example")
        assert (answer.status, answer.headers.get("Location")) == (404, None)


def test_an_unknown_place_is_404_and_a_wrong_method_405_in_the_form_of_every_error(web: Web) -> None:
    assert web.call("GET", "/nowhere").json()["error"] == "NOT_FOUND"
    answer = web.call("PUT", "/productions")
    assert (answer.status, answer.json()["error"]) == (405, "METHOD_NOT_ALLOWED")


def test_no_secret_is_in_the_log(web: Web, tmp_path: Path) -> None:
    body = event(new_id(), 1, data=listing("https://a.blob.core.windows.net/x?sig=SeCrEt"))
    web.call("POST", "/webhooks/jarai", body, **{"X-JARAI-Signature": signed(body, "c2VjcmV0LW51bWJlci1vbmU")})
    text = web.output.read_text()
    for secret in ("SeCrEt", "c2VjcmV0LW51bWJlci1vbmU", "admin-token-of-the-tests"):
        assert secret not in text
