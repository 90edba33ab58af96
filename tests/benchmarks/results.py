"""Studies all recorded corpora with `fedstep simulate` and writes the table of docs/reference/results.md.

    python -m tests.benchmarks.results CORPORA REPLAY FOLDER [--table-only]

CORPORA is the folder of recorded CI, REPLAY the script that turns reruns into histories with known truth, FOLDER is
where replays and figures go; a figure that is there already is not made again.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import mean, median

from tests.benchmarks.results_lines import LINES, REPLAY_SEEDS, SEEDS, Figures, Line

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/results.md"
START, END = "<!-- table: start -->\n", "<!-- table: end -->\n"


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
        target = self.folder / "junit"
        if not target.exists():
            for archive in sorted(self.corpora.glob("junit/*.tar.gz")):
                with tarfile.open(archive) as packed:
                    packed.extractall(target, filter="data")
        return str(target)


def make_studies(bench: Bench) -> None:
    """Every study of the table, the ones that say most first."""
    recorded = [str(bench.corpora / name) for name in ("github-actions", "jenkins")]
    flaky = str(bench.corpora / "flaky")
    bench.study("build-duration-federated", "build-duration", *recorded)
    bench.study("build-failure-federated", "build-failure", *recorded)
    bench.study("flaky-1", "flaky", flaky, "--mode", "global-only")
    for seed in REPLAY_SEEDS:
        bench.study(f"triage-{seed}", "triage", bench.replayed(100, 0, seed))
    for reruns in (0, 1):
        for seed in REPLAY_SEEDS[:2]:
            folder = bench.replayed(30, reruns, seed)
            bench.study(f"flaky-30-{reruns}-{seed}", "flaky", folder, flaky, "--mode", "global-only")
    bench.study("test-duration", "test-duration", str(bench.corpora / "verdicts"), bench.reports())
    for mode in ("local", "pooled"):
        bench.study(f"build-duration-{mode}", "build-duration", *recorded, "--mode", mode)
        bench.study(f"build-failure-{mode}", "build-failure", *recorded, "--mode", mode)
    for mode in ("pooled", "global-only"):
        bench.study(f"triage-{mode}", "triage", bench.replayed(100, 0, 3), "--mode", mode)
    for seed in REPLAY_SEEDS[:3]:
        bench.study(f"flaky-100-{seed}", "flaky", bench.replayed(100, 0, seed))
    for seed in SEEDS[1:]:
        bench.study(f"flaky-{seed}", "flaky", flaky, "--mode", "global-only", "--seed", str(seed))
    for seed in SEEDS[1:]:
        bench.study(f"build-duration-seed-{seed}", "build-duration", *recorded, "--seed", str(seed))
    for task in ("build-failure", "build-duration"):
        bench.study(f"{task}-global-only", task, *recorded, "--mode", "global-only")


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
    middle = median(values) if len(values) > 2 else mean(values)
    return f"| {line.name} | {middle:.3f} | {spread} | {line.bound} | {line.yardstick(figures[0])} |\n"


def main() -> None:
    corpora, replay, folder = map(Path, sys.argv[1:4])
    bench = Bench(corpora, replay, folder)
    if "--table-only" not in sys.argv:  # of the studies that are there already
        make_studies(bench)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(START)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table(bench)}{END}{after}", encoding="utf-8")
    print(table(bench))


if __name__ == "__main__":
    main()
