"""`check` against real things: what is sound, what is not, and what to do about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from redis import Redis

from service.runtime import Runtime
from service.settings import load
from service.store import requests
from tests.deployment import Deployment, free_port
from tests.partner import SECRET
from tests.store.making import event, keep, new_id, server
from workers.check import Line, examine
from workers.simulator.running import Running

MARKS = (".jarai-receiver", "storage")  # of a folder that is in use


def found(environment: dict[str, str]) -> dict[str, Line]:
    """By their parts; the last line of each."""
    return {line.part: line for line in examine(Runtime(load(environment, dotenv=None)))}


@pytest.fixture
def sound(redis_url: str, simulator: Running, tmp_path: Path) -> dict[str, str]:
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
    assert {line.verdict for line in lines.values()} == {"ok"}
    assert set(lines) >= {"secrets", "redis", "durability", "storage", "api key", "clock", "work", "dead letters"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in MARKS]
    assert requests.read(redis).spent_today == 1


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


def test_the_command_ends_with_1_when_something_is_broken_and_0_when_not(deployment: Deployment) -> None:
    done = deployment.command("check")
    assert (done.returncode, done.stderr) == (0, "")
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
