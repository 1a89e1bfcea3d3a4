"""The command `jarai-receiver`."""

from __future__ import annotations

import click

from service import __version__
from service.cli.deadletters import dead_letters
from service.cli.partners import accounts, partners
from service.cli.processes import demo, poller, simulator, up, web, worker
from service.cli.productions import productions
from service.cli.screen import Group
from service.cli.soundness import check, rebuild, verify
from service.cli.webhooks import webhooks


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="jarai-receiver")
def main() -> None:
    """Receives JARAI's webhooks, follows productions and brings their deliverables home.

    \b
    jarai-receiver demo     watch it work against a simulated JARAI, nothing else needed
    jarai-receiver up       everything on this machine
    jarai-receiver check    is this deployment sound?

    Settings are environment variables or lines of a .env file; the README lists them.
    """


for _command in (
    up, web, worker, poller, check, productions, dead_letters, partners, accounts, webhooks, verify, rebuild, demo,
    simulator,
):  # fmt: skip
    main.add_command(_command)
