"""The comment on GitHub's pull request, where a workflow asks for one: found again by its mark, else written."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import inf
from typing import Any
from urllib.parse import quote

import click

from fedstep.cli.options import Options
from fedstep.errors import FedstepError, InputError
from fedstep.federation.transport import Transport, requests_transport
from fedstep.ingest.git import list_files
from fedstep.ingest.test_source import SourceIndex, locate_test, walk_files
from fedstep.pipeline.context import RunContext, append, in_ci, read_event, replace
from fedstep.report.markdown import comment_markdown, is_worth_a_comment, mark
from fedstep.results import FailureVerdict, Prediction, TrainReport, TriageReport
from fedstep.types import Outcome, TestRun, Unavailable

SECONDS = 10.0  # for all requests together, where the step's budget has them
PAGES, PAGE = 10, 100  # of comments looked through
WHERE, WITH = "GITHUB_API_URL", "FEDSTEP_COMMENT_TOKEN"
HEADERS = {
    "Accept": "application/vnd.github+json",
    "Accept-Encoding": "identity",  # the transport hands the body on as it came
    "X-GitHub-Api-Version": "2022-11-28",
}
_HEAD = (("head_repository", "owner", "login"), ("head_branch",), ("head_sha",))  # of a run's pull request


def comment(
    place: RunContext, finding: TriageReport | TrainReport, env: Mapping[str, str], budget: float
) -> tuple[str, ...]:
    """Write or update the comment of this job, if the run is of a pull request; what went wrong, to be said.

    `budget` is the seconds that the whole step has, from `place.now` on.
    """
    seconds = min(SECONDS, budget - (time.time() - place.now))
    if seconds <= 0:
        return ("no comment was written: no time was left for it. Raise --budget",)
    first_line = mark(_hashed(env.get("GITHUB_WORKFLOW", ""), place.ci.job, place.ci.cell))
    try:
        talk = _GitHubApi(
            requests_transport(env.get(WHERE, ""), env.get(WITH, "")), env.get("GITHUB_REPOSITORY", ""), seconds
        )
        number = _pull_request(talk, _parsed(read_event(env)))
        if not number:
            return ()
        known = _written(talk, number, first_line)
        if known or is_worth_a_comment(finding):
            job = f"{place.ci.job} {place.ci.cell}".strip()
            body = comment_markdown(finding, first_line, job, _run_url(env))
            target = f"issues/comments/{known}" if known else f"issues/{number}/comments"
            talk.ask("PATCH" if known else "POST", target, {"body": body})
    except FedstepError as error:
        return (f"no comment was written: {error}",)
    return ()


class _GitHubApi:
    """Questions to the API about one repository, with one time for all of them."""

    def __init__(self, send: Transport, repository: str, seconds: float) -> None:
        self._send, self._base = send, f"/repos/{quote(repository)}/"
        self._end = time.monotonic() + seconds

    def ask(self, method: str, path: str, content: Mapping[str, str] | None = None) -> Any:
        """The parsed answer. InputError where GitHub refuses or talks nonsense."""
        body = json.dumps(content).encode() if content else b""
        left = max(0.1, self._end - time.monotonic())
        answer = self._send(method, self._base + path, HEADERS, body, left)
        if answer.status in (401, 403, 404):
            remedy = "Give the job `permissions: pull-requests: write`; runs of forks never have it"
            raise InputError(f"GitHub answered {answer.status} to {method} {path.partition('?')[0]}", remedy)
        if answer.status not in (200, 201):
            raise InputError(f"GitHub answered {answer.status} to {method} {path.partition('?')[0]}", "Run it again")
        return _parsed(answer.body)


def _pull_request(talk: _GitHubApi, event: Any) -> int:
    """The number of the pull request that the run is of, 0 for none.

    A `workflow_run` names it only where the branch is of this repository; a fork's is found by its branch and commit.
    """
    run = _dig(event, "workflow_run")
    known = _dig(event, "pull_request", "number") or _dig(run, "pull_requests", 0, "number")
    if isinstance(known, int):
        return known
    owner, branch, commit = (_dig(run, *path) for path in _HEAD)
    if _dig(run, "event") != "pull_request" or not (owner and branch and commit):
        return 0
    found = talk.ask("GET", f"pulls?state=open&per_page={PAGE}&head={quote(f'{owner}:{branch}', safe='')}")
    numbers = (_dig(one, "number") for one in _listed(found) if _dig(one, "head", "sha") == commit)
    return next((number for number in numbers if isinstance(number, int)), 0)


def _written(talk: _GitHubApi, number: int, first_line: str) -> int:
    """The id of our comment, 0 where there is none. Only a bot's counts: anyone can write the mark."""
    for page in range(1, PAGES + 1):
        found = _listed(talk.ask("GET", f"issues/{number}/comments?per_page={PAGE}&page={page}"))
        for one in found:
            ours = str(_dig(one, "body")).startswith(first_line) and _dig(one, "user", "type") == "Bot"
            if ours and isinstance(_dig(one, "id"), int):
                return int(one["id"])
        if len(found) < PAGE:
            break
    return 0


def _run_url(env: Mapping[str, str]) -> str:
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (env.get(name, "") for name in names)
    return f"{server}/{quote(repository)}/actions/runs/{run}" if server and run.isdecimal() else ""


def _hashed(*words: str) -> str:
    return blake2b("\n".join(words).encode(errors="replace"), digest_size=8).hexdigest()


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dig(value: Any, *keys: str | int) -> Any:
    """What is at the end of the keys, None where there is no such thing."""
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def placed(failures: Sequence[FailureVerdict], root: str) -> tuple[FailureVerdict, ...]:
    """The failures, each with a file of this repository and a line: as its report says, else as its name tells.

    A path that is none of the repository's own, or is not found, becomes "".
    """
    if not failures:
        return ()
    tracked = list_files(root)
    index = SourceIndex(walk_files(root) if isinstance(tracked, Unavailable) else tracked)
    return tuple(_placed(failure, root, index) for failure in failures)


def _placed(failure: FailureVerdict, root: str, index: SourceIndex) -> FailureVerdict:
    run = TestRun(failure.test, Outcome.FAILED, file=failure.file, line=failure.line)
    file, line = locate_test(run, root, index)
    return failure._replace(file=file, line=line)


Finding = Prediction | TriageReport | TrainReport


def echo_warnings(*warnings: str) -> None:
    """Lines of talk on standard error."""
    from fedstep.report.text import warning_text

    click.echo(warning_text(warnings), err=True, nl=False)


def echo_result(text: str) -> None:
    """The result on standard output; when its reader, say `head`, has left, the rest of the step still happens."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(given: Options, problems: tuple[FedstepError, ...]) -> int:
    """That of the first problem with --strict, else 0."""
    return problems[0].exit_code if problems and given["strict"] else 0


def finish(
    given: Options, place: RunContext, finding: Finding, as_text: Callable[..., str], problems: tuple[FedstepError, ...]
) -> int:
    """Print the finding in the format asked for, talk, and feed what the CI reads; the exit code."""
    echo_warnings(*finding.warnings)
    echo_result(as_text(finding) if given["format"] == "text" else _rendered(finding, given["format"]))
    if in_ci(place.ci):
        from fedstep.report.ci_outputs import outputs

        findings = _rendered(finding, "json") if os.environ.get("FEDSTEP_FINDINGS") else ""
        told = (outputs(finding), _rendered(finding, "markdown"), _annotations(place, finding), findings)
        failed = (*write_ci_outputs(place, *told), *_code_quality(place, finding))
        echo_warnings(*new_warnings(failed, problems), *_comment(given, place, finding))
    return exit_code(given, problems)


def write_ci_outputs(
    place: RunContext, values: Mapping[str, str], summary: str, annotations: str, findings: str = ""
) -> tuple[str, ...]:
    """Outputs, summary and the finding as JSON to the files that the CI names, annotations to its log; what failed."""
    from fedstep.report.ci_outputs import dotenv, github_output

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


def new_warnings(failed: tuple[str, ...], problems: tuple[FedstepError, ...]) -> tuple[str, ...]:
    """The first file that could not be written, unless a problem that is said already has the same reason: a full disk.

    >>> new_warnings(("cannot write a: No space left on device", "cannot write b: No space left on device"), ())
    ('cannot write a: No space left on device',)
    """
    return tuple(text for text in failed if not any(text.rpartition(": ")[2] in str(each) for each in problems))[:1]


KINDS = {Prediction: "prediction", TriageReport: "triage", TrainReport: "training"}


def _rendered(finding: Finding, style: str) -> str:
    from fedstep.report import json, markdown

    sinks: Any = json if style == "json" else markdown
    return str(getattr(sinks, f"{KINDS[type(finding)]}_{style}")(finding))


def _annotations(place: RunContext, finding: Finding) -> str:
    """Workflow commands for the failures that are least likely flaky; on GitHub alone, whose log obeys them."""
    if isinstance(finding, Prediction) or place.ci.vendor != "github":
        return ""

    from fedstep.report.ci_outputs import MOST_ANNOTATIONS, failure_annotations
    from fedstep.report.text import by_urgency

    shown, rest = by_urgency(finding.failures)[:MOST_ANNOTATIONS], by_urgency(finding.failures)[MOST_ANNOTATIONS:]
    return failure_annotations((*placed(shown, place.root), *rest))


def _comment(given: Options, place: RunContext, finding: Finding) -> tuple[str, ...]:
    """Comment on the pull request where that is asked for; what went wrong."""
    if isinstance(finding, Prediction) or os.environ.get("FEDSTEP_COMMENT") != "true":
        return ()

    return comment(place, finding, os.environ, given.get("budget", inf))


def _code_quality(place: RunContext, finding: Finding) -> tuple[str, ...]:
    """Write GitLab's report anew, JSON cannot be appended to, where a file is named; what went wrong."""
    path = os.environ.get("FEDSTEP_CODE_QUALITY")
    if not path or isinstance(finding, Prediction):
        return ()

    from fedstep.report.ci_outputs import code_quality

    try:
        replace(path, code_quality(placed(finding.failures, place.root)))
    except InputError as error:
        return (str(error),)
    return ()
