"""The command that starts a simulator and says how to point a receiver at it."""

from __future__ import annotations

import signal
from dataclasses import fields
from socket import socket
from types import FrameType
from typing import get_args

import click

from workers.simulator.limits import TIERS
from workers.simulator.plans import Outcome
from workers.simulator.running import bind, public_url, server
from workers.simulator.settings import Settings, secret_bytes

_RATE = click.FloatRange(0, 1)
_SECONDS = click.FloatRange(0)
_DEFAULT = {each.name: each.default for each in fields(Settings)}


@click.command("simulator", context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--host", default=_DEFAULT["host"])
@click.option("--port", default=9090, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--public-url", default="", help="What addresses begin with, if not the bound one.")
@click.option("--api-key", default="", help="Made and printed if not given.")
@click.option("--webhook-url", default="http://127.0.0.1:8000/webhooks/jarai", help='"" for none.')
@click.option("--webhook-secret", default="", help="Made and printed if not given.")
@click.option("--tier", default=_DEFAULT["tier"], type=click.Choice(sorted(TIERS)))
@click.option("--seed", type=int, help="Decides ids, files and faults; printed if not given.")
@click.option("--loss", default=_DEFAULT["loss"], type=_RATE, help="Webhooks never sent.")
@click.option("--double", default=_DEFAULT["double"], type=_RATE, help="Webhooks sent twice.")
@click.option("--late", default=_DEFAULT["late"], type=_RATE, help="Webhooks sent late, out of order.")
@click.option("--late-seconds", default=_DEFAULT["late_seconds"], type=_SECONDS, help="How late at most.")
@click.option(
    "--outcome",
    default=_DEFAULT["outcome"],
    type=click.Choice(get_args(Outcome)),
    help="Of every production that is triggered.",
)
@click.option("--steps", default=_DEFAULT["steps"], type=click.IntRange(0))
@click.option("--step-seconds", default=_DEFAULT["step_seconds"], type=_SECONDS)
@click.option("--phase-seconds", default=_DEFAULT["phase_seconds"], type=_SECONDS)
@click.option("--sas-lifetime", "sas_lifetime_seconds", default=_DEFAULT["sas_lifetime_seconds"], type=_SECONDS)
@click.option("--bare-deliverables", is_flag=True, help="List only type and sasUrl.")
def command(**options: object) -> None:
    """A stand-in for JARAI: Partner API, webhooks and files, with every fault they may show."""
    settings = Settings(**{name: value for name, value in options.items() if value not in ("", None)})  # type: ignore[arg-type]
    try:
        secret_bytes(settings.webhook_secret)
    except ValueError:
        raise click.ClickException("--webhook-secret is not base64url") from None
    try:
        bound = bind(settings)
    except OSError as error:
        raise click.ClickException(f"can't listen on {settings.host}:{settings.port}: {error.strerror}") from None
    url = public_url(settings, bound)
    click.echo(f"simulated JARAI at {url}, seed {settings.seed}, tier {settings.tier}")
    click.echo(f"webhooks go to {settings.webhook_url or 'nobody yet'}; the truth is at {url}/_simulator/truth")
    click.echo("\n".join(_exports(settings, url, options)))
    _run(settings, bound)


def _exports(settings: Settings, url: str, options: dict[str, object]) -> list[str]:
    """What the receiver needs; a secret is only shown when it was made here."""
    key = "…  # as given" if options["api_key"] else settings.api_key
    secret = "…  # as given" if options["webhook_secret"] else settings.webhook_secret
    return [
        f"export JARAI_API_URL={url}/v1/partner",
        f"export JARAI_API_KEY={key}",
        f"export JARAI_WEBHOOK_SECRETS={secret}",
        "export DOWNLOAD_HOSTS=127.0.0.1",
    ]


def _run(settings: Settings, bound: socket) -> None:
    """Until SIGINT or SIGTERM, which end it at once and without an error."""
    running = server(settings, bound)

    def stop(number: int, frame: FrameType | None) -> None:
        running.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    running.run([bound])


if __name__ == "__main__":
    command()
