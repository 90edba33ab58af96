"""A finding as a pull request's comment: written once, found again by a hidden mark, then updated."""

from collections.abc import Iterator

from fedstep.build.record import Absent
from fedstep.report.findings import Training, Triage
from fedstep.report.markdown import failure_table
from fedstep.report.markup import code, page
from fedstep.report.units import span
from fedstep.report.wording import interval, model_name, verdict_counts

__all__ = ["comment_markdown", "is_worth_a_comment", "mark"]

MOST_CHARACTERS = 65_536  # GitHub refuses a longer comment
_MOST_FAILURES = (20, 10, 5, 2, 0)


def mark(name: str) -> str:
    """The first line of the comments of one job, which nobody sees; `name` is its hash, in hex."""
    return f"<!-- fedstep {name} -->"


def is_worth_a_comment(finding: Triage | Training) -> bool:
    """Whether there is something to say where nothing was said before."""
    return bool(finding.failures) or finding.incident


def comment_markdown(finding: Triage | Training, first_line: str, job: str, run_url: str) -> str:
    """The failures and the time of one job, at most 65,536 characters, below the mark. `run_url` is the CI's own."""
    written = (page(*_blocks(finding, first_line, job, run_url, most)) for most in _MOST_FAILURES)
    return next(text for text in written if len(text) <= MOST_CHARACTERS)


def _blocks(finding: Triage | Training, first_line: str, job: str, run_url: str, most: int) -> Iterator[str]:
    yield f"{first_line}\n### fedstep: {verdict_counts(finding.failures) or 'no test failed'} in {code(job)}"
    if finding.incident:
        yield f"**Incident**, no evidence about single tests: {code(finding.incident_reason)}"
    yield from failure_table(finding.failures, most)
    if isinstance(finding, Training):
        yield from _time(finding)
    summary = f"[summary of the run]({run_url}); " if run_url else ""
    yield f"<sub>{summary}status {finding.status}; {model_name(finding.model)}</sub>"


def _time(training: Training) -> Iterator[str]:
    if not isinstance(training.duration, Absent) and not isinstance(training.expected, Absent):
        yield f"It took {span(training.duration.seconds)}; expected {interval(training.expected)}."
