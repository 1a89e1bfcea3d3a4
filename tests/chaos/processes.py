"""Real processes, each kept alive as a service manager would, and each to be killed, stopped or held down singly."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PAUSE_SECONDS = 0.3  # between an end and the next start
_LONGEST_END_SECONDS = 12.0  # from SIGTERM; README promises ten


@dataclass(slots=True)
class _Kept:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    again_at: float = 0.0
    end_by: float | None = None
    held: bool = False
    frozen: bool = False


@dataclass(slots=True)
class Supervisor:
    """Who calls `tend` often keeps everything alive. `ended`: processes that ended though nobody had asked them to."""

    folder: Path
    ended: Counter[str] = field(default_factory=Counter)
    overdue: list[str] = field(default_factory=list)
    _kept: dict[str, _Kept] = field(default_factory=dict)

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._kept[name] = _Kept(name, command, environment)
        self._start(self._kept[name])

    def tend(self) -> None:
        now = time.monotonic()
        for kept in self._kept.values():
            if kept.process is not None and kept.process.poll() is not None:
                self._note_end(kept, now)
            if kept.process is None and not kept.held and now >= kept.again_at:
                self._start(kept)
            elif kept.end_by is not None and now > kept.end_by and not kept.frozen:
                self.overdue.append(kept.name)
                self.signal(kept.name, signal.SIGKILL)

    def signal(self, name: str, number: signal.Signals) -> None:
        """To the process, if there is one right now."""
        kept = self._kept[name]
        if kept.process is None or kept.process.poll() is not None:
            return
        if number is signal.SIGTERM and kept.end_by is None:
            kept.end_by = time.monotonic() + _LONGEST_END_SECONDS
        elif number is signal.SIGKILL:
            kept.end_by = float("inf")
        kept.process.send_signal(number)

    def freeze(self, name: str) -> None:
        self._kept[name].frozen = True
        self.signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        kept = self._kept[name]
        kept.frozen = False
        if kept.end_by is not None:
            kept.end_by = max(kept.end_by, time.monotonic() + _LONGEST_END_SECONDS)
        self.signal(name, signal.SIGCONT)

    def hold(self, name: str, held: bool) -> None:
        """While held it is not started again."""
        self._kept[name].held = held

    def end(self, names: Sequence[str]) -> None:
        """SIGTERM to all of them, and wait."""
        for name in names:
            self.hold(name, True)
            self.thaw(name)
            self.signal(name, signal.SIGTERM)
        while any(self._kept[name].process is not None for name in names):
            self.tend()
            time.sleep(0.02)

    def kill_all(self) -> None:
        """Nothing is left running, whatever happened before."""
        for kept in self._kept.values():
            if kept.process is not None:
                kept.process.kill()
                kept.process.wait()

    def _note_end(self, kept: _Kept, now: float) -> None:
        if kept.end_by is None:
            self.ended[kept.name] += 1
        kept.process, kept.again_at, kept.end_by = None, now + _PAUSE_SECONDS, None

    def _start(self, kept: _Kept) -> None:
        with open(self.folder / f"{kept.name}.jsonl", "ab") as output:
            kept.process = subprocess.Popen(
                kept.command,
                env={**os.environ, **kept.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        kept.frozen = False
