"""Is this Redis the one that this deployment has been working with, and who of it is alive?

A name in Redis, and the same name on disk, tell the first.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from redis import Redis

from service.jobs import QUEUES
from service.store.scripts import PREFIX, REPORT_ALIVE

_KEY = f"{PREFIX}deployment"
_ALIVE_MS = 60_000


def remembered(state_dir: Path) -> str:
    """The name that the disk knows, or nothing."""
    try:
        return _note(state_dir).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def settle_in(redis: Redis, name: str) -> str:
    """Give a nameless Redis this name. The name, or nothing when somebody else has just done so."""
    return name if redis.set(_KEY, name, nx=True) else ""


def recognise(redis: Redis, state_dir: Path) -> bool:
    """Compare the two names, and make them one. False: what this deployment left in Redis is not there any more."""
    before = remembered(state_dir)
    nameless = settle_in(redis, before or uuid.uuid4().hex) != ""
    name = _text(redis.get(_KEY))
    if name != before:
        with contextlib.suppress(OSError):  # a folder that can't be written is told by whoever has to write there
            state_dir.mkdir(parents=True, exist_ok=True)
            temporary = _note(state_dir).with_suffix(f".{os.getpid()}")
            temporary.write_text(f"{name}\n")
            os.replace(temporary, _note(state_dir))
    return before == "" or (before == name and not nameless)


def report_alive(redis: Redis, kind: str, name: str) -> None:
    """This process is at work; has to be said again within a minute. `name` tells it from others of its kind."""
    REPORT_ALIVE.run(redis, f"{kind} {name}", _ALIVE_MS)


def alive(redis: Redis) -> Counter[str]:
    """How many processes of each kind are at work: pollers by their reports, workers by what RQ knows of them."""
    reported: Any = redis.zrange(f"{PREFIX}alive", 0, -1)
    counts = Counter(name.decode().partition(" ")[0] for name in reported)
    for queue in QUEUES:
        members: Any = redis.smembers(f"rq:workers:{queue}")
        counts[queue] = int(redis.exists(*members)) if members else 0
    return counts


def _text(raw: Any) -> str:
    return raw.decode() if raw else ""


def _note(state_dir: Path) -> Path:
    return state_dir / "deployment"
