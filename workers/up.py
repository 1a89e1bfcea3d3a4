"""`jarai-receiver up`: a whole deployment on this machine, its own Redis included, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from typing import IO

import click

from service import jobs, log
from service.core.errors import ReceiverError
from service.settings import Settings
from service.web.app import listen
from workers import redis_server, worker
from workers.processes import Processes
from workers.storage import open_storage


@contextlib.contextmanager
def deployment(
    settings: Settings, environment: Mapping[str, str], output: IO[bytes] | None = None
) -> Iterator[Processes]:
    """Redis (unless REDIS_URL names one), web, workers and poller; all ended when the block ends.

    `environment` goes to the processes on top of this one's, their logs to `output`.
    """
    with contextlib.ExitStack() as stack:
        url = settings.redis_url or stack.enter_context(redis_server.running(settings.state_dir))
        shared = {**environment, "REDIS_URL": url}
        processes = Processes(output)
        stack.callback(processes.end)
        processes.add("web", ["service.cli", "web"], shared)
        worker.add(processes, worker.served(settings, jobs.QUEUES), worker.DEFAULT_PROCESSES, shared)
        processes.add("poller", ["service.cli", "poller"], shared)
        yield processes


def run(settings: Settings) -> None:
    """Raises ReceiverError when it can't start. Ends in good order on Ctrl-C and SIGTERM."""
    log.configure(settings.log_format, settings.log_level, settings.secrets)
    if settings.port == 0:
        raise ReceiverError("PORT is wrong: `up` needs a fixed port")
    listen(settings.host, settings.port).close()  # what can't work is said before anything is started
    storage = open_storage(settings)
    stopping = _stop_on_signals()
    with contextlib.suppress(_Stop), deployment(settings, {}) as processes:
        stopping.append(processes)
        click.echo(_banner(settings, storage.where), err=True)
        processes.run()
    click.echo("stopped everything that was started.", err=True)


class _Stop(BaseException):
    """A signal that came before there was anything to stop."""


def _stop_on_signals() -> list[Processes]:
    running: list[Processes] = []

    def stop(*_: object) -> None:
        if not running:
            raise _Stop
        running[0].stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return running


def _banner(settings: Settings, storage: str) -> str:
    redis = "REDIS_URL" if settings.redis_url else f"its own, data in {settings.state_dir.resolve() / 'redis'}"
    return "\n".join(
        (
            "jarai-receiver is up; Ctrl-C stops everything.",
            f"  webhooks      http://{settings.host}:{settings.port}/webhooks/jarai",
            f"  health        http://{settings.host}:{settings.port}/readyz",
            f"  redis         {redis}",
            f"  deliverables  {storage}",
            *([f"  notifies      {settings.notify_place}"] if settings.notify_url else []),
            *(
                []
                if settings.webhook_secrets
                else ["  BUT           JARAI_WEBHOOK_SECRETS is not set: no webhook is accepted"]
            ),
            "  look inside   jarai-receiver productions list   (in another terminal, same folder)",
        )
    )
