"""`jarai-receiver webhooks …`: subscriptions at JARAI, and their signing secrets."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import click

from service import envfile, partner, rotation
from service.cli.partners import SAVE
from service.cli.screen import AS_JSON, print_json, runtime_here, save, table, valid
from service.core import subscriptions
from service.core.errors import JaraiUnavailable
from service.core.partner_api import read_done
from service.core.signature import decode_secret, fingerprint
from service.store import rotations

_SECRETS = "JARAI_WEBHOOK_SECRETS"
_FIELDS = {"endpointUrl": "URL", "eventTypes": "--events", "accountIds": "--account"}


@click.group()
def webhooks() -> None:
    """Subscriptions at JARAI, and their signing secrets.

    \b
    jarai-receiver webhooks register https://hooks.partner.example/webhooks/jarai --save
    jarai-receiver webhooks rotate --save      another secret, without losing an event
    """


@webhooks.command()
@click.argument("url")
@click.option("--events", default=",".join(subscriptions.EVENT_TYPES), show_default=True, metavar="A,B,…",
              help="Event types. The default is every documented one that tells of a production.")  # fmt: skip
@click.option("--account", "account_ids", multiple=True, metavar="ID", help="Only this account; may be repeated.")
@SAVE
def register(url: str, events: str, account_ids: Sequence[str], saves: bool) -> None:
    """Subscribe: JARAI delivers to URL from now on. Shows the signing secret, once, alone on stdout.

    \b
    jarai-receiver webhooks register https://hooks.partner.example/webhooks/jarai --save
    … --events production.published,production.failed --account 7d3c1f0a-…

    JARAI documents nine event types and names six. webhook.test is left out, since it tells of no production; what
    the three others would tell is asked for by the poller.
    """
    with valid(_FIELDS):
        types = [one.strip() for one in events.split(",") if one.strip()]
        request = subscriptions.subscribe_request(url, types, account_ids)
    if urlsplit(url).path != subscriptions.PATH:
        click.echo(f"jarai-receiver listens at {subscriptions.PATH}, which this address does not end with.", err=True)
    try:
        identity, secret = partner.ask(runtime_here(), request, subscriptions.read_subscribed)
    except JaraiUnavailable as error:
        if error.sent:
            error.advice = "JARAI may have made it: look at `webhooks list`, and delete what nobody knows the secret of"
        raise
    _show(identity, secret, saves)


@webhooks.command("list")
@AS_JSON
def list_webhooks(as_json: bool) -> None:
    """The subscriptions at JARAI. Their secrets are not told again."""
    found = partner.ask(runtime_here(), subscriptions.list_request(), subscriptions.read_subscriptions)
    if as_json:
        print_json({"webhooks": [one.whole for one in found]})
        return
    table(
        ("id", "address", "events", "accounts", "active"),
        [
            (
                one.id,
                one.url,
                ", ".join(one.event_types),
                ", ".join(one.account_ids) or one.scope_id or "all",
                "yes" if one.active else "no",
            )
            for one in found
        ],
        "no webhook subscriptions yet: `webhooks register URL` makes one",
    )


@webhooks.command()
@click.argument("webhook_id")
def delete(webhook_id: str) -> None:
    """Unsubscribe. What JARAI has not delivered by then, the poller asks for."""
    partner.ask(runtime_here(), subscriptions.delete_request(webhook_id), read_done)
    click.echo(f"deleted {webhook_id}; its secret can go from {_SECRETS}")


@webhooks.command()
@click.argument("webhook_id", required=False, default="")
@SAVE
@click.option("--wait", "wait_seconds", default=600.0, show_default=True, type=click.FloatRange(0, 86400),
              help="Seconds to wait for the first webhook with the new secret.")  # fmt: skip
def rotate(webhook_id: str, saves: bool, wait_seconds: float) -> None:
    """Another signing secret, without a gap: replaces a subscription (the only one, or ID) by another like it.

    \b
    jarai-receiver webhooks rotate --save      `web` takes secrets from .env without a restart

    Makes a second subscription, shows its secret once, alone on stdout, waits until `web` has accepted a webhook signed
    with it, and only then deletes the old one. Break it off and run it again whenever you like: it goes on from there.
    """
    here = runtime_here()
    with rotations.alone(here.redis) as still_here:
        step = rotation.find(here, webhook_id)
        current = step.rotation
        if not current.new:
            current, secret = rotation.create(here, step)
            _show(current.new, secret, saves)
            rotation.note(here, current)
        click.echo(f"waiting for a webhook signed with the new secret (fingerprint {current.key})", err=True)
        rotation.wait(here, current, wait_seconds, still_here)
        rotation.end(here, current)
        _drop(current, saves)
        rotation.forget(here)
    click.echo(f"done: {current.old} is deleted, {current.new} delivers in its place", err=True)


def _show(identity: str, secret: str, saves: bool) -> None:
    click.echo(f"subscription {identity}" if identity else "subscribed", err=True)
    click.echo(secret)
    if saves:
        save(_SECRETS, ",".join([*_saved(), secret]))
    else:
        click.echo(f"This is shown once. Add it to {_SECRETS}, comma separated (--save would have).", err=True)


def _drop(done: rotations.Rotation, saves: bool) -> None:
    """Take the old secret out of `.env`, where it is known which one that is; else say what to do."""
    kept = {_fingerprint(one): one for one in _saved() if _fingerprint(one) not in done.keys}
    if saves and len(done.keys) == 1 and done.key in kept:
        save(_SECRETS, ",".join(kept.values()))
    else:
        known = ", ".join(done.keys) or "none known"
        click.echo(f"Take the old secret out of {_SECRETS}; fingerprints of those before: {known}", err=True)


def _fingerprint(secret: str) -> str:
    try:
        return fingerprint(decode_secret(secret))
    except ValueError:
        return ""


def _saved() -> list[str]:
    return [one.strip() for one in envfile.read(_SECRETS).split(",") if one.strip()]
