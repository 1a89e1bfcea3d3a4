"""A deployment of real processes beside a simulated JARAI, for tests that look at it from outside only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import urllib3

from tests.commands import Commands
from workers.simulator.running import Running

ADMIN_TOKEN = "admin-token-of-the-tests"
_OF_A_PERSON = ("productions", "deadletters", "verify", "rebuild", "check")
Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], seconds: float = 20, what: str = "it") -> Found:
    """What `look` finds as soon as it finds something; an AssertionError once `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


def memory_folder() -> str | None:
    """Where a server syncs every write without waiting for a disk, if there is room; None: where files usually are.

    No test takes the power away: what was synced there outlives a killed process as it does on a disk.
    """
    folder = "/dev/shm"
    roomy = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 1024**3
    return folder if roomy else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Deployment:
    """Processes of one deployment, what they log, and what they answer."""

    simulator: Running
    environment: dict[str, str]
    folder: Path
    url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    commands: Commands | None = None

    @classmethod
    @contextlib.contextmanager
    def prepare(cls, simulator: Running, redis_url: str, folder: Path) -> Iterator[Deployment]:
        port = free_port()
        environment = {
            "REDIS_URL": redis_url,
            "JARAI_API_URL": simulator.api_url,
            "JARAI_API_KEY": simulator.settings.api_key,
            "JARAI_WEBHOOK_SECRETS": simulator.settings.webhook_secret,
            "DOWNLOAD_HOSTS": "127.0.0.1",
            "STATE_DIR": str(folder / "state"),
            "STORAGE_URL": str(folder / "deliverables"),
            "PORT": str(port),
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "LOG_FORMAT": "json",
            "POLL_QUEUED_SECONDS": "0.4",
            "POLL_PRODUCING_SECONDS": "0.4",
            "POLL_WAITING_SECONDS": "0.4",
            "WEBHOOK_SILENCE_SECONDS": "1",
        }
        made = cls(simulator, environment, folder, f"http://127.0.0.1:{port}")
        try:
            yield made
        finally:
            made.end_all()

    # --- processes -------------------------------------------------------------------------------------------

    def start(self, name: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        """`jarai-receiver` with these arguments (its name, if there are none), logging to `name`.jsonl."""
        with open(self.folder / f"{name}.jsonl", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", *(arguments or (name,))],
                env={**os.environ, **self.environment, **settings},
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_all(self, **settings: str) -> None:
        """Web, workers and poller, and JARAI's webhooks on their way here."""
        for name in ("web", "worker", "poller"):
            self.start(name, **settings)
        self.wait_until_ready()
        self.simulator.subscribe(f"{self.url}/webhooks/jarai", self.simulator.settings.webhook_secret)

    def wait_until_ready(self) -> None:
        eventually(lambda: self._status("/readyz") == 200, what="readiness")

    def _status(self, path: str) -> int:
        try:
            return urllib3.request("GET", self.url + path, timeout=2, retries=False).status
        except urllib3.exceptions.HTTPError:
            return 0

    def end(self, name: str, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """Send the signal and wait for the end; its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(seconds)

    def end_all(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{name} did not end within 12 seconds of SIGTERM") from None
        self.processes.clear()

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `jarai-receiver` to its end; one that only looks and asks, in a process that need not import anything."""
        environment = {**os.environ, **self.environment, **settings}
        if self.commands is not None and arguments[0] in _OF_A_PERSON:
            return self.commands.run(arguments, environment, self.folder, seconds=60)
        return self.program(*arguments, **settings)

    def program(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """As `command`, by an interpreter of its own."""
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            env={**os.environ, **self.environment, **settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # --- what can be seen from outside -----------------------------------------------------------------------

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, (path, answer.status, answer.data)
        return answer.json()

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method,
            self.url + path,
            body=body,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}", **headers},
            timeout=10,
            retries=False,
        )

    def production(self, identity: str) -> dict[str, Any] | None:
        answer = self.call("GET", f"/productions/{identity}")
        found: dict[str, Any] | None = answer.json() if answer.status == 200 else None
        return found

    def settled(self, *identities: str, seconds: float = 30) -> None:
        """Wait until these productions are settled."""
        for identity in identities:
            eventually(partial(self._is_settled, identity), seconds, f"settling {identity}")

    def _is_settled(self, identity: str) -> bool:
        return bool((self.production(identity) or {}).get("settled"))

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """What all processes logged, or only the lines of one event."""
        lines = [line for path in sorted(self.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if event in ("", entry["event"])]

    def manifest(self, production: Mapping[str, Any]) -> dict[str, Any]:
        path = self.folder / "deliverables" / production["folder"] / "manifest.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found
