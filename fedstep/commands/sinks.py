"""Where results go: standard output, the files that the CI reads, its log; and the exit code."""

import os
import sys
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import click

from fedstep.commands.options import Given
from fedstep.errors import FedstepError, InputError
from fedstep.report.findings import Prediction, Training, Triage
from fedstep.workplace import Workplace, append, in_ci, replace

__all__ = ["exit_code", "finish", "say", "show", "tell_ci", "unsaid"]

Finding = Prediction | Triage | Training


def say(*warnings: str) -> None:
    """Lines of talk on standard error."""
    from fedstep.report.text import warning_text

    click.echo(warning_text(warnings), err=True, nl=False)


def show(text: str) -> None:
    """The result on standard output; when its reader, say `head`, has left, the rest of the step still happens."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(given: Given, problems: tuple[FedstepError, ...]) -> int:
    """That of the first problem with --strict, else 0."""
    return problems[0].exit_code if problems and given["strict"] else 0


def finish(
    given: Given, place: Workplace, finding: Finding, as_text: Callable[..., str], problems: tuple[FedstepError, ...]
) -> int:
    """Print the finding in the format asked for, talk, and feed what the CI reads; the exit code."""
    say(*finding.warnings)
    show(as_text(finding) if given["format"] == "text" else _rendered(finding, given["format"]))
    if in_ci(place.ci):
        from fedstep.report.outputs import outputs

        findings = _rendered(finding, "json") if os.environ.get("FEDSTEP_FINDINGS") else ""
        told = (outputs(finding), _rendered(finding, "markdown"), _annotations(place, finding), findings)
        failed = (*tell_ci(place, *told), *_code_quality(place, finding))
        say(*unsaid(failed, problems), *_comment(given, place, finding))
    return exit_code(given, problems)


def tell_ci(
    place: Workplace, values: Mapping[str, str], summary: str, annotations: str, findings: str = ""
) -> tuple[str, ...]:
    """Outputs, summary and the finding as JSON to the files that the CI names, annotations to its log; what failed."""
    from fedstep.report.outputs import dotenv, github_output

    sinks = (
        ("GITHUB_OUTPUT", github_output(values, os.urandom(16).hex())),
        ("GITHUB_STEP_SUMMARY", summary),
        ("FEDSTEP_DOTENV", dotenv(values)),
        ("FEDSTEP_SUMMARY", summary),
        ("FEDSTEP_FINDINGS", findings),
    )
    failed = []
    for variable, text in sinks:
        if path := os.environ.get(variable):
            try:
                append(path, text)
            except InputError as error:
                failed.append(str(error))
    if place.ci.vendor == "github" and annotations:  # the runner reads both streams; stdout is the result alone
        print(annotations, end="", file=sys.stderr, flush=True)
    return tuple(failed)


def unsaid(failed: tuple[str, ...], problems: tuple[FedstepError, ...]) -> tuple[str, ...]:
    """The first file that could not be written, unless a problem that is said already has the same reason: a full disk.

    >>> unsaid(("cannot write a: No space left on device", "cannot write b: No space left on device"), ())
    ('cannot write a: No space left on device',)
    """
    return tuple(text for text in failed if not any(text.rpartition(": ")[2] in str(each) for each in problems))[:1]


def _rendered(finding: Finding, style: str) -> str:
    from fedstep.report import as_json, markdown

    sinks: Any = as_json if style == "json" else markdown
    return str(getattr(sinks, f"{type(finding).__name__.lower()}_{style}")(finding))


def _annotations(place: Workplace, finding: Finding) -> str:
    """Workflow commands for the failures that are least likely flaky; on GitHub alone, whose log obeys them."""
    if isinstance(finding, Prediction) or place.ci.vendor != "github":
        return ""
    from fedstep.commands.placing import placed
    from fedstep.report.annotations import MOST_ANNOTATIONS, failure_annotations
    from fedstep.report.wording import by_urgency

    shown, rest = by_urgency(finding.failures)[:MOST_ANNOTATIONS], by_urgency(finding.failures)[MOST_ANNOTATIONS:]
    return failure_annotations((*placed(shown, place.root), *rest))


def _comment(given: Given, place: Workplace, finding: Finding) -> tuple[str, ...]:
    """Comment on the pull request where that is asked for; what went wrong."""
    if isinstance(finding, Prediction) or os.environ.get("FEDSTEP_COMMENT") != "true":
        return ()
    from fedstep.commands.commenting import comment

    return comment(place, finding, os.environ, given.get("budget", inf))


def _code_quality(place: Workplace, finding: Finding) -> tuple[str, ...]:
    """Write GitLab's report anew, JSON cannot be appended to, where a file is named; what went wrong."""
    path = os.environ.get("FEDSTEP_CODE_QUALITY")
    if not path or isinstance(finding, Prediction):
        return ()
    from fedstep.commands.placing import placed
    from fedstep.report.codequality import code_quality

    try:
        replace(path, code_quality(placed(finding.failures, place.root)))
    except InputError as error:
        return (str(error),)
    return ()
