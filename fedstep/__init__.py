"""Predict flaky tests, build time and failures from a project's own CI, and learn with others without sharing it.

>>> import fedstep
>>> project = fedstep.Project.discover(".")

`Project` has a method for each step of a build: `predict` before it, `triage` for its failures, `train` after it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedstep.errors import (
        AggregatorError,
        AggregatorUnreachable,
        ContributionNotDue,
        FedstepError,
        HistoryError,
        InputError,
        MissingExtra,
        PrivacyBudgetExhausted,
        SchemaMismatch,
        UpdateRefused,
        UsageError,
        WireError,
    )
    from fedstep.federation.sync import Aggregator
    from fedstep.project import Project, read_junit
    from fedstep.report.explanation import TestExplanation
    from fedstep.results import (
        ExampleCounts,
        Exchange,
        FailureVerdict,
        FeatureContribution,
        Interval,
        ModelUsed,
        MutedFailure,
        Prediction,
        ReportCounts,
        Risk,
        SentUpdate,
        TestRisk,
        TrainReport,
        TriageReport,
    )
    from fedstep.types import BuildOutcome, Dropped, Duration, Outcome, TestRun, Unavailable

__version__ = "0.1.0"

__all__ = [
    "Aggregator",
    "AggregatorError",
    "AggregatorUnreachable",
    "BuildOutcome",
    "ContributionNotDue",
    "Dropped",
    "Duration",
    "ExampleCounts",
    "Exchange",
    "FailureVerdict",
    "FeatureContribution",
    "FedstepError",
    "HistoryError",
    "InputError",
    "Interval",
    "MissingExtra",
    "ModelUsed",
    "MutedFailure",
    "Outcome",
    "Prediction",
    "PrivacyBudgetExhausted",
    "Project",
    "ReportCounts",
    "Risk",
    "SchemaMismatch",
    "SentUpdate",
    "TestExplanation",
    "TestRisk",
    "TestRun",
    "TrainReport",
    "TriageReport",
    "Unavailable",
    "UpdateRefused",
    "UsageError",
    "WireError",
    "read_junit",
]

_NAMES_BY_MODULE = {
    "fedstep.errors": (
        "AggregatorError AggregatorUnreachable ContributionNotDue FedstepError HistoryError InputError "
        "MissingExtra PrivacyBudgetExhausted SchemaMismatch UpdateRefused UsageError WireError"
    ),
    "fedstep.federation.sync": "Aggregator",
    "fedstep.project": "Project read_junit",
    "fedstep.report.explanation": "TestExplanation",
    "fedstep.results": (
        "ExampleCounts Exchange FailureVerdict FeatureContribution Interval ModelUsed MutedFailure Prediction "
        "ReportCounts Risk SentUpdate TestRisk TrainReport TriageReport"
    ),
    "fedstep.types": "BuildOutcome Dropped Duration Outcome TestRun Unavailable",
}
_MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), so that `import fedstep` loads nothing else."""
    if name not in _MODULE_BY_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_MODULE_BY_NAME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
