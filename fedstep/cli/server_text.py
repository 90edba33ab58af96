"""Format the versions and trials of an aggregator as text."""

from collections.abc import Iterable

from fedstep.server.aggregation.policy import BufferStatus
from fedstep.server.gate import ActiveCounts
from fedstep.server.storage.version_repository import OpenTrial, TrialSummary, VersionListing


def format_status(lineage: VersionListing, pending: BufferStatus, active: ActiveCounts) -> str:
    """Describe what is served, on trial and in the buffer."""
    if not lineage.versions:
        return f"schema {lineage.schema}: nothing was ever served\n"
    newest = lineage.versions[0]
    sources = ", ".join(f"{task} from {version}" for task, version in sorted(newest.sources.items()))
    lines = [
        f"schema {lineage.schema}",
        f"candidate {newest.version} of {newest.created}",
        f"production {newest.production} ({sources})",
        *(_format_trial(trial) for trial in lineage.trials),
        f"buffer: {_count(pending.updates, 'update')} of {_count(pending.projects, 'project')}",
        f"active in the last 7 days: {_count(active.projects, 'project')} of {_count(active.owners, 'owner')}",
    ]
    return _text(lines)


def format_versions(lineage: VersionListing) -> str:
    """List the versions, the open trials and the verdicts, newest first."""
    lines = [
        f"version {each.version} of {each.created}: {_format_origin(each.parent, each.updates)}, "
        f"production {each.production}"
        for each in lineage.versions
    ]
    return _text([*lines, *map(_format_trial, lineage.trials), *map(_format_verdict, lineage.verdicts)])


def _format_origin(parent: int | None, updates: int) -> str:
    return "start of its schema" if parent is None else f"{_count(updates, 'update')} after {parent}"


def _format_trial(trial: OpenTrial) -> str:
    count = _count(trial.evaluations, "evaluation")
    return f"on trial: {trial.task} {trial.version} against {trial.against} since {trial.began}, {count}"


def _format_verdict(ended: TrialSummary) -> str:
    if ended.outcome == "rollback":
        return f"at {ended.version} rollback: {ended.task} back to the production of version {ended.against}"
    figures = ", ".join(f"{name} {_number(value)}" for name, value in ended.figures.items())
    again = f"; replayed without {_count(ended.left_out, 'sender')}" if ended.replayed else ""
    return f"at {ended.version} {ended.outcome}: {ended.task} {ended.trial} against {ended.against} ({figures}){again}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
