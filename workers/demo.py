"""`jarai-receiver demo`: a whole deployment against a simulated JARAI, watched live, and compared with the truth."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import urllib3
from redis import Redis
from rich.console import Console
from rich.live import Live
from rich.table import Table

from service import log
from service.core.errors import ReceiverError
from service.core.production import Production
from service.runtime import Runtime
from service.settings import Settings, load
from service.store import productions
from workers import redis_server, up
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

_MARK = ".jarai-receiver-demo"
_START_SECONDS = 20.0
_POLLS = {
    "POLL_QUEUED_SECONDS": "2",
    "POLL_PRODUCING_SECONDS": "2",
    "POLL_WAITING_SECONDS": "2",
    "WEBHOOK_SILENCE_SECONDS": "4",
}
_SMALL = [
    {"type": "Video", "bytes": 3_000_000},
    {"type": "ClosedCaptions", "bytes": 4_000},
    {"type": "Transcript", "bytes": 8_000},
    {"type": "ComplianceCertificate", "bytes": 20_000},
]
_BIG = [{"type": "Video", "bytes": 200_000_000, "fileName": "feature film.mp4"}, *_SMALL[1:]]


def _plans() -> list[dict[str, Any]]:
    """Twelve lives: most are published, two fail, one is cancelled, one expires, one has a big file."""
    ends = ["Published"] * 8 + ["Failed", "Failed", "Cancelled", "Expired"]
    plans = [
        {
            "outcome": outcome,
            "steps": 4 + number % 3,
            "stepSeconds": 0.6 + 0.15 * (number % 4),
            "phaseSeconds": 1.5 + 0.25 * (number % 3),
            "deliverables": _SMALL,
        }
        for number, outcome in enumerate(ends)
    ]
    plans[1]["deliverables"] = _BIG
    return plans


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the demo looks at while it runs."""

    simulator: Running
    redis: Redis
    settings: Settings
    ids: Sequence[str]

    def seen(self) -> list[Production]:
        found = (productions.read(self.redis, identity) for identity in self.ids)
        return [one for one in found if one is not None]

    def settled(self) -> bool:
        seen = self.seen()
        return len(seen) == len(self.ids) and all(one.settled for one in seen)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, default=None, help="Decides which webhooks are lost, doubled or late.")
@click.option("--seconds", default=58, show_default=True, help="Give up after this long.")
@click.option("--keep-running", is_flag=True, help="Stay up afterwards, until Ctrl-C.")
def command(seed: int | None, seconds: int, keep_running: bool) -> None:
    """Twelve productions at a simulated JARAI that loses a fifth of its webhooks; ends with a summary.

    Everything lands in STATE_DIR/demo. Exit code 1 if anything differs from what was true at JARAI.
    """
    console = Console() if sys.stdout.isatty() else Console(width=140)
    folder = load().state_dir / "demo"
    _fresh(folder)
    with ExitStack() as stack:
        port = _free_port()
        simulator = stack.enter_context(run_in_thread(_simulator_settings(port, seed)))
        environment = _environment(simulator, folder, port)
        settings = load(environment, dotenv=None)
        log.configure("json", "error", settings.secrets, stack.enter_context(open(folder / "demo.jsonl", "w")))
        output = stack.enter_context(open(folder / "log.jsonl", "ab"))
        processes = stack.enter_context(up.deployment(settings, environment, output))
        console.print(f"[bold]jarai-receiver demo[/]  seed {simulator.settings.seed}, everything in {folder}")
        _wait_until_ready(settings)
        redis = Runtime(settings).redis
        ids = [simulator.produce(plan) for plan in _plans()]
        for identity in ids:
            _track(settings, identity)
        scene = _Scene(simulator, redis, settings, ids)
        started = time.monotonic()
        with _watching(scene, console):
            while not scene.settled() and time.monotonic() - started < seconds:
                processes.tend()
                time.sleep(0.1)
        took_seconds = time.monotonic() - started
        differences = list(_differences(scene))
        _summary(scene, console, took_seconds, differences)
        if keep_running:
            _stay(console, settings)
    sys.exit(1 if differences else 0)


def _simulator_settings(port: int, seed: int | None) -> SimulatorSettings:
    return SimulatorSettings(
        webhook_url=f"http://127.0.0.1:{port}/webhooks/jarai",
        seed=secrets.randbelow(10_000) if seed is None else seed,
        loss=0.2,
        double=0.1,
        late=0.15,
        late_seconds=3.0,
    )


def _environment(simulator: Running, folder: Path, port: int) -> dict[str, str]:
    return {
        **_POLLS,
        "JARAI_API_URL": simulator.api_url,
        "JARAI_API_KEY": simulator.settings.api_key,
        "JARAI_WEBHOOK_SECRETS": simulator.settings.webhook_secret,
        "DOWNLOAD_HOSTS": "127.0.0.1",
        "STATE_DIR": str(folder),
        "STORAGE_URL": str(folder / "deliverables"),
        "REDIS_URL": "",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_TOKEN": secrets.token_urlsafe(16),
        "LOG_FORMAT": "json",
    }


def _fresh(folder: Path) -> None:
    """An empty folder for this run; only one that an earlier demo made is cleared."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise ReceiverError(f"{folder} is not empty and no demo made it: set STATE_DIR to another folder")
        redis_server.refuse_second(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(settings: Settings) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            url = f"http://{settings.host}:{settings.port}/readyz"
            if urllib3.request("GET", url, timeout=1, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    raise ReceiverError(f"the web process did not come up; see {settings.state_dir / 'log.jsonl'}")


def _track(settings: Settings, identity: str) -> None:
    """As a partner's own system does after it has triggered a production."""
    answer = urllib3.request(
        "POST",
        f"http://{settings.host}:{settings.port}/productions/{identity}/track",
        headers={"Authorization": f"Bearer {settings.admin_token}"},
        timeout=5,
        retries=False,
    )
    if answer.status != 202:
        raise ReceiverError(f"track was answered {answer.status}")


# --- what a person sees --------------------------------------------------------------------------------------------


@contextmanager
def _watching(scene: _Scene, console: Console) -> Iterator[None]:
    """A live table on a terminal; elsewhere one line for each change."""
    if console.is_terminal:
        with Live(get_renderable=lambda: _table(scene), console=console, refresh_per_second=4):
            yield
    else:
        console.print("(no terminal: the live table is left out)")
        yield


def _table(scene: _Scene) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("production", "status", "news from", "files"):
        table.add_column(column, no_wrap=True)
    colours = {"Published": "green", "Failed": "red", "Cancelled": "yellow"}
    for one in scene.seen():
        status = one.status or "?"
        files = "  ".join(_file(scene, one, number) for number in range(len(one.deliverables)))
        table.add_row(
            one.production_id[:8],
            f"[{colours.get(status, 'cyan')}]{status}[/]{' ✓' if one.settled else ''}",
            one.source or "",
            files,
        )
    return table


def _file(scene: _Scene, one: Production, number: int) -> str:
    deliverable = one.deliverables[number]
    if deliverable.state == "stored":
        return f"[green]{deliverable.type}[/]"
    if deliverable.state == "failed":
        return f"[red]{deliverable.type}[/]"
    done = productions.progress(scene.redis, one).get(deliverable.key)
    if done and deliverable.bytes:
        share, rate = 100 * done.bytes // deliverable.bytes, done.bytes_per_second / 1e6
        return f"[cyan]{deliverable.type} {share} % {rate:.1f} MB/s[/]"
    if deliverable.error:
        return f"[yellow]{deliverable.type} tried {deliverable.attempts}×[/]"
    return f"[dim]{deliverable.type}[/]"


def _summary(scene: _Scene, console: Console, took_seconds: float, differences: Sequence[str]) -> None:
    truth = scene.simulator.truth()
    counters = truth["counters"]
    facts: Any = scene.redis.hgetall("jarai:counts")
    facts_told: Any = scene.redis.xlen("jarai:facts")
    deliveries = counters["deliveries"]
    files = sum(len(_files_of(each)) for each in truth["productions"])
    console.print(_table(scene))
    console.print()
    for label, text in (
        ("productions", f"{len(scene.ids)}, all settled" if scene.settled() else "not all settled in time"),
        (
            "webhooks",
            f"{deliveries} sent by JARAI, {counters['lost']} lost on the way, {counters['doubled']} doubled, "
            f"{counters['late']} late; {counters['acknowledged']} answered 2xx, {counters['pending']} on their way",
        ),
        (
            "polling",
            f"{len(truth['apiRequests'])} requests to JARAI, "
            f"{int(facts.get(b'poll.recovered', 0))} status changes that no webhook had told",
        ),
        ("files", f"{files} of JARAI's, compared with the truth: {'all equal' if not differences else 'see below'}"),
        ("hand-over", f"{facts_told} facts in the stream jarai:facts: what settled, what failed"),
        ("time", f"{took_seconds:.1f} s"),
    ):
        console.print(f"{label:<12}{text}", highlight=False)
    for difference in differences:
        console.print(f"[red]differs[/]     {difference}", highlight=False)
    console.print(f"look around: {scene.settings.storage_dir}  and the log: {scene.settings.state_dir / 'log.jsonl'}",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _stay(console: Console, settings: Settings) -> None:
    console.print(
        f"still running: STATE_DIR={settings.state_dir} jarai-receiver productions list   (Ctrl-C ends it)",
        soft_wrap=True,
    )
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")


# --- the truth ---------------------------------------------------------------------------------------------------


def _files_of(production: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The files that the receiver has to bring home: those of a published production."""
    return production["deliverables"] if production["status"] == "Published" else []


def _differences(scene: _Scene) -> Iterator[str]:
    """Each way in which what is here is not what was true at JARAI."""
    seen = {one.production_id: one for one in scene.seen()}
    for truth in scene.simulator.truth()["productions"]:
        identity = truth["productionId"]
        if identity not in scene.ids:
            continue
        known = seen.get(identity)
        if known is None or known.status != truth["status"]:
            yield f"{identity}: {truth['status']} at JARAI, {known.status if known else 'unknown'} here"
        elif not known.settled:
            yield f"{identity}: not settled"
        else:
            yield from _file_differences(scene, known, _files_of(truth))


def _file_differences(scene: _Scene, known: Production, files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not files:
        return
    folder = scene.settings.storage_dir / (known.folder or "")
    listed = {one["id"]: one for one in json.loads((folder / "manifest.json").read_text())["deliverables"]}
    for file in files:
        entry = listed.get(file["deliverableId"])
        if entry is None:
            yield f"{known.production_id}: {file['type']} is not in the manifest"
            continue
        with open(folder / entry["file"], "rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if sha256 != file["sha256"] or entry["sha256"] != file["sha256"]:
            yield f"{known.production_id}: {entry['file']} has other bytes than JARAI's"
