"""Runs every measurement, references in between, and prints a table of medians, spreads and ratios: `make bench`.

`--only PART` for one part (again for another one), `--rounds N`, `--json FILE` for every single figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from service import log
from tests.bench import polling
from tests.bench.backlog import backlog, cost, visible
from tests.bench.downloads import downloads
from tests.bench.intake import intake
from tests.bench.lab import progress
from tests.bench.table import Absent, Sample, markdown, raw, rows

ROUNDS = 3
FILE_BYTES = 2 * 1024 * 1024 * 1024


def _downloads(folder: Path, rounds: int) -> Iterator[Sample | Absent]:
    folder.mkdir()
    for what, mine, reference in downloads(folder, FILE_BYTES, rounds):
        yield Sample(what, "", mine, "reference", reference)


PARTS: Mapping[str, Callable[[Path, int], Iterator[Sample | Absent]]] = {
    "intake": intake,
    "backlog": backlog,
    "visible": visible,
    "cost": cost,
    "downloads": _downloads,
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
    began = monotonic()
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as name:
        for part in [part for part in PARTS if part in chosen]:
            found += PARTS[part](Path(name).resolve() / part, options.rounds)
            progress(f"{part} done, {monotonic() - began:.0f} s so far")
    if found:
        print(markdown(rows(found)))
    if options.json is not None:
        options.json.write_text(json.dumps({**_here(), "rounds": options.rounds, "figures": raw(found)}, indent=1))
    for part in [part for part in WITHOUT_ROUNDS if part in chosen]:
        print()
        WITHOUT_ROUNDS[part]()


def _here() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
