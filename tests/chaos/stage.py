"""The deployment that is put under trouble: its processes, its Redis, and what it answers."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from redis import Redis

from tests.chaos.plan import PROCESSES, WEBS
from tests.chaos.processes import Supervisor
from tests.deployment import ADMIN_TOKEN, free_port
from workers.redis_server import find_binary
from workers.simulator.running import Running

_REDIS_CONF = """\
port 0
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
logfile redis.log
"""
_TICK_SECONDS = 0.01
_START_SECONDS = 60.0
_READ_TRIES = 50


@dataclass(slots=True)
class Stage:
    """`urls`: of each web, by its name."""

    folder: Path
    socket: Path
    simulator: Running
    urls: Mapping[str, str]
    processes: Supervisor
    _http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=10, retries=False))

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, simulator: Running) -> Iterator[Stage]:
        """Everything up and ready, and JARAI's webhooks on their way to both webs: each event comes twice."""
        folder.mkdir(parents=True, exist_ok=True)
        urls = {web: f"http://127.0.0.1:{free_port()}" for web in WEBS}
        with tempfile.TemporaryDirectory(prefix="chaos-") as short:  # a socket's name has room for about 100 bytes
            stage = cls(folder, Path(short) / "redis.sock", simulator, urls, Supervisor(folder))
            try:
                stage._start_all()
                yield stage
            finally:
                stage.processes.kill_all()
                stage._http.clear()

    @property
    def redis(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket), socket_timeout=2)

    @property
    def secrets(self) -> tuple[str, ...]:
        settings = self.simulator.settings
        return settings.api_key, settings.webhook_secret, ADMIN_TOKEN, "sig="

    def wait_until(self, look: Callable[[], bool], seconds: float) -> bool:
        """Keep everything alive until `look` is content; False once `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                return False
            self.processes.tend()
            time.sleep(_TICK_SECONDS * 5)
        return True

    def end(self) -> None:
        """Everything but Redis, in good order."""
        self.processes.end(PROCESSES)

    # --- what can be seen from outside ---------------------------------------------------------------------------

    def ready(self) -> bool:
        return all(self.status("GET", f"{url}/readyz") == 200 for url in self.urls.values())

    def get(self, path: str) -> Any:
        """The JSON of one of the webs' answers; RuntimeError when none of them says 200 for long."""
        for url in itertools.chain.from_iterable(itertools.repeat(tuple(self.urls.values()), _READ_TRIES)):
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                answer = self._call("GET", url + path)
                if answer.status == 200:
                    return answer.json()
            self.processes.tend()
            time.sleep(_TICK_SECONDS * 10)
        raise RuntimeError(f"GET {path} is not answered")

    def productions(self) -> dict[str, dict[str, Any]]:
        """Everything that the deployment knows, by id."""
        found: dict[str, dict[str, Any]] = {}
        after = ""
        while True:
            page = self.get(f"/productions?limit=500{after}")
            found |= {one["productionId"]: one for one in page["productions"]}
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    # --- inside --------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        (self.folder / "redis").mkdir()
        conf = self.folder / "redis" / "redis.conf"
        conf.write_text(f'{_REDIS_CONF}dir "{conf.parent}"\nunixsocket "{self.socket}"\n')
        self.processes.add("redis", [find_binary(), str(conf)], {})
        for name in PROCESSES:
            kind = name.partition("-")[0]
            module = ["workers.worker", kind] if kind in ("advance", "download") else ["service.cli", kind]
            self.processes.add(name, [sys.executable, "-m", *module], self._environment(name))
        if not self.wait_until(self.ready, _START_SECONDS):
            raise RuntimeError(f"the deployment did not come up: see {self.folder}")
        for url in self.urls.values():
            self.simulator.subscribe(f"{url}/webhooks/jarai", self.simulator.settings.webhook_secret)

    def _environment(self, name: str) -> dict[str, str]:
        settings = self.simulator.settings
        return {
            "REDIS_URL": f"unix://{self.socket}",
            "JARAI_API_URL": self.simulator.api_url,
            "JARAI_API_KEY": settings.api_key,
            "JARAI_WEBHOOK_SECRETS": settings.webhook_secret,
            "DOWNLOAD_HOSTS": "127.0.0.1",
            "STATE_DIR": str(self.folder / "state"),
            "STORAGE_URL": str(self.folder / "deliverables"),
            "PORT": self.urls.get(name, ":0").rpartition(":")[2],
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "LOG_FORMAT": "json",
            "POLL_QUEUED_SECONDS": "1",
            "POLL_PRODUCING_SECONDS": "1",
            "POLL_WAITING_SECONDS": "1",
            "WEBHOOK_SILENCE_SECONDS": "2",
        }

    def status(self, method: str, url: str) -> int:
        """Of the answer; 0 when none came."""
        try:
            return self._call(method, url).status
        except urllib3.exceptions.HTTPError:
            return 0

    def _call(self, method: str, url: str) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        return self._http.request(method, url, headers=headers, timeout=10, redirect=False)
