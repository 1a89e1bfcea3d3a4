"""What a production costs in Redis, and what each look costs, with a thousand of them and with a hundred thousand.

The first thousand come in through the real intake and are taken in by the real worker. The others are copies of these
under ids of their own: the same keys with the same content, made inside Redis, because two million events would take
minutes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import urllib3
from redis import Redis

from service.core.schedule import Intervals
from service.runtime import Runtime
from service.settings import load
from service.store import due, productions
from service.store.scripts import PREFIX
from tests.bench.table import Sample
from tests.deployment import ADMIN_TOKEN, eventually, free_port
from tests.store.making import RETENTION, event, keep, server
from workers import advance
from workers.poller import Poller
from workers.radar import Radar

REAL = 1000
SIZES = (1000, 10_000, 100_000)
_EVENTS_EACH = 20
_BATCH = 1000
_SAMPLED = 200
_TICKS = 300
_PAGES = 9

# of each production, by the name after the prefix; `events` is the archive
_OWN = ("production", "timeline", "events")
_SHARED = ("index", "ask", "download", "download:small", "forget", "unaccounted")

# template, id, ... -> copies of the template's keys and of its places in the lists, a millisecond apart each
_COPY = """
local P, from = 'jarai:', ARGV[1]
local state, pattern = redis.call('GET', P..'production:'..from), string.gsub(from, '%-', '%%-')
for i = 2, #ARGV do
  redis.call('SET', P..'production:'..ARGV[i], (string.gsub(state, pattern, ARGV[i])))
  for _, kind in ipairs({'timeline:', 'events:'}) do redis.call('COPY', P..kind..from, P..kind..ARGV[i]) end
  for _, list in ipairs({'index', 'ask', 'download', 'download:small', 'forget', 'unaccounted'}) do
    for _, file in ipairs({'', ':manifest'}) do
      local at = redis.call('ZSCORE', P..list, from..file)
      if at then redis.call('ZADD', P..list, at + i, ARGV[i]..file) end
    end
  end
end
"""


def growth(folder: Path, rounds: int) -> Iterator[Sample]:
    """Bytes by kind of key and the time of each look, at each of the sizes. Once: a time is a median already."""
    folder.mkdir()
    with server() as redis:
        _fill_for_real(redis, 1)  # scripts and tables that are there once
        redis.delete(*redis.scan_iter(f"{PREFIX}*"))
        empty_bytes, times = _used(redis), {}
        _fill_for_real(redis, REAL)
        templates = _ids(redis)
        per_production: dict[int, dict[str, float]] = {}
        for size in SIZES:
            _fill_with_copies(redis, templates, size)
            per_production[size] = _bytes_by_kind(redis, size, _used(redis) - empty_bytes)
            yield from _of_bytes(size, per_production[size])
            if size in (SIZES[0], SIZES[-1]):
                times[size] = _times(redis, folder)
        few, many = SIZES[0], SIZES[-1]
        yield Sample(f"Redis bytes each, at {many:,}", "bytes", per_production[many]["all"], f"at {few:,}",
                     per_production[few]["all"], at_most=1.1)  # fmt: skip
        for what, (unit, at_most, took) in times[many].items():
            yield Sample(f"{what}, {many:,} tracked", unit, took, f"{few:,} tracked", times[few][what][2],
                         at_most=at_most)  # fmt: skip


def _fill_for_real(redis: Redis, amount: int) -> None:
    """Productions under way with twenty events each, and nobody at work on their manifests."""
    at_once = min(amount, _BATCH // _EVENTS_EACH)
    for _ in range(0, amount, at_once):
        some = [str(uuid4()) for _ in range(at_once)]
        bodies = [event(one, number, accountId=str(uuid4()), data={"step": number, "detail": "x" * 250})
                  for one in some for number in range(1, _EVENTS_EACH + 1)]  # fmt: skip
        keep(redis, *bodies)
    advance.drain(redis, Intervals(), RETENTION)
    redis.delete("rq:queue:download", "rq:queue:advance")


def _fill_with_copies(redis: Redis, templates: list[str], size: int) -> None:
    copy = redis.register_script(_COPY)
    missing = size - int(redis.zcard(f"{PREFIX}index"))
    for number in range(0, missing, _BATCH):
        copy(args=[templates[number // _BATCH % len(templates)], *(str(uuid4()) for _ in range(_BATCH))])


def _used(redis: Redis) -> int:
    """What is allocated for data and tables, without buffers of clients."""
    info: dict[str, Any] = redis.info("memory")
    return int(info["used_memory"]) - int(info.get("mem_clients_normal", 0)) - int(info.get("mem_aof_buffer", 0))


def _bytes_by_kind(redis: Redis, size: int, used: int) -> dict[str, float]:
    """Of one production on average. What no key accounts for are the tables of all keys, and those of their expiry."""
    ids = _ids(redis)[:: max(1, size // _SAMPLED)]
    found = {kind: sum(_memory(redis, f"{PREFIX}{kind}:{one}") for one in ids) / len(ids) for kind in _OWN}
    found["due lists"] = sum(_memory(redis, f"{PREFIX}{kind}") for kind in _SHARED) / size
    found["rest"] = used / size - sum(found.values())
    return {**found, "all": used / size - found["events"]}


def _ids(redis: Redis) -> list[str]:
    found: Any = redis.zrange(f"{PREFIX}index", 0, -1)
    return [raw.decode() for raw in found]


def _memory(redis: Redis, key: str) -> int:
    return int(redis.memory_usage(key, samples=0) or 0)


def _of_bytes(size: int, found: dict[str, float]) -> Iterator[Sample]:
    for kind, value in found.items():
        what = {"all": "all but the archive", "events": "archive of raw events"}.get(kind, kind)
        yield Sample(f"Redis bytes each at {size:,}: {what}", "bytes", value, at_most=2048 if kind == "all" else None)


def _times(redis: Redis, folder: Path) -> dict[str, tuple[str, float | None, float]]:
    """By what it is: unit, goal, how long it takes."""
    settings = {"REDIS_URL": _url(redis), "STATE_DIR": str(folder), "JARAI_WEBHOOK_SECRETS": "a" * 44,
                "STORAGE_URL": str(folder / "files"), "ADMIN_TOKEN": ADMIN_TOKEN, "PORT": str(free_port()),
                "LOG_LEVEL": "error"}  # fmt: skip
    here = Runtime(load({**settings, "JARAI_API_KEY": "jarai_test_key"}, dotenv=None))
    poller, radar = Poller(here), Radar(here.redis, here.settings)
    downloads = f"{PREFIX}download"
    redis.zunionstore(downloads, {downloads: 0})  # all are due, also the copies of what was claimed
    poller._sweep()
    look = functools.partial(_ms, repetitions=_PAGES)
    found = {
        "poller's tick": ("ms", 1.5, _ms(poller._sweep, _TICKS)),
        "claim of one to ask": ("ms", 1.5, _ms(lambda: _ask(redis), _TICKS)),
        "claim of 100 to take in": ("ms", 1.5, _ms(lambda: _claim(redis), _PAGES, before=lambda: _make_due(redis))),
        "claim of a large file": ("ms", 1.5, _file_ms(redis)),
        "radar's look, every 20 s": ("ms", None, look(radar.look)),
    }
    with _web(settings) as get:
        for path in ("/readyz", "/metrics", "/productions", "/productions?limit=500", "/productions?status=Failed"):
            found[f"GET {path}"] = ("ms", None, look(lambda path=path: get(path)))  # type: ignore[misc]
    for command in ("productions list", "productions list --status Failed", "check"):
        found[command] = ("ms", None, _ms(lambda command=command: _run(command, settings), 2))  # type: ignore[misc]
    return found


def _ms(work: Callable[[], object], repetitions: int, before: Callable[[], object] = lambda: None) -> float:
    took = []
    for _ in range(repetitions):
        before()
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return median(took) * 1000


def _ask(redis: Redis) -> None:
    """Nothing is due: whoever looks finds that out."""
    due.claim_ask(redis)


def _make_due(redis: Redis) -> None:
    ids: Any = redis.zrange(f"{PREFIX}index", 0, 99)
    redis.zadd(f"{PREFIX}dirty", dict.fromkeys(ids, 1))
    redis.delete(f"{PREFIX}attempts")


def _claim(redis: Redis) -> None:
    assert len(productions.claim(redis, 100)) == 100


def _file_ms(redis: Redis) -> float:
    """All that is due may take long, as the films do after an outage: nobody knows of a small one to go first."""
    redis.rename(f"{PREFIX}download:small", f"{PREFIX}aside")
    try:
        return _ms(lambda: due.claim_download(redis, "bench"), _TICKS)
    finally:
        redis.rename(f"{PREFIX}aside", f"{PREFIX}download:small")


def _url(redis: Redis) -> str:
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


@contextlib.contextmanager
def _web(settings: dict[str, str]) -> Iterator[Callable[[str], None]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "web"], env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    )
    with urllib3.PoolManager(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, retries=False) as pool:

        def get(path: str) -> None:
            assert pool.request("GET", f"http://127.0.0.1:{settings['PORT']}{path}").status == 200

        def is_up() -> bool:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                get("/healthz")
                return True
            return False

        try:
            eventually(is_up, what="the web's start")
            yield get
        finally:
            process.terminate()
            process.wait()


def _run(command: str, settings: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "service.cli", *command.split()], env={**os.environ, **settings},
                   stdout=subprocess.DEVNULL, check=False)  # fmt: skip
