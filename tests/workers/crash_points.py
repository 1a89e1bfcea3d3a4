"""Stops a process exactly before its n-th effect, as `kill -9` does: run as a program that forks one for each n.

An effect is whatever leaves the process: bytes to a socket (a command to Redis, a request to JARAI or its blobs) and
each change of a file. Before the n-th is after the one before, so all n together are all places between two effects.
Nothing of this is in the product: the few functions by which effects leave are counted from outside.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rq import Queue

from service import runtime
from service.store.inbox import arrival
from service.web.intake import Intake
from workers import notify, shutdown
from workers.asker import Asker
from workers.poller import Poller
from workers.worker import _Worker

# What a victim would import by its job's name: once for all of them here, not in each for itself.
for _module in ("workers.advance", "workers.download", "encodings.idna", "_strptime"):
    importlib.import_module(_module)

_FILE_EFFECTS = ("write", "replace", "rename", "unlink", "fsync", "ftruncate", "mkdir")


def arm(last: int) -> None:
    """From here on the `last`-th effect of this process does not happen: it dies right before."""
    done = 0

    def counted(effect: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return effect(*args, **named)

        return instead

    for name in _FILE_EFFECTS:
        setattr(os, name, counted(getattr(os, name)))
    for name in ("sendall", "send"):  # the second by an event loop
        setattr(socket.socket, name, counted(getattr(socket.socket, name)))


def intake(wanted: Mapping[str, Any]) -> None:
    """Keeps the bodies; each answer is the number of its body in the file `output`."""

    async def keep() -> None:
        here = runtime.current("web")
        door = Intake(here.intake_async_redis(), here.intake_redis)
        answers = [door.hand_in(arrival(body.encode())) for body in wanted["bodies"]]
        output = os.open(wanted["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number, answer in enumerate(answers):
            await answer
            os.write(output, b"%d\n" % number)
        await door.stop()

    asyncio.run(keep())


def worker(wanted: Mapping[str, Any]) -> None:
    """One RQ worker until its queue is empty."""
    here = runtime.current(f"worker {wanted['queue']}")
    queue = Queue(wanted["queue"], connection=here.redis, serializer="json")
    _Worker([queue], connection=here.redis, serializer="json").work(burst=True, logging_level="WARNING")


def tell(wanted: Mapping[str, Any]) -> None:
    """Every notice that is due."""
    notify.run()


def poll(wanted: Mapping[str, Any]) -> None:
    """One sweep, and every question that is due."""
    here = runtime.current("poller")
    Poller(here)._sweep()
    while Asker(here.redis, here.jarai, here.settings).ask_once():
        pass


ROLES = {"intake": intake, "advance": worker, "download": worker, "notify": tell, "poll": poll}


def _one(wanted: Mapping[str, Any]) -> str:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        shutdown._asked = False
        arm(wanted["before"])
        ROLES[wanted["role"]](wanted)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    for line in sys.stdin:
        print(_one(json.loads(line)), flush=True)
