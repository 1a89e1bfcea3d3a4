"""Runs `jarai-receiver` in processes that are forked from one which has imported everything: a start costs no second.

Run as a program, it reads one command a line. What each process does is what `python -m service.cli` does: the same
module as `__main__`, in an environment, a folder and with streams of its own, to the exit of the interpreter.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.processes import ending_with_parent

_MODULES = ("service.cli", "workers.check", "workers.rebuild", "workers.verify", "workers.storage.folder")


class Commands:
    """The process that is forked, as seen from a test. It starts with the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """The command, run to its end. TimeoutError when that takes so long."""
        with tempfile.TemporaryDirectory() as place:
            said = [Path(place) / name for name in ("out", "err")]
            wanted = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder),
                      "streams": [str(path) for path in said]}  # fmt: skip
            try:
                code = self._ask(json.dumps(wanted), seconds)
            except BaseException:  # the next command must not be given this one's answer
                self.end(kill=True)
                raise
            if code is None:
                self.end()
                raise TimeoutError(f"{arguments} did not end within {seconds} s")
            return subprocess.CompletedProcess(list(arguments), code, *(path.read_text() for path in said))

    def end(self, kill: bool = False) -> None:
        if self._process is not None:
            if kill:
                self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, line: str, seconds: float) -> int | None:
        """The exit code; None when it was ended for taking so long."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.commands"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                cwd=Path(__file__).parents[1],
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        late = threading.Timer(seconds, process.kill)  # and with it ends what it forked
        late.start()
        answer = process.stdout.readline()
        late.cancel()
        return int(answer) if answer else None


@contextlib.contextmanager
def commands() -> Iterator[Commands]:
    made = Commands()
    try:
        yield made
    finally:
        made.end()


def _become(wanted: Mapping[str, Any], arrange_end: Callable[[], None]) -> None:
    """What a new process would have been given."""
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *((path, os.O_WRONLY | os.O_CREAT) for path in wanted["streams"])]
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    arrange_end()
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.argv[1:] = wanted["arguments"]


def _main() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    del sys.modules["service.cli"]  # it is run anew, as the program
    for line in iter(sys.stdin.readline, ""):
        arrange_end = ending_with_parent()
        child = os.fork()
        if child == 0:
            _become(json.loads(line), arrange_end)
            break
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    else:
        return
    runpy.run_module("service.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
