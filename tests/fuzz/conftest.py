"""A real `jarai-receiver web` with the default limits, what the process costs, and how long fuzzing goes on.

`FUZZ_EXAMPLES` unset: few examples, always the same. Set (`make fuzz`): that many, others every time.
"""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.store.making import server
from tests.web.conftest import Web, run_web
from workers.simulator.running import run_in_thread
from workers.simulator.settings import Settings as SimulatorSettings

MOST_BYTES = 1024 * 1024
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(few: int) -> hypothesis.settings:
    """`few` of them in the suite, as many as asked for in `make fuzz`."""
    return hypothesis.settings(
        max_examples=FUZZ_EXAMPLES or few,
        derandomize=not FUZZ_EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@pytest.fixture(scope="module")
def _fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with (
        run_in_thread(SimulatorSettings(seed=1)) as jarai,
        server("--appendonly", "yes", "--save", "", "--appendfsync", "everysec") as redis,
        run_web(
            redis,
            tmp_path_factory.mktemp("fuzzed"),
            {
                "MAX_BODY_BYTES": str(MOST_BYTES),
                "JARAI_API_URL": jarai.api_url,
                "JARAI_API_KEY": jarai.settings.api_key,
            },
        ) as web,
    ):
        yield web
        assert web.process.poll() is None, "the web process did not survive"
        web.lines()


@pytest.fixture
def web(_fuzzed: Web) -> Web:
    """One web process for all tests of a module, with an empty Redis. No test may end either."""
    _fuzzed.redis.flushall()
    return _fuzzed


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many files this process may now have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384 if hard == resource.RLIM_INFINITY else min(16_384, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield max(soft, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_mib(web: Web, kind: str = "VmRSS") -> int:
    """Resident memory of the web process in MiB: now, or `VmHWM`, the most there ever was."""
    found = re.search(rf"^{kind}:\s+(\d+) kB$", Path(f"/proc/{web.process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) // 1024


def reset_peak(web: Web) -> None:
    """From now on `VmHWM` counts anew."""
    Path(f"/proc/{web.process.pid}/clear_refs").write_text("5")


def split_answers(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of each answer; fails on anything that is no answer of HTTP/1.1."""
    answers = []
    rest = received
    while rest:
        head, blank, rest = rest.partition(b"\r\n\r\n")
        assert blank, f"a head that does not end: {head[:200]!r}"
        first, *lines = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+", first)
        assert found, first[:200]
        headers = {name.decode().lower(): value.decode() for name, value in (line.split(b": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        answers.append((int(found[1]), headers, rest[:length]))
        rest = rest[length:]
    return [one for one in answers if one[0] != 100]


def assert_well_formed(status: int, body: bytes) -> dict[str, Any]:
    """The answer to a webhook has one of the documented forms; what it says."""
    assert b"Traceback" not in body
    said: dict[str, Any] = json.loads(body)
    if status in (200, 202):
        assert said["status"] in (("duplicate",) if status == 200 else ("accepted", "quarantined")), said
        assert set(said) <= {"status", "eventId", "reason"}
    else:
        assert status in (400, 401, 404, 405, 408, 413, 431, 503), (status, body)
        assert set(said) == {"error", "message"}
        assert all(isinstance(value, str) and value for value in said.values())
    return said
