"""The names of queues and jobs, and how a worker is woken.

A job is a doorbell: it carries no work and no identity, it says «look at what is due». Rung twice it finds nothing,
lost it is rung again by the sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from redis import Redis
from rq import Queue

QueueName = Literal["advance", "download", "notify"]
QUEUES: tuple[QueueName, ...] = ("advance", "download", "notify")
JOBS: Mapping[QueueName, str] = {
    "advance": "workers.advance.run",
    "download": "workers.download.run",
    "notify": "workers.notify.run",
}

# More waiting bells than workers would only be work for RQ.
MOST_BELLS = 8
_RESULT_TTL_SECONDS = 0
_FAILURE_TTL_SECONDS = 24 * 3600
_BELL_TTL_SECONDS = 3600


def queue_key(queue: QueueName) -> str:
    """The Redis list in which RQ keeps the queue."""
    return f"{Queue.redis_queue_namespace_prefix}{queue}"


def ring(redis: Redis, queue: QueueName, bells: int = 1) -> None:
    """Wake workers of `queue`, unless enough bells are waiting already. Raises redis.RedisError."""
    waiting = int(redis.llen(queue_key(queue)))
    bells = min(bells, MOST_BELLS - waiting)
    if bells <= 0:
        return
    Queue(queue, connection=redis, serializer="json").enqueue_many(
        [
            Queue.prepare_data(
                JOBS[queue],
                timeout=-1,
                result_ttl=_RESULT_TTL_SECONDS,
                failure_ttl=_FAILURE_TTL_SECONDS,
                ttl=_BELL_TTL_SECONDS,
                description=queue,
            )
            for _ in range(bells)
        ]
    )
