"""A receiver whose steps a test takes itself, beside the simulated JARAI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from service.settings import load
from tests.workers.receiver import Bench
from workers.simulator.running import Running, run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings


@pytest.fixture
def bench(redis: Redis, simulator: Running, tmp_path: Path) -> Bench:
    environment = {
        "DOWNLOAD_HOSTS": "127.0.0.1",
        "STORAGE_URL": str(tmp_path / "deliverables"),
        "STATE_DIR": str(tmp_path / "state"),
    }
    return Bench(redis, simulator, load(environment, dotenv=None))


@pytest.fixture
def bare_bench(bench: Bench) -> Iterator[Bench]:
    """JARAI lists nothing but a type and an address, as the contract's least."""
    settings = SimulatorSettings(seed=1, bare_deliverables=True)
    with run_in_thread(settings) as simulator:
        yield Bench(bench.redis, simulator, bench.settings)
