"""Read the CI's environment variables as one `CiRun`. No value raises: what cannot be read is Unavailable.

`fedstep.ingest.ci_vendors` has the table of CI systems, and says how to add one.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping

from fedstep.ingest.ci_vendors import EVENTS, FEDSTEP_VARIABLES, OUTCOMES, UNFINISHED, VENDORS, CiVendor
from fedstep.types import BuildOutcome, CiRun, Unavailable

_TEXT_LIMIT = 500
_NUMBER_DIGITS = 12
_PAYLOAD_LIMIT = 30 * 1024 * 1024  # characters; GitHub cuts webhook payloads at 25 MB
_YEAR_2000, _YEAR_2100 = 946_684_800.0, 4_102_444_800.0
# A merge queue names its branches after the pull request and commit: each occurs once.
MERGE_QUEUE = re.compile(r"(gh-readonly-queue/.+)/pr-\d+-[0-9a-f]+$")
# How systems that tell no event name the branch of a pull request, after the refs of the code hosts.
_PULL_BRANCH = re.compile(r"(?:refs/)?(?:pull|pulls|pull-requests|merge-requests)/\d+(?:/|$)")
_NEVER = ("", "false", "0", "no", "none", "null")
_WORKFLOW_FOLDER = re.compile(r"^\.\w+/workflows/")  # of GitHub, Gitea and Forgejo
_ONLY_STAGE = "__default"  # how Azure calls the stage of a pipeline that has no stages
_LOCAL = CiVendor(name="local", marks=(), run=())
_SYSTEMS = {
    "linux": "linux",
    "windows": "windows",
    "win32": "windows",
    "macos": "macos",
    "darwin": "macos",
    "osx": "macos",
}


def read_ci(env: Mapping[str, str], event_payload: str = "", platform: str = "") -> CiRun:
    """Return what the variables say about this job run; `FEDSTEP_CI_*` take precedence over the vendor's own.

    `event_payload` is the text of the file that EVENT_FILE names, `platform` is `sys.platform`.
    """
    vendor = next((row for row in VENDORS if any(_is_marked(env, mark) for mark in row.marks)), _LOCAL)
    if vendor is _LOCAL and any(_is_marked(env, mark) for mark in FEDSTEP_VARIABLES.marks):
        vendor = FEDSTEP_VARIABLES
    event_word = _first(env, FEDSTEP_VARIABLES.event + vendor.event)
    payload = _parse_payload(event_payload) if vendor.has_event_file else {}
    event = _event(env, vendor, event_word)
    commit = _hex(_first(env, FEDSTEP_VARIABLES.commit + vendor.commit))
    commit_before = _commit_before(env, vendor, event, payload)
    return CiRun(
        vendor=vendor.name,
        run=_first(env, FEDSTEP_VARIABLES.run) or "/".join(filter(None, (_text(env, name) for name in vendor.run))),
        attempt=_attempt(env, vendor),
        job=_first(env, FEDSTEP_VARIABLES.job) or _job(env, vendor),
        cell=_first(env, FEDSTEP_VARIABLES.cell + vendor.cell),
        branch=_branch(_first(env, FEDSTEP_VARIABLES.branch + vendor.branch)),
        base_branch=_base_branch(env, vendor, event),
        event=event,
        commit=commit,
        commit_before=commit_before if commit_before != commit else "",  # the same commit again changes nothing
        started_at=_read_start(env, vendor),
        outcome=_outcome(env, vendor),
        outcome_so_far=vendor.outcome_so_far and not _first(env, FEDSTEP_VARIABLES.outcome),
        untrusted=_is_untrusted(env, vendor, event) or _is_untrusted_by_event(env, vendor, payload),
        os=_system(_first(env, vendor.os)) or _system(platform),
        number=parse_number(_first(env, FEDSTEP_VARIABLES.number + vendor.number)),
        workflow=_first(env, FEDSTEP_VARIABLES.workflow) or name_workflow(_text(env, name) for name in vendor.workflow),
    )


def name_workflow(parts: Iterable[str]) -> str:
    """Return the name of what a job is a part of; that of a workflow without a name is its file.

    >>> name_workflow([".github/workflows/ci.yml"]), name_workflow(["Nightly", "__default"])
    ('ci.yml', 'Nightly')
    """
    return "/".join(_WORKFLOW_FOLDER.sub("", part) for part in parts if part not in ("", _ONLY_STAGE))


def parse_time(text: str) -> float | Unavailable:
    """Return seconds since the epoch from ISO 8601 (UTC without a zone), epoch seconds or epoch milliseconds.

    >>> parse_time("2026-01-02T03:04:05Z") == parse_time("1767323045000") == 1767323045.0
    True
    """
    stripped = text.strip()[:_TEXT_LIMIT]
    try:
        seconds = float(stripped)
        seconds = seconds / 1000 if seconds > 1e11 else seconds
    except ValueError:
        seconds = _parse_iso(stripped)
    if _YEAR_2000 <= seconds <= _YEAR_2100:
        return seconds
    return Unavailable(f"{stripped[:40]!r} is no time between 2000 and 2100")


def parse_outcome(word: str) -> BuildOutcome | Unavailable:
    """Return the outcome that a CI's word for a job's result, or an exit code, means."""
    known = word.strip().lower()
    if known in OUTCOMES:
        return OUTCOMES[known]
    if known in UNFINISHED:
        return Unavailable(UNFINISHED[known])
    if known.removeprefix("-").isdecimal():
        return BuildOutcome.FAILED if known.strip("-0") else BuildOutcome.PASSED
    return Unavailable(f"{word[:40]!r} is no outcome; passed, unstable or failed is expected")


def _parse_iso(text: str) -> float:
    from datetime import UTC, datetime  # 4 ms that a prediction by hand need not pay

    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _text(env: Mapping[str, str], name: str) -> str:
    return env.get(name, "").encode("utf-8", "replace").decode()[:_TEXT_LIMIT].strip()


def parse_number(text: str) -> int | None:
    """Return the number of a run; None for a text that is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS else None


def _first(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := _text(env, name))), "")


def _is_set(env: Mapping[str, str], name: str) -> bool:
    return _text(env, name).lower() not in _NEVER


def _is_marked(env: Mapping[str, str], mark: str) -> bool:
    name, _, value = mark.partition("=")
    return _text(env, name).lower() == value if value else _is_set(env, name)


def _attempt(env: Mapping[str, str], vendor: CiVendor) -> int:
    given = _first(env, FEDSTEP_VARIABLES.attempt)
    attempt, first = (given, 1) if given else (_first(env, vendor.attempt), vendor.first_attempt)
    return int(attempt) - first + 1 if attempt.isdecimal() and len(attempt) < 7 and int(attempt) >= first else 1


def _job(env: Mapping[str, str], vendor: CiVendor) -> str:
    job = _first(env, vendor.job)
    job = job.partition(vendor.job_end)[0] if vendor.job_end else job
    return job.rpartition("/")[0] or job if vendor.branch_folder and _is_set(env, vendor.branch_folder) else job


def _branch(text: str) -> str:
    text = MERGE_QUEUE.sub(r"\1", text)
    return text.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("origin/")


def _base_branch(env: Mapping[str, str], vendor: CiVendor, event: str) -> str:
    """Return the target of a pull request; some systems tell the branch itself as the target of a push."""
    names = vendor.base_branch if event == "pull_request" else ()
    return _branch(_first(env, FEDSTEP_VARIABLES.base_branch + names))


def _event(env: Mapping[str, str], vendor: CiVendor, word: str) -> str:
    if not _first(env, FEDSTEP_VARIABLES.event):
        if any(_is_set(env, name) for name in vendor.pull_request):
            return "pull_request"
        if any(_is_set(env, name) for name in vendor.schedule):
            return "schedule"
        if _first(env, vendor.tag) or _first(env, vendor.ref_type) == "tag":
            return "tag"
        branch = _first(env, FEDSTEP_VARIABLES.branch + vendor.branch)
        if branch.startswith("refs/tags/"):
            return "tag"
        if not word and _PULL_BRANCH.match(branch):
            return "pull_request"
    return EVENTS.get(word.lower(), "other") if word else ""


def _hex(text: str) -> str:
    known = text.lower()
    return known if len(known) >= 7 and known.strip("0") and not known.strip("0123456789abcdef") else ""


def _read_start(env: Mapping[str, str], vendor: CiVendor) -> float | Unavailable:
    text = _first(env, FEDSTEP_VARIABLES.started_at + vendor.started_at)
    return parse_time(text) if text else CiRun().started_at


def _outcome(env: Mapping[str, str], vendor: CiVendor) -> BuildOutcome | Unavailable:
    text = _first(env, FEDSTEP_VARIABLES.outcome + vendor.outcome)
    return parse_outcome(text) if text else CiRun().outcome


def _system(text: str) -> str:
    """Return a system's name from "Windows_NT", "linux/amd64" or "darwin"; "" for others."""
    word = text.lower().partition("/")[0].partition("_")[0].partition("-")[0]
    return _SYSTEMS.get(word, "")


def _is_untrusted(env: Mapping[str, str], vendor: CiVendor, event: str) -> bool:
    if any(_is_set(env, name) for name in vendor.fork):
        return True
    if event == "pull_request" and not vendor.tells_forks:
        return True
    pairs = ((_repository(_text(env, source)), _repository(_text(env, target))) for source, target in vendor.fork_pairs)
    return any(source and target and source != target for source, target in pairs)


def _repository(text: str) -> str:
    """Return owner and name of a repository's URL in any form: "git@host:a/b.git" and "https://host/a/b" are equal."""
    return "/".join(text.lower().removesuffix("/").removesuffix(".git").replace(":", "/").split("/")[-2:])


def _is_untrusted_by_event(env: Mapping[str, str], vendor: CiVendor, payload: object) -> bool:
    people = (*(env.get(name) for name in vendor.actors), _dig(payload, "pull_request", "user", "login"))
    event = _first(env, vendor.event)
    if event in vendor.untrusted_events or any(person in vendor.untrusted_actors for person in people):
        return True
    if event not in vendor.fork_events:
        return False
    source = _dig(payload, "pull_request", "head", "repo") or _dig(payload, "workflow_run", "head_repository")
    target = _dig(payload, "pull_request", "base", "repo", "full_name") or _dig(payload, "repository", "full_name")
    # Names, not the flag `fork`: a project that is a fork itself has its own pull requests. A repository without a
    # name (the fork was deleted, the payload cannot be read) is not trusted.
    return target is None or _dig(source, "full_name") != target


def _commit_before(env: Mapping[str, str], vendor: CiVendor, event: str, payload: object) -> str:
    """Return the commit to compare with: of a pull request's target, or the tip of the branch before a push.

    A merge queue builds several pull requests at once on top of one commit.
    """
    if event == "pull_request":
        commit = _first(env, vendor.base_commit) or _dig(payload, "pull_request", "base", "sha")
    else:
        queued = _dig(payload, "merge_group", "base_sha")
        commit = _first(env, vendor.commit_before) or queued or _dig(payload, "before")
    return _hex(commit.partition("..")[0]) if isinstance(commit, str) else ""


def _parse_payload(text: str) -> object:
    try:
        return json.loads(text) if len(text) <= _PAYLOAD_LIMIT else {}
    except (ValueError, RecursionError):
        return {}


def _dig(value: object, *keys: str) -> object:
    """Return the value at a path of keys in nested JSON objects; None where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def job_run(ci: CiRun) -> str:
    """Return the run and attempt of a job, "" where the CI names none. Builds of one job in one run are no reruns."""
    return f"{ci.run}/{ci.attempt}" if ci.run else ""


def is_later_attempt(run: str) -> bool:
    """Return whether the CI says that a run, as `job_run` writes it, repeats an earlier attempt."""
    return run.rpartition("/")[2] not in ("", "1")
