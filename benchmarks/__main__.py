"""``python -m benchmarks``: take the measures and print the table."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.measures import MEASURES, QUICK, Plan, ceiling, say
from benchmarks.processes import BenchError
from benchmarks.report import Row, conditions, table


@click.command(help="Measure busbar against its floors and print the table.")
@click.option("--quick", is_flag=True, help="Fewer rounds and smaller backlogs: a look, not a result.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(MEASURES)), help="Take this measure only; may be repeated."
)
@click.option("--check", is_flag=True, help="Exit with 1 when a bar does not hold.")
@click.option(
    "--directory", default="build", show_default=True, help="Where data directories are made: on a real disk."
)
def main(*, quick: bool, only: tuple[str, ...], check: bool, directory: str) -> None:
    started = time.perf_counter()
    Path(directory).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=directory)).resolve()
    try:
        plan = Plan(scratch, **QUICK) if quick else Plan(scratch)
        print(conditions(scratch))
        print(f"load generator alone: {ceiling(plan):,.0f} events/s", flush=True)
        rows, faults = take(plan, only or tuple(MEASURES))
    finally:
        shutil.rmtree(scratch)
    print(f"\n{table(rows)}\n\ntaken in {time.perf_counter() - started:.0f} s{', in short form' if quick else ''}")
    if faults:
        raise click.ClickException(f"not taken: {', '.join(faults)}")
    if check and not all(row.holds for row in rows):
        sys.exit(1)


def take(plan: Plan, names: tuple[str, ...]) -> tuple[list[Row], list[str]]:
    """The rows of the named measures in the table's order, and the measures that could not be taken."""
    rows: list[Row] = []
    faults: list[str] = []
    for name in [name for name in MEASURES if name in names]:
        say(f"-- {name}")
        try:
            rows += MEASURES[name](plan)
        except BenchError as error:
            faults.append(name)
            say(f"{name} could not be taken: {error}")
    return rows, faults


if __name__ == "__main__":
    main()
