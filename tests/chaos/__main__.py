"""`python -m tests.chaos`: rounds of trouble with one seed after the other, and one report."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.plan import plan, show
from tests.chaos.report import Report, as_json, text, together
from tests.chaos.round import SETTLE_SECONDS, play


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # the simulator's, about answers that it broke off
    if options.show:
        print(show(plan(_seeds(options)[0], options.seconds)))
        return 0
    folder = Path(options.folder or tempfile.mkdtemp(prefix="chaos-"))
    reports: list[Report] = []
    try:
        seeds = _until(options.minutes, _seeds(options), bool(options.seeds))
        reports.extend(_round(seed, options.seconds, folder / str(seed), options.keep) for seed in seeds)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    if not reports:
        return 130
    total = together(reports)
    if len(reports) > 1:
        print(f"\n{text(total)}")
    if options.json:
        Path(options.json).write_text(json.dumps([as_json(one) for one in reports], indent=1))
    if total.violations:
        print(f"\nevery log and all data of the rounds that failed: {folder}")
    return 1 if total.violations else 0


def _round(seed: int, seconds: float, folder: Path, keep: bool) -> Report:
    print(f"\nseed {seed}, {seconds:g} s:\n{show(plan(seed, seconds))}", flush=True)
    found = play(seed, seconds, folder, SETTLE_SECONDS)
    print(f"\n{text(found)}", flush=True)
    if not (found.violations or keep):
        shutil.rmtree(folder)
    return found


def _seeds(options: argparse.Namespace) -> list[int]:
    if options.seeds:
        return [int(seed) for seed in options.seeds]
    return [options.seed if options.seed is not None else secrets.randbelow(1_000_000)]


def _until(minutes: float, seeds: list[int], only: bool) -> Iterator[int]:
    """The seeds given, or the one given and those that follow it until the time is over; one round at least."""
    if only:
        yield from seeds
        return
    end = time.monotonic() + minutes * 60
    seed = seeds[0]
    yield seed
    while time.monotonic() < end:
        seed += 1
        yield seed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first round; the following ones count up from there")
    parser.add_argument("--seeds", nargs="+", type=int, help="exactly these rounds")
    parser.add_argument("--minutes", type=float, default=1, help="start rounds until so much time has passed")
    parser.add_argument("--seconds", type=float, default=75, help="of trouble in each round")
    parser.add_argument("--json", metavar="FILE", help="write the reports there too")
    parser.add_argument("--folder", help="for logs and data, instead of a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the data of rounds without a violation")
    parser.add_argument("--show", action="store_true", help="only show the plan")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
