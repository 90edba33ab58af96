"""The explanation of one test as an HTML page."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan

from fedstep.ingest.code_host import NO_CODE_HOST, CodeHost
from fedstep.report.explanation import (
    COUNTED,
    METALS,
    NO_CHANGE,
    SMALLEST,
    ExplainedFeature,
    SeenRun,
    TestExplanation,
    describe_feature,
    describe_past,
    describe_verdict,
    is_unchanged,
)
from fedstep.report.html import BuildTimesChart, TimedBuild, build_times_chart, render_page
from fedstep.report.wording import format_model
from fedstep.types import BuildOutcome, Unavailable

KINDS = {"p": "passed", "f": "failed", "c": "failed", "k": "flaked", "s": "skipped"}
OUTCOME_WORDS = {**COUNTED, "p": "passed", "s": "skipped"}
KEYS = (
    ("passed", "passed"),
    ("failed", "failed"),
    ("flaked", "failed and passed in one build"),
    ("skipped", "skipped"),
    ("gold", "gold flip: both outcomes on one commit"),
    ("silver", "silver flip: more speaks for a flake"),
)


@dataclass(frozen=True, slots=True)
class RunBar:
    """One run as the page shows it. `kind` is the class of its bar, `flip` the metal of its flip or ""."""

    when: str
    kind: str
    outcome: str
    flip: str
    commit: str
    branch: str
    failure_type: str


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What one feature adds to the log-odds, in words and with signs. `shared` is "" for a private feature."""

    meaning: str
    shared: str
    local: str
    total: float


def explanation_html(explained: TestExplanation, host: CodeHost = NO_CODE_HOST, stylesheet: str = "") -> str:
    """Return the explanation as a whole HTML document; with the name of a style sheet, that is not inside it.

    `host` is where commits are shown.
    """
    failures = [run for run in reversed(explained.runs) if run.outcome in COUNTED]
    bars = [_bar(run) for run in explained.runs]
    shown = {bar.kind for bar in bars} | {bar.flip for bar in bars}
    features = sorted((*explained.contributions, *explained.private), key=lambda feature: -abs(feature.total))
    return render_page(
        "explanation.html",
        explained=explained,
        host=host,
        stylesheet=stylesheet,
        verdict=describe_verdict(explained),
        past=describe_past(explained),
        model=format_model(explained.model),
        bars=bars,
        keys=[key for key in KEYS if key[0] in shown],
        chart=_chart(explained.runs),
        failures=[replace(_bar(run), flip="incident") if run.incident else _bar(run) for run in failures],
        features=[_feature_row(feature, explained) for feature in features if abs(feature.total) >= SMALLEST],
        largest=max((abs(feature.total) for feature in features), default=0.0) or 1.0,
        total=sum(feature.total for feature in features),
        no_change=NO_CHANGE if is_unchanged(explained) else "",
    )


def _bar(run: SeenRun) -> RunBar:
    return RunBar(
        when=time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at)),
        kind=KINDS.get(run.outcome, "skipped"),
        outcome=OUTCOME_WORDS.get(run.outcome, "unknown"),
        flip=METALS.get(run.metal, ""),
        commit=run.commit,
        branch=run.branch,
        failure_type=run.failure_type,
    )


def _feature_row(feature: ExplainedFeature, explained: TestExplanation) -> FeatureRow:
    if feature in explained.private:
        return FeatureRow(f"{feature.feature}, known here alone", "", f"{feature.local:+.2f}", feature.total)
    return FeatureRow(describe_feature(feature), f"{feature.shared:+.2f}", f"{feature.local:+.2f}", feature.total)


def _chart(runs: Sequence[SeenRun]) -> BuildTimesChart | None:
    """Return the times of the runs that have one, None where none has."""
    builds = tuple(
        TimedBuild(
            place,
            run.seconds,
            Unavailable("of a test"),
            BuildOutcome.FAILED if run.outcome in COUNTED else BuildOutcome.PASSED,
        )
        for place, run in enumerate(runs, 1)
        if not isnan(run.seconds)
    )
    return build_times_chart(builds) if builds else None
