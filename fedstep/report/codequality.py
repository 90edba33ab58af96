"""GitLab's code quality report, which puts failures beside their lines in a merge request."""

import json
from collections.abc import Sequence
from hashlib import blake2b

from fedstep.report.annotations import TITLES, because, is_path
from fedstep.report.escape import visible
from fedstep.report.findings import FailureVerdict
from fedstep.report.units import percent
from fedstep.report.wording import by_urgency

__all__ = ["MOST_ENTRIES", "code_quality"]

MOST_ENTRIES = 500  # GitLab refuses reports of many megabytes; a merge request shows a few dozen
_SEVERITIES = {"regression": "major", "unsure": "minor", "flaky": "info"}


def code_quality(failures: Sequence[FailureVerdict]) -> str:
    """A JSON list with one entry a failure whose file is known, the least likely flaky first.

    The fields are those that GitLab takes from Code Climate (docs.gitlab.com, "Code quality report format").
    """
    placed = [failure for failure in by_urgency(failures) if failure.file and is_path(failure.file)]
    return f"{json.dumps([_entry(failure) for failure in placed[:MOST_ENTRIES]], indent=1)}\n"


def _entry(failure: FailureVerdict) -> dict[str, object]:
    title = f"{TITLES.get(failure.verdict, 'Failed')} ({percent(failure.flaky_probability)} flaky)"
    return {
        "description": f"{title}: {visible(failure.test)}{because(failure.reasons)}",
        "check_name": f"fedstep/{failure.verdict}",
        "fingerprint": _fingerprint(failure),
        "severity": _SEVERITIES.get(failure.verdict, "minor"),
        "location": {"path": failure.file.removeprefix("./"), "lines": {"begin": max(failure.line, 1)}},
    }


def _fingerprint(failure: FailureVerdict) -> str:
    """Without line and probability: GitLab shows what the target branch does not have, and both change all the time."""
    named = "\0".join((failure.verdict, failure.test, failure.file))
    return blake2b(named.encode(errors="backslashreplace"), digest_size=16).hexdigest()
