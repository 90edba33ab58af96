"""Failures that are muted, set apart from those that somebody should look at."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from fedstep.build.mutes import Mutes, muted_by
from fedstep.report.findings import FailureVerdict, MutedFailure, Training, Triage

__all__ = ["set_apart"]

F = TypeVar("F", Triage, Training)


class _Sorted(NamedTuple):
    open: tuple[FailureVerdict, ...]
    muted: tuple[MutedFailure, ...]


def set_apart(finding: F, mutes: Mutes) -> F:
    """The finding with its muted failures apart, and a warning for each entry of the list that does not count."""
    parted = _parted(finding.failures, mutes)
    warnings = (*finding.warnings, *mutes.complaints)
    return finding._replace(failures=parted.open, muted=parted.muted, warnings=warnings)


def _parted(failures: Sequence[FailureVerdict], mutes: Mutes) -> _Sorted:
    found = [(failure, muted_by(failure.test, mutes)) for failure in failures]
    return _Sorted(
        tuple(failure for failure, by in found if not by),
        tuple(MutedFailure(failure, mute.owner, mute.reason, mute.until) for failure, by in found for mute in by),
    )
