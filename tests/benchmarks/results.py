"""Studies all recorded corpora with `fedstep simulate` and writes the table of docs/reference/results.md.

    python -m tests.benchmarks.results CORPORA REPLAY FOLDER [--table-only]

CORPORA is the folder of recorded CI, REPLAY the script that turns reruns into histories with known truth, FOLDER is
where replays and figures go; a figure that is there already is not made again.
"""

import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from scipy.stats import beta

from tests.benchmarks.results_lines import (
    LINES,
    REGRESSIONS,
    REPLAY_SEEDS,
    SEEDS,
    THIRTY,
    Figures,
    Line,
    mean_scores,
    projects_used_to,
)
from tests.studies.durations import published_figures, shift_figures

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/results.md"
START, END = "<!-- table: start -->\n", "<!-- table: end -->\n"
ORDERS_START, ORDERS_END = "<!-- orders: start -->\n", "<!-- orders: end -->\n"
KNOWN_START, KNOWN_END = "<!-- runs known: start -->\n", "<!-- runs known: end -->\n"
# Studies that score the first builds, too: what is predicted of what little is known.
KNOWN_STUDIES = {
    "cold-triage-recorded": "failures, recorded reports",
    "cold-triage-replayed": "failures, replays",
    "cold-flaky-replayed": "flaky within the next runs, replays",
    "cold-build-failure": "builds that fail, recorded",
}
CHANCES_START, CHANCES_END = "<!-- calibration: start -->\n", "<!-- calibration: end -->\n"
# Studies of one task, whose predictions are taken together.
CALIBRATED = {
    "builds that fail": ("build-failure-federated",),
    "failures that are flaky": tuple(f"triage-{seed}" for seed in REPLAY_SEEDS),
    "tests that flake within 20 runs": tuple(f"flaky-100-{seed}" for seed in REPLAY_SEEDS[:3]),
}
BINS = ("1-5", "6-20", "21-100", "more")


class Bench:
    """Makes studies, each once."""

    def __init__(self, corpora: Path, replay: Path, folder: Path) -> None:
        self.corpora, self.replay, self.folder = corpora, replay, folder
        folder.mkdir(parents=True, exist_ok=True)

    def study(self, name: str, task: str, *arguments: str) -> None:
        """Run one study unless its figures are there."""
        target = self.folder / f"{name}.json"
        if target.exists():
            return
        print(f"{name}: fedstep simulate --task {task} {' '.join(arguments)}", flush=True)
        unfinished = target.with_suffix(".part")
        command = [sys.executable, "-m", "fedstep", "simulate", "--task", task, *arguments, "--jobs", "2"]
        subprocess.run(
            [*command, "--figures", str(unfinished)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        unfinished.rename(target)

    def measure(self, name: str, measured: Callable[[Sequence[Path]], Figures], *folders: Path) -> None:
        """Make the figures of one study that `fedstep simulate` does not make, unless they are there."""
        if not self.has(name):
            print(name, *folders, flush=True)
            (self.folder / f"{name}.json").write_text(json.dumps(measured(folders)))

    def has(self, name: str) -> bool:
        """Whether the study was made."""
        return (self.folder / f"{name}.json").exists()

    def figures(self, name: str) -> Figures:
        found: Figures = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def replayed(self, builds: int, reruns: int, seed: int) -> str:
        """A folder of drawn histories with known truth."""
        target = self.folder / f"replay-{builds}-{reruns}-{seed}"
        if not target.exists():
            unfinished = target.with_suffix(".part")
            options = ["--builds", str(builds), "--reruns", str(reruns), "--seed", str(seed), "--out", str(unfinished)]
            subprocess.run([sys.executable, str(self.replay), *options], check=True, stdout=subprocess.DEVNULL)
            unfinished.rename(target)
        return str(target)

    def reports(self) -> str:
        """The recorded reports, unpacked."""
        return self._unpacked("junit")

    def regressions(self) -> str:
        """The recorded reports with regressions, unpacked."""
        return self._unpacked("regressions")

    def orders(self, used_to: str, seed: int = 1) -> str:
        """The histories with real regressions of one use: to `choose` the order, to `confirm` it, for its `promise`.

        With another seed than 1 four fifths of their builds, drawn.
        """
        target = self.folder / (f"regressions-{used_to}" if seed == 1 else f"regressions-{used_to}-{seed}")
        if not target.exists():
            for name in projects_used_to(used_to):
                with tarfile.open(REGRESSIONS / f"{name}.tar.xz") as packed:
                    packed.extractall(target, filter="data")
                if seed != 1:
                    leave_out_builds(target / name, random.Random(f"{name} {seed}"))
        return str(target)

    def _unpacked(self, name: str) -> str:
        target = self.folder / name
        if not target.exists():
            for archive in sorted(self.corpora.glob(f"{name}/*.tar.gz")):
                with tarfile.open(archive) as packed:
                    packed.extractall(target, filter="data")
        return str(target)


def leave_out_builds(project: Path, draw: random.Random) -> None:
    """Delete a fifth of the recorded builds; the next one then has the words of the tests that were new in them."""
    builds = sorted(path for path in project.iterdir() if path.is_dir())
    left_out = set(draw.sample(builds, len(builds) // 5))
    waiting: dict[str, str] = {}
    for build in builds:
        file = build / "sources.json"
        words = {**waiting, **(json.loads(file.read_bytes())["tests"] if file.exists() else {})}
        if build in left_out:
            waiting = words
            shutil.rmtree(build)
        elif waiting:
            waiting = {}
            file.write_text(json.dumps({"tests": words}))


def make_studies(bench: Bench) -> None:
    """Every study of the table, the ones that say most first."""
    recorded = [str(bench.corpora / name) for name in ("github-actions", "jenkins")]
    flaky = str(bench.corpora / "flaky")
    bench.study("build-duration-federated", "build-duration", *recorded)
    bench.study("build-failure-federated", "build-failure", *recorded)
    bench.study("flaky-1", "flaky", flaky, "--mode", "global-only")
    for seed in REPLAY_SEEDS:
        bench.study(f"triage-{seed}", "triage", bench.replayed(100, 0, seed), flaky)
    for reruns, seeds in THIRTY.items():
        for seed in seeds:
            folder = bench.replayed(30, reruns, seed)
            bench.study(f"flaky-30-{reruns}-{seed}", "flaky", folder, flaky, "--mode", "global-only")
    bench.study("test-duration", "test-duration", str(bench.corpora / "verdicts"), bench.reports())
    _study_orders(bench)
    for mode in ("local", "pooled"):
        bench.study(f"build-duration-{mode}", "build-duration", *recorded, "--mode", mode)
        bench.study(f"build-failure-{mode}", "build-failure", *recorded, "--mode", mode)
    for mode in ("pooled", "global-only"):
        bench.study(f"triage-{mode}", "triage", bench.replayed(100, 0, 3), flaky, "--mode", mode)
    for seed in REPLAY_SEEDS[:3]:
        bench.study(f"flaky-100-{seed}", "flaky", bench.replayed(100, 0, seed))
    for seed in SEEDS[1:]:
        bench.study(f"build-duration-seed-{seed}", "build-duration", *recorded, "--seed", str(seed))
    for task in ("build-failure", "build-duration"):
        bench.study(f"{task}-global-only", task, *recorded, "--mode", "global-only")
    bench.study("flaky-list", "flaky", bench.reports(), "--mode", "local")
    bench.measure("published", published_figures, bench.corpora / "github-actions")
    bench.measure("shifts", shift_figures, *(bench.corpora / name for name in ("github-actions", "jenkins")))
    cold = bench.replayed(100, 0, REPLAY_SEEDS[0])
    bench.study("cold-triage-recorded", "triage", bench.reports(), bench.regressions(), flaky, "--cold-start")
    bench.study("cold-triage-replayed", "triage", cold, flaky, "--cold-start")
    bench.study("cold-flaky-replayed", "flaky", cold, "--cold-start")
    bench.study("cold-build-failure", "build-failure", *recorded, "--cold-start")


def _study_orders(bench: Bench) -> None:
    for used_to in ("choose", "confirm", "promise"):
        bench.study(f"order-{used_to}", "test-failure", bench.orders(used_to))
    bench.study("order-abb", "test-failure", str(bench.corpora / "verdicts" / "abb-iofrol-abb-iofrol"))
    bench.study("order-verdicts", "test-failure", str(bench.corpora / "verdicts"))
    for seed in SEEDS[1:]:
        bench.study(f"order-confirm-{seed}", "test-failure", bench.orders("confirm", seed))


def table(bench: Bench) -> str:
    """The table as Markdown."""
    task = "| | reached | spread | to reach | simple predictor, same runs |\n|---|---|---|---|---|\n"
    return task + "".join(_row(bench, line) for line in LINES)


def _row(bench: Bench, line: Line) -> str:
    figures = [bench.figures(name) for name in line.studies if bench.has(name)]
    if not figures:
        return f"| {line.name} | not measured | | {line.bound} | |\n"
    values = [line.value(one) for one in figures]
    spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
    if line.averaged:
        middle, shown = mean(values), mean_scores(figures)
    else:
        middle = line.pooled(figures) if line.pooled else median(values) if len(values) > 2 else mean(values)
        shown = figures[0]
    return f"| {line.name} | {middle:.3f} | {spread} | {line.bound} | {line.yardstick(shown)} |\n"


def orders_table(bench: Bench) -> str:
    """The order of tests in each project, and the promise of `--confidence 0.95` where it was made."""
    head = "| project | used to | failing builds | APFDc | in 10 % of the time | promises | kept | time that ran |"
    rows = [row for study in ("choose", "confirm", "promise", "verdicts") for row in _order_rows(bench, study)]
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *rows]) + "\n"


def _order_rows(bench: Bench, used_to: str) -> Iterator[str]:
    projects: Any = bench.figures(f"order-{used_to}")["projects"] if bench.has(f"order-{used_to}") else {}
    for name, scores in sorted(projects.items()):
        if "apfdc" not in scores:
            continue
        made = int(scores["promises"])
        promise = f"{_kept(made, scores['promise_kept'])} | {scores['promise_share']:.3f}" if made else "0 | – | –"
        use = "no changes known" if used_to == "verdicts" else used_to
        figures = f"{scores['builds']:.0f} | {scores['apfdc']:.3f} | {scores['caught_10']:.2f}"
        yield f"| {name} | {use} | {figures} | {promise} |"


def _kept(made: int, kept: float) -> str:
    low, high = binomial_interval(round(kept * made), made)
    return f"{made} | {kept:.3f} ({low:.2f} to {high:.2f})"


def known_table(bench: Bench) -> str:
    """What was predicted and what was seen, by the runs of the test, or builds, that were known."""
    lines = [
        "| known before | cases | predicted | seen | named | predicted of these | seen of these |",
        "|---|---|---|---|---|---|---|",
    ]
    for study, name in KNOWN_STUDIES.items():
        summary: Any = bench.figures(study)["summary"] if bench.has(study) else {}
        lines.append(f"| **{name}** |" + " |" * 6)
        for known in BINS:
            if f"cases_runs_{known}" in summary:
                cells = [_known_cells(summary, f"_runs_{known}{end}") for end in ("", "_named")]
                lines.append(f"| {known} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _known_cells(summary: Mapping[str, float], end: str) -> str:
    if f"cases{end}" not in summary:
        return "0 | – | –"
    cases, seen = round(summary[f"cases{end}"]), summary[f"seen{end}"]
    low, high = binomial_interval(round(seen * cases), cases)
    return f"{cases} | {summary[f'said{end}']:.3f} | {seen:.3f} ({low:.2f} to {high:.2f})"


def binomial_interval(successes: int, cases: int) -> tuple[float, float]:
    """The exact interval of 95 % of a share: Clopper and Pearson, "The use of confidence or fiducial limits", 1934."""
    low = beta.ppf(0.025, successes, cases - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, cases - successes) if successes < cases else 1.0
    return float(low), float(high)


def calibration_table(bench: Bench) -> str:
    """What was predicted and what was seen, by tenths of the predicted chance."""
    heads = " | ".join(f"{name}: cases | predicted | seen" for name in CALIBRATED)
    lines = [f"| chance | {heads} |", "|---|" + "---|" * 3 * len(CALIBRATED)]
    for tenth in range(10):
        cells = (_chance_cells(bench, studies, tenth) for studies in CALIBRATED.values())
        lines.append(f"| {10 * tenth} to {10 * tenth + 10} % | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _chance_cells(bench: Bench, studies: Sequence[str], tenth: int) -> str:
    summaries: list[Any] = [bench.figures(study)["summary"] for study in studies if bench.has(study)]
    found = [one for one in summaries if f"cases_chance_{tenth}" in one]
    cases = sum(one[f"cases_chance_{tenth}"] for one in found)
    means = (
        sum(one[f"{name}_chance_{tenth}"] * one[f"cases_chance_{tenth}"] for one in found) / cases
        for name in ("said", "seen")
        if cases
    )
    return f"{cases:,.0f} | " + (" | ".join(f"{one:.3f}" for one in means) or "– | –")


def replaced(page: str, start: str, end: str, text: str) -> str:
    """The page with other text between two marks."""
    return f"{page.partition(start)[0]}{start}{text}{end}{page.partition(end)[2]}"


def main() -> None:
    corpora, replay, folder = map(Path, sys.argv[1:4])
    bench = Bench(corpora, replay, folder)
    if "--table-only" not in sys.argv:  # of the studies that are there already
        make_studies(bench)
    page = replaced(PAGE.read_text(encoding="utf-8"), START, END, table(bench))
    page = replaced(page, ORDERS_START, ORDERS_END, orders_table(bench))
    page = replaced(page, CHANCES_START, CHANCES_END, calibration_table(bench))
    PAGE.write_text(replaced(page, KNOWN_START, KNOWN_END, known_table(bench)), encoding="utf-8")
    print(table(bench), orders_table(bench), known_table(bench), calibration_table(bench), sep="\n")


if __name__ == "__main__":
    main()
