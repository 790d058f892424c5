"""Rows of the table, the conditions above it, and how both are printed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import apsw

PACKAGES = ("busbar", "uvicorn", "uvloop", "httptools", "orjson", "aiohttp", "apsw")
HEADINGS = ("measure", "floor", "busbar", "ratio", "bar", "holds")


@dataclass(frozen=True, slots=True)
class Row:
    """One measure. ``ratio`` is what is held against the bar, in words ``ratio_text``."""

    measure: str
    floor: str
    busbar: str
    ratio: str
    bar: str
    holds: bool
    notes: str = ""

    def cells(self) -> tuple[str, ...]:
        return (self.measure, self.floor, self.busbar, self.ratio, self.bar, "yes" if self.holds else "NO")


@dataclass(frozen=True, slots=True)
class Figure:
    """Events a second, and the processor time that the measured process spent on each (µs)."""

    per_second: float
    cpu_us: float

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} events/s ({self.cpu_us:.1f} µs)"


def ratio_row(measure: str, floors: Sequence[Figure], measured: Sequence[Figure], bar: float) -> Row:
    """A row for "at least the bar's share of the floor": medians, and the median of the rounds' ratios."""
    ratios = [ours.per_second / theirs.per_second for theirs, ours in zip(floors, measured, strict=True)]
    ratio = statistics.median(ratios)
    theirs, ours = median(floors), median(measured)
    return Row(
        measure,
        f"{theirs.per_second:,.0f} events/s",
        f"{ours.per_second:,.0f} events/s",
        f"{ratio:.2f}",
        f"≥ {bar:.2f}",
        ratio >= bar,
        f"by round: {' '.join(f'{each:.2f}' for each in ratios)}; processor time per event: "
        f"floor {theirs.cpu_us:.1f} µs, busbar {ours.cpu_us:.1f} µs, ratio {theirs.cpu_us / ours.cpu_us:.2f}",
    )


def median(figures: Sequence[Figure]) -> Figure:
    """The median of each part."""
    return Figure(
        statistics.median(each.per_second for each in figures), statistics.median(each.cpu_us for each in figures)
    )


def at_most(measure: str, seconds: Sequence[float], bar: float, *, notes: str = "") -> Row:
    """A row for a time that must not be exceeded."""
    median = statistics.median(seconds)
    rounds = f"by round: {' '.join(f'{each:.2f}' for each in seconds)}"
    text = f"{median:.2f} s"
    return Row(measure, "—", text, text, f"≤ {bar:g} s", median <= bar, f"{rounds}{notes and '; ' + notes}")


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with aligned columns, then their notes."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    notes = [f"* {row.measure}: {row.notes}" for row in rows if row.notes]
    return "\n".join([*text, *([""] if notes else []), *notes])


def conditions(directory: Path) -> str:
    """The machine and the versions that the figures were taken with."""
    half, worst = fsync_ms(directory)
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        (
            f"machine: {len(os.sched_getaffinity(0))} cores, {_processor()}, {platform.system()} {platform.release()}",
            f"Python {platform.python_version()}; {packages}; SQLite {apsw.sqlite_lib_version()}",
            f"forced write of 4 KB in {directory}: median {half:.2f} ms, p99 {worst:.2f} ms",
        )
    )


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.machine()


def fsync_ms(directory: Path, count: int = 300) -> tuple[float, float]:
    """Median and p99 of appending 4 KB to a file and forcing it to disk, in ms."""
    path = directory / "forced-writes"
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        times = sorted(_forced_write(file) for _ in range(count))
    finally:
        os.close(file)
        path.unlink()
    return times[count // 2] * 1000, times[int(count * 0.99)] * 1000


def _forced_write(file: int) -> float:
    started = time.perf_counter()
    os.write(file, b"x" * 4096)
    os.fdatasync(file)
    return time.perf_counter() - started
