"""What was answered 2xx is on the disk already: the store is killed at that very moment, again and again."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.store.scripts import PREFIX
from tests.deployment import memory_folder
from tests.store.making import event, new_id, signed
from tests.web.conftest import SECRETS, Web, run_web
from workers.redis_server import find_binary

KILLS = int(os.environ.get("KILLS", "1000"))
SENDERS = 2


class Store:
    """A Redis that syncs every write before it answers, killed and started again on the same folder."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        self._command = [find_binary(), "--port", "0", "--unixsocket", self.path, "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it has read its file and takes commands."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.0005)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.path)
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False


@pytest.fixture
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="r", dir=memory_folder() or "/tmp") as folder:
        made = Store(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.kill()


class Sender:
    """One connection that is kept, and the event that it wants to get rid of."""

    def __init__(self, web: Web) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
        self.body = event(new_id(), 1)

    def send(self) -> None:
        headers = {"X-JARAI-Signature": signed(self.body, SECRETS[0])}
        self._connection.request("POST", "/webhooks/jarai", self.body, headers)

    def status(self) -> int:
        with self._connection.getresponse() as answer:
            answer.read()
            return answer.status

    def acknowledged(self) -> bytes:
        """The event that was taken from it; another takes its place."""
        taken, self.body = self.body, event(new_id(), 1)
        return taken

    def close(self) -> None:
        self._connection.close()


@pytest.mark.timeout(300)
def test_every_event_answered_2xx_outlives_a_kill_of_redis_right_after_the_answer(store: Store, tmp_path: Path) -> None:
    """A thousand kills, each in the instant of a 202, with other events on their way; KILLS=100 for a quick look."""
    acknowledged: list[bytes] = []
    statuses = {200: 0, 202: 0, 503: 0}
    with Redis.from_url(f"unix://{store.path}", socket_timeout=5) as redis, run_web(redis, tmp_path) as web:
        senders = [Sender(web) for _ in range(SENDERS)]
        kills = 0
        while kills < KILLS:
            first = senders[kills % SENDERS]
            for sender in senders:
                sender.send()
            answers = {first: first.status()}
            if killed := answers[first] == 202:
                store.kill()
                kills += 1
            answers |= {sender: sender.status() for sender in senders if sender is not first}
            for sender, status in answers.items():
                statuses[status] += 1
                if status != 503:  # 200: it had been kept when the store died, only the answer was a refusal
                    acknowledged.append(sender.acknowledged())
            if killed:
                store.start()
        for sender in senders:
            sender.close()
        kept = _kept(redis)
        assert statuses[202] >= KILLS
        assert kept == {_identity(body): ([1], {b"1": body}) for body in acknowledged} | {
            _identity(sender.body): ([1], {b"1": sender.body})
            for sender in senders
            if _identity(sender.body) in kept  # was refused, and is kept all the same: JARAI sends it again
        }
        assert len({_identity(body) for body in acknowledged}) == len(acknowledged) >= KILLS
        assert redis.zcard(f"{PREFIX}dirty") == len(kept)
    print(f"{kills} kills, answers: {statuses}, events kept: {len(kept)}")


def _identity(body: bytes) -> str:
    return str(json.loads(body)["productionId"])


def _kept(redis: Redis) -> dict[str, tuple[list[int], dict[bytes, bytes]]]:
    """Of each production: the numbers in its inbox, in order, and the bodies by their numbers."""
    found: dict[str, tuple[list[int], dict[bytes, bytes]]] = {}
    keys: list[bytes] = list(redis.scan_iter(f"{PREFIX}inbox:*", count=1000))
    for key in keys:
        identity = key.decode().rpartition(":")[2]
        entries: Any = redis.lrange(key, 0, -1)
        bodies: Any = redis.hgetall(f"{PREFIX}events:{identity}")
        found[identity] = ([int(entry.split()[0][1:]) for entry in entries], bodies)
    return found
