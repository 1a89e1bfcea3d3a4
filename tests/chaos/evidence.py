"""What is found after the trouble, for `verdict` to judge: read from outside, from Redis and from the disk."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from tests.chaos.stage import Stage


@dataclass(frozen=True, slots=True)
class Logs:
    """`stored`: lines for each production and file. `faulty`: who wrote lines that are no JSON, hold a traceback or a
    secret, how many, and the last of them (but no secret)."""

    events: Mapping[str, int]
    stored: Mapping[tuple[str, str], int]
    faulty: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """`files`: by production, name and SHA-256 of everything in its folder. `keys`: Redis's keys, with their TTL (-1:
    for ever). `jobs`: the ids in RQ's queues and registries. `partial`: what lies in the folder of partial files."""

    truth: Mapping[str, Any]
    productions: Mapping[str, Mapping[str, Any]]
    timelines: Mapping[str, Sequence[Mapping[str, Any]]]
    dead_letters: Sequence[Mapping[str, Any]]
    manifests: Mapping[str, Mapping[str, Any] | None]
    files: Mapping[str, Mapping[str, str]]
    partial: tuple[str, ...]
    keys: Mapping[str, int]
    jobs: frozenset[str]
    tracked: Mapping[int, int]
    overdue: tuple[str, ...]
    logs: Logs


def gather(stage: Stage, tracked: Mapping[int, int]) -> Evidence:
    """Ends all processes but Redis in good order on its way."""
    productions = stage.productions()
    timelines = {one: stage.get(f"/productions/{one}/timeline")["timeline"] for one in productions}
    stage.end()
    storage = stage.folder / "deliverables"
    folders = {one: storage / shown["folder"] for one, shown in productions.items() if shown["folder"]}
    with stage.redis as redis:
        keys, jobs, letters = _keys(redis), _jobs(redis), _dead_letters(redis)
    return Evidence(
        truth=stage.simulator.truth(),
        productions=productions,
        timelines=timelines,
        dead_letters=letters,
        manifests={one: _manifest(folder) for one, folder in folders.items()},
        files={one: _files(folder) for one, folder in folders.items()},
        partial=tuple(sorted(path.name for path in (stage.folder / "state").glob("partial/*"))),
        keys=keys,
        jobs=jobs,
        tracked=dict(tracked),
        overdue=tuple(stage.processes.overdue),
        logs=read_logs(_lines(stage.folder), stage.secrets),
    )


def read_logs(lines: Iterable[tuple[str, str]], secrets: Sequence[str]) -> Logs:
    """Each line with the name of the process that wrote it."""
    events: Counter[str] = Counter()
    stored: Counter[tuple[str, str]] = Counter()
    faulty: Counter[str] = Counter()
    last: dict[str, str] = {}

    def note(fault: str, line: str = "") -> None:
        faulty[fault] += 1
        last[fault] = line[-300:]

    for process, line in lines:
        if any(secret in line for secret in secrets):
            note(f"{process} tells a secret")
            continue
        try:
            entry = json.loads(line)
            event = str(entry["event"])
        except (ValueError, TypeError, KeyError):
            note(f"{process} says what is no JSON", line)
            continue
        if "Traceback (most recent call last)" in line:
            note(f"{process} shows a traceback", line)
        events[event] += 1
        if event == "deliverable.stored":
            stored[entry["production_id"], entry["deliverable_id"]] += 1
    return Logs(events, stored, tuple(f"{fault}, {times} lines: {last[fault]}" for fault, times in faulty.items()))


def _lines(folder: Path) -> Iterable[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl")):
        with open(path, errors="replace") as log:
            yield from ((path.stem, line.rstrip("\n")) for line in log)


def _dead_letters(redis: Redis) -> list[dict[str, str]]:
    found: Any = [redis.hgetall(key) for key in redis.scan_iter("jarai:deadletter:*")]
    return [{name.decode(): value.decode("utf-8", "replace") for name, value in one.items()} for one in found]


def _keys(redis: Redis) -> dict[str, int]:
    return {key.decode(): int(redis.ttl(key)) for key in redis.scan_iter(count=1000)}


def _jobs(redis: Redis) -> frozenset[str]:
    """Every id in a queue or registry of RQ; an execution's entry is the job's id, a colon and its own."""
    found: set[str] = set()
    for key in redis.scan_iter("rq:*"):
        kind: Any = redis.type(key)
        members: Any = []
        if kind == b"list":
            members = redis.lrange(key, 0, -1)
        elif kind == b"zset":
            members = redis.zrange(key, 0, -1)
        found |= {member.decode().partition(":")[0] for member in members}
    return frozenset(found)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None
    return found


def _files(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*"))
        if path.name != "manifest.json"
    }
