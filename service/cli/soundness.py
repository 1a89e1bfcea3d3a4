"""The commands that look: is the deployment sound, are the files whole, what can be brought back."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console

from service import operator
from service.cli.screen import AS_JSON, plain, print_json, runtime_here, table, workers
from service.core.errors import ReceiverError


@click.command()
@AS_JSON
def check(as_json: bool) -> None:
    """Is this deployment sound? Exit code 1 when something would be lost or not work.

    Costs four requests of JARAI's budget.

    \b
    jarai-receiver check
    jarai-receiver check --json | jq -r '.[] | select(.verdict != "ok") | .says'
    """
    lines = list(workers("workers.check:examine")(runtime_here()))
    if as_json:
        print_json([{"part": line.part, "verdict": line.verdict, "says": line.says} for line in lines])
    else:
        marks = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "broken": "[red]broken [/]"}
        console = Console(soft_wrap=True, highlight=False)
        for line in lines:
            console.print(f"{marks[line.verdict]} {line.part:<13}", end="")
            console.print(plain(line.says), markup=False)
    if any(line.verdict == "broken" for line in lines):
        sys.exit(1)


@click.command()
def rebuild() -> None:
    """Bring back, from the manifests in STORAGE_URL, what Redis knew before it was emptied."""
    outcome = workers("workers.rebuild:rebuild")(runtime_here())
    click.echo(
        f"{outcome.rebuilt} production(s) brought back, {outcome.asked} of them to be asked about; "
        f"{outcome.known} known already"
    )
    if outcome.unreadable:
        raise ReceiverError(f"no manifest of ours: {', '.join(map(plain, outcome.unreadable[:20]))}")


@click.command()
@click.argument("production_id", required=False)
@click.option("--wait", "wait_seconds", default=60.0, show_default=True, type=click.FloatRange(0, 86400),
              help="Seconds to wait for what is damaged to be fetched again.")  # fmt: skip
@AS_JSON
def verify(production_id: str | None, wait_seconds: float, as_json: bool) -> None:
    """Read stored files, all or those of one production, and repair what is damaged.

    A file that is gone, or has other bytes than its manifest says, is fetched again by the workers. Exit code 1 when
    something is still damaged in the end.
    """
    here = runtime_here()
    check: Any = workers("workers.verify:Verification")(here)
    check.run(operator.production_id(production_id) if production_id else None)
    left = check.wait(wait_seconds)
    if as_json:
        print_json({"productions": check.productions, "files": check.files, "bytes": check.bytes,
                     "damaged": [one.describe() for one in check.damages]})  # fmt: skip
    else:
        table(
            ("production", "file", "problem", "now"),
            [(one.production_id, one.file, one.problem, one.outcome) for one in check.damages],
            "",
        )
        click.echo(f"{check.files} file(s) of {check.productions} production(s) read, {len(check.damages)} damaged")
    if left:
        raise ReceiverError(f"{left} not repaired yet; see `productions show ID` and `deadletters list`")
