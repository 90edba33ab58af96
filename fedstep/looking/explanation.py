"""Why the model gives a test its probability: every feature with what it adds, and what would change the verdict."""

from collections.abc import Iterator, Sequence
from math import isnan

from fedstep.build.record import Absent
from fedstep.features.flaky import ACTIVE_BUILDS, flaky_columns, group_of, row_of, typical_seconds
from fedstep.features.parts import Part, Raw, Value, Words
from fedstep.features.schema import schema
from fedstep.federation.kept import kept_model
from fedstep.forecast import WORTH_NAMING, Forecaster
from fedstep.history.home import Home
from fedstep.history.summary import Summary
from fedstep.history.table import formerly
from fedstep.looking.past_runs import past_runs
from fedstep.looking.what_if import Subject, what_ifs
from fedstep.model.calibration import probability, untried
from fedstep.model.linear import Local, sigmoid
from fedstep.report.explained import Contribution, Explained
from fedstep.steps import forecaster_for, model_used

__all__ = ["explain"]


def explain(home: Home, summary: Summary, test: str, now: float, warnings: tuple[str, ...] = ()) -> Explained:
    """All about one test of the summary, which must know it. Nothing is written."""
    table, kept = summary.tests, kept_model(home)
    number = table.ids.index(test)
    former = next((old for old, now in formerly(table).items() if now == test), "")
    forecaster = forecaster_for(home, kept)
    platt = forecaster.correction.platt.get("flaky", untried("flaky"))
    subject = Subject(summary, number, row_of(flaky_columns(table), number))
    shared, private = _shared(forecaster, subject.values), _private(forecaster, test)
    beyond = sum(one.local for one in private)

    def chance(values: Raw) -> float:
        return probability(platt, _total(_shared(forecaster, values)) + beyond)

    score = _total(shared) + beyond
    recently = table.seen[number] >= summary.count - ACTIVE_BUILDS
    seconds = typical_seconds(table, number)
    return Explained(
        test=test,
        former=former,
        probability=probability(platt, score),
        raw=sigmoid(score),
        threshold=WORTH_NAMING,
        horizon=schema().heads["flaky"].horizon,
        recently=recently,
        slope=platt.slope,
        offset=platt.offset,
        contributions=tuple(sorted(shared, key=lambda one: (-abs(one.total), one.feature))),
        private=private,
        changes=what_ifs(subject, chance, lambda one: one >= WORTH_NAMING) if recently else (),
        runs=past_runs(home, (test, former) if former else (test,), table.revealed[number]),
        runs_known=table.runs[number],
        failures=table.failures[number],
        flips=table.flips[number],
        typical_seconds=Absent("no report gave a time") if seconds is None else seconds,
        model=model_used(kept, now),
        warnings=warnings,
    )


def _shared(forecaster: Forecaster, values: Raw) -> list[Contribution]:
    """What each part of the flaky head adds, each listed word for itself."""
    production = forecaster.production["flaky"]
    local = forecaster.correction.local.get("flaky", Local()).shared
    found, start = [], 0
    for part in schema().heads["flaky"].parts:
        for feature, shown, pairs in _pieces(part, values[part.name]):
            ours = sum(production[start + offset] * weight for offset, weight in pairs)
            theirs = sum(local.get(start + offset, 0.0) * weight for offset, weight in pairs)
            found.append(Contribution(feature, shown, ours, theirs))
        start += len(part.names())
    return found


def _pieces(part: Part, value: Value) -> Iterator[tuple[str, str, Sequence[tuple[int, float]]]]:
    """The features of one part: name, value in a few characters, and its coordinates with their values."""
    pairs = part.encode(value)
    if isinstance(part, Words):
        names = tuple(part.index)
        yield from ((f"{part.name}={names[offset]}", "yes", ((offset, weight),)) for offset, weight in pairs)
    else:
        yield (
            part.name,
            "absent" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value),
            pairs,
        )


def _private(forecaster: Forecaster, test: str) -> tuple[Contribution, ...]:
    """The private weights of the test and of its class: known to this project alone."""
    weights = forecaster.correction.local.get("flaky", Local()).private
    named = (("this test", f"test={test}"), ("its class", f"class={group_of(test)}"))
    return tuple(Contribution(shown, "", 0.0, weights.get(name, 0.0)) for shown, name in named)


def _total(contributions: Sequence[Contribution]) -> float:
    total = sum(one.total for one in contributions)
    assert not isnan(total)
    return total
