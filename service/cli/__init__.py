"""The command `jarai-receiver`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from service import __version__
from service.cli.deadletters import dead_letters
from service.cli.partners import accounts, partners
from service.cli.processes import demo, poller, simulator, up, web, worker
from service.cli.productions import productions
from service.cli.screen import Group
from service.cli.soundness import check, rebuild, verify
from service.cli.webhooks import webhooks

_NAME = "jarai-receiver"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name=_NAME)
def main() -> None:
    """Receives JARAI's webhooks, follows productions and brings their deliverables home.

    \b
    jarai-receiver demo                   watch it work against a simulated JARAI, nothing else needed
    jarai-receiver up                     everything on this machine
    jarai-receiver check                  is this deployment sound, and if not, what is the next step?
    jarai-receiver partners --help        the first steps at JARAI: register, verify, accounts, webhooks
    jarai-receiver productions list       what is under way; `why ID` says what one is waiting for

    Settings are environment variables or lines of a .env file; the README lists them.
    """


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what makes this shell complete commands, options and production ids.

    \b
    jarai-receiver completion bash >> ~/.bashrc
    jarai-receiver completion zsh >> ~/.zshrc
    jarai-receiver completion fish > ~/.config/fish/completions/jarai-receiver.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(main, {}, _NAME, f"_{_NAME.upper().replace('-', '_')}_COMPLETE").source())


for _command in (
    up, web, worker, poller, check, productions, dead_letters, partners, accounts, webhooks, verify, rebuild, demo,
    simulator, completion,
):  # fmt: skip
    main.add_command(_command)
