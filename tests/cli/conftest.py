"""The command within the process of the test: a folder of its own, a real Redis, a simulated JARAI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from service.cli import main
from tests.deployment import free_port
from workers.simulator.running import Running

Command = Callable[..., Result]


@pytest.fixture
def environment(redis_url: str, simulator: Running) -> dict[str, str]:
    """What the command gets; a test may change it."""
    return {
        "REDIS_URL": redis_url,
        "JARAI_API_URL": simulator.api_url,
        "JARAI_API_KEY": simulator.settings.api_key,
        "TZ": "UTC",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`jarai-receiver` with these arguments, to its end; keyword arguments are settings."""
    monkeypatch.chdir(tmp_path)
    handlers = logging.getLogger().handlers[:]

    def run(*arguments: str, input: str = "", **settings: str) -> Result:
        return CliRunner().invoke(main, arguments, input=input, env=environment | settings)

    yield run
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def no_redis() -> str:
    """The address of a Redis that is not there."""
    return f"redis://127.0.0.1:{free_port()}/0"


def failed(done: Result, *words: str) -> None:
    """Exit code 1 and one line on stderr that holds these words."""
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
