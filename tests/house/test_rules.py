"""The rules of the house that a linter can not hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pkgutil import resolve_name
from typing import get_args

import pytest

from service.core.production import FACTS
from service.jobs import JOBS, QUEUES, QueueName
from service.log import CATALOGUE
from service.store.inbox import Verdict
from tests.house.sources import ROOT, modules, uses

CORE = modules("service/core")
ALL = modules("service", "workers")
CLOCKS_AND_DICE = re.compile(
    r"datetime\.(datetime|date)\.(now|utcnow|today)|(time|random|secrets|os|threading|socket)(\..*)?|uuid\.uuid[14]"
)
SPAWNERS = re.compile(r"os\.environb?|os\.getenv.*")


def test_the_rule_about_clocks_sees_them_under_any_name() -> None:
    source = "import time as t\nfrom datetime import datetime as d\nfrom uuid import uuid4\nt.time(); d.now(); uuid4()"
    found = {name for name in uses(ast.parse(source)) if CLOCKS_AND_DICE.fullmatch(name)}
    assert found == {"time", "time.time", "datetime.datetime.now", "uuid.uuid4"}


@pytest.mark.parametrize("path", CORE)
def test_the_core_has_neither_clock_nor_dice(path: str) -> None:
    assert [name for name in uses(CORE[path]) if CLOCKS_AND_DICE.fullmatch(name)] == []


@pytest.mark.parametrize("path", sorted(set(ALL) - {"service/settings.py"}))
def test_only_the_settings_read_the_environment(path: str) -> None:
    """A launcher hands its own environment on to its children: that is no reading."""
    handed_on = path == "workers/processes.py"
    found = [name for name in uses(ALL[path]) if SPAWNERS.fullmatch(name)]
    assert len(found) == (1 if handed_on else 0)


@pytest.mark.parametrize("queue", QUEUES)
def test_every_job_name_leads_to_a_function(queue: QueueName) -> None:
    assert callable(resolve_name(JOBS[queue]))


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_web_process_loads_no_worker_no_storage_and_no_http_client_before_somebody_asks_jarai() -> None:
    loaded = in_a_fresh_process("import sys, service.web.app; print(*sorted(sys.modules))").split()
    assert [
        name for name in loaded if re.fullmatch(r"(workers|obstore|boto3|azure|google\.cloud|urllib3)(\..*)?", name)
    ] == []


WATCH = """
import importlib, os, pathlib, sys, threading
def now():
    return threading.active_count(), sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                                            if os.path.exists(f"/proc/self/fd/{fd}"))
import asyncio, logging, ssl
for path in sys.argv[1:]:
    before = now()
    importlib.import_module(path)
    if now() != before:
        print(path, before, now())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files in /proc")
def test_importing_any_module_starts_no_thread_and_opens_nothing() -> None:
    dotted = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in ALL]
    program = WATCH.replace("sys.argv[1:]", repr([name for name in dotted if not name.endswith("__main__")]))
    assert in_a_fresh_process(program) == ""


# --- the catalogue of the log ----------------------------------------------------------------------------------------

SAYING = {"say", "_say", "_log", "_fact"}


def said(tree: ast.Module) -> Iterator[str]:
    """Every event name that is passed to the logger; an f-string stands for each of what it can become."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called, first = node.func, node.args[0]
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        of_the_log = isinstance(called, ast.Call) and ast.unparse(called.func) == "log.get"
        if name not in SAYING and not of_the_log and ast.unparse(called) != "structlog.get_logger().log":
            continue
        for literal in node.args:
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                yield literal.value
        if isinstance(first, ast.JoinedStr) and ast.unparse(first) == "f'webhook.{kept.verdict}'":
            yield from (f"webhook.{verdict}" for verdict in get_args(Verdict))
        elif isinstance(first, ast.JoinedStr):
            yield f"{ast.unparse(first)} can't be checked"


SAID = {path: set(said(tree)) for path, tree in ALL.items() if not path.startswith("workers/simulator/")}


@pytest.mark.parametrize("path", [path for path, found in SAID.items() if found])
def test_every_event_that_is_logged_is_in_the_catalogue(path: str) -> None:
    assert SAID[path] <= set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_event_in_the_catalogue_is_logged_somewhere(name: str) -> None:
    assert [path for path, found in SAID.items() if name in found]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_event_has_a_level_a_meaning_and_a_name_in_the_past(name: str) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
    assert CATALOGUE[name].level in ("debug", "info", "warning", "error")
    assert CATALOGUE[name].meaning.endswith(".")
    assert CATALOGUE[name].level in ("warning", "error") or not CATALOGUE[name].alert


def test_the_metrics_name_every_fact_that_advance_can_tell() -> None:
    advance = (ROOT / "service/core/advance.py").read_text()
    told = set(re.findall(r'_(?:fact|say)\(\s*"([^"]+)"', advance))
    assert set(FACTS) == told | {"deadletter.added", "notice.delivered", "notice.retrying"}
