"""Puts what the contestants are made of into .servers, the first time; their versions are in contestants/."""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import cache
from pathlib import Path

from tests.servers.install import FOLDER, fetch_nginx, install, nginx, run

CONTESTANTS = Path(__file__).parent / "contestants"
_PACKAGES = CONTESTANTS / "package.json"
_REQUIREMENTS = CONTESTANTS / "requirements.txt"


def _place(kind: str, versions: Path) -> Path:
    """Other versions have another place, so that nothing old is ever measured."""
    return FOLDER / f"bench-{kind}-{hashlib.sha256(versions.read_bytes()).hexdigest()[:8]}"


def node_modules() -> Path:
    return _place("node", _PACKAGES) / "node_modules"


def python() -> Path:
    return _place("python", _REQUIREMENTS) / "bin/python"


@cache
def node_is_absent() -> str:
    """Why, or "" when it is there: fetched now, if need be."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    return "" if node_modules().is_dir() else install(_place("node", _PACKAGES), _fetch_node)


@cache
def python_is_absent() -> str:
    """Why, or "" when it is there: fetched now, if need be."""
    return "" if python().is_file() else install(_place("python", _REQUIREMENTS), _fetch_python)


@cache
def nginx_is_absent() -> str:
    """Why, or "" when it is there: fetched now, if need be."""
    return "" if nginx() else install(FOLDER / "nginx", fetch_nginx)


def _fetch_node(folder: Path) -> None:
    whole = folder / "whole"
    whole.mkdir()
    shutil.copy(_PACKAGES, whole)
    run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error",
        folder=whole)  # fmt: skip


def _fetch_python(folder: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", str(folder / "whole"), folder=folder)
    run(sys.executable, "-m", "pip", f"--python={folder / 'whole/bin/python'}", "install", "-q",
        "--disable-pip-version-check", "-r", str(_REQUIREMENTS), folder=folder)  # fmt: skip
