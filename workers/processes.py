"""Keeping processes alive: starts them, starts them again when they end, and ends them all within ten seconds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import IO

from service import log

GRACE_SECONDS = 9.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_STEADY_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Kept:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    again_at: float = 0.0
    pause_seconds: float = field(default=_FIRST_PAUSE_SECONDS)


class Processes:
    """A set of child processes. `stop` may be called from a signal handler."""

    def __init__(self, output: IO[bytes] | None = None) -> None:
        """`output`: where the children's logs go, if not where this process's own go."""
        self._output = output
        self._kept: list[_Kept] = []
        self._stopping = False
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()  # a signal handler may put into it at any moment
        self._log = log.get()

    def add(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start `python -m` with these arguments, and keep it running."""
        command = [sys.executable, "-m", *arguments]
        kept = _Kept(name, command, {**os.environ, **(environment or {})})
        self._kept.append(kept)
        self._start(kept)

    def stop(self) -> None:
        self._stopping = True
        self._news.put(None)

    def run(self) -> None:
        """Keep everything alive until `stop`, then end it. Sleeps until a child ends; only for the main thread."""
        signal.signal(signal.SIGCHLD, lambda *_: self._news.put(None))
        try:
            while not self._stopping:
                self.tend()
                pauses = [kept.again_at - monotonic() for kept in self._kept if kept.process is None]
                with contextlib.suppress(queue.Empty):
                    self._news.get(timeout=max(0.0, min(pauses, default=_LONGEST_PAUSE_SECONDS)))
        finally:
            self.end()

    def tend(self) -> None:
        """Start again what has ended, with a pause that grows while it keeps ending."""
        for kept in self._kept:
            if kept.process is not None and (code := kept.process.poll()) is not None:
                self._log("process.ended", process=kept.name, pid=kept.process.pid, code=code)
                steady = monotonic() - kept.started > _STEADY_SECONDS
                kept.pause_seconds = (
                    _FIRST_PAUSE_SECONDS if steady else min(kept.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                )
                kept.process, kept.again_at = None, monotonic() + kept.pause_seconds
            if kept.process is None and monotonic() >= kept.again_at:
                self._start(kept)

    def end(self) -> None:
        """SIGTERM to all, SIGKILL to whoever is still there after the grace."""
        running = [kept for kept in self._kept if kept.process is not None]
        for kept in running:
            assert kept.process is not None
            kept.process.terminate()
        deadline = monotonic() + GRACE_SECONDS
        for kept in running:
            assert kept.process is not None
            try:
                kept.process.wait(max(0.05, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                kept.process.kill()
                kept.process.wait()
                self._log("process.killed", process=kept.name, pid=kept.process.pid)
            kept.process = None

    def _start(self, kept: _Kept) -> None:
        # A session of its own: Ctrl-C reaches this process only, which then ends them in good order.
        kept.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            kept.command,
            env=dict(kept.environment),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            preexec_fn=ending_with_parent(),
        )
        kept.started = monotonic()
        self._log("process.started", process=kept.name, pid=kept.process.pid)


def ending_with_parent() -> Callable[[], None]:
    """What a child calls before it becomes a program, so that Linux ends it when this process is killed."""
    if sys.platform != "linux":
        return lambda: None
    launcher, libc = os.getpid(), ctypes.CDLL(None)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # killed since the fork: nobody would ever send that signal
            os._exit(1)

    return arrange
