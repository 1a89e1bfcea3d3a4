"""What each action of a plan does, and the partner who goes on asking for every production to be followed."""

from __future__ import annotations

import heapq
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from redis.exceptions import RedisError

from tests.chaos.plan import EVERYTHING, PROCESSES, Action, Fault, Freeze, Production, Signal, Start, Store
from tests.chaos.stage import Stage
from workers.simulator.faults import DEFAULT_VALUES

_TICK_SECONDS = 0.01
_CALM_SECONDS = 60.0
_NO_FAULT = {"rate": 0, "next": 0}
_COMMANDS = {
    "read_only": ("REPLICAOF", "127.0.0.1", "1"),
    "full": ("CONFIG", "SET", "maxmemory", "1"),
    "cut": ("CLIENT", "KILL", "TYPE", "normal"),
}


class Trouble:
    """`tracked`: how often each answer came to the partner (0: none came)."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._processes, self._simulator = stage, stage.processes, stage.simulator
        self._partners = ThreadPoolExecutor(8, "partner")
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._ill = False
        self.started = 0
        self.tracked: Counter[int] = Counter()

    @classmethod
    @contextmanager
    def begin(cls, stage: Stage) -> Iterator[Trouble]:
        trouble = cls(stage)
        try:
            yield trouble
        finally:
            trouble._over.set()
            trouble._partners.shutdown(cancel_futures=True)

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
            self._is_healed()
            self._processes.tend()
            time.sleep(_TICK_SECONDS)

    def calm(self) -> None:
        """The end of all trouble. RuntimeError when the deployment does not get ready again."""
        self._simulator.set_faults(**dict.fromkeys(DEFAULT_VALUES, _NO_FAULT))
        for name in PROCESSES:
            self._processes.thaw(name)
        self._heal()
        if not self._stage.wait_until(lambda: self._is_healed() and self._stage.ready(), _CALM_SECONDS):
            raise RuntimeError(f"no readiness after the trouble: see {self._stage.folder}")

    def _steps(self, action: Action) -> tuple[Callable[[], None], Callable[[], None] | None]:
        """What begins it, and what ends it."""
        match action:
            case Signal():
                return partial(self._signal, action), None
            case Freeze(process=process):
                return partial(self._processes.freeze, process), partial(self._processes.thaw, process)
            case Fault(name=name):
                wanted = {"rate": action.rate, "next": action.next}
                wanted |= {} if action.value is None else {"value": action.value}
                change = self._simulator.set_faults
                return partial(change, **{name: wanted}), partial(change, **{name: _NO_FAULT})
            case Start():
                return partial(self._produce, action.productions), None
            case Store():
                return partial(self._hurt_redis, action), self._heal if action.seconds else None

    def _signal(self, action: Signal) -> None:
        for name in (*PROCESSES, "redis") if action.process == EVERYTHING else (action.process,):
            self._processes.signal(name, signal.Signals[f"SIG{action.name}"])

    def _produce(self, productions: Sequence[Production]) -> None:
        for one in productions:
            files = [{"type": file.type, "bytes": file.bytes, "checksum": file.checksum} for file in one.files]
            identity = self._simulator.produce({
                "outcome": one.outcome, "steps": one.steps, "stepSeconds": one.step_seconds,
                "phaseSeconds": one.phase_seconds, "deliverables": files,
            })  # fmt: skip
            self.started += 1
            self._partners.submit(self._track, identity)

    def _track(self, identity: str) -> None:
        """As a partner does who has just triggered it: again until somebody says 202."""
        for url in itertools.cycle(self._stage.urls.values()):
            status = self._stage.status("POST", f"{url}/productions/{identity}/track")
            with self._lock:
                self.tracked[status] += 1
            if status == 202 or self._over.wait(0.2):
                return

    def _hurt_redis(self, action: Store) -> None:
        match action.trouble:
            case "kill":
                self._processes.hold("redis", True)
                self._processes.signal("redis", signal.SIGKILL)
            case "restart":
                self._processes.signal("redis", signal.SIGTERM)
            case "freeze":
                self._processes.freeze("redis")
            case _:
                self._tell_redis(*_COMMANDS[action.trouble])

    def _heal(self) -> None:
        """Redis runs again; it also takes writes again as soon as it listens."""
        self._processes.hold("redis", False)
        self._processes.thaw("redis")
        self._ill = True

    def _is_healed(self) -> bool:
        if self._ill:
            well = self._tell_redis("CONFIG", "SET", "maxmemory", "0") and self._tell_redis("REPLICAOF", "NO", "ONE")
            self._ill = not well
        return not self._ill

    def _tell_redis(self, *command: str) -> bool:
        try:
            with self._stage.redis as redis:
                redis.execute_command(*command)
        except RedisError:
            return False
        return True
