"""The lines of the table of docs/reference/results.md: what is asked, of which studies, and what was to be reached."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from fedstep.evaluation.scores import CONFUSION

REGRESSIONS = Path(__file__).parents[2] / "tests/data/regressions"
SEEDS = (1, 2, 3, 4, 5)
REPLAY_SEEDS = (3, 4, 5, 6, 7)
Figures = Mapping[str, object]


def projects_used_to(used_to: str) -> list[str]:
    """The projects with real regressions of one use: to `choose` the order, to `confirm` it, for its `promise`."""
    return re.findall(rf"^\| ([\w-]+)[^|]*\|.*\| {used_to} \|$", (REGRESSIONS / "README.md").read_text("utf-8"), re.M)


def nothing(_: Figures) -> str:
    """No simple predictor answers this."""
    return ""


@dataclass(frozen=True)
class Line:
    """One line: its name, the figure, the studies (one a seed) that have it, its bound, and the simple predictor."""

    name: str
    value: Callable[[Figures], float]
    studies: Sequence[str]
    bound: str = ""
    yardstick: Callable[[Figures], str] = nothing
    pooled: Callable[[Sequence[Figures]], float] | None = None  # of all studies together, instead of their median
    averaged: bool = False  # the mean of all studies, of the simple predictor too, instead of median and first study


def of(name: str, part: str = "summary") -> Callable[[Figures], float]:
    """One figure of a study."""
    return lambda figures: float(figures[part].get(name, float("nan")))  # type: ignore[attr-defined]


def best(name: str) -> Callable[[Figures], str]:
    """The best of the simple predictors by this score."""

    def told(figures: Figures) -> str:
        simple: Mapping[str, Mapping[str, float]] = figures["baselines"]  # type: ignore[assignment]
        value, who = max(((scores[name], who) for who, scores in simple.items() if name in scores), default=(0.0, ""))
        return f"{who} {value:.3f}"

    return told


def least(name: str) -> Callable[[Figures], str]:
    """The best of the simple predictors by this score, of which less is better."""

    def told(figures: Figures) -> str:
        simple: Mapping[str, Mapping[str, float]] = figures["baselines"]  # type: ignore[assignment]
        value, who = min((scores[name], who) for who, scores in simple.items() if name in scores)
        return f"{who} {value:.3f}"

    return told


def simple(who: str, name: str) -> Callable[[Figures], str]:
    """What one simple predictor reaches."""
    return lambda figures: f"{who} {figures['baselines'][who][name]:.3f}"  # type: ignore[index]


def constant_width(figures: Figures) -> str:
    """The interval that would cover as much, had it one width for all builds of a project."""
    return f"constant width {figures['summary']['interval_ratio_constant']:.2f}"  # type: ignore[index]


def pooled_mcc(*failures: str) -> Callable[[Sequence[Figures]], float]:
    """The MCC of the `first` or `second` failures of tests, of all studies together."""

    def mcc(studies: Sequence[Figures]) -> float:
        summaries: list[Mapping[str, float]] = [figures["summary"] for figures in studies]  # type: ignore[misc]
        hits, wrong, missed, right = (
            sum(scores.get(f"{kind}_{name}_failure", 0.0) for name in failures for scores in summaries)
            for kind in CONFUSION
        )
        scale = (hits + wrong) * (hits + missed) * (right + wrong) * (right + missed)
        return (hits * right - wrong * missed) / scale**0.5 if scale else 0.0

    return mcc


def mean_scores(studies: Sequence[Figures]) -> Figures:
    """The mean of each score over several studies, of fedstep and of each simple predictor."""

    def averaged(scores: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        shared = set.intersection(*map(set, scores))
        return {name: mean(one[name] for one in scores) for name in shared}

    summaries: list[Mapping[str, float]] = [figures["summary"] for figures in studies]  # type: ignore[misc]
    simple: list[Mapping[str, Mapping[str, float]]] = [figures["baselines"] for figures in studies]  # type: ignore[misc]
    return {
        "summary": averaged(summaries),
        "baselines": {who: averaged([scores[who] for scores in simple]) for who in simple[0]},
    }


def worst_replay(studies: Sequence[Figures]) -> float:
    """The largest share of regressions that a study calls flaky."""
    return max(map(of("regressions_suppressed"), studies))


THIRTY = {0: REPLAY_SEEDS, 1: REPLAY_SEEDS[:2]}  # seeds of the replays of thirty builds, by reruns


def thirty(reruns: int) -> tuple[Line, ...]:
    """Tests with thirty builds of history, of a project that nobody learned from."""
    studies = [f"flaky-30-{reruns}-{seed}" for seed in THIRTY[reruns]]
    count = {5: "five", 2: "two"}[len(studies)]
    name = f"flaky, 30 builds, reruns {reruns}, leave one project out: AUC, mean of {count} replays"
    unseen, listed = simple("classmates", "auc_unseen"), "- tests not yet seen to flip: AUC"
    return (
        Line(name, of("auc"), studies, ">= best + 0.05 (aim 0.08)", best("auc"), averaged=True),
        Line("- average precision", of("ap"), studies, ">= 0.42 (aim 0.50)", best("ap"), averaged=True),
        Line(listed, of("auc_unseen"), studies, ">= classmates + 0.06 (aim 0.10)", unseen, averaged=True),
    )


TIMES = ["build-duration-federated"]
ALONE = ["build-duration-local"]
DRAWN = [*TIMES, *(f"build-duration-seed-{seed}" for seed in SEEDS[1:])]
TRIAGE = [f"triage-{seed}" for seed in REPLAY_SEEDS]
CONFIRMED = ["order-confirm", *(f"order-confirm-{seed}" for seed in SEEDS[1:])]
HUNDRED = [f"flaky-100-{seed}" for seed in REPLAY_SEEDS[:3]]
RATIO, MEAN, WORST, COLD, FIRST = (f"mae_ratio_jenkins{part}" for part in ("", "_mean", "_worst", "_cold", "_first"))
RISKS = ["build-failure-federated"]
PUBLISHED, SHIFTS, LISTS = ["published"], ["shifts"], ["flaky-list"]
ALONE_FAILURE = ">= alone + 0.03 (aim 0.05)"
CLOSE, SLOPE = "federated within 0.01", "0.8-1.25 (aim 0.9-1.1)"


def pooled_line(name: str, pooled: Callable[[Sequence[Figures]], float], bound: str) -> Line:
    """A line of all replays of triage together."""
    return Line(name, lambda figures: pooled([figures]), TRIAGE, bound, pooled=pooled)


DURATION = (
    Line(
        "build duration: MAE / Jenkins, median of projects",
        of(RATIO),
        TIMES,
        "<= 0.755 (aim 0.74)",
        simple("median-20", RATIO),
    ),
    Line("- mean of projects", of(MEAN), TIMES, "<= 0.725 (aim 0.71)", simple("median-20", MEAN)),
    Line("- MdAPE", of("mdape"), TIMES, "<= 0.125 (aim 0.11)", simple("median-20", "mdape")),
    Line("- share of projects better than Jenkins", of("wins"), TIMES, ">= 18/19 (aim 1)"),
    Line("- worst project", of(WORST), TIMES, "<= 0.93"),
    Line("- cold start, builds 5-50", of(COLD), TIMES, "<= 0.80 (aim 0.75), below alone"),
    Line("- cold start, each project alone", of(COLD), ALONE),
    Line("- builds 2-20", of(FIRST), TIMES, "<= 0.90 (aim 0.85), alone - 0.03"),
    Line("- builds 2-20, each project alone", of(FIRST), ALONE),
    Line("- each project alone", of(RATIO), ALONE),
    Line("- pooled", of(RATIO), ["build-duration-pooled"], CLOSE),
    Line("- only the model of the others", of(RATIO), ["build-duration-global-only"]),
    Line("- 90 % interval: covered", of("coverage_90"), TIMES, "0.89-0.91"),
    Line("- least and", of("coverage_90_min"), TIMES, ">= 0.88 (aim 0.89)"),
    Line("- most of a project", of("coverage_90_max"), TIMES, "<= 0.92 (aim 0.91)"),
    Line("- interval: high / low end", of("interval_ratio"), TIMES, "below constant width", constant_width),
    Line("- pinball loss of the interval / error of Jenkins", of("pinball_ratio_jenkins"), TIMES),
    Line("- within 20 %, share of builds", of("within_20"), TIMES),
    Line("- part of one build in all errors, largest of a project", of("largest_error_share"), TIMES),
    Line("- MAE / Jenkins, five drawn interleavings", of(RATIO, "second_interleaving"), DRAWN),
    Line(
        "published builds of nine projects: MAE / Jenkins, median",
        of("fedstep"),
        PUBLISHED,
        "<= 0.75 (aim 0.68)",
        simple("XGBoost", "error"),
    ),
    Line("- projects better than XGBoost, of nine", of("wins_fedstep"), PUBLISHED, ">= 6 (aim 8)"),
    Line("- from passed builds: MAE / Jenkins, median", of("fedstep_from_passed"), PUBLISHED, "<= 0.75 (aim 0.68)"),
    Line("- projects better than XGBoost, of nine", of("wins_fedstep_from_passed"), PUBLISHED, ">= 6 (aim 8)"),
    Line("drawn level shifts: builds until within 20 %, median", of("median"), SHIFTS, "<= 4 (aim 3)"),
    Line("- nine in ten within", of("nine_in_ten"), SHIFTS, "<= 8 (aim 5)"),
)
FAILURE = (
    Line("build failure: AUC", of("auc"), ["build-failure-federated"], ">= 0.765 (aim 0.79)", best("auc")),
    Line("- each project alone", of("auc"), ["build-failure-local"]),
    Line("- pooled", of("auc"), ["build-failure-pooled"], CLOSE),
    Line("- only the model of the others", of("auc"), ["build-failure-global-only"]),
    *(
        Line(f"- failing builds among the riskiest {k} %", of(f"capture_{k}"), RISKS, "reported", best(f"capture_{k}"))
        for k in (5, 10, 20)
    ),
    Line("- builds 3-30, only the model of the others", of("auc_cold"), ["build-failure-global-only"], ALONE_FAILURE),
    Line("- builds 3-30, each project alone", of("auc_cold"), ["build-failure-local"]),
)
FLAKY = (
    Line(
        "flaky, no history, leave one project out: AUC",
        of("auc"),
        ["flaky-1"],
        ">= 0.79 (aim 0.82)",
        best("auc"),
    ),
    *thirty(0),
    *thirty(1),
    Line(
        "flaky list, recorded reports with a drawn flake: precision after ten builds",
        of("list_precision_at_10"),
        LISTS,
        ">= 0.90",
    ),
    Line("- 30 % flakes listed by their third failure", of("list_by_third_failure"), LISTS, ">= 0.95"),
    Line("- names per 1,000 green tests after the first build", of("list_false_per_1000_first"), LISTS, "0"),
)
VERDICTS = (
    Line("triage, 100 builds, seed 3: MCC", of("mcc"), TRIAGE[:1], ">= 0.68 (aim 0.78)"),
    Line("- regressions called flaky", of("regressions_suppressed"), TRIAGE[:1], "<= 0.05 (aim 0.02)"),
    Line("- MCC, five replays", of("mcc"), TRIAGE),
    Line("- regressions called flaky, five replays", of("regressions_suppressed"), TRIAGE),
    pooled_line("- the worst of five replays", worst_replay, "<= 0.05 (aim 0.02)"),
    pooled_line("- first failure of a test: MCC, five replays together", pooled_mcc("first"), "> 0.5"),
    pooled_line("- second failure: MCC, five replays together", pooled_mcc("second"), "> 0.5"),
    pooled_line("- first and second failure: MCC, five replays together", pooled_mcc("first", "second"), "> 0.5"),
    Line("- AUC, five replays", of("auc"), TRIAGE, "", best("auc")),
    Line("- pooled: AUC, seed 3", of("auc"), ["triage-pooled"], CLOSE),
    Line("- only the model of the others: MCC, seed 3", of("mcc"), ["triage-global-only"]),
    Line("- Brier skill", of("brier_skill"), TRIAGE, "> best", best("brier_skill")),
    Line("- calibration slope", of("calibration_slope"), TRIAGE, SLOPE),
)
ORDERS = (
    Line(
        f"order of tests, {len(projects_used_to('confirm'))} projects with real regressions, five draws: APFDc",
        of("apfdc"),
        CONFIRMED,
        "best + 0.06",
        best("apfdc"),
    ),
    Line("- builds 3 to 20", of("apfdc_cold"), CONFIRMED, "all builds - 0.03, alone + 0.05", best("apfdc_cold")),
    Line(
        "- builds that show a failure in 10 % of the time", of("caught_10"), CONFIRMED, "best + 0.10", best("caught_10")
    ),
    Line("- in 25 %", of("caught_25"), CONFIRMED, "", best("caught_25")),
    Line("- in 50 %", of("caught_50"), CONFIRMED, "", best("caught_50")),
    Line(
        "- time until the first failure",
        of("first_failure_share"),
        CONFIRMED,
        "half of best",
        least("first_failure_share"),
    ),
    Line(
        "- rank of tests that never failed before",
        of("first_failures"),
        CONFIRMED,
        "< best (aim 0.25)",
        least("first_failures"),
    ),
    Line("- APFDc on the projects that it was chosen on", of("apfdc"), ["order-choose"], "", best("apfdc")),
    Line("- `--confidence 0.95` kept, after 20 failing builds", of("promise_kept"), CONFIRMED[:1], "0.93 to 0.99"),
    Line("- share of the time that it then runs", of("promise_share"), CONFIRMED[:1], "<= 0.40"),
    Line(
        "- kept in two long histories, after 20 failing builds", of("promise_kept"), ["order-promise"], "0.93 to 0.99"
    ),
    Line("- share of the time that it then runs", of("promise_share"), ["order-promise"], "<= 0.40"),
    Line("- NAPFD, ABB's IOF/ROL", of("napfd"), ["order-abb"], "> RETECS, on its cycles", best("napfd")),
)
CALIBRATED = (
    Line(
        "flaky, 100 builds, federated: Brier skill, three replays",
        of("brier_skill"),
        HUNDRED,
        "> best",
        best("brier_skill"),
    ),
    Line("- calibration slope", of("calibration_slope"), HUNDRED, SLOPE),
)
TESTS = (Line("test duration: MdAPE / that of median-20", of("mdape_ratio"), ["test-duration"], "<= 0.97 (aim 0.92)"),)
LINES = (*DURATION, *FAILURE, *FLAKY, *VERDICTS, *CALIBRATED, *TESTS, *ORDERS)
