"""Where results go: standard output, the files that the CI reads, its log; and the exit code."""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from fedstep.commands.options import Given
from fedstep.errors import FedstepError, InputError
from fedstep.report.findings import Prediction, Training, Triage
from fedstep.workplace import Workplace, append, in_ci

__all__ = ["exit_code", "finish", "say", "show", "tell_ci"]

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

        tell_ci(place, outputs(finding), _rendered(finding, "markdown"), _annotations(finding))
    return exit_code(given, problems)


def tell_ci(place: Workplace, values: Mapping[str, str], summary: str, annotations: str) -> None:
    """Outputs and summary to the files that the CI names, annotations to its log."""
    from fedstep.report.outputs import dotenv, github_output

    sinks = (
        ("GITHUB_OUTPUT", github_output(values, os.urandom(16).hex())),
        ("GITHUB_STEP_SUMMARY", summary),
        ("FEDSTEP_DOTENV", dotenv(values)),
        ("FEDSTEP_SUMMARY", summary),
    )
    for variable, text in sinks:
        if path := os.environ.get(variable):
            try:
                append(path, text)
            except InputError as error:
                say(str(error))
    if place.ci.vendor == "github" and annotations:  # the runner reads both streams; stdout is the result alone
        print(annotations, end="", file=sys.stderr, flush=True)


def _rendered(finding: Finding, style: str) -> str:
    from fedstep.report import as_json, markdown

    sinks: Any = as_json if style == "json" else markdown
    return str(getattr(sinks, f"{type(finding).__name__.lower()}_{style}")(finding))


def _annotations(finding: Finding) -> str:
    from fedstep.report.annotations import failure_annotations

    return "" if isinstance(finding, Prediction) else failure_annotations(finding.failures)
