"""`jarai-receiver productions trigger` and `cancel`: what JARAI is asked to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import BinaryIO

import click

from service import operator, partner
from service.cli.screen import AS_JSON, PRODUCTION, moment, print_json, runtime_here, table, valid
from service.core import triggering
from service.core.errors import ReceiverError
from service.core.view import instant
from service.store import triggers

_OPTIONS = {
    "accountId": "--account",
    "topic": "--topic",
    "languageId": "--language",
    "countryId": "--country",
    "avatarId": "--avatar",
    "projectTypeSlug": "--project-type",
    "metadataMD": "--metadata",
    "retryExpired": "--retry-expired",
}
_MOST_BYTES = 8 * triggering.MOST_METADATA_CHARACTERS


@click.command()
@click.option("--account", required=True, metavar="ID", help="For which account; `accounts` lists yours.")
@click.option("--topic", required=True, help="What it is about, at most 500 characters.")
@click.option("--language", required=True, metavar="UUID", help="JARAI's id of the language.")
@click.option("--country", required=True, metavar="UUID", help="JARAI's id of the country.")
@click.option("--avatar", required=True, metavar="UUID", help="Who presents it; `accounts` lists yours.")
@click.option("--project-type", metavar="SLUG", help="For example social-video-30s; left out: JARAI's default.")
@click.option("--metadata", type=click.File("rb"), help="A file of Markdown, or -; at most 4,096 characters.")
@click.option("--retry-expired", type=int, metavar="N",
              help="Trigger it again, so often, should JARAI let it expire. Default: RETRY_EXPIRED.")  # fmt: skip
@click.option("--again", is_flag=True, help="Although nobody knows whether the same was started before.")
@AS_JSON
def trigger(
    account: str,
    topic: str,
    language: str,
    country: str,
    avatar: str,
    project_type: str | None,
    metadata: BinaryIO | None,
    retry_expired: int | None,
    again: bool,
    as_json: bool,
) -> None:
    """Have JARAI make a video, and follow it.

    \b
    jarai-receiver productions trigger --account 7d3c1f0a-… --topic "Harbours at night" \\
        --language 0b9f8a6e-… --country 5f0c9a1e-… --avatar 3f2c8c1e-… --project-type social-video-30s
    … --metadata brief.md --retry-expired 2

    Where the answer gets lost, nobody knows whether JARAI has started it. Then this ends with exit code 1, and the
    same is not sent again unless you say --again. The same twice after a success is two videos.
    """
    here = runtime_here()
    with valid(_OPTIONS):
        wish = triggering.wanted(
            {
                "accountId": account,
                "topic": topic,
                "languageId": language,
                "countryId": country,
                "avatarId": avatar,
                "projectTypeSlug": project_type,
                "metadataMD": _text(metadata),
            }
        )
        retries = triggering.retries(here.settings.retry_expired if retry_expired is None else retry_expired)
    identity = partner.trigger(here, wish, retries, again=again)
    if as_json:
        print_json({"productionId": identity, "accountId": wish.account_id})
    else:
        made_up = " (SANDBOX: a test key publishes and bills nothing)" if here.settings.is_sandboxed else ""
        click.echo(f"triggered {identity}{made_up}\nfollow it with: productions show {identity}")


@click.command()
@PRODUCTION
def cancel(production_id: str) -> None:
    """Have JARAI cancel a production, followed here or not.

    \b
    jarai-receiver productions cancel 3f2c8c1e-5a0b-4e0e-9a53-0c2f6f1d7b11
    """
    identity = operator.production_id(production_id)
    partner.cancel(runtime_here(), identity)
    click.echo(f"JARAI cancels {identity}; its status follows: productions show {identity}")


@click.command()
@click.option("--settle", metavar="ID", help="You know what has become of this one: forget the doubt.")
@AS_JSON
def doubts(settle: str | None, as_json: bool) -> None:
    """What was triggered without an answer, so that nobody knows whether JARAI has started it.

    \b
    jarai-receiver productions doubts
    jarai-receiver productions doubts --settle 0f3c9a1e5b7d4c2a8e6f1b3d5a7c9e0f
    """
    redis = runtime_here().redis
    if settle is not None:
        if not triggers.settle(redis, settle):
            raise ReceiverError(f"nothing is in doubt under {settle}")
        click.echo(f"settled {settle}")
        return
    found = triggers.doubts(redis)
    seen = {one.digest: triggers.unclaimed(redis, one.account_id, one.at) for one in found}
    if as_json:
        shown = [
            {"id": one.digest, "at": instant(one.at), "accountId": one.account_id, "topic": one.topic,
             "maybe": seen[one.digest]} for one in found
        ]  # fmt: skip
        print_json({"doubts": shown})
        return
    now = datetime.now(UTC)
    rows = [(one.digest, moment(one.at, now), one.topic, " ".join(seen[one.digest])) for one in found]
    table(("id", "asked for", "topic", "may be"), rows, "nothing is in doubt")


def _text(file: BinaryIO | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read(_MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise click.BadParameter("is not UTF-8 text, or far too long", param_hint="--metadata") from None
