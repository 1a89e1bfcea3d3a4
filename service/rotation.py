"""Replaces a webhook subscription without a gap: the old one goes only after a webhook of the new one was accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, sleep

from service import partner
from service.core import subscriptions
from service.core.errors import JaraiRefused, ReceiverError
from service.core.partner_api import read_done
from service.core.signature import decode_secret, fingerprint
from service.core.subscriptions import Subscription
from service.runtime import Runtime
from service.store import heard, rotations
from service.store.rotations import Rotation

_LOOKS_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """Where the rotation stands. `old` is the subscription that is replaced; None: it is gone already.

    `deleted` are those that an earlier run had made, and whose secret nobody knows.
    """

    rotation: Rotation
    old: Subscription | None
    deleted: tuple[str, ...] = ()


def find(here: Runtime, wanted: str) -> Step:
    """The rotation that is under way, or a new one of the subscription `wanted` ("": the only one).

    What an earlier run created and did not get to show is deleted: nobody knows its secret. Raises ReceiverError.
    """
    there = {one.id: one for one in partner.ask(here, subscriptions.list_request(), subscriptions.read_subscriptions)}
    kept = rotations.read(here.redis)
    if kept is not None and kept.old not in there and kept.new not in there:
        kept = None  # both were deleted by hand
    if kept is None:
        old = _chosen(there, wanted)
        keys = tuple(fingerprint(key) for key in here.settings.webhook_keys)
        kept = Rotation(old.id, tuple(there), keys, old_key=rotations.keys(here.redis).get(old.id, ""))
        rotations.write(here.redis, kept)
        return Step(kept, old)
    if wanted not in ("", kept.old):
        raise ReceiverError(
            f"the rotation of {kept.old} is not finished: run `webhooks rotate` without an id until it is"
        )
    if kept.new and kept.new not in there:
        kept = replace(kept, new="", key="")
        rotations.write(here.redis, kept)
    deleted = []
    if not kept.new:
        for one in there.values():
            if one.brings_the_same(there[kept.old]) and one.id not in kept.others:
                partner.ask(here, subscriptions.delete_request(one.id), read_done)
                deleted.append(one.id)
    return Step(kept, there.get(kept.old), tuple(deleted))


def create(here: Runtime, step: Step) -> tuple[Rotation, str]:
    """A second subscription that brings the same, and its secret. `note` it once the secret is safe."""
    old = step.old
    assert old is not None
    request = subscriptions.subscribe_request(old.url, old.event_types, old.account_ids, old.scope_id)
    identity, secret = partner.ask(here, request, subscriptions.read_subscribed)
    if not identity:  # that the answer tells it is [open]
        there = partner.ask(here, subscriptions.list_request(), subscriptions.read_subscriptions)
        found = [one.id for one in there if one.brings_the_same(old) and one.id not in step.rotation.others]
        identity = found[0] if found else ""
    return replace(step.rotation, new=identity, key=fingerprint(decode_secret(secret))), secret


def note(here: Runtime, rotation: Rotation) -> None:
    """Its secret has been shown: from now on it is this one that is waited for."""
    rotations.write(here.redis, rotation)
    if rotation.new:
        rotations.note_key(here.redis, rotation.new, rotation.key)


def wait(here: Runtime, rotation: Rotation, seconds: float, still_here: Callable[[], None]) -> None:
    """Until a webhook signed with the new secret was accepted. Raises ReceiverError when none comes in time."""
    deadline = monotonic() + seconds
    while rotation.key not in heard.read(here.redis).by_key:
        if monotonic() >= deadline:
            raise ReceiverError(
                f"no webhook signed with the new secret (fingerprint {rotation.key}) was accepted within "
                f"{seconds:.0f} s, and nothing was deleted: see that `web` has it in JARAI_WEBHOOK_SECRETS and that "
                "productions run, then say `webhooks rotate` again; it goes on from here"
            )
        still_here()
        sleep(_LOOKS_EVERY_SECONDS)


def end(here: Runtime, rotation: Rotation) -> None:
    """Delete the old subscription, if it is there still; idempotent."""
    try:
        partner.ask(here, subscriptions.delete_request(rotation.old), read_done)
    except JaraiRefused as error:
        if error.status != 404:
            raise


def forget(here: Runtime, rotation: Rotation) -> None:
    """It is done."""
    rotations.forget(here.redis)
    rotations.note_key(here.redis, rotation.old, "")


def _chosen(there: dict[str, Subscription], wanted: str) -> Subscription:
    if wanted and wanted not in there:
        raise ReceiverError(f"JARAI has no subscription {wanted}: `webhooks list` shows yours")
    if not there:
        raise ReceiverError("there is no subscription yet: `webhooks register URL` makes one")
    if not wanted and len(there) > 1:
        raise ReceiverError(f"there are {len(there)} subscriptions, say which: webhooks rotate {' | '.join(there)}")
    old = there[wanted or next(iter(there))]
    if not (old.id and old.url and old.event_types):
        raise ReceiverError(
            "JARAI does not tell enough of this subscription to make another like it: register one by hand, and delete "
            "this one once webhooks of the new one arrive"
        )
    return old
