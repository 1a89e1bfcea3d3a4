"""Has this process been asked to end? Long work looks here and gives back what it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

_asked = False
_interrupts: list[Callable[[], None]] = []


def requested() -> bool:
    return _asked


def request() -> None:
    """Called from a signal handler: notes the wish and breaks off whatever is blocking."""
    global _asked
    _asked = True
    for interrupt in tuple(_interrupts):  # a thread may be adding its own
        interrupt()


@contextlib.contextmanager
def interrupting(interrupt: Callable[[], None]) -> Iterator[None]:
    """While the block runs, `interrupt` is called when a shutdown is requested. It must not raise."""
    _interrupts.append(interrupt)
    try:
        yield
    finally:
        _interrupts.remove(interrupt)
