"""Compute the load of a million projects from benchmarks.json, and rewrite the table of docs/explanation/scale.md.

python -m tests.benchmarks.scale
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fedstep.schema.schema import schema
from fedstep.server.storage.version_repository import DAY, MAX_KEPT_DAYS, MIN_KEPT_DAYS, MIN_VERSIONS

ROOT = Path(__file__).parents[2]
PAGE, FIGURES = ROOT / "docs/explanation/scale.md", ROOT / "docs/reference/benchmarks.json"
START, END = "<!-- table: start -->", "<!-- table: end -->"
PROJECTS, BUILDS = 1_000_000, 20  # per day
PEAK = 4.0  # of the mean: most builds are in the working hours of two continents
BUFFER = 1000  # updates per aggregation at this size, not the ten of the default
MODEL_BYTES = (
    3 * 4 * sum(task.size() for task in schema().tasks.values())
)  # candidate, production and trial, barely gzipped
PLAIN_BYTES = 4 * sum(task.size() for task in schema().tasks.values()) + 700  # of a stored update with every task
VERSION_BYTES, RECEIPT_BYTES = 2 * PLAIN_BYTES, 150  # with what went on trial; a receipt with its index


class Case(NamedTuple):
    """So many builds of a project for each update that it sends."""

    name: str
    builds_an_update: int


CASES = (
    Case("small projects", min(task.minimum_rows for task in schema().tasks.values())),
    Case("large projects", 1),
)


def table(measured: Mapping[str, float]) -> str:
    """The lines of the table; what no benchmark has measured yet is said to be so."""
    rows = [_row(case, measured) for case in CASES]
    names = list(rows[0])
    lines = [f"| | {' | '.join(case.name for case in CASES)} |", "|---|" + "---|" * len(CASES)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row[name] for row in rows)} |" for name in names)])


def _row(case: Case, measured: Mapping[str, float]) -> Mapping[str, str]:
    builds = PROJECTS * BUILDS
    updates = builds / case.builds_an_update
    sent, taken, pulled = (measured.get(name, 0.0) for name in ("sent", "taken", "pulled"))
    peak_updates, peak_builds = PEAK * updates / DAY, PEAK * builds / DAY
    return {
        "builds for an update": str(case.builds_an_update),
        "updates per day": _rounded(updates, 1e6, "million"),
        "updates per second, mean": _rounded(updates / DAY),
        "updates per second, peak": _rounded(peak_updates),
        "cores that take updates at the peak": _rounded(peak_updates / taken) if taken else "not measured",
        "cores that answer pulls at the peak": _rounded(peak_builds / pulled) if pulled else "not measured",
        "in at the peak": _rounded(8 * peak_updates * sent, 1e6, "Mbit/s") if sent else "not measured",
        "out at the peak": _rounded(8 * peak_builds * MODEL_BYTES, 1e6, "Mbit/s"),
        "out per month": _rounded(30 * builds * MODEL_BYTES, 1e12, "TB"),
        f"updates kept, {MIN_KEPT_DAYS} days": _rounded(MIN_KEPT_DAYS * updates * PLAIN_BYTES, 1e9, "GB"),
        f"updates kept, {MAX_KEPT_DAYS} days": _rounded(MAX_KEPT_DAYS * updates * PLAIN_BYTES, 1e9, "GB"),
        f"receipts kept, {BUFFER} updates per aggregation": _rounded(MIN_VERSIONS * BUFFER * RECEIPT_BYTES, 1e9, "GB"),
        "versions kept, without those promoted": _rounded(MIN_VERSIONS * VERSION_BYTES, 1e9, "GB"),
        f"aggregations per minute at the peak, {BUFFER} updates each": _rounded(60 * peak_updates / BUFFER),
    }


def measured(figures: Mapping[str, float]) -> Mapping[str, float]:
    """Return the bytes of a sent update, and updates and pulls per second on one core, as far as measured."""
    names = {
        "sent": "update of a build of 5000 tests",
        "taken": "16 kB updates durable on SQLite, 32 connections, rate",
        "pulled": "pulling the model, gzipped",
    }
    return {short: figures[name] for short, name in names.items() if name in figures}


def page(text: str, figures: Mapping[str, float]) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{table(measured(figures))}\n{END}{rest.partition(END)[2]}"


def figures_of(path: Path) -> Mapping[str, float]:
    """The values of a file of figures by their names."""
    return {figure["name"]: float(figure["value"]) for figure in json.loads(path.read_text())["figures"]}


def rewrite() -> None:
    """Makes the table of docs/explanation/scale.md agree with docs/reference/benchmarks.json."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures_of(FIGURES)), encoding="utf-8")


def _rounded(value: float, unit: float = 1.0, name: str = "") -> str:
    """To two digits."""
    scaled = value / unit
    text = f"{scaled:.0f}" if scaled >= 100 else f"{scaled:.2g}"
    return f"{float(text):,g} {name}".strip()


if __name__ == "__main__":
    rewrite()
