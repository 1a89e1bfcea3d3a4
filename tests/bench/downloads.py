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

from tests.bench.table import Absent, Sample
from tests.deployment import free_port
from tests.servers import install
from tests.servers.fixtures import Nginx

_MEMORY_DISK = Path("/dev/shm")
_BLOCK = os.urandom(1024 * 1024)
_CERTIFICATE = "certificate.pem"
_PROGRAMS = ("curl", "openssl", "tee")
_SERVERS = """
sendfile on;
server {
    listen 127.0.0.1:%d;
    listen 127.0.0.1:%d ssl;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    ssl_protocols TLSv1.3;
    root served;
    location = / { return 204; }
}
"""


def downloads(folder: Path, file_bytes: int, rounds: int) -> Iterator[Sample | Absent]:
    """MiB a second, ours and curl's in turn; TLS with half of the file, as it takes three times as long.

    On a disk, `curl` leaves the bytes to the kernel and ours waits until they lie there: so once more with `fsync`.
    On a memory disk nobody waits for a disk.
    """
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    missing += [] if install.nginx() else ["nginx (`make servers`)"]
    if missing:
        yield Absent("download", "for want of " + ", ".join(missing))
        return
    with ExitStack() as stack:
        place = folder
        if _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > 4 * file_bytes:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_MEMORY_DISK)))
        film = _make_film(place / "served", file_bytes)
        _make_film(place / "out", file_bytes)  # for `_clear`
        _make_certificate(place)
        nginx, tls_port = Nginx(place, free_port()), free_port()
        stack.enter_context(nginx.running(_SERVERS % (nginx.port, tls_port)))
        plain, secure = f"{nginx.url}/{film.name}", f"https://127.0.0.1:{tls_port}/{film.name}"
        for _ in _counted(rounds, "download, disk"):
            yield from _plain("disk", plain, folder, file_bytes)
        if place == folder:
            yield Absent("download, memory disk", f"{_MEMORY_DISK} has not the room")
        else:
            for _ in _counted(rounds, "download, memory disk"):
                yield from _plain("memory disk", plain, place, file_bytes)
        os.truncate(film, file_bytes // 2)
        for _ in _counted(rounds, "download, TLS"):
            yield from _secure(secure, place, file_bytes // 2)


def _counted(rounds: int, what: str) -> Iterator[None]:
    for number in range(rounds):
        print(f"{what}: {number + 1} of {rounds}", file=sys.stderr)
        yield


def _plain(name: str, url: str, place: Path, file_bytes: int) -> Iterator[Sample]:
    mine = _ours(url, place)
    left, synced = _curl(url, place)
    mebis = file_bytes / 2**20
    ours = mebis / mine["seconds"]
    yield Sample(f"download, {name}", "MiB/s", ours, "curl -o", mebis / left, at_least=0.9)
    if name == "disk":
        yield Sample(f"download, {name}", "MiB/s", ours, "curl -o, fsync", mebis / synced)
    yield Sample("download, memory more than at rest", "MiB", mine["peak_mib"] - mine["rest_mib"], at_most=16)


def _secure(url: str, place: Path, file_bytes: int) -> Iterator[Sample]:
    mine = _ours(url, place)
    theirs = _curl_with_digest(url, place)
    mebis = file_bytes / 2**20
    reference = "curl, tee, openssl dgst"
    yield Sample("download, TLS", "MiB/s", mebis / mine["seconds"], reference, mebis / theirs, at_least=1.3)
    yield Sample("download, TLS, memory more than at rest", "MiB", mine["peak_mib"] - mine["rest_mib"], at_most=16)


def _ours(url: str, place: Path) -> dict[str, float]:
    _clear(place)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fetch", url, str(place)],
        stdout=subprocess.PIPE, check=True, timeout=300, env=os.environ | {"SSL_CERT_FILE": str(place / _CERTIFICATE)},
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _curl(url: str, place: Path) -> tuple[float, float]:
    """The seconds until curl is done, and until the bytes lie on the disk."""
    target = _clear(place) / "curl.bin"
    started = time.perf_counter()
    subprocess.run(["curl", "-s", "-f", "-o", str(target), url], check=True, timeout=300)
    left = time.perf_counter() - started
    with open(target, "rb+") as handle:
        os.fsync(handle.fileno())
    return left, time.perf_counter() - started


def _curl_with_digest(url: str, place: Path) -> float:
    target = _clear(place) / "curl.bin"
    started = time.perf_counter()
    with (
        subprocess.Popen(
            ["curl", "-s", "-f", "--cacert", str(place / _CERTIFICATE), url], stdout=subprocess.PIPE
        ) as curl,
        subprocess.Popen(["tee", str(target)], stdin=curl.stdout, stdout=subprocess.PIPE) as tee,
    ):
        subprocess.run(["openssl", "dgst", "-sha256"], stdin=tee.stdout, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if curl.returncode or tee.returncode:
        raise subprocess.CalledProcessError(curl.returncode or tee.returncode, "curl | tee")
    return seconds


def _clear(place: Path) -> Path:
    """What either made goes right before the next begins: memory just freed is quick to have again, and what a host
    has to find first costs twice as much as the whole download."""
    for name in ("out", "state"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "curl.bin").unlink(missing_ok=True)
    return place


def _make_film(folder: Path, file_bytes: int) -> Path:
    folder.mkdir()
    with open(folder / "film.bin", "wb") as film:
        for _ in range(file_bytes // len(_BLOCK)):
            film.write(_BLOCK)
    return folder / "film.bin"


def _make_certificate(folder: Path) -> None:
    """Of 127.0.0.1, which vouches for itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / _CERTIFICATE)],
        check=True, capture_output=True,
    )  # fmt: skip
