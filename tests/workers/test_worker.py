"""One RQ worker and a Redis in trouble: it ends and says why in one line, and a signal ends it at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service import jobs
from service.store.inbox import Kept
from service.store.scripts import PREFIX
from tests.deployment import eventually
from tests.store.making import event, keep, new_id, server


@contextmanager
def worker(redis: Redis, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An advance worker that waits for its first bell."""
    environment = {
        **os.environ,
        "REDIS_URL": f"unix://{redis.connection_pool.connection_kwargs['path']}",
        "STATE_DIR": str(folder),
        "LOG_FORMAT": "json",
    }
    with open(folder / "log", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker", "advance"], env=environment, stdout=output, stderr=output
        )
    try:
        eventually(lambda: redis.client_list(_type="normal") and _waits(redis), what="the wait for a bell")
        yield process
    finally:
        process.kill()
        process.wait()


def _waits(redis: Redis) -> bool:
    clients: Any = redis.client_list()
    return any(one["cmd"] in ("blmove", "brpoplpush", "blpop") for one in clients)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def read_only(redis: Redis) -> None:
    redis.replicaof("127.0.0.1", "1")
    redis.client_kill_filter(_type="normal", skipme=True)


def test_a_redis_in_trouble_ends_it_with_plain_lines_and_no_traceback(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path) as process:
        read_only(redis)
        process.wait(30)
        said = lines(tmp_path)
        assert {entry["event"] for entry in said} <= {
            "service.started", "service.stopped", "store.unavailable", "library.said",
        }  # fmt: skip
        assert any("Error" in entry.get("error", "") for entry in said)
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_while_it_waits(tmp_path: Path, number: signal.Signals) -> None:
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path) as process:
        process.send_signal(number)
        assert process.wait(5) == 0
        assert lines(tmp_path)[-1]["event"] == "service.stopped"
        assert redis.scard("rq:workers") == 0


@pytest.mark.parametrize("listens", [False, True])
def test_a_bell_that_comes_in_the_moment_of_its_end_is_rung_again_for_the_others(tmp_path: Path, listens: bool) -> None:
    """Redis has handed it out already, and it is not going to be answered."""
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path) as process:
        if listens:
            _has_worked(redis)
            eventually(lambda: _waits(redis), what="the wait for a bell")
        process.send_signal(signal.SIGSTOP)
        jobs.ring(redis, "advance")
        assert redis.llen("rq:queue:advance") == 0, "it has got the bell, and does not know yet"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(5) == 0
        assert redis.llen("rq:queue:advance") == 1


def test_signals_at_any_moment_of_its_work_end_it_and_lose_nothing(tmp_path: Path) -> None:
    """Bells ring all the time, and each worker gets its signal a little later than the one before."""
    with server("--appendonly", "yes") as redis:
        ids = []
        for turn in range(6):
            folder = tmp_path / str(turn)
            folder.mkdir()
            with worker(redis, folder) as process:
                for _ in range(5 * turn):
                    ids.append(new_id())
                    keep(redis, event(ids[-1], 1))
                    jobs.ring(redis, "advance")
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
                assert "Traceback" not in (folder / "log").read_text()
        with worker(redis, tmp_path):
            jobs.ring(redis, "advance")
            eventually(lambda: redis.zcard("jarai:dirty") == 0, what="the rest")
        assert redis.zcard("jarai:index") == len(ids)


def test_one_that_has_just_worked_is_woken_without_a_job(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path):
        assert not redis.exists(f"{PREFIX}listening"), "it has not worked yet, and nobody pays for its listening"
        _has_worked(redis)
        for _ in range(3):
            identity = new_id()
            [kept] = keep(redis, event(identity, 1))
            assert isinstance(kept, Kept)
            assert not kept.wakes
            eventually(lambda one=identity: redis.exists(f"{PREFIX}production:{one}"), 5)  # type: ignore[misc]
        jobs.ring(redis, "advance")
        eventually(lambda: not redis.llen(f"{PREFIX}rung"), what="the bell's end")
        rung = [redis.hget(job, "origin") for job in redis.scan_iter("rq:job:*")]
        assert b"advance" not in rung, "a job was needed"


def _has_worked(redis: Redis) -> None:
    jobs.ring(redis, "advance")
    eventually(lambda: redis.exists(f"{PREFIX}listening") and not redis.keys("rq:job:*"), what="the listening")


def test_one_that_listens_takes_jobs_as_well(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path):
        _has_worked(redis)
        jobs.ring(redis, "advance", bells=2)
        eventually(lambda: not redis.llen("rq:queue:advance"), 5, "the job's turn")


def test_many_bells_wake_the_others_with_jobs_as_well(redis: Redis) -> None:
    redis.set(f"{PREFIX}listening", 1)
    jobs.ring(redis, "advance", bells=3)
    jobs.ring(redis, "advance", bells=1)
    assert (redis.llen(f"{PREFIX}rung"), redis.llen("rq:queue:advance")) == (1, 2)


def test_the_other_queues_are_woken_with_jobs(redis: Redis) -> None:
    redis.set(f"{PREFIX}listening", 1)
    jobs.ring(redis, "download")
    assert (redis.llen(f"{PREFIX}rung"), redis.llen("rq:queue:download")) == (0, 1)


def test_one_that_is_killed_while_it_listens_takes_no_bell_for_long(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, worker(redis, tmp_path) as process:
        _has_worked(redis)
        process.kill()
        process.wait()
        keep(redis, event(new_id(), 1))
        eventually(lambda: not redis.exists(f"{PREFIX}listening"), 5)
        [kept] = keep(redis, event(new_id(), 1))
        assert isinstance(kept, Kept)
        assert kept.wakes
