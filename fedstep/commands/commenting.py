"""The comment on GitHub's pull request, where a workflow asks for one: found again by its mark, else written."""

import json
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from fedstep.errors import FedstepError, InputError
from fedstep.federation.transport import Send, requests_send
from fedstep.report.comment import comment_markdown, is_worth_a_comment, mark
from fedstep.report.findings import Training, Triage
from fedstep.workplace import Workplace, read_event

__all__ = ["comment"]

SECONDS = 10.0  # for all requests together, where the step's budget has them
PAGES, PAGE = 10, 100  # of comments looked through
WHERE, WITH = "GITHUB_API_URL", "FEDSTEP_COMMENT_TOKEN"
HEADERS = {
    "Accept": "application/vnd.github+json",
    "Accept-Encoding": "identity",  # the transport hands the body on as it came
    "X-GitHub-Api-Version": "2022-11-28",
}
_HEAD = (("head_repository", "owner", "login"), ("head_branch",), ("head_sha",))  # of a run's pull request


def comment(place: Workplace, finding: Triage | Training, env: Mapping[str, str], budget: float) -> tuple[str, ...]:
    """Write or update the comment of this job, if the run is of a pull request; what went wrong, to be said.

    `budget` is the seconds that the whole step has, from `place.now` on.
    """
    seconds = min(SECONDS, budget - (time.time() - place.now))
    if seconds <= 0:
        return ("no comment was written: no time was left for it. Raise --budget",)
    first_line = mark(_hashed(env.get("GITHUB_WORKFLOW", ""), place.ci.job, place.ci.cell))
    try:
        talk = _Talk(requests_send(env.get(WHERE, ""), env.get(WITH, "")), env.get("GITHUB_REPOSITORY", ""), seconds)
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


class _Talk:
    """Questions to the API about one repository, with one time for all of them."""

    def __init__(self, send: Send, repository: str, seconds: float) -> None:
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


def _pull_request(talk: _Talk, event: Any) -> int:
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


def _written(talk: _Talk, number: int, first_line: str) -> int:
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
