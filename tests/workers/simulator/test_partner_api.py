from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import urllib3

from tests.workers.simulator.conftest import Starter
from workers.simulator.limits import TIERS, Budget

TRIGGER = {"topic": "Harbours", **{name: str(uuid.uuid4()) for name in ("languageId", "countryId", "avatarId")}}
NOON = datetime(2026, 4, 3, 12, 0, 0, 250_000, tzinfo=UTC)


def test_a_triggered_production_can_be_followed_and_cancelled(start: Starter) -> None:
    caller = start(phase_seconds=60, api_key="jarai_test_key")
    account = caller.api("GET", "/accounts").json()["accounts"][0]["accountId"]

    made = caller.api("POST", f"/accounts/{account}/productions", TRIGGER)
    assert made.status == 202
    status = caller.get(made.headers["Location"], X_API_Key="jarai_test_key")
    assert status.json().items() >= {"status": "Queued", "sandbox": True, "accountId": account}.items()
    assert status.json()["expiresAt"]
    assert status.headers["X-Correlation-Id"]
    assert status.headers["Date"]

    path = f"/productions/{made.json()['productionId']}"
    assert caller.api("GET", f"{path}/deliverables").json()["error"] == "DELIVERABLES_NOT_READY"
    assert caller.api("DELETE", path).json()["status"] == "Cancelled"
    assert caller.api("DELETE", path).status == 409
    types = [event["eventType"] for event in caller.when_quiet(made.json()["productionId"])["events"]]
    assert types == ["production.queued", "simulated.status_changed"]


@pytest.mark.parametrize(
    "change",
    [{"topic": ""}, {"topic": "x" * 501}, {"avatarId": "no"}, {"metadataMD": "x" * 4097}, {"languageId": None}],
)
def test_a_trigger_that_breaks_the_contract_is_refused(start: Starter, change: dict[str, object]) -> None:
    caller = start()
    account = caller.api("GET", "/accounts").json()["accounts"][0]["accountId"]
    refused = caller.api("POST", f"/accounts/{account}/productions", {**TRIGGER, **change})
    assert (refused.status, refused.json()["error"]) == (400, "INVALID_REQUEST")


def test_errors_have_the_documented_form(start: Starter) -> None:
    caller = start(scopes=frozenset({"accounts:read"}))
    unknown = f"/productions/{uuid.uuid4()}"
    answers = [
        (caller.api("GET", "/accounts", **{"X-API-Key": "wrong"}), 401, "UNAUTHORIZED"),
        (caller.api("GET", unknown), 403, "PERMISSION_DENIED"),
        (caller.api("GET", "/nowhere"), 404, "NOT_FOUND"),
        (caller.api("PUT", "/accounts"), 404, "NOT_FOUND"),
        (start().api("GET", unknown), 404, "NOT_FOUND"),
    ]
    for answer, status, code in answers:
        assert (answer.status, answer.json()["error"]) == (status, code)
        assert answer.json().keys() == {"error", "message", "retryAfterSeconds"}
        assert answer.headers["X-Correlation-Id"]
        assert "X-RateLimit-Limit" not in answer.headers
    asked = [(each["path"], each["status"]) for each in caller.sim.truth()["apiRequests"]]
    assert asked[2:] == [("/v1/partner/nowhere", 404), ("/v1/partner/accounts", 404)]


def test_registration_verification_and_rotation_end_in_working_keys(start: Starter) -> None:
    caller = start()
    body = {"organisationName": "A", "contactEmail": "a@example.org", "contactName": "B"}
    assert caller.api("POST", "/partners/register", body).status == 202
    token = caller.get(f"{caller.sim.url}/_simulator/mails").json()["verificationTokens"][0]
    first = caller.api("GET", f"/partners/verify?token={token}").json()["apiKey"]
    assert caller.api("GET", f"/partners/verify?token={token}").status == 400
    second = caller.api("POST", "/partners/keys/rotate", **{"X-API-Key": first}).json()["apiKey"]
    assert second != first
    for key in (first, second):
        assert caller.api("GET", "/accounts", **{"X-API-Key": key}).status == 200


def test_subscriptions_follow_the_contract(start: Starter) -> None:
    caller = start()
    good = {"endpointUrl": "https://example.org/hook", "eventTypes": ["production.failed"]}
    made = caller.api("POST", "/webhooks", good)
    assert made.status == 201
    assert made.json()["signingSecret"]
    assert "signingSecret" not in caller.api("GET", "/webhooks").json()["webhooks"][0]
    worse: list[dict[str, object]] = [
        {"endpointUrl": "http://example.org"},
        {"eventTypes": []},
        {"accountIds": [str(uuid.uuid4())] * 51},
    ]
    for bad in worse:
        assert caller.api("POST", "/webhooks", {**good, **bad}).status == 400
    assert caller.api("DELETE", f"/webhooks/{made.json()['webhookId']}").status == 204
    assert caller.api("GET", "/webhooks").json()["webhooks"] == []


def test_the_minute_is_a_rolling_window() -> None:
    budget = Budget(TIERS["free"])
    taken = [budget.admit(NOON + timedelta(seconds=second)) for second in range(10)]
    assert [each.remaining for each in taken] == list(range(9, -1, -1))
    refused = budget.admit(NOON + timedelta(seconds=20))
    assert refused.retry_after_seconds == 40
    assert refused.reset_at == int(NOON.timestamp()) + 61
    assert budget.admit(NOON + timedelta(seconds=59.9)).retry_after_seconds == 1
    assert budget.admit(NOON + timedelta(seconds=60)).retry_after_seconds is None
    assert budget.admit(NOON + timedelta(seconds=60.5)).retry_after_seconds == 1


def test_the_day_ends_at_midnight_utc() -> None:
    budget = Budget(TIERS["free"])
    for minute in range(10):
        for _ in range(10):
            assert budget.admit(NOON + timedelta(minutes=minute)).retry_after_seconds is None
    refused = budget.admit(datetime(2026, 4, 3, 23, 0, tzinfo=UTC))
    assert (refused.retry_after_seconds, refused.remaining) == (3600, 0)
    assert budget.admit(datetime(2026, 4, 4, 0, 0, tzinfo=UTC)).remaining == 9
    assert [budget.admit_production("a", NOON) for _ in range(4)] == [None, None, None, 12 * 3600]
    assert budget.admit_production("b", NOON) is None


def test_the_limit_shows_in_the_headers(start: Starter) -> None:
    caller = start(tier="free")
    answers = [caller.api("GET", "/accounts") for _ in range(11)]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers[-3:]] == ["1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"10"}
    assert answers[-1].json()["error"] == "RATE_LIMIT_EXCEEDED"
    assert 50 <= answers[-1].json()["retryAfterSeconds"] <= 60


def test_api_faults_strike_as_often_as_they_were_asked_to(start: Starter) -> None:
    caller = start()
    faults = {"api_500": 1, "api_503": 1, "api_429": 1, "api_garbage": 1}
    caller.sim.set_faults(**{name: {"next": times, "value": 7} for name, times in faults.items()})
    answers = [caller.api("GET", "/accounts") for _ in range(5)]
    assert [answer.status for answer in answers] == [500, 503, 429, 200, 200]
    assert answers[2].json()["retryAfterSeconds"] == 7
    with pytest.raises(ValueError, match="Unterminated"):
        answers[3].json()

    caller.sim.set_faults(api_drop={"next": 1, "match": "/accounts"})
    assert caller.api("GET", "/webhooks").status == 200
    with pytest.raises(urllib3.exceptions.ProtocolError):
        caller.api("GET", "/accounts")
    assert caller.sim.truth()["apiRequests"][-1]["status"] == 0
    with pytest.raises(RuntimeError, match="no such fault"):
        caller.sim.set_faults(api_nonsense=1)
