"""Processes are kept alive, end in time, and never outlive their launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from redis import Redis

from service import jobs
from tests.deployment import Deployment, eventually
from tests.partner import SECRET
from tests.store.making import event, keep, new_id


def is_alive(pid: int) -> bool:
    """A process that has ended but that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(deployment: Deployment, count: int) -> dict[str, int]:
    """The pid of each child that works by now."""

    def started() -> dict[str, int] | None:
        found = {entry["process"]: entry["pid"] for entry in deployment.log("process.started")}
        ready = {entry["process"] for entry in deployment.log("service.started")}
        queues = {name.rpartition("-")[0] for name in found}
        return found if len(found) == count and queues <= {name.removeprefix("worker ") for name in ready} else None

    return eventually(started, what="the children's start")


def test_a_child_that_dies_is_started_again(deployment: Deployment, redis: Redis) -> None:
    deployment.start("worker", "worker", "--queues", "advance")
    first = children(deployment, 1)["advance-1"]
    os.kill(first, signal.SIGKILL)
    [ended] = eventually(lambda: deployment.log("process.ended"), 5)
    assert (ended["pid"], ended["code"]) == (first, -signal.SIGKILL)
    second = eventually(lambda: {entry["pid"] for entry in deployment.log("process.started")} - {first}, 5).pop()
    assert is_alive(second)
    identity = new_id()
    keep(redis, event(identity, 1))
    jobs.ring(redis, "advance")
    eventually(lambda: redis.exists(f"jarai:production:{identity}"), 10)


def test_sigterm_ends_the_launcher_and_all_its_children_within_ten_seconds(deployment: Deployment) -> None:
    deployment.start("worker")
    pids = children(deployment, 4)
    started = time.monotonic()
    assert deployment.end("worker") == 0
    assert time.monotonic() - started < 10
    assert not [name for name, pid in pids.items() if is_alive(pid)]
    assert deployment.log("process.killed") == []
    assert deployment.log("process.ended") == []


def test_a_killed_launcher_leaves_no_child_behind(deployment: Deployment) -> None:
    deployment.start("worker")
    pids = children(deployment, 4)
    deployment.end("worker", signal.SIGKILL)
    eventually(lambda: not any(is_alive(pid) for pid in pids.values()), 10, "the children's end")


_ORPHAN = """
import os, time
from workers.processes import ending_with_parent
arrange = ending_with_parent()
launcher = os.getpid()
if os.fork() == 0:
    while os.getppid() == launcher:
        time.sleep(0.01)
    arrange()
    print("lives on", flush=True)
"""


def test_a_child_whose_launcher_was_killed_before_it_could_ask_to_be_told_ends_by_itself() -> None:
    done = subprocess.run([sys.executable, "-c", _ORPHAN], capture_output=True, check=True)
    assert done.stdout == b""


def test_who_is_to_be_notified_has_a_process_of_its_own(deployment: Deployment) -> None:
    who = {"NOTIFY_URL": "http://127.0.0.1:9/", "NOTIFY_SECRET": SECRET}
    deployment.start("worker", "worker", "--queues", "advance,notify", **who)
    assert set(children(deployment, 2)) == {"advance-1", "notify-1"}
    alone = deployment.command("worker", "--queues", "notify")
    assert (alone.returncode, alone.stderr.count("\n")) == (1, 1)
    assert "NOTIFY_URL is not set" in alone.stderr


def test_only_the_named_queues_are_worked_on(deployment: Deployment) -> None:
    deployment.start("worker", "worker", "--queues", "download", "--download", "2")
    assert set(children(deployment, 2)) == {"download-1", "download-2"}
