"""Whatever a process was doing, it may die between any two effects: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service import jobs
from service.core.observations import OperatorAsked
from service.core.schedule import Intervals
from service.jarai import Jarai
from service.settings import load
from service.store import deadletters, due, inbox, productions
from service.store.scripts import PREFIX
from tests.deployment import eventually, free_port
from tests.partner import SECRET, partner
from tests.store.making import RETENTION, event, keep, new_id, take_in, values_of
from tests.workers.receiver import Bench
from workers.advance import drain
from workers.asker import Asker
from workers.notify import Notifier

FILES: list[dict[str, Any]] = [{"type": "Video", "bytes": 1_500_000}, {"type": "Transcript", "bytes": 2_000}]
SMALL_FILES = [{**file, "bytes": 2_000} for file in FILES]  # where it is not the fetching that dies
MOST_EFFECTS = 400


@dataclass
class Victims:
    """Processes of one kind after another, each killed one effect later than the one before."""

    process: subprocess.Popen[str]
    partner_port: int

    def run(self, role: str, before: int, **wanted: object) -> bool:
        """Whether it came to that effect, and died of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"role": role, "before": before, **wanted}) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said in ("killed", "ended 0"), said
        return said == "killed"


@pytest.fixture
def victims(bench: Bench, redis_url: str) -> Iterator[Victims]:
    partner_port = free_port()
    environment = {
        **os.environ,
        "NOTIFY_URL": f"http://127.0.0.1:{partner_port}/",
        "NOTIFY_SECRET": SECRET,
        "REDIS_URL": redis_url,
        "JARAI_API_URL": bench.simulator.api_url,
        "JARAI_API_KEY": bench.simulator.settings.api_key,
        "JARAI_WEBHOOK_SECRETS": bench.simulator.settings.webhook_secret,
        "DOWNLOAD_HOSTS": "127.0.0.1",
        "STORAGE_URL": str(bench.settings.storage_dir),
        "STATE_DIR": str(bench.settings.state_dir),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.workers.crash_points"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Victims(process, partner_port)
        assert process.stdin is not None
        process.stdin.close()


def _through_all(one: Callable[[int], bool], least: int) -> None:
    """Before the first effect, the second, … until it gets through alive."""
    for before in range(1, MOST_EFFECTS):
        if not one(before):
            assert before > least, "so few effects can't be all that there is to it"
            return
    raise AssertionError("it has no end")


def _recover(bench: Bench) -> None:
    """Claims of the dead run out, and the living go on from the due lists alone."""
    bench.hurry("dirty")
    take_in(bench.redis)
    bench.until_quiet()


def _published(bench: Bench, files: list[dict[str, Any]]) -> str:
    """A production that JARAI has published."""
    plan = {"steps": 0, "stepSeconds": 0, "phaseSeconds": 0, "deliverables": files}
    identity = bench.simulator.produce(plan)
    eventually(lambda: bench.truth(identity)["status"] == "Published")
    return identity


def _begin(bench: Bench, identity: str) -> None:
    """Nothing of it is here yet, but what its events tell."""
    bench.redis.flushall()
    shutil.rmtree(bench.settings.storage_dir, ignore_errors=True)
    shutil.rmtree(bench.settings.state_dir, ignore_errors=True)
    _told(bench, identity)
    take_in(bench.redis)


def _told(bench: Bench, identity: str) -> None:
    keep(
        bench.redis,
        event(identity, 1, "production.queued"),
        event(identity, 2, "deliverable.ready", truncated=True),
        event(identity, 3, "production.published"),
    )


def _nothing_is_lost_and_nothing_happened_twice(bench: Bench, identity: str) -> None:
    bench.is_stored(identity)
    timeline = productions.timeline(bench.redis, identity)
    assert sorted(entry["sequenceNumber"] for entry in timeline if entry["kind"] == "event") == [1, 2, 3]
    kinds = [entry["kind"] for entry in timeline]
    assert (kinds.count("deliverable.stored"), kinds.count("production.settled")) == (len(FILES), 1)
    assert bench.known(identity).missing == ()
    for name in ("dirty", "ask", "download", "attempts", "claims", "progress", "tries"):
        assert not bench.redis.exists(f"{PREFIX}{name}"), name
    assert [key for key in values_of(bench.redis) if "inbox:" in key or "link:" in key] == []


@pytest.mark.timeout(600)
def test_an_intake_that_dies_anywhere_has_kept_whatever_it_answered(
    bench: Bench, victims: Victims, tmp_path: Path
) -> None:
    def one(before: int) -> bool:
        bench.redis.flushall()
        identity, output = new_id(), tmp_path / f"answers-{before}"
        bodies = [event(identity, number).decode() for number in (1, 2, 3)] + ["{not an event}"]
        died = victims.run("intake", before, bodies=bodies, output=str(output))
        answered = {int(line) for line in output.read_text().split()} if output.exists() else set()
        take_in(bench.redis)
        kept = productions.timeline(bench.redis, identity)
        numbers = [entry["sequenceNumber"] for entry in kept if entry["kind"] == "event"]
        assert {number for number in (1, 2, 3) if number - 1 in answered} <= set(numbers)
        assert deadletters.count(bench.redis) == 1 or 3 not in answered
        keep(bench.redis, *(body.encode() for body in bodies))  # JARAI sends again what was not answered
        take_in(bench.redis)
        again = productions.timeline(bench.redis, identity)
        assert sorted(entry["sequenceNumber"] for entry in again if entry["kind"] == "event") == [1, 2, 3]
        assert deadletters.count(bench.redis) == 1
        return died

    _through_all(one, least=5)


@pytest.mark.timeout(600)
def test_an_advance_worker_that_dies_anywhere_has_written_down_all_or_nothing(bench: Bench, victims: Victims) -> None:
    identity = _published(bench, SMALL_FILES)

    def one(before: int) -> bool:
        _begin(bench, identity)
        bench.hurry("ask")
        jarai = Jarai(bench.simulator.api_url, bench.simulator.settings.api_key)
        assert Asker(bench.redis, jarai, bench.settings).ask_once()
        inbox.observe(bench.redis, identity, OperatorAsked(productions.now(bench.redis), "track"))
        jobs.ring(bench.redis, "advance")
        died = victims.run("advance", before, queue="advance")
        _recover(bench)
        _nothing_is_lost_and_nothing_happened_twice(bench, identity)
        return died

    _through_all(one, least=20)


@pytest.mark.timeout(600)
def test_a_download_worker_that_dies_anywhere_leaves_every_file_right_and_stored_once(
    bench: Bench, victims: Victims
) -> None:
    identity = _published(bench, FILES)

    def one(before: int) -> bool:
        _begin(bench, identity)
        bench.ask()
        assert due.sweep(bench.redis).download == len(FILES) + 1, "the files and the manifest"
        jobs.ring(bench.redis, "download")
        died = victims.run("download", before, queue="download")
        folder = bench.settings.storage_dir / (bench.known(identity).folder or "")
        in_place = [path for path in folder.glob("*") if path.name != "manifest.json"]
        requests = len(bench.blob_requests())
        _recover(bench)
        assert len(bench.blob_requests()) - requests <= len(FILES) - len(in_place), "what is in its place is paid for"
        _nothing_is_lost_and_nothing_happened_twice(bench, identity)
        return died

    _through_all(one, least=40)


@pytest.mark.timeout(600)
def test_a_poller_that_dies_anywhere_costs_time_and_nothing_else(bench: Bench, victims: Victims) -> None:
    identity = _published(bench, SMALL_FILES)
    tracked = bench.simulator.produce({"outcome": "Failed", "steps": 0, "phaseSeconds": 0})
    eventually(lambda: bench.truth(tracked)["status"] == "Failed")

    def one(before: int) -> bool:
        _begin(bench, identity)
        inbox.observe(bench.redis, tracked, OperatorAsked(productions.now(bench.redis), "refresh"))
        take_in(bench.redis)
        bench.hurry("ask")
        died = victims.run("poll", before)
        _recover(bench)
        assert bench.known(tracked).status == "Failed"
        assert bench.known(tracked).settled
        _nothing_is_lost_and_nothing_happened_twice(bench, identity)
        return died

    _through_all(one, least=10)


@pytest.mark.timeout(600)
def test_a_notifier_that_dies_anywhere_has_every_notice_delivered_and_none_under_two_ids(
    bench: Bench, victims: Victims
) -> None:
    ids = [new_id() for _ in range(2)]

    def one(before: int) -> bool:
        bench.redis.flushall()
        keep(bench.redis, *(event(identity, 1, "production.failed") for identity in ids))
        drain(bench.redis, Intervals(), RETENTION, notify=True)
        with partner(victims.partner_port) as listening:
            died = victims.run("notify", before)
            bench.hurry("notify")
            Notifier(bench.redis, load({"NOTIFY_URL": listening.url, "NOTIFY_SECRET": SECRET}, dotenv=None)).drain()
            told = {one.id: one.notice["data"]["productionId"] for one in listening.got}
        assert sorted(told.values()) == sorted(ids)
        assert len(listening.got) <= len(ids) + died
        assert [key for key in values_of(bench.redis) if key.startswith((f"{PREFIX}notify", f"{PREFIX}notice:"))] == []
        assert deadletters.count(bench.redis) == 0
        return died

    _through_all(one, least=6)
