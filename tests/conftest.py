"""What the tests share: a real Redis, a simulated JARAI, and whole deployments of real processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.commands import Commands, commands
from tests.deployment import Deployment, memory_folder
from workers import redis_server
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(scope="session", autouse=True)
def _nothing_from_outside() -> None:
    """No setting of the machine that runs the tests reaches them."""
    for name in list(os.environ):
        ours = name.startswith(("JARAI_", "POLL_", "LOG_", "RATE_", "NOTIFY_")) or name in ("REDIS_URL", "ADMIN_TOKEN")
        if ours or name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            del os.environ[name]
    # Hundreds of processes are started here: with this set, each would compile the same sources anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def _redis_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder, redis_server.running(Path(folder)) as url:
        yield url


@pytest.fixture
def redis_url(_redis_url: str) -> str:
    """A real, empty Redis, the same kind that `up` runs."""
    with Redis.from_url(_redis_url) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return _redis_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def simulator() -> Iterator[Running]:
    """A simulated JARAI that is quick and makes no trouble; a test asks for trouble by `set_faults`."""
    with run_in_thread(SimulatorSettings(seed=1, steps=3, step_seconds=0.05, phase_seconds=0.1)) as running:
        yield running


@pytest.fixture(scope="session")
def _commands() -> Iterator[Commands]:
    with commands() as made:
        yield made


@pytest.fixture
def deployment(simulator: Running, redis_url: str, tmp_path: Path, _commands: Commands) -> Iterator[Deployment]:
    """Nothing runs yet: a test starts the processes that it is about."""
    with Deployment.prepare(simulator, redis_url, tmp_path) as prepared:
        prepared.commands = _commands
        yield prepared
