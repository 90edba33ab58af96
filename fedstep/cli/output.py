"""Print results and warnings, choose the exit code, and write the files that a CI reads."""

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import StringIO, TextIOWrapper
from math import inf
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from fedstep.errors import InputError
from fedstep.files import open_regular
from fedstep.results import Diagnosis, FailureVerdict, Interval, Prediction, Problems, TrainReport, TriageReport

if TYPE_CHECKING:
    from fedstep import Project
    from fedstep.ingest.code_host import CodeHost
    from fedstep.pipeline.context import RunContext

Report = Prediction | TriageReport | TrainReport
Timed = TypeVar("Timed", Prediction, TrainReport)


def render(report: Report, output_format: str, host: "CodeHost | None" = None) -> str:
    """Return the report as text, json or markdown, whose commits are linked to `host`."""
    if output_format == "markdown":
        from fedstep.ingest.code_host import NO_CODE_HOST
        from fedstep.report.markdown import prediction_markdown, training_markdown, triage_markdown

        host = host or NO_CODE_HOST
        if isinstance(report, Prediction):
            return prediction_markdown(report)
        return triage_markdown(report, host) if isinstance(report, TriageReport) else training_markdown(report, host)
    if output_format == "json":
        from fedstep.report.json import prediction_json, training_json, triage_json

        if isinstance(report, Prediction):
            return prediction_json(report)
        return triage_json(report) if isinstance(report, TriageReport) else training_json(report)
    from fedstep.report.text import prediction_text, training_text, triage_text

    if isinstance(report, Prediction):
        return prediction_text(report)
    return triage_text(report) if isinstance(report, TriageReport) else training_text(report)


def echo_diagnosis(diagnosis: Diagnosis, as_json: bool) -> None:
    """Print the result of `doctor` or `status`."""
    from fedstep.report.json import diagnosis_json
    from fedstep.report.text import diagnosis_text

    echo_result(diagnosis_json(diagnosis) if as_json else diagnosis_text(diagnosis))


def echo_warnings(*warnings: str) -> None:
    """Print warnings and progress to standard error."""
    if not warnings:
        return
    from fedstep.report.units import warning_text

    try:
        click.echo(warning_text(warnings), err=True, nl=False)
    except OSError:  # there is no place to say it; the interpreter would fail at its end, too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def echo_result(text: str) -> None:
    """Print the result to standard output.

    The command continues after a closed pipe, as with `head`, and says why the result could not be printed otherwise.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            echo_warnings(f"the result cannot be printed: {error.strerror or error}")


def echo_names(names: Iterable[str]) -> None:
    """Print names, one per line. What is no text in them is printed as the bytes that were read.

    A test runner has to find them as they are; a terminal, which would obey their control sequences, shows escapes.
    """
    if sys.stdout.isatty():
        from fedstep.report.units import visible

        names = [visible(name, LARGEST_LIST) for name in names]
    text = "".join(f"{name}\n" for name in names)
    if not text.isascii() and isinstance(sys.stdout, TextIOWrapper):
        with suppress(UnicodeEncodeError):
            text.encode(sys.stdout.encoding, "surrogateescape")
            sys.stdout.reconfigure(errors="surrogateescape")
    echo_result(text)


def read_plan(plan: str) -> str:
    """Return the text of a plan, which `@FILE` names. Raise InputError if the file cannot be read."""
    return "".join(read_lines(plan[1:])) if plan.startswith("@") else plan


LARGEST_LIST = 64 << 20  # bytes of the names of tests; a million have 50 MB


def read_lines(path: str) -> list[str]:
    """Return the lines of a file, of standard input for `-`. Raise InputError if it cannot be read."""
    try:
        if path != "-":
            # `<(command)` is a pipe that the caller made; one that a checkout has would never end.
            is_given = path.startswith(("/dev/fd/", "/dev/stdin", "/proc/self/fd/"))
            with open(path, "rb") if is_given else open_regular(path) as file:
                content = file.read(LARGEST_LIST + 1)
            if len(content) > LARGEST_LIST:
                raise OSError(errno.EFBIG, f"it has more than {LARGEST_LIST} bytes")
            return StringIO(content.decode("utf-8-sig", "surrogateescape"), newline=None).readlines()
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")
        lines = list(sys.stdin)
        return [line.removeprefix("\ufeff") for line in lines[:1]] + lines[1:]
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be read: {error.strerror}", "Check the path") from error


def exit_code(strict: bool, problems: Problems) -> int:
    """Return the exit code of the first problem with `strict`, else 0."""
    return problems[0].exit_code if problems and strict else 0


def finish(report: Report, context: "RunContext", output_format: str, strict: bool, budget: float = inf) -> int:
    """Print the report and its warnings, write what the CI reads, and return the exit code.

    A comment on a pull request is written until `budget` seconds after the start of the command.
    """
    from fedstep.pipeline.context import in_ci

    host = _linked_host(report, context) if in_ci(context.ci) or output_format == "markdown" else None
    echo_warnings(*report.warnings)
    echo_result(render(report, output_format, host))
    if in_ci(context.ci):
        from fedstep.report.ci_outputs import outputs

        findings = render(report, "json") if os.environ.get("FEDSTEP_FINDINGS") else ""
        failures = write_ci_outputs(
            context, outputs(report), render(report, "markdown", host), _annotations(context, report), findings
        )
        failures = (*failures, *_write_code_quality(context, report))
        echo_warnings(*new_warnings(failures, report.problems), *_comment(context, report, budget))
    return exit_code(strict, report.problems)


def _linked_host(report: Report, context: "RunContext") -> "CodeHost | None":
    """Return where the commits that a report names are shown; None where it names none."""
    if isinstance(report, Prediction):
        return None
    changes = isinstance(report, TrainReport) and bool(report.changes)
    if not changes and not any(failure.kind == "failing" for failure in report.failures):
        return None
    from fedstep.pipeline.context import code_host

    return code_host(context)


def with_estimate(report: Timed) -> Timed:
    """Return the report with Jenkins' own estimate shown beside what is expected."""
    if isinstance(report, Prediction):
        if isinstance(report.duration, Interval):
            return report._replace(duration=report.duration._replace(shows_jenkins=True))
    elif isinstance(report.expected, Interval):
        return report._replace(expected=report.expected._replace(shows_jenkins=True))
    return report


FAILED_BUILD = 1  # the exit code of a verdict, which is no fault of fedstep


class RulingOptions(TypedDict):
    """The options of a command that judges a build by its reports, as click passes them on."""

    junit: tuple[str, ...]
    history: str
    part: str
    forgive_above: float | None
    new_flakes: str
    max_quarantined: int
    log: str
    exit_code: int | None
    output_format: str
    strict: bool


def finish_with_ruling(report: TriageReport, project: "Project", given: RulingOptions) -> int:
    """Rule on the build by the rules of the options, finish as usual, and return 1 if the build fails."""
    from fedstep.pipeline.triage import VerdictRules, decide

    above = 1.1 if given["forgive_above"] is None else given["forgive_above"]
    ruling = decide(report, VerdictRules(above, given["new_flakes"] == "fail", given["max_quarantined"]))
    code = finish(report._replace(ruling=ruling), project.context(), given["output_format"], given["strict"])
    return code or (0 if ruling.passed else FAILED_BUILD)


def write_ci_outputs(
    context: "RunContext", values: Mapping[str, str], summary: str, annotations: str, findings: str = ""
) -> tuple[str, ...]:
    """Write outputs, summary and JSON to the files that the CI names, and annotations to its log.

    Return a message for each file that could not be written.
    """
    from fedstep.pipeline.context import append
    from fedstep.report.ci_outputs import dotenv, github_output

    text_by_variable = {
        "GITHUB_OUTPUT": github_output(values, os.urandom(16).hex()),
        "GITHUB_STEP_SUMMARY": summary,
        "FEDSTEP_DOTENV": dotenv(values),
        "FEDSTEP_SUMMARY": summary,
        "FEDSTEP_FINDINGS": findings,
    }
    failures = []
    for variable, text in text_by_variable.items():
        if path := os.environ.get(variable):
            try:
                append(path, text)
            except InputError as error:
                failures.append(str(error))
    if context.ci.vendor == "github" and annotations:  # the runner reads both streams; stdout is the result alone
        print(annotations, end="", file=sys.stderr, flush=True)
    return tuple(failures)


def new_warnings(failures: tuple[str, ...], problems: Problems) -> tuple[str, ...]:
    """Return the first failure whose reason is not already among the problems; a full disk is reported once.

    >>> new_warnings(("cannot write a: No space left on device", "cannot write b: No space left on device"), ())
    ('cannot write a: No space left on device',)
    """
    return tuple(text for text in failures if not any(text.rpartition(": ")[2] in str(each) for each in problems))[:1]


def locate_failures(failures: Sequence[FailureVerdict], root: str) -> tuple[FailureVerdict, ...]:
    """Return the failures with a file of the repository and a line, from the report or else from the test's name.

    A path outside the repository, or that does not exist, becomes "".
    """
    if not failures:
        return ()
    from fedstep.ingest.git import list_files
    from fedstep.ingest.test_source import SourceIndex, locate_test, walk_files
    from fedstep.types import Outcome, TestRun, Unavailable

    tracked = list_files(root)
    index = SourceIndex(walk_files(root) if isinstance(tracked, Unavailable) else tracked)

    def locate(failure: FailureVerdict) -> FailureVerdict:
        run = TestRun(failure.test, Outcome.FAILED, file=failure.file, line=failure.line)
        file, line = locate_test(run, root, index)
        return failure._replace(file=file, line=line)

    return tuple(map(locate, failures))


def _annotations(context: "RunContext", report: Report) -> str:
    """Return workflow commands for warnings and the failures least likely flaky; only GitHub's log interprets them."""
    if context.ci.vendor != "github":
        return ""

    from fedstep.report.ci_outputs import MOST_ANNOTATIONS, failure_annotations, warning_annotations
    from fedstep.report.wording import sort_by_urgency

    if isinstance(report, Prediction):
        return warning_annotations(report.warnings)
    if report.incident:  # each failure would be called a regression
        return warning_annotations((f"an incident: {report.incident_reason}, look for one cause", *report.warnings))
    failures = sort_by_urgency(report.failures)
    located = locate_failures(failures[:MOST_ANNOTATIONS], context.root)
    annotations = failure_annotations((*located, *failures[MOST_ANNOTATIONS:]))
    return annotations + warning_annotations(report.warnings, MOST_ANNOTATIONS - annotations.count("\n"))


def _comment(context: "RunContext", report: Report, budget: float) -> tuple[str, ...]:
    """Comment on the pull request if FEDSTEP_COMMENT asks for it; return what went wrong."""
    if isinstance(report, Prediction) or os.environ.get("FEDSTEP_COMMENT") != "true":
        return ()
    from fedstep.cli.github_comment import write_comment

    return write_comment(report, context, os.environ, budget)


def _write_code_quality(context: "RunContext", report: Report) -> tuple[str, ...]:
    """Write GitLab's code quality report to the file of FEDSTEP_CODE_QUALITY, if set; return what went wrong."""
    path = os.environ.get("FEDSTEP_CODE_QUALITY")
    if not path or isinstance(report, Prediction):
        return ()

    from fedstep.pipeline.context import replace
    from fedstep.report.ci_outputs import code_quality

    try:
        replace(path, code_quality(locate_failures(report.failures, context.root)))  # JSON cannot be appended to
    except InputError as error:
        return (str(error),)
    return ()
