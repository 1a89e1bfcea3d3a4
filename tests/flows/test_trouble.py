"""Trouble at JARAI's side, and what it costs: time, never an event, a file or a request too many."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import Deployment, eventually, memory_folder
from workers import redis_server
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

SILENT = "30"  # seconds: in these tests polling has to have another reason than silence


@dataclass(frozen=True)
class Standing:
    """One deployment for several tests, and what had been asked and said before this one."""

    deployment: Deployment
    simulator: Running
    redis: Redis
    asked_before: int = 0
    failed_before: int = 0

    def asked(self, ending: str = "") -> list[str]:
        return [path for path in _asked(self.simulator)[self.asked_before :] if path.endswith(ending)]

    def failed(self) -> int:
        return len(self.deployment.log("poll.failed")) - self.failed_before

    def truth(self, identity: str) -> dict[str, Any]:
        productions: list[dict[str, Any]] = self.simulator.truth()["productions"]
        return next(one for one in productions if one["productionId"] == identity)


@contextlib.contextmanager
def _stands(folder: Path, **settings: str) -> Iterator[Standing]:
    with (
        tempfile.TemporaryDirectory(dir=memory_folder()) as data,
        redis_server.running(Path(data)) as url,
        run_in_thread(SimulatorSettings(seed=1, steps=3, step_seconds=0.05, phase_seconds=0.1)) as simulator,
        Deployment.prepare(simulator, url, folder) as deployment,
        Redis.from_url(url) as redis,
    ):
        deployment.start_all(**settings)
        eventually(lambda: redis.scard("rq:workers") == 4, what="the workers' listening")
        yield Standing(deployment, simulator, redis)


@contextlib.contextmanager
def _for_one_test(standing: Standing) -> Iterator[Standing]:
    """A test uses up the faults that it sets, and leaves its production settled."""
    before = replace(standing, asked_before=len(_asked(standing.simulator)), failed_before=standing.failed())
    yield before
    standing.simulator.set_faults(loss={"rate": 0, "next": 0, "match": ""})
    # What was learnt and spent, and with it the pause that JARAI is left after it was out of order.
    standing.redis.delete(f"{PREFIX}budget", f"{PREFIX}requests")
    shown = standing.deployment.get("/productions?limit=500")["productions"]
    assert all(one["settled"] for one in shown), "else it plays a part in the next test"


@pytest.fixture(scope="module")
def _silent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with _stands(tmp_path_factory.mktemp("silent"), WEBHOOK_SILENCE_SECONDS=SILENT) as standing:
        yield standing


@pytest.fixture
def standing(_silent: Standing) -> Iterator[Standing]:
    with _for_one_test(_silent) as one:
        yield one


@pytest.fixture(scope="module")
def _polling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with _stands(tmp_path_factory.mktemp("polling")) as standing:
        yield standing


@pytest.fixture
def polling(_polling: Standing) -> Iterator[Standing]:
    """As `standing`, but where no webhook comes for a second JARAI is asked."""
    with _for_one_test(_polling) as one:
        yield one


def _asked(simulator: Running, ending: str = "") -> list[str]:
    return [one["path"] for one in simulator.truth()["apiRequests"] if one["path"].endswith(ending)]


def test_an_address_that_expired_costs_one_request_for_all_files(standing: Standing) -> None:
    deployment, simulator = standing.deployment, standing.simulator
    simulator.set_faults(blob_expired={"next": 5})
    identity = simulator.produce()
    deployment.settled(identity)
    assert 1 <= len(standing.asked()) <= 2
    assert standing.asked() == standing.asked("/deliverables")


def test_a_truncated_list_is_asked_for_whole(standing: Standing) -> None:
    deployment, simulator = standing.deployment, standing.simulator
    many = [{"type": "ClosedCaptions", "bytes": 100 + number} for number in range(130)]
    identity = simulator.produce({"deliverables": many})
    deployment.settled(identity)
    shown = deployment.production(identity)
    assert shown is not None
    assert [one["state"] for one in shown["deliverables"]] == ["stored"] * 130
    assert len(standing.asked()) == 1
    assert len(deployment.manifest(shown)["deliverables"]) == 130


def test_an_event_of_an_unknown_type_is_answered_by_asking_for_the_status(standing: Standing) -> None:
    deployment, simulator = standing.deployment, standing.simulator
    identity = simulator.produce({"outcome": "Cancelled"})  # told by an event of a type that is not documented
    deployment.settled(identity)
    shown = deployment.production(identity)
    assert shown is not None
    assert (shown["status"], shown["source"]) == ("Cancelled", "poll")
    assert len(standing.asked()) == 1


def test_a_hole_in_the_numbers_is_polled_for_once_and_not_for_ever(standing: Standing) -> None:
    deployment, simulator = standing.deployment, standing.simulator
    simulator.set_faults(loss={"next": 1, "match": "step.complete"})
    identity = simulator.produce({"stepSeconds": 0.2, "hold": "AwaitingApproval"})
    eventually(lambda: standing.asked(), what="a poll")
    eventually(lambda: len((deployment.production(identity) or {}).get("deliverables", [])) == 5, what="the files")
    simulator.release(identity)
    deployment.settled(identity)
    assert standing.asked() == standing.asked(identity)  # the list came whole behind the hole
    assert len(standing.asked()) == 1


@pytest.mark.parametrize(
    "fault",
    [{"api_500": {"next": 2}}, {"api_garbage": {"next": 2}}, {"api_drop": {"next": 2}}, {"api_429": {"next": 1}}],
    ids=lambda fault: next(iter(fault)),
)
def test_an_answer_that_is_no_use_is_asked_for_again_later(polling: Standing, fault: dict[str, object]) -> None:
    deployment, simulator = polling.deployment, polling.simulator
    simulator.set_faults(loss=1.0, **fault)
    identity = simulator.produce({"outcome": "Failed"})
    deployment.call("POST", f"/productions/{identity}/track")
    deployment.settled(identity, seconds=20)
    assert polling.failed()
    refused = {500, 429}
    asked = simulator.truth()["apiRequests"][polling.asked_before :]
    assert len([one for one in asked if one["status"] in refused]) <= 2


@pytest.mark.parametrize(
    "fault",
    ["blob_cut", "blob_500", "blob_503", "blob_short", "blob_corrupt", "blob_ignore_range"],
)
def test_a_download_that_fails_is_tried_again_until_the_bytes_are_right(standing: Standing, fault: str) -> None:
    deployment, simulator = standing.deployment, standing.simulator
    simulator.set_faults(**{fault: {"next": 1}})
    files = [{"type": "Video", "bytes": 3_000_000, "checksum": "md5"}]
    identity = simulator.produce({"deliverables": files})
    deployment.settled(identity)
    truth = standing.truth(identity)
    shown = deployment.production(identity)
    assert shown is not None
    assert shown["deliverables"][0]["sha256"] == truth["deliverables"][0]["sha256"]
    assert standing.asked() == []


def test_without_an_api_key_webhooks_alone_bring_everything(deployment: Deployment, simulator: Running) -> None:
    deployment.start_all(JARAI_API_KEY="")
    identity = simulator.produce()
    deployment.settled(identity)
    assert deployment.log("service.key_missing")
    assert _asked(simulator) == []


def _status(deployment: Deployment, identity: str) -> str | None:
    status: str | None = (deployment.production(identity) or {}).get("status")
    return status


def test_several_pollers_share_the_work_and_ask_no_question_twice(deployment: Deployment, simulator: Running) -> None:
    simulator.set_faults(loss=1.0)
    deployment.start_all(POLL_QUEUED_SECONDS="60", POLL_PRODUCING_SECONDS="60", POLL_WAITING_SECONDS="60")
    for number in (2, 3):
        deployment.start(f"poller-{number}", "poller")
    ids = [simulator.produce({"hold": "Producing"}) for _ in range(6)]
    for identity in ids:
        deployment.call("POST", f"/productions/{identity}/track")
    for identity in ids:
        eventually(partial(_status, deployment, identity), what="a poll")
    assert sorted(_asked(simulator)) == sorted(f"/v1/partner/productions/{identity}" for identity in ids)
