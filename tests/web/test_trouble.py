"""A Redis in trouble, a shutdown under load, a log that nobody reads: no event is acknowledged and lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import ADMIN_TOKEN, eventually, free_port
from tests.store.making import event, new_id, server, signed
from tests.web.conftest import SECRETS, Web, everything, request, run_web
from workers.redis_server import find_binary, running


def process_id(redis: Redis) -> int:
    return int(redis.info("server")["process_id"])


@contextmanager
def stopped(redis: Redis) -> Iterator[None]:
    pid = process_id(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    redis.config_set("maxmemory", 1)
    yield
    redis.config_set("maxmemory", 0)


@contextmanager
def read_only(redis: Redis) -> Iterator[None]:
    redis.replicaof("127.0.0.1", 1)
    yield
    redis.replicaof("NO", "ONE")


def refused_in_time(web: Web, body: bytes) -> None:
    started = time.monotonic()
    answer = web.post(body)
    assert answer.status == 503
    assert time.monotonic() - started < 2
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"] == "SERVICE_UNAVAILABLE"


@pytest.fixture(scope="module")
def _troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with server("--appendonly", "yes", "--save", "") as redis, run_web(redis, tmp_path_factory.mktemp("t")) as web:
        yield web


@pytest.fixture
def troubled(_troubled: Web) -> Web:
    _troubled.redis.flushall()
    return _troubled


@pytest.mark.parametrize("trouble", [stopped, full, read_only])
def test_an_event_is_answered_503_in_time_and_taken_when_redis_is_well_again(troubled: Web, trouble: object) -> None:
    first, second = event(new_id(), 1), event(new_id(), 1)
    assert troubled.post(event(new_id(), 1)).status == 202
    with trouble(troubled.redis):  # type: ignore[operator]
        refused_in_time(troubled, first)
        refused_in_time(troubled, second)
    for body in (first, second):
        assert eventually(lambda one=body: troubled.post(one).status in (200, 202), 5)  # type: ignore[misc]
        identity = json.loads(body)["productionId"]
        entries: Any = troubled.redis.lrange(f"{PREFIX}inbox:{identity}", 0, -1)
        assert entries[0].startswith(b"e1 ")
        assert troubled.redis.llen(f"{PREFIX}inbox:{identity}") == 1


def test_many_at_once_are_all_answered_503_in_time_while_redis_hangs(troubled: Web) -> None:
    bodies = [event(new_id(), 1) for _ in range(60)]
    with stopped(troubled.redis), ThreadPoolExecutor(60) as pool:
        list(pool.map(lambda body: refused_in_time(troubled, body), bodies))
    assert troubled.post(bodies[0]).status in (200, 202)


@pytest.mark.parametrize(("trouble", "reason"), [(stopped, "answer"), (full, "refuses"), (read_only, "refuses")])
def test_a_redis_in_trouble_makes_it_not_ready_with_the_reason(troubled: Web, trouble: object, reason: str) -> None:
    with trouble(troubled.redis):  # type: ignore[operator]
        answer = troubled.call("GET", "/readyz")
        assert answer.status == 503
        assert reason in answer.json()["problems"]["redis"]
        assert troubled.call("GET", "/healthz").status == 200
    eventually(lambda: troubled.call("GET", "/readyz").status == 200, 5)


@pytest.mark.parametrize("trouble", [full, read_only])
def test_the_admin_endpoints_answer_503_or_what_can_still_be_read(troubled: Web, trouble: object) -> None:
    with trouble(troubled.redis):  # type: ignore[operator]
        assert troubled.call("GET", "/productions").status == 200
        answer = troubled.call("POST", f"/productions/{new_id()}/track")
        assert answer.status == 503
        assert "Retry-After" in answer.headers


def test_a_redis_that_was_killed_and_comes_back_has_every_acknowledged_event(tmp_path: Path) -> None:
    accepted = [event(new_id(), 1) for _ in range(20)]
    late = event(new_id(), 1)
    folder = tmp_path / "redis"
    folder.mkdir()
    with server() as spare:  # for run_web's settings only
        socket_path = spare.connection_pool.connection_kwargs["path"] + "2"
        url = f"unix://{socket_path}"
        command = [find_binary(), "--port", "0", "--unixsocket", socket_path, "--dir", str(folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always"]

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
            eventually(lambda: Path(socket_path).exists())
            return process

        process = start()
        try:
            with run_web(spare, tmp_path, {"REDIS_URL": url}) as web:
                eventually(lambda: web.call("GET", "/readyz").status == 200)
                assert [web.post(body).status for body in accepted] == [202] * 20
                process.kill()
                process.wait()
                refused_in_time(web, late)
                answer = web.call("GET", "/readyz")
                assert (answer.status, "redis" in answer.json()["problems"]) == (503, True)
                assert web.call("GET", "/productions").status == 503
                Path(socket_path).unlink()
                process = start()
                eventually(lambda: web.post(late).status == 202, 5)
                assert [web.post(body).status for body in accepted] == [200] * 20
                events = [line["event"] for line in web.lines()]
                assert events.index("store.unavailable") < events.index("store.available")
        finally:
            process.kill()
            process.wait()


def test_sigterm_lets_every_request_in_flight_have_its_answer(tmp_path: Path) -> None:
    with running(tmp_path / "r") as url, Redis.from_url(url) as redis, run_web(redis, tmp_path) as web:
        bodies = [event(new_id(), 1) for _ in range(10)]
        connections = [web.connect() for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            connection.sendall(request(body)[:-20])
        eventually(lambda: web.post(event(new_id(), 1)).status == 202)
        started = time.monotonic()
        web.process.send_signal(signal.SIGTERM)
        eventually(lambda: not _takes_connections(web), 5)
        for connection, body in zip(connections, bodies, strict=True):
            connection.sendall(request(body)[-20:])
            assert everything(connection).startswith(b"HTTP/1.1 202 ")
            connection.close()
        assert web.process.wait(10) in (0, -signal.SIGTERM)
        assert time.monotonic() - started < 10
        assert redis.zcard(f"{PREFIX}dirty") == 11
        assert web.lines()[-1]["event"] == "service.stopped"


def test_sigterm_leaves_neither_a_line_nor_a_bell_nor_a_note_behind(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, run_web(redis, tmp_path) as web:
        with web.connect() as waiting:
            redis.client_pause(500, all=False)
            waiting.sendall(request(event(new_id(), 1)))
            eventually(lambda: redis.info("clients")["blocked_clients"] > 0, what="the event at Redis")
            web.process.send_signal(signal.SIGTERM)
            assert everything(waiting).startswith(b"HTTP/1.1 202 ")
        web.process.wait(12)
        assert [line["event"] for line in web.lines()][-2:] == ["webhook.accepted", "service.stopped"]
        assert (redis.llen("rq:queue:advance"), redis.hlen(f"{PREFIX}heard")) == (1, 1)


def test_sigterm_ends_it_within_ten_seconds_although_a_body_never_ends_and_redis_hangs(tmp_path: Path) -> None:
    with server("--appendonly", "yes") as redis, run_web(redis, tmp_path) as web:
        with web.connect() as never, stopped(redis):
            never.sendall(request(event(new_id(), 1))[:-20])
            with web.connect() as waiting:
                waiting.sendall(request(event(new_id(), 1)))
                started = time.monotonic()
                web.process.send_signal(signal.SIGTERM)
                assert everything(waiting).startswith(b"HTTP/1.1 503 ")
            web.process.wait(12)
        assert time.monotonic() - started < 10


def test_events_are_still_answered_when_nobody_reads_the_log_any_more(tmp_path: Path) -> None:
    port = free_port()
    with server("--appendonly", "yes") as redis:
        environment = {
            "REDIS_URL": f"unix://{redis.connection_pool.connection_kwargs['path']}",
            "JARAI_WEBHOOK_SECRETS": SECRETS[0],
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "PORT": str(port),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "web"],
            env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        web = Web(port, redis, process, tmp_path / "none")
        try:
            eventually(lambda: _takes_connections(web))
            assert web.post(event(new_id(), 1)).status == 202
            assert process.stdout is not None
            process.stdout.close()
            statuses = []
            for _ in range(2):
                body = event(new_id(), 1)
                try:
                    answer = urllib3.request(
                        "POST", f"{web.url}/webhooks/jarai", body=body, timeout=1.5, retries=False,
                        headers={"X-JARAI-Signature": signed(body, SECRETS[0])},
                    )  # fmt: skip
                    statuses.append(answer.status)
                except urllib3.exceptions.HTTPError:
                    statuses.append(0)
            assert statuses == [202] * 2
            assert web.call("GET", "/readyz").status == 200
        finally:
            process.kill()
            process.wait()


def test_a_second_web_on_the_same_port_says_so_and_ends(troubled: Web, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "web"],
        env={**os.environ, "PORT": str(troubled.port), "REDIS_URL": "redis://127.0.0.1:1", "LOG_FORMAT": "json"},
        cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "Address already in use" in done.stderr


def _takes_connections(web: Web) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", web.port), timeout=2):
            return True
    except OSError:
        return False
