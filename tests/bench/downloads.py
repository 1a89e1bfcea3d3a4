"""A large file from nginx: with SHA-256, fsync and rename, against what `curl` does with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.deployment import free_port
from tests.servers import install
from tests.servers.fixtures import Nginx

_MEMORY_DISK = Path("/dev/shm")
_BLOCK = os.urandom(1024 * 1024)
Row = tuple[str, float, float]


def downloads(folder: Path, file_bytes: int, rounds: int) -> Iterator[Row]:
    """MiB a second, ours and curl's in turn. Where nginx or curl is absent, no row, and it is said.

    On a disk, `curl` leaves the bytes to the kernel and ours waits until they lie there: so once more with `sync`.
    On a memory disk nobody waits for a disk. Memory: of a process at rest, and after the file.
    """
    curl = shutil.which("curl")
    if curl is None or install.nginx() is None:
        print("downloads: absent, for want of " + ("curl" if curl is None else "nginx (`make servers`)"))
        return
    with ExitStack() as stack:
        places = [("disk", folder)]
        if _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > 4 * file_bytes:
            made = stack.enter_context(tempfile.TemporaryDirectory(dir=_MEMORY_DISK))
            places.append(("memory disk", Path(made)))
        served = places[-1][1] / "served"
        served.mkdir()
        with open(served / "film.bin", "wb") as film:
            for _ in range(file_bytes >> 20):
                film.write(_BLOCK)
        nginx = Nginx(served, free_port())
        stack.enter_context(nginx.running(f"sendfile on; server {{ listen 127.0.0.1:{nginx.port}; root {served}; }}"))
        url = f"{nginx.url}/film.bin"
        for name, place in places:
            for _ in range(rounds):
                mine = _ours(url, place)
                plain, synced = _curl(curl, url, place)
                mebis = file_bytes >> 20
                yield f"download, {name}, MiB/s / curl -o", mebis / mine["seconds"], mebis / plain
                if name == "disk":
                    yield "download, disk, MiB/s / curl, sync", mebis / mine["seconds"], mebis / synced
                yield "download, memory in MiB / at rest", mine["peak_mib"], mine["rest_mib"]


def _ours(url: str, place: Path) -> dict[str, float]:
    for name in ("out", "state"):
        shutil.rmtree(place / name, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fetch", url, str(place)], stdout=subprocess.PIPE, check=True, timeout=300
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _curl(curl: str, url: str, place: Path) -> tuple[float, float]:
    """The seconds until curl is done, and until the bytes lie on the disk."""
    target = place / "curl.bin"
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run([curl, "-s", "-f", "-o", str(target), url], check=True, timeout=300)
    plain = time.perf_counter() - started
    with open(target, "rb+") as handle:
        os.fsync(handle.fileno())
    return plain, time.perf_counter() - started
