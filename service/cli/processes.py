"""The commands that run: each process of a deployment, all of them together, and the stand-in for JARAI."""

from __future__ import annotations

from collections.abc import Sequence

import click

from service import jobs, runtime
from service.cli.screen import workers
from service.settings import load


@click.command()
def web() -> None:
    """Run the HTTP endpoint (HOST, PORT)."""
    from service.web.app import serve

    serve(runtime.start("web"))


@click.command()
@click.option("--queues", default=",".join(jobs.QUEUES), show_default=True,
              help="Which work to do here; notify: nothing without NOTIFY_URL.")  # fmt: skip
@click.option("--advance", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes for states.")
@click.option("--download", default=3, show_default=True, type=click.IntRange(1, 64), help="Processes for files.")
def worker(queues: str, advance: int, download: int) -> None:
    """Move productions forward and download their deliverables."""
    names = [name.strip() for name in queues.split(",")]
    if not set(names) <= set(jobs.QUEUES):
        raise click.BadParameter(f"known queues are {', '.join(jobs.QUEUES)}", param_hint="--queues")
    here = runtime.start("worker")
    workers("workers.worker:launch")(here.settings, names, {"advance": advance, "download": download, "notify": 1})


@click.command()
def poller() -> None:
    """Ask JARAI where a webhook may have been missed. Run as many as you like: they share the work."""
    workers("workers.poller:run")(runtime.start("poller"))


@click.command()
def up() -> None:
    """Run everything on this machine: Redis (its own, if REDIS_URL is unset), web, workers, poller."""
    workers("workers.up:run")(load())


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: Sequence[str]) -> None:
    """Watch it work against a simulated JARAI: productions run, webhooks get lost, files land."""
    workers("workers.demo:command").main(list(arguments), prog_name="jarai-receiver demo")


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: Sequence[str]) -> None:
    """A stand-in for JARAI, for development and your own CI."""
    workers("workers.simulator.cli:command").main(list(arguments), prog_name="jarai-receiver simulator")
