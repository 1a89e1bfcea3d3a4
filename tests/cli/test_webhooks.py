"""Subscriptions by the command: secrets are shown once, and another one comes without an event getting lost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.core.signature import decode_secret, fingerprint
from service.store import rotations
from tests.cli.conftest import Command, failed
from tests.store.making import hear as note
from tests.store.making import values_of
from workers.simulator.running import Running

HOOK = "https://hooks.partner.example/webhooks/jarai"
ROTATE = ("webhooks", "rotate", "--save", "--wait", "0")


def subscribed(command: Command) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("webhooks", "list", "--json").stdout)["webhooks"]
    return found


def saved(folder: Path) -> list[str]:
    found = re.search(r"^JARAI_WEBHOOK_SECRETS=(.*)$", (folder / ".env").read_text(), re.M)
    return found[1].split(",") if found else []


def hear(redis: Redis, *secrets: str) -> None:
    """`web` has accepted a webhook signed with each of these."""
    note(redis, *(fingerprint(decode_secret(one)) for one in secrets))


def test_a_subscription_is_made_shown_once_listed_and_deleted(command: Command, redis: Redis, tmp_path: Path) -> None:
    assert command("webhooks", "list").stdout.startswith("no webhook subscriptions")
    done = command("webhooks", "register", HOOK, "--save")
    assert done.exit_code == 0
    secret = done.stdout.strip()
    assert saved(tmp_path) == [secret]
    more = command("webhooks", "register", HOOK + "?a=b", "--events", "production.failed", "--save").stdout.strip()
    assert saved(tmp_path) == [secret, more]
    assert len(subscribed(command)) == 2
    shown = command("webhooks", "list").stdout
    assert HOOK in shown
    assert secret not in done.stderr + shown + str(values_of(redis))
    for one in subscribed(command):
        assert command("webhooks", "delete", one["webhookId"]).exit_code == 0
    failed(command("webhooks", "delete", "a/../b"), "404")


def test_the_default_is_every_documented_event_of_a_production(command: Command) -> None:
    command("webhooks", "register", HOOK)
    [one] = subscribed(command)
    assert len(one["eventTypes"]) == 5
    assert "webhook.test" not in one["eventTypes"]


def test_an_address_that_leads_elsewhere_is_said(command: Command, no_redis: str) -> None:
    assert "/webhooks/jarai" in command("webhooks", "register", "https://h.example/hook", REDIS_URL=no_redis).stderr
    assert "listens" not in command("webhooks", "register", HOOK, REDIS_URL=no_redis).stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["http://h.example/webhooks/jarai"], "URL"),
        ([HOOK, "--events", ","], "--events"),
        ([HOOK, "--account", "x"], "--account"),
    ],
)
def test_wrong_input_is_wrong_usage_and_is_not_sent(
    command: Command, simulator: Running, arguments: Sequence[str], option: str
) -> None:
    done = command("webhooks", "register", *arguments)
    assert done.exit_code == 2
    assert option in done.stderr.splitlines()[-1]
    assert simulator.truth()["apiRequests"] == []


def test_a_lost_answer_says_where_to_look(command: Command, simulator: Running) -> None:
    simulator.set_faults(api_garbage={"next": 1, "match": "/webhooks"})
    failed(command("webhooks", "register", HOOK), "webhooks list")


def test_a_rotation_replaces_the_subscription_once_the_new_secret_was_heard(
    command: Command, redis: Redis, tmp_path: Path
) -> None:
    account = json.loads(command("accounts", "--json").stdout)["accounts"][0]["accountId"]
    old = command("webhooks", "register", HOOK, "--account", account, "--save").stdout.strip()
    [before] = subscribed(command)
    waits = command(*ROTATE)
    assert waits.exit_code == 1
    new = waits.stdout.strip()
    assert "nothing was deleted" in waits.stderr
    assert saved(tmp_path) == [old, new]
    assert len(subscribed(command)) == 2
    hear(redis, old)
    assert command(*ROTATE).exit_code == 1
    hear(redis, new)
    done = command(*ROTATE)
    assert (done.exit_code, done.stdout) == (0, ""), "a secret is shown once"
    [after] = subscribed(command)
    assert after | {"webhookId": ""} == before | {"webhookId": ""}
    assert after["webhookId"] != before["webhookId"]
    assert saved(tmp_path) == [new]
    assert rotations.read(redis) is None
    assert new not in done.stderr + str(values_of(redis))


def test_a_rotation_without_save_says_which_secret_has_to_go(command: Command, redis: Redis, tmp_path: Path) -> None:
    old = command("webhooks", "register", HOOK).stdout.strip()
    settings = {"JARAI_WEBHOOK_SECRETS": f"SmVmZQ,{old}"}
    new = command("webhooks", "rotate", "--wait", "0", **settings).stdout.strip()
    hear(redis, new)
    done = command("webhooks", "rotate", "--wait", "0", **settings)
    assert done.exit_code == 0
    assert fingerprint(decode_secret(old)) in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["api_drop", "api_garbage"])
def test_a_rotation_whose_answer_got_lost_goes_on_and_leaves_no_subscription_behind(
    command: Command, simulator: Running, redis: Redis, tmp_path: Path, broken: str
) -> None:
    command("webhooks", "register", HOOK, "--save")
    command("webhooks", "register", HOOK + "?other", "--save")
    [old, other] = [one["webhookId"] for one in subscribed(command)]
    rotate = ("webhooks", "rotate", old, *ROTATE[2:])
    failed(command("webhooks", "rotate"), old, other)
    simulator.set_faults(**{broken: {"next": 2, "match": "/webhooks"}})
    assert command(*rotate).exit_code == 1, "the list"
    assert command(*rotate).exit_code == 1
    simulator.set_faults(**{broken: {"next": 0}})
    failed(command("webhooks", "rotate", "another"), "no subscription another")
    new = command(*rotate).stdout.strip()
    failed(command("webhooks", "rotate", other), "not finished")
    hear(redis, new)
    assert command(*ROTATE).exit_code == 0
    assert len(subscribed(command)) == 2
    assert {old, other} & {one["webhookId"] for one in subscribed(command)} == {other}


def test_a_rotation_that_was_broken_off_while_the_new_one_was_made_deletes_what_nobody_knows_the_secret_of(
    command: Command, redis: Redis, tmp_path: Path
) -> None:
    command("webhooks", "register", HOOK, "--save")
    command(*ROTATE)
    kept = rotations.read(redis)
    assert kept is not None
    rotations.write(redis, rotations.Rotation(kept.old, kept.others, kept.keys))
    new = command(*ROTATE).stdout.strip()
    there = {one["webhookId"] for one in subscribed(command)}
    assert len(there) == 2
    assert kept.new not in there
    hear(redis, new)
    assert command(*ROTATE).exit_code == 0


def test_a_rotation_that_was_broken_off_after_the_old_one_was_deleted_ends(
    command: Command, redis: Redis, tmp_path: Path
) -> None:
    command("webhooks", "register", HOOK, "--save")
    [old] = [one["webhookId"] for one in subscribed(command)]
    new = command(*ROTATE).stdout.strip()
    hear(redis, new)
    command("webhooks", "delete", old)
    assert command(*ROTATE).exit_code == 0
    assert saved(tmp_path) == [new]
    assert len(subscribed(command)) == 1


def test_a_rotation_whose_subscriptions_were_deleted_by_hand_begins_anew(command: Command, redis: Redis) -> None:
    command("webhooks", "register", HOOK, "--save")
    command(*ROTATE)
    [_, new] = [one["webhookId"] for one in subscribed(command)]
    command("webhooks", "delete", new)
    assert command(*ROTATE).exit_code == 1
    assert len(subscribed(command)) == 2
    for one in subscribed(command):
        command("webhooks", "delete", one["webhookId"])
    failed(command(*ROTATE), "there is no subscription yet")


def test_two_rotations_at_once_are_one(command: Command, redis: Redis, no_redis: str) -> None:
    command("webhooks", "register", HOOK)
    with rotations.alone(redis):
        failed(command(*ROTATE), "another `webhooks rotate` is running")
    failed(command(*ROTATE, REDIS_URL=no_redis), "Redis does not answer")
    assert len(subscribed(command)) == 1


def test_the_old_secret_is_known_and_goes_however_many_others_there_are(
    command: Command, redis: Redis, tmp_path: Path
) -> None:
    """Also where the run that was broken off had --save, and the one that ends it has not."""
    (tmp_path / ".env").write_text("JARAI_WEBHOOK_SECRETS=SmVmZQ,SmVmZmU\n")
    old = command("webhooks", "register", HOOK, "--save").stdout.strip()
    new = command("webhooks", "rotate", "--wait", "0", "--save").stdout.strip()
    hear(redis, new)
    done = command("webhooks", "rotate", "--wait", "0")
    assert done.exit_code == 0, done.stderr
    assert "the old secret is taken out" in done.stderr
    assert saved(tmp_path) == ["SmVmZQ", "SmVmZmU", new]
    assert old != new


def test_a_secret_that_could_not_be_saved_is_still_the_one_that_is_waited_for(
    command: Command, redis: Redis, tmp_path: Path
) -> None:
    command("webhooks", "register", HOOK)
    (tmp_path / ".env").mkdir()
    first = command("webhooks", "rotate", "--wait", "0", "--save")
    assert (first.exit_code, "set JARAI_WEBHOOK_SECRETS there yourself" in first.stderr) == (1, True)
    assert "`webhooks rotate` goes on from here" in first.stderr
    (tmp_path / ".env").rmdir()
    again = command("webhooks", "rotate", "--wait", "0")
    assert again.stdout == "", "no other secret is made"
    hear(redis, first.stdout.strip())
    assert command("webhooks", "rotate", "--wait", "0").exit_code == 0


def test_a_type_that_nobody_documented_is_said(command: Command) -> None:
    done = command("webhooks", "register", HOOK, "--events", "production.publishd")
    assert "production.publishd is no event type that JARAI documents" in done.stderr


def test_a_deleted_subscriptions_secret_is_named(command: Command) -> None:
    secret = command("webhooks", "register", HOOK).stdout.strip()
    [one] = subscribed(command)
    done = command("webhooks", "delete", one["webhookId"], JARAI_WEBHOOK_SECRETS=f"SmVmZQ,{secret}")
    assert f"begins with {secret[:4]}" in done.stdout
    assert secret not in done.stdout
