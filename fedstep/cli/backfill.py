"""The command that learns from builds of the past."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import fedstep
from fedstep.cli.options import HISTORY, KEEP, PART, STRICT, option
from fedstep.cli.output import echo_result, echo_warnings, exit_code
from fedstep.errors import HistoryError, InputError, MissingExtra, UsageError

if TYPE_CHECKING:
    from fedstep.history.project_store import ProjectStore
    from fedstep.importers.backfill_run import BackfillResult
    from fedstep.importers.base import BuildFilter, ImportSource
    from fedstep.importers.parallel import WorkerPool
    from fedstep.importers.registry import ServiceOptions

PUBLISH_SECONDS = 120.0  # hundreds of builds at once


@click.command()
@click.argument("source", required=False, metavar="[SOURCE]")
@option("github", metavar="OWNER/REPO", default="", help="Read the runs of this repository; token in GITHUB_TOKEN.")
@option("gitlab", metavar="PROJECT", default="", help="Read the pipelines of this project; token in GITLAB_TOKEN.")
@option("api", metavar="URL", default="", help="Address of the API of GitHub Enterprise or a self-managed GitLab.")
@option("user", metavar="NAME", default="", help="User name on Jenkins; token in FEDSTEP_JENKINS_TOKEN.")
@option("artifact", metavar="GLOB", multiple=True, help="Name of GitHub artifacts to read. Can be repeated.")
@option("since", metavar="DATE", default="", help="Read builds that started on this date or later.")
@option("limit", type=click.IntRange(0), default=0, show_default=True, help="Number of newest builds to read; 0: all.")
@option("job", metavar="NAME", default="", help="Read builds of this job; * and ? match.")
@KEEP
@option(
    "jobs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of processes that parse; 0: one per core.",
)
@option(
    "backend",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
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
    from fedstep.importers.registry import ServiceOptions
    from fedstep.pipeline.context import fetch_history, publish_now

    context = fedstep.Project.discover(history=history, part=part).context()
    wanted = BuildFilter(_parse_since(since), limit, job)
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
    builds: "ImportSource", store: "ProjectStore", wanted: "BuildFilter", keep: int, workers: "WorkerPool"
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


def _open_source(options: "ServiceOptions", store: "ProjectStore", wanted: "BuildFilter") -> "ImportSource":
    """Return the builds that the options name, in files or behind an API."""
    from fedstep.importers.registry import open_path, open_service

    if not (options.github or options.gitlab or _is_url(options.source)):
        return open_path(Path(options.source), wanted)
    from fedstep.importers.api_client import RateLimitPolicy

    return open_service(options, os.environ, store, wanted, RateLimitPolicy(tell=echo_warnings))


def _parse_since(date: str) -> float:
    """Return the date in seconds since the epoch, 0 for "". Raises UsageError if it is not a date."""
    from fedstep.ingest.ci import parse_time

    seconds = parse_time(date) if date else 0.0
    if not isinstance(seconds, float):
        raise UsageError(f"--since: {seconds.reason}", "Give a date like 2026-01-31")
    return seconds


def _check_source(options: "ServiceOptions") -> None:
    """Raise UsageError unless the options name exactly one source, and it exists."""
    sources = tuple(filter(None, (options.source, options.github, options.gitlab)))
    if len(sources) != 1:
        remedy = "Give a folder, a table, a Jenkins home or URL; or --github OWNER/REPO; or --gitlab PROJECT"
        raise UsageError("two sources are given" if sources else "no source is given", remedy)
    if options.source and not _is_url(options.source) and not Path(options.source).exists():
        raise UsageError(f"{options.source} does not exist", "Give a folder, a table, a Jenkins home or URL")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))
