"""`jarai-receiver partners …` and `accounts`: the first steps at JARAI, and the key."""

from __future__ import annotations

import click

from service import envfile, partner
from service.cli.screen import AS_JSON, print_json, reveal, runtime_here, table, valid
from service.core import onboarding
from service.core.errors import JaraiRefused, JaraiUnavailable
from service.core.partner_api import accounts_request

SAVE = click.option("--save", "saves", is_flag=True, help="Write it into .env in this folder, readable to you alone.")


@click.group()
def partners() -> None:
    """Become a partner of JARAI, and keep its API key.

    \b
    jarai-receiver partners register --organisation "Harbour Films" --email ops@harbour.example --name "Ada Byron"
    jarai-receiver partners verify TOKEN --save      the token is in the mail
    jarai-receiver accounts                          it works: these are yours
    """


@partners.command()
@click.option("--organisation", required=True, help="Your organisation's name.")
@click.option("--email", required=True, help="Where JARAI sends the mail that has to be answered.")
@click.option("--name", required=True, help="Whom JARAI writes to.")
def register(organisation: str, email: str, name: str) -> None:
    """Ask JARAI to make you a partner; no API key is needed.

    \b
    jarai-receiver partners register --organisation "Harbour Films" --email ops@harbour.example --name "Ada Byron"
    """
    options = {"organisationName": "--organisation", "contactEmail": "--email", "contactName": "--name"}
    with valid(options):
        request = onboarding.register_request(organisation, email, name)
    try:
        identity = partner.ask(runtime_here(), request, onboarding.read_registered)
    except JaraiUnavailable as error:
        if error.sent:
            error.advice = "JARAI may have taken it: look for its mail before you register once more"
        raise
    click.echo(f"registered{f' as {identity}' if identity else ''}")
    click.echo(f"JARAI sends a mail to {email.strip()}. What its link ends with is the token for the next step:")
    click.echo("  jarai-receiver partners verify TOKEN --save")


@partners.command()
@click.argument("token")
@SAVE
def verify(token: str, saves: bool) -> None:
    """Answer the mail: shows the API key, once, alone on stdout. A token works once.

    \b
    jarai-receiver partners verify 5f0c… --save      into .env
    export JARAI_API_KEY=$(jarai-receiver partners verify 5f0c…)
    """
    with valid({"token": "TOKEN"}):
        request = onboarding.verify_request(token)
    if saves:
        envfile.check_writable()
    try:
        key = partner.ask(runtime_here(), request, onboarding.read_api_key)
    except JaraiRefused as error:
        if error.status in (400, 404):
            error.advice = "copy the token from the newest mail, it works once; else register again"
        raise
    except JaraiUnavailable as error:
        if error.sent:
            error.advice = "the token may be used up: try it once more, then register again or ask JARAI"
        raise
    _show(key, saves)
    click.echo("Next: jarai-receiver accounts, and jarai-receiver webhooks register URL --save", err=True)


@partners.command("rotate-key")
@click.option("--yes", is_flag=True, help="Don't ask whether this is meant.")
@SAVE
def rotate_key(yes: bool, saves: bool) -> None:
    """Have JARAI make a new API key: shows it, once, alone on stdout. The old one works for 24 hours more.

    \b
    jarai-receiver partners rotate-key --save        what runs in this folder goes by it at once
    """
    here = runtime_here()
    if saves:
        envfile.check_writable()
    if not yes:
        click.confirm("JARAI makes a new API key, and the old one ends in 24 hours. Go on?", abort=True, err=True)
    try:
        key = partner.ask(here, onboarding.rotate_request(), onboarding.read_api_key)
    except JaraiUnavailable as error:
        if error.sent:
            error.advice = "there may be a new key that nobody has seen; the old one works for 24 hours: run this again"
        raise
    _show(key, saves)
    click.echo(
        "The old key works for 24 hours more. A web or poller that reads .env goes by the new one within half a minute "
        "of --save; where the key is a real environment variable, restart them by then.",
        err=True,
    )


@click.command()
@AS_JSON
def accounts(as_json: bool) -> None:
    """The accounts of the API key, with avatars and platforms.

    \b
    jarai-receiver accounts
    jarai-receiver accounts --json | jq -r '.accounts[].accountId'
    """
    found = partner.ask(runtime_here(), accounts_request(), onboarding.read_account_list)
    if as_json:
        print_json({"accounts": [one.whole for one in found]})
        return
    table(
        ("account", "name", "avatars", "platforms"),
        [
            (
                one.account_id,
                one.name,
                tuple(f"{avatar} ({name})" if name else avatar for avatar, name in one.avatars),
                ", ".join(one.platforms),
            )
            for one in found
        ],
        "no accounts: JARAI has none for this key yet",
    )


def _show(key: str, saves: bool) -> None:
    reveal(key, "JARAI_API_KEY", (lambda _: key) if saves else None)
    if not saves:
        click.echo("This is shown once. Set JARAI_API_KEY to it (--save would have).", err=True)
