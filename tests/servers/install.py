"""Puts the servers that some tests speak to into .servers, where they can be had; says one line for each that can't.

`python tests/servers/install.py`; needs nothing but the standard library, no rights, and never fails: a test whose
server is absent is skipped, and says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".servers"
AZURITE_VERSION = "3.35.0"  # the last that runs on Node.js 18 and 20
_AZURITE = FOLDER / f"azurite-{AZURITE_VERSION}" / "node_modules/azurite/dist/src/blob/main.js"
_NGINX = FOLDER / "nginx/usr/sbin/nginx"
_SECONDS = 120


def azurite() -> Path | None:
    """The program for Node.js, or None where it is absent."""
    return _AZURITE if _AZURITE.is_file() and shutil.which("node") else None


def nginx() -> Path | None:
    """The program, or None where it is absent."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else _NGINX if _NGINX.is_file() else None


def _fetch_azurite(folder: Path) -> None:
    run("npm", "install", "--prefix", str(folder), "--no-save", "--no-package-lock", "--no-audit", "--no-fund",
         "--ignore-scripts", "--loglevel=error", f"azurite@{AZURITE_VERSION}", folder=folder)  # fmt: skip
    (folder / "node_modules").rename(_whole(folder / "whole") / "node_modules")


def fetch_nginx(folder: Path) -> None:
    run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "nginx", "nginx-common", folder=folder)
    for package in folder.glob("*.deb"):
        run("dpkg-deb", "-x", str(package), str(_whole(folder / "whole")), folder=folder)


def _whole(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def run(*command: str, folder: Path) -> None:
    """Raises OSError, or CalledProcessError with what was said. Ends it, with what it started, when it takes long."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    ) as running:  # fmt: skip
        try:
            said, _ = running.communicate(timeout=_SECONDS)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command, said)


def install(place: Path, fetch: Callable[[Path], None]) -> str:
    """In a folder of its own, then renamed: who looks meanwhile finds it whole or not at all. Says why it is absent."""
    try:
        FOLDER.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            fetch(Path(temporary))
            (Path(temporary) / "whole").rename(place)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "output", None) or "").strip().splitlines()
        return said[-1] if said else str(error)
    return ""


def _install(name: str, place: Path, fetch: Callable[[Path], None]) -> None:
    why = install(place, fetch)
    if why:
        print(f"{name} is absent, tests that need it are skipped: {why}", file=sys.stderr)


def main() -> None:
    if azurite() is None:
        _install("Azurite", FOLDER / f"azurite-{AZURITE_VERSION}", _fetch_azurite)
    if nginx() is None:
        _install("nginx", FOLDER / "nginx", fetch_nginx)


if __name__ == "__main__":
    main()
