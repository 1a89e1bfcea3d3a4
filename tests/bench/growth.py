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
from contextlib import ExitStack
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Look:
    """Something that is done again and again; `at_most`: the ratio of many to few that is allowed."""

    work: Callable[[], object]
    at_most: float | None = None
    repetitions: int = _PAGES
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None

    def seconds(self) -> float:
        self.before()
        started = time.perf_counter()
        self.work()
        took = time.perf_counter() - started
        self.after()
        return took


def growth(folder: Path, rounds: int) -> Iterator[Sample]:
    """Bytes by kind of key at each of the sizes, and the time of each look with few and with many, in turn. Once: a
    time is a median already."""
    folder.mkdir()
    few, many = SIZES[0], SIZES[-1]
    with server("--save", "") as redis, server("--save", "") as small, ExitStack() as stack:
        _fill_for_real(redis, 1)  # scripts and tables that are there once
        redis.delete(*redis.scan_iter(f"{PREFIX}*"))
        empty_bytes = _used(redis)
        for each in (redis, small):
            _fill_for_real(each, REAL)
        templates = _ids(redis)
        per_production: dict[int, dict[str, float]] = {}
        for size in SIZES:
            _fill_with_copies(redis, templates, size)
            per_production[size] = _bytes_by_kind(redis, size, _used(redis) - empty_bytes)
            yield from _of_bytes(size, per_production[size])
        yield Sample(f"Redis bytes each, at {many:,}", "bytes", per_production[many]["all"], f"at {few:,}",
                     per_production[few]["all"], at_most=1.1)  # fmt: skip
        at_few, at_many = (_looks(each, folder, stack) for each in (small, redis))
        for what, look in at_many.items():
            pair = [look, at_few[what]]
            times: dict[_Look, list[float]] = {one: [] for one in pair}
            for _ in range(look.repetitions):
                for one in pair:
                    times[one].append(one.seconds())
                pair.reverse()  # whoever comes second finds the code warm
            took, reference = (median(times[one]) * 1000 for one in (look, at_few[what]))
            yield Sample(f"{what}, {many:,} tracked", "ms", took, f"{few:,} tracked", reference, at_most=look.at_most)


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


def _looks(redis: Redis, folder: Path, stack: ExitStack) -> dict[str, _Look]:
    """By what it is."""
    settings = {"REDIS_URL": _url(redis), "STATE_DIR": str(folder), "JARAI_WEBHOOK_SECRETS": "a" * 44,
                "STORAGE_URL": str(folder / "files"), "ADMIN_TOKEN": ADMIN_TOKEN, "PORT": str(free_port()),
                "LOG_LEVEL": "error"}  # fmt: skip
    here = Runtime(load({**settings, "JARAI_API_KEY": "jarai_test_key"}, dotenv=None))
    poller, radar = Poller(here), Radar(here.redis, here.settings)
    downloads, small, aside = f"{PREFIX}download", f"{PREFIX}download:small", f"{PREFIX}aside"
    redis.zunionstore(downloads, {downloads: 0})  # all are due, also the copies of what was claimed
    poller._sweep()
    found = {
        "poller's tick": _Look(poller._sweep, 1.5, _TICKS),
        "claim of one to ask": _Look(lambda: _ask(redis), 1.5, _TICKS),
        "claim of 100 to take in": _Look(lambda: _claim(redis), 1.5, before=lambda: _make_due(redis)),
        # All that is due may take long, as the films do after an outage: nobody knows of a small one to go first.
        "claim of a large file": _Look(
            lambda: due.claim_download(redis, "bench"), 1.5, _TICKS,
            before=lambda: redis.rename(small, aside), after=lambda: redis.rename(aside, small),
        ),
        "radar's look, every 20 s": _Look(radar.look),
    }  # fmt: skip
    get = stack.enter_context(_web(settings))
    for path in ("/readyz", "/metrics", "/productions", "/productions?limit=500", "/productions?status=Failed"):
        found[f"GET {path}"] = _Look(functools.partial(get, path))
    for command in ("productions list", "productions list --status Failed", "check"):
        found[command] = _Look(functools.partial(_run, command, settings), repetitions=3)
    return found


def _ask(redis: Redis) -> None:
    """Nothing is due: whoever looks finds that out."""
    due.claim_ask(redis)


def _make_due(redis: Redis) -> None:
    ids: Any = redis.zrange(f"{PREFIX}index", 0, 99)
    redis.zadd(f"{PREFIX}dirty", dict.fromkeys(ids, 1))
    redis.delete(f"{PREFIX}attempts")


def _claim(redis: Redis) -> None:
    assert len(productions.claim(redis, 100)) == 100


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
