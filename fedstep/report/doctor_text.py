"""A diagnosis for a terminal: one line a check, and below it what to do."""

from collections.abc import Iterator

from fedstep.report.diagnosis import PROBLEM, WARNING, Check, Diagnosis
from fedstep.report.escape import visible
from fedstep.report.lines import page, wrapped
from fedstep.report.units import count

__all__ = ["diagnosis_text"]

NAME, TEXT = 9, 23  # columns at which a check's name begins, and what it says


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The diagnosis; lines end with a newline."""
    lines = (line for check in diagnosis.checks for line in _check(check))
    return page((*lines, "", _sum(diagnosis)))


def _check(check: Check) -> Iterator[str]:
    first, *rest = wrapped(visible(check.says, 600), TEXT) or ("",)
    yield f"{check.state:<{NAME}}{check.name:<{TEXT - NAME}}{first[TEXT:]}"
    yield from rest
    if check.fix:
        yield from wrapped(f"-> {visible(check.fix, 600)}", TEXT)


def _sum(diagnosis: Diagnosis) -> str:
    problems, warnings = diagnosis.count(PROBLEM), diagnosis.count(WARNING)
    if not problems and not warnings:
        return "Nothing needs fixing."
    return f"{count(problems, 'problem')}, {count(warnings, 'warning')}."
