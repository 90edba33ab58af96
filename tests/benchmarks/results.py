"""Studies all recorded corpora with `fedstep simulate` and writes the table of docs/results.md.

    python -m tests.benchmarks.results CORPORA REPLAY FOLDER [--table-only]

CORPORA is the folder of recorded CI, REPLAY the script that turns reruns into histories with known truth, FOLDER is
where replays and figures go; a figure that is there already is not made again.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
START, END = "<!-- table: start -->\n", "<!-- table: end -->\n"
SEEDS = (1, 2, 3, 4, 5)
REPLAY_SEEDS = (3, 4, 5, 6, 7)
Figures = Mapping[str, object]


@dataclass(frozen=True)
class Line:
    """One line of the table: what is asked, how the figures of several seeds answer it, what was to be reached."""

    name: str
    studies: Sequence[str]
    value: Callable[[Figures], float]
    bound: str
    yardstick: Callable[[Figures], str]


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
        command = [sys.executable, "-m", "fedstep", "simulate", "--task", task, *arguments, "--json", str(unfinished)]
        subprocess.run([*command, "--jobs", "2"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


def of(name: str, part: str = "summary") -> Callable[[Figures], float]:
    """One figure of a study."""
    return lambda figures: float(figures[part].get(name, float("nan")))  # type: ignore[attr-defined]


def best(*names: str) -> Callable[[Figures], str]:
    """The best of the simple predictors, by each of these scores."""

    def told(figures: Figures) -> str:
        simple: Mapping[str, Mapping[str, float]] = figures["baselines"]  # type: ignore[assignment]
        tops = [max(((s[n], who) for who, s in simple.items() if n in s), default=(0.0, "")) for n in names]
        return ", ".join(f"{who} {value:.3f}" for value, who in tops)

    return told


def simple(who: str, name: str) -> Callable[[Figures], str]:
    """What one simple predictor reaches."""
    return lambda figures: f"{who} {figures['baselines'][who][name]:.3f}"  # type: ignore[index]


def lines() -> Iterator[Line]:
    """The table, line by line."""
    federated = ["build-duration-federated"]
    yield Line(
        "build duration: MAE / Jenkins, median of projects",
        federated,
        of("mae_ratio_jenkins"),
        "<= 0.81 (aim 0.76)",
        simple("median-20", "mae_ratio_jenkins"),
    )
    yield Line(
        "- mean of projects",
        federated,
        of("mae_ratio_jenkins_mean"),
        "<= 0.78 (aim 0.74)",
        simple("median-20", "mae_ratio_jenkins_mean"),
    )
    yield Line("- MdAPE", federated, of("mdape"), "<= 0.125 (aim 0.11)", simple("median-20", "mdape"))
    yield Line("- share of projects better than Jenkins", federated, of("wins"), ">= 18/19 (aim 1)", lambda _: "")
    yield Line("- worst project", federated, of("mae_ratio_jenkins_worst"), "<= 1.03 (aim 1.00)", lambda _: "")
    yield Line(
        "- cold start, builds 5-50",
        federated,
        of("mae_ratio_jenkins_cold"),
        "<= 0.80 (aim 0.75), below local",
        lambda _: "",
    )
    yield Line(
        "- cold start, each project alone", ["build-duration-local"], of("mae_ratio_jenkins_cold"), "", lambda _: ""
    )
    yield Line("- each project alone", ["build-duration-local"], of("mae_ratio_jenkins"), "", lambda _: "")
    yield Line("- pooled", ["build-duration-pooled"], of("mae_ratio_jenkins"), "federated within 0.01", lambda _: "")
    yield Line("- 90 % interval: covered", federated, of("coverage_90"), "0.89-0.91", lambda _: "")
    yield Line("- least and", federated, of("coverage_90_min"), ">= 0.86", lambda _: "")
    yield Line("- most of a project", federated, of("coverage_90_max"), "<= 0.94", lambda _: "")
    yield Line(
        "- interval: high / low end",
        federated,
        of("interval_ratio"),
        "below constant width",
        lambda f: f"constant width {f['summary']['interval_ratio_constant']:.2f}",
    )  # type: ignore[index]
    seeds = [*federated, *(f"build-duration-seed-{seed}" for seed in SEEDS[1:])]
    yield Line(
        "- MAE / Jenkins, five drawn interleavings",
        seeds,
        of("mae_ratio_jenkins", "second_interleaving"),
        "",
        lambda _: "",
    )
    yield Line("build failure: AUC", ["build-failure-federated"], of("auc"), ">= 0.75 (aim 0.79)", best("auc"))
    yield Line("- each project alone", ["build-failure-local"], of("auc"), "", lambda _: "")
    yield Line("- pooled", ["build-failure-pooled"], of("auc"), "federated within 0.01", lambda _: "")
    yield Line("- only the model of the others", ["build-failure-global-only"], of("auc"), "", lambda _: "")
    yield Line(
        "flaky, no history, leave one project out: AUC, five seeds",
        [f"flaky-{seed}" for seed in SEEDS],
        of("auc"),
        ">= 0.77 (aim 0.82)",
        best("auc"),
    )
    for reruns in (0, 1):
        names = [f"flaky-30-{reruns}-{seed}" for seed in REPLAY_SEEDS[:2]]
        yield Line(
            f"flaky, 30 builds, reruns {reruns}, leave one project out: AUC, two replays",
            names,
            of("auc"),
            ">= best + 0.05 (aim 0.08)",
            best("auc"),
        )
        yield Line("- average precision", names, of("ap"), ">= best", best("ap"))
        yield Line(
            "- tests not yet seen to flip: AUC",
            names,
            of("auc_unseen"),
            ">= classmates + 0.06 (aim 0.10)",
            simple("classmates", "auc_unseen"),
        )
    triage = [f"triage-{seed}" for seed in REPLAY_SEEDS]
    yield Line("triage, 100 builds, seed 3: MCC", triage[:1], of("mcc"), ">= 0.68 (aim 0.78)", lambda _: "")
    yield Line(
        "- regressions called flaky", triage[:1], of("regressions_suppressed"), "<= 0.05 (aim 0.02)", lambda _: ""
    )
    yield Line("- MCC, five replays", triage, of("mcc"), "", lambda _: "")
    yield Line("- regressions called flaky, five replays", triage, of("regressions_suppressed"), "", lambda _: "")
    yield Line("- AUC, five replays", triage, of("auc"), "", best("auc"))
    yield Line("- pooled: AUC, seed 3", ["triage-pooled"], of("auc"), "federated within 0.01", lambda _: "")
    yield Line("- only the model of the others: MCC, seed 3", ["triage-global-only"], of("mcc"), "", lambda _: "")
    yield Line("- Brier skill", triage, of("brier_skill"), "> best", best("brier_skill"))
    yield Line("- calibration slope", triage, of("calibration_slope"), "0.8-1.25 (aim 0.9-1.1)", lambda _: "")
    calibrated = [f"flaky-100-{seed}" for seed in REPLAY_SEEDS[:3]]
    yield Line(
        "flaky, 100 builds, federated: Brier skill, three replays",
        calibrated,
        of("brier_skill"),
        "> best",
        best("brier_skill"),
    )
    yield Line("- calibration slope", calibrated, of("calibration_slope"), "0.8-1.25 (aim 0.9-1.1)", lambda _: "")
    yield Line(
        "test duration: MdAPE / that of median-20",
        ["test-duration"],
        of("mdape_ratio"),
        "<= 0.97 (aim 0.92)",
        lambda _: "",
    )


def table(bench: Bench) -> str:
    """The table as Markdown."""
    head = "| | reached | spread | to reach | simple predictor, same runs |\n|---|---|---|---|---|\n"
    return head + "".join(_row(bench, line) for line in lines())


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
