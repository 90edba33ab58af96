"""The command that learns from builds of the past, and how it opens each format and service, with its token.

To add a source: a module of `importers` with a function that returns an `ImportSource`, and one branch in `open_path`
or `open_service`.
"""

import base64
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

import fedstep
from fedstep.cli.options import HISTORY, KEEP, PART, STRICT, option, parse_since
from fedstep.cli.output import echo_result, echo_warnings, exit_code
from fedstep.errors import HistoryError, InputError, MissingExtra, UsageError
from fedstep.federation.trust import split_address
from fedstep.history.project_store import ProjectStore

if TYPE_CHECKING:
    from fedstep.importers.api_client import ApiClient, RateLimitPolicy
    from fedstep.importers.backfill_run import BackfillResult
    from fedstep.importers.base import BuildFilter, ImportSource
    from fedstep.importers.parallel import WorkerPool

PUBLISH_SECONDS = 120.0  # hundreds of builds at once
TABLES = ("builds.csv", "builds.csv.gz", "results.csv", "results.csv.gz")
GITHUB, GITLAB = "https://api.github.com", "https://gitlab.com/api/v4"


class ServiceOptions(NamedTuple):
    """The options of `backfill` that name a source: a path or URL, or a project of GitHub or GitLab; "" if not set."""

    source: str = ""
    github: str = ""
    gitlab: str = ""
    api: str = ""
    user: str = ""
    artifacts: tuple[str, ...] = ()


@click.command()
@click.argument("source", required=False, metavar="[SOURCE]")
@option("github", metavar="OWNER/REPO", default="", help="Read the runs of this repository; token in GITHUB_TOKEN.")
@option("gitlab", metavar="PROJECT", default="", help="Read the pipelines of this project; token in GITLAB_TOKEN.")
@option("api", metavar="URL", default="", help="Address of the API of GitHub Enterprise or a self-managed GitLab.")
@option("user", metavar="NAME", default="", help="User name on Jenkins; token in FEDSTEP_JENKINS_TOKEN.")
@option("artifact", metavar="GLOB", multiple=True, help="Name of GitHub artifacts to read. Can be repeated.")
@option("since", metavar="AGE", default="", help="Read builds that started later: 7d, 2w or a day, 2030-12-31.")
@option("limit", type=click.IntRange(0), default=0, help="Number of newest builds to read; 0: all.")
@option("job", metavar="NAME", default="", help="Read builds of this job; * and ? match.")
@KEEP
@option(
    "jobs",
    type=click.IntRange(0),
    default=0,
    help="Number of processes that parse; 0: one per core.",
)
@option(
    "backend",
    type=click.Choice(["local", "dask"]),
    default="local",
    help="Where worker processes run.",
)
@option("scheduler", metavar="ADDRESS", default="", help="Address of the Dask scheduler, with --backend dask.")
@HISTORY
@PART
@STRICT
def backfill(
    source: str | None,
    github: str,
    gitlab: str,
    api: str,
    user: str,
    artifact: tuple[str, ...],
    since: str,
    limit: int,
    job: str,
    keep: int,
    jobs: int,
    backend: str,
    scheduler: str,
    history: str,
    part: str,
    strict: bool,
) -> int:
    """Learn from past builds, oldest first: recorded folders, tables, Jenkins, GitHub or GitLab.

    SOURCE is a folder of builds with a build.json each, builds.csv or results.csv, a Jenkins home, or a Jenkins URL.

    \b
    Example: fedstep backfill recorded-builds/
    """
    from fedstep.importers.base import BuildFilter
    from fedstep.importers.parallel import WorkerPool
    from fedstep.pipeline.context import fetch_history, publish_now

    context = fedstep.Project.discover(history=history, part=part).context()
    wanted = BuildFilter(parse_since(since, context.now), limit, job)
    options = ServiceOptions(source or "", github, gitlab, api, user, artifact)
    _check_source(options)
    if (backend == "dask") != bool(scheduler):
        raise UsageError("--backend dask and --scheduler ADDRESS belong together", "Give both")
    try:
        problems, warnings = fetch_history(context)
        echo_warnings(*map(str, problems), *warnings)
        context.store.prepare()
        builds = _open_source(options, context.store, wanted)
        result = _learn_from(builds, context.store, wanted, keep, WorkerPool(jobs, scheduler))
        if context.shares_history:
            publish_now(context, keep, PUBLISH_SECONDS)
    except (HistoryError, MissingExtra, InputError) as error:
        echo_warnings(str(error))
        return exit_code(strict, (error,))
    echo_warnings(*result.warnings)
    counts = f"{result.recorded} builds recorded, {result.known} known already"
    dropped = f", {result.dropped} left out" if result.dropped else ""
    echo_result(f"{counts}{dropped}; {result.tests} test results, {result.rows} examples learned\n")
    return exit_code(strict, tuple(map(InputError, result.warnings)))


def _learn_from(
    builds: "ImportSource", store: ProjectStore, wanted: "BuildFilter", keep: int, workers: "WorkerPool"
) -> "BackfillResult":
    """Learn from the builds, with a progress bar on standard error. Raises MissingExtra without scikit-learn."""
    try:
        from fedstep.importers.backfill_run import backfill as learn_builds
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    from fedstep.importers.base import ProgressBar

    bar = ProgressBar(sys.stderr, builds.total, time.monotonic)
    try:
        return learn_builds(store, builds, wanted, keep, workers, bar)
    finally:
        bar.close()


def _open_source(options: ServiceOptions, store: ProjectStore, wanted: "BuildFilter") -> "ImportSource":
    """Return the builds that the options name, in files or behind an API."""
    if not (options.github or options.gitlab or _is_url(options.source)):
        return open_path(Path(options.source), wanted)
    from fedstep.importers.api_client import RateLimitPolicy

    return open_service(options, os.environ, store, wanted, RateLimitPolicy(tell=echo_warnings))


def _check_source(options: ServiceOptions) -> None:
    """Raise UsageError unless the options name exactly one source, and it exists."""
    sources = tuple(filter(None, (options.source, options.github, options.gitlab)))
    if len(sources) != 1:
        remedy = "Give a folder, a table, a Jenkins home or URL; or --github OWNER/REPO; or --gitlab PROJECT"
        raise UsageError("two sources are given" if sources else "no source is given", remedy)
    if options.source and not _is_url(options.source) and not Path(options.source).exists():
        raise UsageError(f"{options.source} does not exist", "Give a folder, a table, a Jenkins home or URL")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def open_path(path: Path, build_filter: "BuildFilter") -> "ImportSource":
    """Return the past builds at this path, whose content decides the format. Raise InputError where there are none."""
    from fedstep.importers.recorded_builds import open_folder, open_tables

    if path.is_file() or any((path / name).is_file() for name in TABLES):
        return open_tables(path, build_filter)
    if (path / "jobs").is_dir() or (path / "builds").is_dir():
        from fedstep.importers.jenkins_home import open_jenkins_home

        source = open_jenkins_home(path, build_filter)
    else:
        source = open_folder(path, build_filter)
    if not source.total and not build_filter.is_limited():
        remedy = "Give a folder of builds with a build.json each, builds.csv or results.csv, or a Jenkins home"
        raise InputError(f"no recorded build was found in {path}", remedy)
    return source


def open_service(
    options: ServiceOptions,
    env: Mapping[str, str],
    store: ProjectStore,
    build_filter: "BuildFilter",
    rate_limits: "RateLimitPolicy",
) -> "ImportSource":
    """Return the past builds of the service that the options name. Raise UsageError for an unusable option or token."""
    if options.github:
        from fedstep.importers.github import open_github

        client = _github_client(options.api or env.get("GITHUB_API_URL") or GITHUB, env, store, rate_limits)
        return open_github(client, _check_project(options.github, "--github"), build_filter, options.artifacts)
    if options.gitlab:
        from fedstep.importers.gitlab import open_gitlab

        client = _gitlab_client(options.api or env.get("CI_API_V4_URL") or GITLAB, env, store, rate_limits)
        return open_gitlab(client, _check_project(options.gitlab, "--gitlab"), build_filter)
    from fedstep.importers.jenkins_server import open_jenkins_server

    return open_jenkins_server(_jenkins_client(options.source, options.user, env, store, rate_limits), build_filter)


def _client(
    secret: Mapping[str, str], url: str, store: ProjectStore, rate_limits: "RateLimitPolicy", remedy: str
) -> "ApiClient":
    from fedstep.importers.api_client import ApiClient, ResponseCache, requests_getter

    return ApiClient(requests_getter(secret), _check_url(url), ResponseCache(store), rate_limits, remedy)


def _github_client(
    url: str, env: Mapping[str, str], store: ProjectStore, rate_limits: "RateLimitPolicy"
) -> "ApiClient":
    token = _read_token(env, "GITHUB_TOKEN", "GH_TOKEN")
    remedy = "Check the name, and that GITHUB_TOKEN may read the actions of this repository"
    secret = {"X-GitHub-Api-Version": "2022-11-28", **_bearer_header(token)}
    return _client(secret, url, store, rate_limits, remedy)


def _gitlab_client(
    url: str, env: Mapping[str, str], store: ProjectStore, rate_limits: "RateLimitPolicy"
) -> "ApiClient":
    token = _read_token(env, "GITLAB_TOKEN")
    remedy = "Check the name, and that GITLAB_TOKEN has the scope read_api"
    return _client(_bearer_header(token), url, store, rate_limits, remedy)


def _jenkins_client(
    url: str, user: str, env: Mapping[str, str], store: ProjectStore, rate_limits: "RateLimitPolicy"
) -> "ApiClient":
    token = _read_token(env, "FEDSTEP_JENKINS_TOKEN", "JENKINS_TOKEN")
    remedy = "Check the URL, and give --user and an API token of that user in FEDSTEP_JENKINS_TOKEN"
    if bool(user) != bool(token):
        raise UsageError("--user and FEDSTEP_JENKINS_TOKEN belong together", "Give both, or none")
    pair = base64.b64encode(f"{user}:{token}".encode()).decode()
    secret = {"Authorization": f"Basic {pair}"} if user else {}
    return _client(secret, url, store, rate_limits, remedy)


def _read_token(env: Mapping[str, str], *names: str) -> str:
    token = next((env[name].strip() for name in names if env.get(name, "").strip()), "")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{names[0]} has a character that no token has", "Copy it again")
    return token


def _bearer_header(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _check_project(name: str, option: str) -> str:
    """Return the name. Raise UsageError for what cannot be part of a URL."""
    usable = all(part not in ("", ".", "..") for part in name.split("/")) and not set(name) & set("?#%\\ ")
    if not usable or not name.isprintable() or (option == "--github" and name.count("/") != 1):
        form = "OWNER/REPO" if option == "--github" else "a number or GROUP/NAME"
        raise UsageError(f"{option} {name[:100]} names no project", f"Give {form}")
    return name


def _check_url(url: str) -> str:
    parts = split_address(url)
    if not parts or parts.username or parts.password:
        raise UsageError(
            "the URL of the API cannot be used", "Give one like https://ci.example.org, tokens in the environment"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
