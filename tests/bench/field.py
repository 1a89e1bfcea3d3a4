"""Who is measured: ours, and what somebody would build instead. Each does the same job, in a small file of its own.

Each checks the HMAC, refuses doubles, keeps the event in the same Redis (which syncs every write), and answers 2xx
only then; each in one process, with the settings that its own documentation advises. The bare one keeps nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis import Redis

from service.store.scripts import PREFIX
from tests.bench import install

_HERE = install.CONTESTANTS


def _lengths(*lists: str) -> Callable[[Redis], int]:
    return lambda redis: sum(int(redis.llen(one)) for one in lists)


def _events_of_ours(redis: Redis) -> int:
    with redis.pipeline(transaction=False) as pipeline:
        for key in redis.scan_iter(f"{PREFIX}events:*", count=5000):
            pipeline.hlen(key)
        return sum(pipeline.execute())


@dataclass(frozen=True, slots=True)
class Contestant:
    """`kept` counts the events in Redis while no worker runs, `open` those that a worker still has to apply; `state`
    is what is known of a production, by one read of one key, which looks like `states`. `{port}`: where to listen."""

    name: str
    web: tuple[str, ...]
    absent: Callable[[], str] = lambda: ""
    kept: Callable[[Redis], int] | None = None
    worker: tuple[str, ...] = ()
    open: Callable[[Redis], int] = lambda redis: 0
    states: str = ""
    state: Callable[[Redis, str], Any] = lambda redis, production: None


OURS = Contestant(
    "ours",
    (sys.executable, "-m", "service.cli", "web"),
    kept=_events_of_ours,
    worker=(sys.executable, "-m", "service.cli", "worker", "--queues", "advance"),
    open=lambda redis: int(redis.zcard(f"{PREFIX}dirty")),
    states=f"{PREFIX}production:*",
    state=lambda redis, production: redis.get(f"{PREFIX}production:{production}"),
)
BARE = Contestant("bare Starlette", (sys.executable, "-m", "tests.bench.bare", "{port}"))
FASTIFY_BULLMQ = Contestant(
    "Fastify + BullMQ",
    ("node", str(_HERE / "fastify_bullmq.cjs")),
    install.node_is_absent,
    kept=_lengths("bull:webhooks:wait"),
    worker=("node", str(_HERE / "bullmq_worker.cjs")),
    open=_lengths("bull:webhooks:wait", "bull:webhooks:active"),
    states="production:*",
    state=lambda redis, production: redis.hget(f"production:{production}", "sequenceNumber"),
)
FASTAPI_CELERY = Contestant(
    "FastAPI + Celery",
    (str(install.python()), "-m", "tests.bench.contestants.fastapi_celery"),
    install.python_is_absent,
    kept=_lengths("celery"),
)
FLASK_RQ = Contestant(
    "Flask + gunicorn + RQ",
    (str(install.python()), "-m", "gunicorn", "--workers=1", "--worker-class=gthread", "--threads=16",
     "--bind=127.0.0.1:{port}", "--keep-alive=30", "--no-control-socket", "tests.bench.contestants.flask_rq:app"),
    install.python_is_absent,
    kept=_lengths("rq:queue:webhooks"),
)  # fmt: skip
STARLETTE_RQ = Contestant(
    "Starlette + RQ",
    (str(install.python()), "-m", "tests.bench.contestants.starlette_rq"),
    install.python_is_absent,
    kept=_lengths("rq:queue:webhooks"),
)
