"""Write or update the comment of a job on GitHub's pull request; a hidden mark in it identifies the job."""

import json
import time
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import quote

from fedstep.errors import FedstepError, InputError
from fedstep.federation.transport import Transport, requests_transport
from fedstep.pipeline.context import RunContext, code_host, read_event
from fedstep.report.markdown import comment_markdown, is_worth_a_comment, mark
from fedstep.report.wording import name_cell
from fedstep.results import TrainReport, TriageReport

MOST_SECONDS = 10.0  # for all requests together, if the budget of the command allows
MOST_PAGES, PAGE_SIZE = 10, 100  # of comments that are searched for the mark
HEADERS = {
    "Accept": "application/vnd.github+json",
    "Accept-Encoding": "identity",  # the transport does not decode bodies
    "X-GitHub-Api-Version": "2022-11-28",
}


def write_comment(
    report: TriageReport | TrainReport, context: RunContext, environment: Mapping[str, str], budget: float
) -> tuple[str, ...]:
    """Write or update the comment of this job if the run belongs to a pull request; return what went wrong.

    `budget` is the number of seconds that the command has, counted from `context.now`.
    """
    seconds = min(MOST_SECONDS, budget - (time.time() - context.now))
    if seconds <= 0:
        return ("no comment was written: no time was left for it. Raise --budget",)
    first_line = mark(_hash(environment.get("GITHUB_WORKFLOW", ""), context.ci.job, context.ci.cell))
    try:
        transport = requests_transport(
            environment.get("GITHUB_API_URL", ""), environment.get("FEDSTEP_COMMENT_TOKEN", "")
        )
        api = _GitHubApi(transport, environment.get("GITHUB_REPOSITORY", ""), seconds)
        pull_request = _find_pull_request(api, _parse(read_event(environment)))
        if not pull_request:
            return ()
        comment_id = _find_comment(api, pull_request, first_line)
        if comment_id or is_worth_a_comment(report):
            job = f"{context.ci.job} {name_cell(context.ci.cell)}".strip()
            host = code_host(context)
            body = {"body": comment_markdown(report, first_line, job, _run_url(environment), host)}
            if comment_id:
                api.request("PATCH", f"issues/comments/{comment_id}", body)
            else:
                api.request("POST", f"issues/{pull_request}/comments", body)
    except FedstepError as error:
        return (f"no comment was written: {error}",)
    return ()


class _GitHubApi:
    """Requests to GitHub's API about one repository, with one deadline for all of them."""

    def __init__(self, transport: Transport, repository: str, seconds: float) -> None:
        self._transport, self._base = transport, f"/repos/{quote(repository)}/"
        self._deadline = time.monotonic() + seconds

    def request(self, method: str, path: str, content: Mapping[str, str] | None = None) -> object:
        """Return the parsed answer. Raises InputError if GitHub refuses or the answer is not JSON."""
        body = json.dumps(content).encode() if content else b""
        seconds = max(0.1, self._deadline - time.monotonic())
        response = self._transport(method, self._base + path, HEADERS, body, seconds)
        if response.status not in (200, 201):
            remedy = "Run it again"
            if response.status in (401, 403, 404):
                remedy = "Give the job `permissions: pull-requests: write`; runs of forks never have it"
            raise InputError(f"GitHub answered {response.status} to {method} {path.partition('?')[0]}", remedy)
        return _parse(response.body)


def _find_pull_request(api: _GitHubApi, event: object) -> int:
    """Return the number of the pull request that the run belongs to, 0 for none.

    A `workflow_run` event names it only for a branch of this repository; a fork's is found by branch and commit.
    """
    run = _dig(event, "workflow_run")
    pull_number = _dig(event, "pull_request", "number") or _dig(run, "pull_requests", 0, "number")
    if isinstance(pull_number, int):
        return pull_number
    owner, branch = _dig(run, "head_repository", "owner", "login"), _dig(run, "head_branch")
    commit = _dig(run, "head_sha")
    if _dig(run, "event") != "pull_request" or not (owner and branch and commit):
        return 0
    head = quote(f"{owner}:{branch}", safe="")
    pull_requests = _as_list(api.request("GET", f"pulls?state=open&per_page={PAGE_SIZE}&head={head}"))
    pull_numbers = (_dig(each, "number") for each in pull_requests if _dig(each, "head", "sha") == commit)
    return next((pull_number for pull_number in pull_numbers if isinstance(pull_number, int)), 0)


def _find_comment(api: _GitHubApi, pull_request: int, first_line: str) -> int:
    """Return the id of this job's comment, 0 for none. Only a bot's comment counts: anyone can write the mark."""
    for page in range(1, MOST_PAGES + 1):
        comments = _as_list(api.request("GET", f"issues/{pull_request}/comments?per_page={PAGE_SIZE}&page={page}"))
        for comment in comments:
            comment_id = _dig(comment, "id")
            is_bot = _dig(comment, "user", "type") == "Bot"
            if is_bot and isinstance(comment_id, int) and str(_dig(comment, "body")).startswith(first_line):
                return comment_id
        if len(comments) < PAGE_SIZE:
            break
    return 0


def _run_url(environment: Mapping[str, str]) -> str:
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (environment.get(name, "") for name in names)
    return f"{server}/{quote(repository)}/actions/runs/{run}" if server and run.isdecimal() else ""


def _hash(*words: str) -> str:
    return blake2b("\n".join(words).encode(errors="replace"), digest_size=8).hexdigest()


def _parse(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _dig(value: object, *keys: str | int) -> object:
    """Return the value at the end of the keys, None if there is none."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value
