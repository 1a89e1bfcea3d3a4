from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from tests.workers.simulator.conftest import FAST, Receiver, Starter
from workers.simulator.delivery import signature

KINDS = ["production.queued", "production.step.complete", "deliverable.ready", "production.published"]


def test_the_signature_is_the_known_one() -> None:
    """RFC 4231, test case 2."""
    key = base64.urlsafe_b64encode(b"Jefe").decode().rstrip("=")
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature(key, b"what do ya want for nothing?") == f"sha256={digest}"


def test_a_life_arrives_in_order_signed_and_complete(start: Starter, receiver: Receiver) -> None:
    caller = start(webhook_url=receiver.url, steps=1)
    truth = caller.when_quiet(caller.sim.produce())
    events = [json.loads(body) for _, body in receiver.got]
    assert [event["eventType"] for event in events] == KINDS
    assert [event["sequenceNumber"] for event in events] == [1, 2, 3, 4]
    assert [event["eventId"] for event in events] == [e["deliveries"][0]["eventId"] for e in truth["events"]]
    assert events[0]["data"].keys() == {"status", "expiresAt"}
    for headers, body in receiver.got:
        key = base64.urlsafe_b64decode(FAST.webhook_secret + "=")
        expected = hmac.new(key, body, hashlib.sha256).hexdigest()
        assert headers["X-JARAI-Signature"] == f"sha256={expected}"
    first = events[2]["data"]["deliverables"][0]
    assert hashlib.sha256(caller.get(first["sasUrl"]).data).hexdigest() == truth["deliverables"][0]["sha256"]


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        ("Failed", "Failed", "PIPELINE_STEP_FAILED"),
        ("Expired", "Failed", "PRODUCTION_EXPIRED"),
        ("Cancelled", "Cancelled", None),
    ],
)
def test_other_ends(start: Starter, receiver: Receiver, outcome: str, status: str, code: str | None) -> None:
    caller = start(webhook_url=receiver.url)
    truth = caller.when_quiet(caller.sim.produce({"outcome": outcome}))
    assert (truth["status"], truth["errorCode"], truth["deliverables"]) == (status, code, [])
    assert truth["terminalAt"] >= truth["events"][0]["timestamp"]
    last = json.loads(receiver.got[-1][1])
    assert last["data"].get("errorCode") == code
    assert last["eventType"] == ("simulated.status_changed" if code is None else "production.failed")


def test_a_list_of_more_than_a_hundred_is_truncated(start: Starter, receiver: Receiver) -> None:
    caller = start(webhook_url=receiver.url)
    files = [{"type": "Video", "bytes": 10}] * 101
    production_id = caller.sim.produce({"deliverables": files})
    caller.when_quiet(production_id)
    ready = next(e for _, b in receiver.got if (e := json.loads(b))["eventType"] == "deliverable.ready")
    assert ready["truncated"] is True
    assert len(ready["data"]["deliverables"]) == 100
    assert len(caller.when_ready(production_id)) == 101


def test_a_webhook_comes_again_until_it_is_accepted(start: Starter, receiver: Receiver) -> None:
    receiver.answers = [500, 404, 302, 503, 429]
    caller = start(webhook_url=receiver.url, steps=0)
    truth = caller.when_quiet(caller.sim.produce({"outcome": "Expired"}))
    deliveries = [event["deliveries"][0] for event in truth["events"]]
    assert sum(len(each["attempts"]) for each in deliveries) == len(receiver.got) == 7
    assert all(each["acknowledged"] and each["lastStatus"] == 202 for each in deliveries)
    assert len({json.loads(body)["eventId"] for _, body in receiver.got}) == 2


def test_giving_up_is_recorded(start: Starter, receiver: Receiver) -> None:
    receiver.answers = [500] * 20
    caller = start(webhook_url=receiver.url, webhook_tries=8, retry_base_seconds=0.001)
    truth = caller.when_quiet(caller.sim.produce({"outcome": "Expired"}))
    assert [len(event["deliveries"][0]["attempts"]) for event in truth["events"]] == [8, 8]
    assert caller.sim.counters().items() >= {"givenUp": 2, "acknowledged": 0, "attempts": 16}.items()


def test_the_usual_schedule_tries_at_least_eight_times_within_half_a_minute() -> None:
    retries = type(FAST)().webhook_tries - 1
    assert retries >= 7
    assert 15 < sum(type(FAST)().retry_base_seconds * 2**number for number in range(retries)) < 30


def test_lost_and_doubled_webhooks_are_in_the_truth(start: Starter, receiver: Receiver) -> None:
    caller = start(webhook_url=receiver.url, steps=1)
    caller.sim.set_faults(
        loss={"next": 1, "match": "step"},
        double={"next": 1, "match": "queued"},
        late={"next": 1, "value": 0.2, "match": "deliverable"},
    )
    truth = caller.when_quiet(caller.sim.produce())
    by_type = {event["eventType"]: event["deliveries"][0] for event in truth["events"]}
    assert by_type["production.step.complete"].items() >= {"lost": True, "attempts": [], "acknowledged": False}.items()
    assert [each["copy"] for each in by_type["production.queued"]["attempts"]] == [1, 2]
    assert by_type["deliverable.ready"]["lateSeconds"] > 0
    arrived = [json.loads(body) for _, body in receiver.got]
    assert sorted(event["eventType"] for event in arrived) == sorted([KINDS[0], KINDS[0], KINDS[2], KINDS[3]])
    assert len({event["eventId"] for event in arrived}) == 3
    counted = {"lost": 1, "doubled": 1, "late": 1, "acknowledged": 3, "givenUp": 0}
    assert caller.sim.counters().items() >= counted.items()


def test_two_subscriptions_get_one_event_under_two_ids(start: Starter, receiver: Receiver) -> None:
    caller = start(webhook_url=receiver.url)
    caller.sim.subscribe(receiver.url, FAST.webhook_secret)
    caller.when_quiet(caller.sim.produce({"outcome": "Expired"}))
    events = [json.loads(body) for _, body in receiver.got]
    assert sorted(event["sequenceNumber"] for event in events) == [1, 1, 2, 2]
    assert len({event["eventId"] for event in events}) == 4


def test_the_same_seed_gives_the_same_world_and_the_same_fate(start: Starter, receiver: Receiver) -> None:
    def told(seed: int) -> list[object]:
        caller = start(webhook_url=receiver.url, seed=seed, loss=0.3, double=0.3, late=0.3, late_seconds=0.05)
        found = [caller.when_quiet(caller.sim.produce({"steps": 10})) for _ in range(2)]
        fates = [
            [event["deliveries"][0][name] for name in ("lost", "doubled", "lateSeconds")]
            for each in found
            for event in each["events"]
        ]
        return [[(each["productionId"], each["deliverables"]) for each in found], fates]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_an_event_about_no_production_has_nil_ids(start: Starter, receiver: Receiver) -> None:
    caller = start(webhook_url=receiver.url)
    caller.sim.emit()
    caller.when_quiet(caller.sim.produce({"outcome": "Expired"}))
    test = next(e for _, b in receiver.got if (e := json.loads(b))["eventType"] == "webhook.test")
    assert test["productionId"] == test["accountId"] == "00000000-0000-0000-0000-000000000000"
