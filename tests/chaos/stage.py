"""The deployment under trouble: its processes, its Redis, the simulated JARAI, and what each action does to them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import urllib3
from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.plan import EVERYTHING, PROCESSES, WEBS, Action, Fault, Freeze, Production, Signal, Start, Store
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
_WHEN_CALM = ("loss", "double", "late", "api_429", "api_500", "api_503", "api_slow", "api_garbage", "api_drop",
              "blob_cut", "blob_corrupt", "blob_expired", "blob_slow", "blob_500", "blob_503", "blob_short",
              "blob_ignore_range")  # fmt: skip


@dataclass(slots=True)
class Stage:
    """`tracked`: how often each answer came to those who asked for a production to be followed (0: none came)."""

    folder: Path
    socket: Path
    simulator: Running
    urls: Mapping[str, str]
    processes: Supervisor
    tracked: Counter[int] = field(default_factory=Counter)
    started: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _partners: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "partner"))
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
                stage._over.set()
                stage._partners.shutdown(wait=True, cancel_futures=True)
                stage.processes.kill_all()
                stage._http.clear()

    @property
    def redis(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket), socket_timeout=2)

    @property
    def secrets(self) -> tuple[str, ...]:
        settings = self.simulator.settings
        return settings.api_key, settings.webhook_secret, ADMIN_TOKEN, "sig="

    # --- the plan ------------------------------------------------------------------------------------------------

    def perform(self, actions: Sequence[Action], seconds: float) -> None:
        """Do all of it, each at its time, and keep alive what ends."""
        order = itertools.count()
        due: list[tuple[float, int, Callable[[], None]]] = []
        for action in actions:
            begin, end = self._steps(action)
            heapq.heappush(due, (action.at, next(order), begin))
            if end is not None:
                heapq.heappush(due, (action.at + action.seconds, next(order), end))
        started = time.monotonic()
        while due or time.monotonic() - started < seconds:
            while due and time.monotonic() - started >= due[0][0]:
                heapq.heappop(due)[2]()
            self.processes.tend()
            time.sleep(_TICK_SECONDS)

    def calm(self) -> None:
        """The end of all trouble."""
        self.simulator.set_faults(**{name: {"rate": 0, "next": 0} for name in _WHEN_CALM})
        for name in (*PROCESSES, "redis"):
            self.processes.hold(name, False)
            self.processes.thaw(name)
        self._heal()
        self.wait_until(self.ready, _START_SECONDS, "readiness")

    def wait_until(self, look: Callable[[], bool], seconds: float, what: str = "it") -> bool:
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
        return all(self._status("GET", f"{url}/readyz") == 200 for url in self.urls.values())

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

    def _steps(self, action: Action) -> tuple[Callable[[], None], Callable[[], None] | None]:
        """What begins it, and what ends it."""
        match action:
            case Signal():
                return partial(self._signal, action), None
            case Freeze():
                return partial(self.processes.freeze, action.process), partial(self.processes.thaw, action.process)
            case Fault():
                wanted = {"rate": action.rate, "next": action.next}
                wanted |= {} if action.value is None else {"value": action.value}
                begin = partial(self.simulator.set_faults, **{action.name: wanted})
                return begin, partial(self.simulator.set_faults, **{action.name: {"rate": 0, "next": 0}})
            case Start():
                return partial(self._produce, action.productions), None
            case Store():
                return partial(self._trouble_redis, action), self._heal if action.seconds else None

    def _signal(self, action: Signal) -> None:
        for name in (*PROCESSES, "redis") if action.process == EVERYTHING else (action.process,):
            self.processes.signal(name, signal.Signals[f"SIG{action.name}"])

    def _produce(self, productions: Sequence[Production]) -> None:
        for one in productions:
            files = [{"type": file.type, "bytes": file.bytes, "checksum": file.checksum} for file in one.files]
            identity = self.simulator.produce({
                "outcome": one.outcome, "steps": one.steps, "stepSeconds": one.step_seconds,
                "phaseSeconds": one.phase_seconds, "deliverables": files,
            })  # fmt: skip
            self.started.append(identity)
            self._partners.submit(self._track, identity)

    def _track(self, identity: str) -> None:
        """As a partner does who has just triggered it: again until somebody says 202."""
        for url in itertools.cycle(self.urls.values()):
            status = self._status("POST", f"{url}/productions/{identity}/track")
            self.tracked[status] += 1
            if status == 202 or self._over.wait(0.2):
                return

    def _trouble_redis(self, action: Store) -> None:
        match action.trouble:
            case "kill":
                self.processes.hold("redis", True)
                self.processes.signal("redis", signal.SIGKILL)
            case "restart":
                self.processes.signal("redis", signal.SIGTERM)
            case "freeze":
                self.processes.freeze("redis")
            case "read_only":
                self._tell_redis("REPLICAOF", "127.0.0.1", "1")
            case "full":
                self._tell_redis("CONFIG", "SET", "maxmemory", "1")
            case "cut":
                self._tell_redis("CLIENT", "KILL", "TYPE", "normal")

    def _heal(self) -> None:
        self.processes.hold("redis", False)
        self.processes.thaw("redis")
        self.wait_until(partial(self._tell_redis, "CONFIG", "SET", "maxmemory", "0"), _START_SECONDS)
        self.wait_until(partial(self._tell_redis, "REPLICAOF", "NO", "ONE"), _START_SECONDS)

    def _tell_redis(self, *command: str) -> bool:
        try:
            with self.redis as redis:
                redis.execute_command(*command)
        except RedisError:
            return False
        return True

    def _status(self, method: str, url: str) -> int:
        try:
            return self._call(method, url).status
        except urllib3.exceptions.HTTPError:
            return 0

    def _call(self, method: str, url: str) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        return self._http.request(method, url, headers=headers, timeout=10, redirect=False)
