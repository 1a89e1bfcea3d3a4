"""A clock that is wrong, or jumps, of Redis's machine or of ours: nothing stalls and nothing is lost.

Redis's time is what everything goes by, so its real process runs under libfaketime, where that is installed
(`apt install faketime`). The arithmetic alone is in tests/store/test_clock.py and tests/core/test_clocks.py.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.deployment import Deployment, eventually
from workers.redis_server import find_binary
from workers.simulator.running import Running

HOUR = 3600


def _library() -> Path | None:
    return next(iter(Path("/usr/lib").glob("**/faketime/libfaketime.so.1")), None)


class Clock:
    """The clock of a Redis server, so many seconds off."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "clock"
        self.set(0)

    def set(self, seconds: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        os.replace(new, self.file)

    @property
    def environment(self) -> dict[str, str]:
        library = _library()
        if library is None:
            pytest.skip("libfaketime is not installed: the jumping clock of a real Redis is not tried here")
        return {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def astray(clock: Clock, simulator: Running, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment whose Redis goes by that clock."""
    socket = tmp_path / "s"
    command = [find_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path), "--appendonly", "yes"]
    process = subprocess.Popen(command, env=clock.environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        eventually(socket.exists, what="Redis's start")
        with Deployment.prepare(simulator, f"unix://{socket}", tmp_path) as prepared:
            yield prepared
    finally:
        process.kill()
        process.wait()


def _redis_time(deployment: Deployment) -> float:
    with Redis.from_url(deployment.environment["REDIS_URL"]) as redis:
        return float(redis.time()[0])


# Early all the time; late, then put right; right, then far ahead, and late to the end.
@pytest.mark.parametrize("jumps", [(HOUR,), (-HOUR, 0), (0, 3 * HOUR, -HOUR)])
def test_redis_may_be_wrong_by_an_hour_and_its_clock_may_jump(
    astray: Deployment, simulator: Running, clock: Clock, jumps: tuple[int, ...]
) -> None:
    """The first is how wrong it is from the start, each other comes amid what it does."""
    clock.set(jumps[0])
    assert abs(_redis_time(astray) - time.time() - jumps[0]) < 5
    simulator.set_faults(loss=0.3, late={"rate": 0.3, "value": 1.0})
    astray.start_all()
    ids = [simulator.produce({"outcome": outcome}) for outcome in ["Published"] * 4 + ["Failed"]]
    for identity in ids:
        assert astray.call("POST", f"/productions/{identity}/track").status == 202
    for jump in jumps[1:]:
        eventually(lambda: len(astray.log("production.status_changed")) > len(ids), what="the middle of it")
        clock.set(jump)
    ids += [simulator.produce({"outcome": outcome}) for outcome in ("Published", "Cancelled")]
    for identity in ids[-2:]:
        assert astray.call("POST", f"/productions/{identity}/track").status == 202
    astray.settled(*ids, seconds=45)
    fetched = [request["path"] for request in simulator.truth()["blobRequests"]]
    assert len(fetched) == len(set(fetched)), "no file was fetched twice"
    truth = {one["productionId"]: one["status"] for one in simulator.truth()["productions"]}
    assert {identity: (astray.production(identity) or {})["status"] for identity in ids} == truth
    if len(jumps) > 1 and jumps[-1] < jumps[-2]:
        assert astray.log("clock.set_back")


def test_our_own_machine_may_be_wrong_by_an_hour(deployment: Deployment, simulator: Running, clock: Clock) -> None:
    """Web, workers and poller go by a clock of their own that is an hour late; Redis's is right."""
    clock.set(-HOUR)
    wrong = clock.environment
    settings = {name: wrong[name] for name in wrong if name.startswith(("LD_", "FAKETIME_"))}
    simulator.set_faults(loss=0.3)
    deployment.start_all(**settings)
    ids = [simulator.produce({"outcome": outcome}) for outcome in ("Published", "Published", "Failed")]
    for identity in ids:
        assert deployment.call("POST", f"/productions/{identity}/track").status == 202
    deployment.settled(*ids, seconds=45)
