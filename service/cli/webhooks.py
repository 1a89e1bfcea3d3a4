"""`jarai-receiver webhooks …`: subscriptions at JARAI, and their signing secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

import click
from redis.exceptions import RedisError

from service import envfile, partner, rotation
from service.cli.partners import SAVE
from service.cli.screen import AS_JSON, print_json, reveal, runtime_here, save, table, valid
from service.core import subscriptions
from service.core.errors import JaraiUnavailable, ReceiverError, SettingsError, StoreUnavailable
from service.core.partner_api import read_done
from service.core.signature import decode_secret, fingerprint
from service.runtime import Runtime
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
    if saves:
        envfile.check_writable()
    for one in sorted(set(types) - subscriptions.DOCUMENTED):
        click.echo(f"{one} is no event type that JARAI documents: a typing error?", err=True)
    if urlsplit(url).path != subscriptions.PATH:
        click.echo(f"jarai-receiver listens at {subscriptions.PATH}, which this address does not end with.", err=True)
    try:
        here = runtime_here()
        identity, secret = partner.ask(here, request, subscriptions.read_subscribed)
    except JaraiUnavailable as error:
        if error.sent:
            error.advice = "JARAI may have made it: look at `webhooks list`, and delete what nobody knows the secret of"
        raise
    with suppress(RedisError, StoreUnavailable):  # a newcomer has none yet: a rotation then asks which secret is old
        rotations.note_key(here.redis, identity, _fingerprint(secret))
    _show(identity, secret, saves)
    click.echo("Next: jarai-receiver up (or web, worker and poller), and jarai-receiver check", err=True)


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
                _types(one.event_types),
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
    here = runtime_here()
    partner.ask(here, subscriptions.delete_request(webhook_id), read_done)
    key = ""
    with suppress(RedisError, StoreUnavailable):
        key = rotations.keys(here.redis).get(webhook_id, "")
        rotations.note_key(here.redis, webhook_id, "")
    which = [f": {_described(one)}" for one in here.settings.webhook_secrets if _fingerprint(one) == key]
    click.echo(f"deleted {webhook_id}; its secret can go from {_SECRETS}{''.join(which)}")


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
    if saves:
        envfile.check_writable()
    try:
        with rotations.alone(here.redis) as still_here:
            done = _rotate(here, webhook_id, saves, wait_seconds, still_here)
    except KeyboardInterrupt:
        raise ReceiverError(
            "broken off, and nothing is lost: run `webhooks rotate` again, it goes on from here"
        ) from None
    click.echo(f"done: {done.old} is deleted, {done.new} delivers in its place", err=True)


def _rotate(
    here: Runtime, webhook_id: str, saves: bool, wait_seconds: float, still_here: Callable[[], None]
) -> rotations.Rotation:
    step = rotation.find(here, webhook_id)
    for one in step.deleted:
        click.echo(f"deleted {one}, which a run that was broken off had made: nobody knows its secret", err=True)
    current = replace(step.rotation, saves=step.rotation.saves or saves)
    if not current.new:
        current, secret = rotation.create(here, replace(step, rotation=current))
        try:
            _show(current.new, secret, current.saves)
        finally:  # it has been shown, whatever became of saving it
            rotation.note(here, current)
    click.echo(f"waiting for a webhook signed with the new secret (fingerprint {current.key})", err=True)
    rotation.wait(here, current, wait_seconds, still_here)
    rotation.end(here, current)
    _drop(here, current)
    rotation.forget(here, current)
    return current


def _show(identity: str, secret: str, saves: bool) -> None:
    click.echo(f"subscription {identity}" if identity else "subscribed", err=True)
    try:
        reveal(secret, _SECRETS, (lambda before: ",".join([*_listed(before), secret])) if saves else None)
    except SettingsError as error:
        raise SettingsError(f"{error} It was shown; once it is set, `webhooks rotate` goes on from here.") from None
    if not saves:
        click.echo(f"This is shown once. Add it to {_SECRETS}, comma separated (--save would have).", err=True)


def _drop(here: Runtime, done: rotations.Rotation) -> None:
    """Take the old secret out of `.env`, where it is known which one that is; else say what to do."""
    before = set(done.keys) - {done.key}
    old = done.old_key or (next(iter(before)) if len(before) == 1 else "")
    there = {_fingerprint(one): one for one in _listed(envfile.read(_SECRETS))}
    if done.saves and old in there and done.key in there:
        save(
            _SECRETS,
            lambda now: ",".join(one for one in _listed(now) if _fingerprint(one) != old),
            "the old secret is taken out of {} in .env",
        )
        return
    there |= {_fingerprint(one): one for one in here.settings.webhook_secrets}
    which = [_described(there[key]) for key in ([old] if old else sorted(before)) if key in there]
    hint = f": {', or '.join(which)}" if which else ""
    click.echo(f"Take the old secret out of {_SECRETS}{hint}; what is signed with it is accepted until then.", err=True)


def _types(event_types: Sequence[str]) -> str:
    every = not event_types or set(subscriptions.EVENT_TYPES) <= set(event_types)
    return "all that tell of a production" if every else ", ".join(event_types)


def _described(secret: str) -> str:
    """Enough for a person to find it among the others."""
    return f"the one that begins with {secret[:4]} (fingerprint {_fingerprint(secret)})"


def _fingerprint(secret: str) -> str:
    try:
        return fingerprint(decode_secret(secret))
    except ValueError:
        return ""


def _listed(secrets: str) -> list[str]:
    return [one.strip() for one in secrets.split(",") if one.strip()]
