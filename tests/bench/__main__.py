"""Runs every measurement, references in between, and prints a table of medians, spreads and ratios: `make bench`.

`--only PART` for one part (again for another one), `--rounds N`, `--json FILE` for every single figure. A part that
fails is named in the table, the others are measured all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from service import log
from tests.bench import polling
from tests.bench.backlog import backlog, cost, visible
from tests.bench.downloads import downloads
from tests.bench.growth import growth
from tests.bench.idle import idle
from tests.bench.intake import intake
from tests.bench.lab import progress
from tests.bench.table import Absent, Sample, markdown, raw, rows

ROUNDS = 3
FILE_BYTES = 2 * 1024 * 1024 * 1024


def _downloads(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    folder.mkdir()
    yield from downloads(folder, FILE_BYTES, rounds)


PARTS: Mapping[str, Callable[[Path, int], Iterator[Sample | Absent]]] = {
    "intake": intake,
    "backlog": backlog,
    "visible": visible,
    "cost": cost,
    "downloads": _downloads,
    "idle": idle,
    "growth": growth,
}
WITHOUT_ROUNDS = {"polling": polling.main}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS, *WITHOUT_ROUNDS], metavar="PART")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    chosen = options.only or [*PARTS, *WITHOUT_ROUNDS]
    log.configure("json", "error", ())
    found: list[Sample | Absent] = []
    failed: list[str] = []
    began = monotonic()
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as name:
        for part in [part for part in PARTS if part in chosen]:
            try:
                found.extend(PARTS[part](Path(name).resolve() / part, options.rounds))
                progress(f"{part} done, {monotonic() - began:.0f} s so far")
            except Exception as error:  # noqa: BLE001 - one part must not take the figures of the others with it
                found.append(Absent(part, f"{type(error).__name__}: {error}"))
                failed.append(part)
    here = _here()
    if found:
        print(markdown(rows(found)))
        print(f"\n{here['machine']}; Python {here['python']}; {options.rounds} rounds")
    if options.json is not None:
        options.json.write_text(json.dumps({**here, "rounds": options.rounds, "figures": raw(found)}, indent=1))
    for part in [part for part in WITHOUT_ROUNDS if part in chosen]:
        print()
        WITHOUT_ROUNDS[part]()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _here() -> dict[str, str]:
    """What the figures were measured on."""
    described = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", described.read_text(), re.M) if described.is_file() else None
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
