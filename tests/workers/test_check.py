"""`check` against real things: what is sound, what is not, and what to do about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis

from service import partner
from service.core import partner_api, subscriptions
from service.core.signature import fingerprint
from service.runtime import Runtime
from service.settings import load
from service.store import deployment, heard, requests, triggers
from service.store.triggers import Intent
from tests.deployment import Deployment, free_port
from tests.partner import SECRET
from tests.store.making import event, hear, keep, new_id, server
from workers.check import Line, examine
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

MARKS = (".jarai-receiver", "storage")  # of a folder that is in use


def found(environment: dict[str, str]) -> dict[str, Line]:
    """By their parts; the last line of each."""
    return {line.part: line for line in examine(Runtime(load(environment, dotenv=None)))}


@pytest.fixture
def sound(redis: Redis, redis_url: str, simulator: Running, tmp_path: Path) -> dict[str, str]:
    """Settings of a deployment in which everything is well."""
    for kind in ("advance", "download"):
        redis.sadd(f"rq:workers:{kind}", f"rq:worker:{kind}")
        redis.set(f"rq:worker:{kind}", "")
    deployment.report_alive(redis, "poller", "one")
    simulator.subscribe("http://127.0.0.1:1/webhooks/jarai", simulator.settings.webhook_secret)
    return {
        "REDIS_URL": redis_url,
        "JARAI_API_URL": simulator.api_url,
        "JARAI_API_KEY": simulator.settings.api_key,
        "JARAI_WEBHOOK_SECRETS": simulator.settings.webhook_secret,
        "STATE_DIR": str(tmp_path / "state"),
        "STORAGE_URL": str(tmp_path / "deliverables"),
        "ADMIN_TOKEN": "a-token",
    }


def test_a_sound_deployment_is_all_ok_and_leaves_nothing_behind(
    sound: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    lines = found(sound)
    assert {part for part, line in lines.items() if line.verdict != "ok"} == {"address"}, lines
    assert set(lines) == {
        "secrets", "admin", "redis", "durability", "storage", "api key", "clock", "subscription", "address", "scopes",
        "budget", "webhooks", "processes", "work", "notify", "dead letters",
    }  # fmt: skip
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in MARKS]
    assert requests.read(redis).spent_today == 4


def say(sound: dict[str, str], part: str) -> list[tuple[str, str]]:
    return [(line.verdict, line.says) for line in examine(Runtime(load(sound, dotenv=None))) if line.part == part]


def test_a_subscription_that_is_not_there_or_lacks_events_is_told_with_the_next_step(
    sound: dict[str, str], simulator: Running
) -> None:
    here = Runtime(load(sound, dotenv=None))
    [first] = partner.ask(here, subscriptions.list_request(), subscriptions.read_subscriptions)
    partner.ask(here, subscriptions.delete_request(first.id), partner_api.read_done)
    [(verdict, says)] = say(sound, "subscription")
    assert (verdict, says.startswith("there is none; `webhooks register https://")) == ("broken", True)
    ours = "https://a.example/webhooks/jarai"
    for address, types in (("https://other.example/hook", []), (ours, ["production.failed"])):
        request = subscriptions.subscribe_request(address, types or subscriptions.EVENT_TYPES)
        partner.ask(here, request, subscriptions.read_subscribed)
        [(verdict, says)] = say(sound, "subscription")
        lacks = "lacks deliverable.ready, production.published, production.queued, production.step.complete"
        assert (verdict, (lacks if types else "1 lead elsewhere") in says) == ("warning" if types else "broken", True)


def test_an_address_that_leads_to_a_receiver_is_known_by_its_answer(sound: dict[str, str], simulator: Running) -> None:
    def address() -> tuple[str, str]:
        return say(sound, "address")[-1]

    assert address() == (
        "warning",
        "http://127.0.0.1:1/webhooks/jarai does not answer from here: look at DNS, the proxy and its certificate",
    )
    with answering(405, b'{"error": "METHOD_NOT_ALLOWED"}') as url:
        simulator.subscribe(url.replace("/v1", "/webhooks/jarai"), simulator.settings.webhook_secret)
        verdict, says = address()
    assert (verdict, "leads to a jarai-receiver" in says) == ("ok", True)
    with answering(404, b"nginx") as url:
        simulator.subscribe(url.replace("/v1", "/webhooks/jarai"), simulator.settings.webhook_secret)
        verdict, says = address()
    assert (verdict, "answers 404, as no jarai-receiver does" in says) == ("warning", True)


def test_scopes_that_are_missing_are_named(sound: dict[str, str]) -> None:
    with run_in_thread(SimulatorSettings(seed=1, scopes=frozenset({"accounts:read", "productions:read"}))) as jarai:
        lines = found(sound | {"JARAI_API_URL": jarai.api_url, "JARAI_API_KEY": jarai.settings.api_key})
    assert lines["subscription"].verdict == "warning"
    assert (lines["scopes"].verdict, lines["scopes"].says) == (
        "broken", "the key lacks webhooks:read, deliverables:read: ask JARAI for one that has it"
    )  # fmt: skip


def test_the_tier_what_is_left_of_it_and_what_that_means_are_told(sound: dict[str, str]) -> None:
    with run_in_thread(SimulatorSettings(seed=1, tier="free")) as jarai:
        says = found(sound | {"JARAI_API_URL": jarai.api_url, "JARAI_API_KEY": jarai.settings.api_key})["budget"].says
    assert says.startswith("tier Free: 10 requests a minute, 100 a day, 91 left today for polling; ")
    assert "a webhook that gets lost is noticed within 90 s" in says


def test_when_each_secret_was_last_at_work_is_told_and_that_webhooks_were_refused(
    sound: dict[str, str], redis: Redis
) -> None:
    [key] = [fingerprint(one) for one in load(sound, dotenv=None).webhook_keys]
    assert say(sound, "webhooks") == [("ok", f"secret {key}: no webhook was signed with it yet")]
    hear(redis, key)
    assert say(sound, "webhooks") == [("ok", f"secret {key}: last webhook 0 s ago")]
    redis.hincrby("jarai:heard", key, -5000)
    hear(redis, heard.REFUSED)
    [_, (verdict, says)] = say(sound, "webhooks")
    assert (verdict, says.startswith("one was refused 0 s ago, none accepted since")) == ("warning", True)


def test_processes_that_are_missing_are_named_with_the_command_that_starts_them(
    sound: dict[str, str], redis: Redis
) -> None:
    redis.delete("rq:worker:advance", "jarai:alive")
    assert say(sound, "processes") == [
        ("warning", "no advance is running: `jarai-receiver worker --queues advance`"),
        ("warning", "no poller is running: `jarai-receiver poller`"),
        ("ok", "running: 1 download"),
    ]


def test_a_trigger_without_an_answer_is_told(sound: dict[str, str], redis: Redis) -> None:
    triggers.intend(redis, Intent("d", "t", new_id(), "Bees"), again=False)
    [(verdict, says)] = say(sound, "triggers")
    assert (verdict, "1 without an answer, the oldest: 'Bees'" in says) == ("warning", True)


@pytest.mark.parametrize(
    ("change", "part", "verdict", "says"),
    [
        ({"JARAI_WEBHOOK_SECRETS": ""}, "secrets", "broken", "JARAI_WEBHOOK_SECRETS"),
        ({"ADMIN_TOKEN": ""}, "admin", "warning", "ADMIN_TOKEN"),
        ({"JARAI_API_KEY": ""}, "api key", "warning", "JARAI_API_KEY"),
        ({"JARAI_API_KEY": "jarai_live_wrong"}, "api key", "broken", "401"),
        ({"JARAI_API_URL": "http://127.0.0.1:1/v1"}, "api key", "broken", "no answer"),
        ({"STORAGE_URL": "/proc/nowhere"}, "storage", "broken", "/proc/nowhere"),
        ({"STATE_DIR": "/proc/nowhere"}, "storage", "broken", "/proc/nowhere"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "redis", "broken", "does not answer"),
    ],
)
def test_what_is_wrong_is_named(
    sound: dict[str, str], change: dict[str, str], part: str, verdict: str, says: str
) -> None:
    line = found(sound | change)[part]
    assert (line.verdict, says in line.says) == (verdict, True), line


def test_a_redis_that_may_lose_events_is_broken(sound: dict[str, str]) -> None:
    with server("--save", "") as redis:
        lines = found(sound | {"REDIS_URL": f"unix://{redis.connection_pool.connection_kwargs['path']}"})
    assert (lines["redis"].verdict, lines["durability"].verdict) == ("ok", "broken")
    assert "appendonly" in lines["durability"].says


def test_work_that_waits_and_dead_letters_are_told(sound: dict[str, str], redis: Redis) -> None:
    keep(redis, event(new_id(), 1), b"x")
    redis.zadd("jarai:download", {"x:y": 0})
    lines = found(sound)
    assert (lines["work"].verdict, lines["dead letters"].verdict) == ("warning", "warning")
    assert "the oldest event has waited for 0 s" in lines["work"].says


def test_notices_that_wait_are_told_by_the_oldest_and_nothing_is_sent(sound: dict[str, str], redis: Redis) -> None:
    assert found(sound)["notify"].says == "NOTIFY_URL is not set: nobody is told"
    sound |= {"NOTIFY_URL": "https://partner.example/geheim?geheim", "NOTIFY_SECRET": SECRET}
    assert found(sound)["notify"].says == "https://partner.example is told; nothing waits"
    for name, at_ms in (("msg_1", 1_700_000_000_000), ("msg_2", 1_600_000_000_000)):
        redis.zadd("jarai:notify", {name: 0})
        redis.hset(f"jarai:notice:{name}", "at", at_ms)
    line = found(sound)["notify"]
    assert (line.verdict, "2 notice(s) wait, the oldest since 2020-09-13T12:26:40Z" in line.says) == ("warning", True)
    assert "geheim" not in line.says
    line = found(sound | {"NOTIFY_URL": ""})["notify"]
    assert (line.verdict, "2 notice(s) wait" in line.says) == ("warning", True)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A JARAI that answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", free_port()), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/v1"
        listening.shutdown()
        thread.join()


def test_the_command_ends_with_1_when_something_is_broken_and_0_when_not(
    deployment: Deployment, simulator: Running
) -> None:
    simulator.subscribe(f"{deployment.url}/webhooks/jarai", simulator.settings.webhook_secret)
    done = deployment.command("check")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    broken = deployment.command("check", "--json", JARAI_WEBHOOK_SECRETS="")
    assert broken.returncode == 1
    assert '"verdict": "broken"' in broken.stdout


def test_nothing_that_jarai_says_reaches_the_terminal_as_a_control_character(deployment: Deployment) -> None:
    body = b'{"error": "X", "message": "\\u001b[2J\\u001b]0;title\\u0007\\u009b31m"}'
    with answering(403, body) as url:
        done = deployment.command("check", JARAI_API_URL=url)
    assert done.returncode == 1
    assert "title" in done.stdout
    assert [character for character in done.stdout if not character.isprintable() and character != "\n"] == []
