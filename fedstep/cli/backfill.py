"""Builds of the past."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedstep.cli.options import HISTORY, PART, STRICT, Options, option
from fedstep.cli.output import echo_result, echo_warnings, exit_code
from fedstep.cli.session import context_from, fetch_history, publish_now, uses_git_history
from fedstep.errors import HistoryError, InputError, MissingExtra, UsageError

if TYPE_CHECKING:
    from fedstep.history.project_store import ProjectStore
    from fedstep.importers.backfill_run import BackfillResult
    from fedstep.importers.base import BuildFilter, ImportSource


PUBLISHING_SECONDS = 120.0  # hundreds of builds at once


@click.command()
@click.argument("source", required=False, metavar="[SOURCE]")
@option("github", metavar="OWNER/REPO", default="", help="Learn from its runs; token in GITHUB_TOKEN.")
@option("gitlab", metavar="PROJECT", default="", help="Learn from its pipelines; token in GITLAB_TOKEN.")
@option("api", metavar="URL", default="", help="Of the API, for GitHub Enterprise or a GitLab of your own.")
@option("user", metavar="NAME", default="", help="On Jenkins; token in FEDSTEP_JENKINS_TOKEN.")
@option("artifact", metavar="GLOB", multiple=True, help="GitHub artifacts to read. Can be repeated.")
@option("since", metavar="DATE", default="", help="Builds that started then or later.")
@option("limit", type=click.IntRange(0), default=0, show_default=True, help="The newest so many; 0: all.")
@option("job", metavar="NAME", default="", help="Builds of this job; * and ? match.")
@option("keep", type=click.IntRange(1), default=500, show_default=True, help="Builds kept in the history.")
@option("jobs", type=click.IntRange(0), default=0, show_default=True, help="Processes that parse; 0: one a core.")
@option("backend", type=click.Choice(["local", "dask"]), default="local", show_default=True, help="Who parses.")
@option("scheduler", metavar="ADDRESS", default="", help="Of Dask, with --backend dask.")
@HISTORY
@PART
@STRICT
def backfill(**given: Any) -> int:
    """Learn from past builds, oldest first: recorded folders, tables, Jenkins, GitHub or GitLab.

    SOURCE is a folder of builds with a build.json each, builds.csv or results.csv, a Jenkins home, or a Jenkins URL.

    \b
    Example: fedstep backfill recorded-builds/
    """
    place = context_from(given)
    wanted = _wanted(given)
    _check(given)
    try:
        echo_warnings(*map(str, fetch_history(given, place)))
        place.store.prepare()
        done = _backfill(given, place.store, wanted, _past(given, place.store, wanted))
        if uses_git_history(given):
            publish_now(given, place, given["keep"], PUBLISHING_SECONDS)
    except (HistoryError, MissingExtra, InputError) as error:
        echo_warnings(str(error))
        return exit_code(given, (error,))
    echo_warnings(*done.warnings)
    counts = f"{done.recorded} builds recorded, {done.known} known already"
    left = f", {done.dropped} left out" if done.dropped else ""
    echo_result(f"{counts}{left}; {done.tests} test results, {done.rows} rows learned\n")
    return exit_code(given, tuple(map(InputError, done.warnings)))


def _backfill(given: Options, home: "ProjectStore", wanted: "BuildFilter", past: "ImportSource") -> "BackfillResult":
    try:
        from fedstep.importers.backfill_run import backfill as work
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    from fedstep.importers.base import ProgressBar
    from fedstep.importers.parallel import WorkerPool

    bar = ProgressBar(sys.stderr, past.total, time.monotonic)
    try:
        return work(home, past, wanted, given["keep"], WorkerPool(given["jobs"], given["scheduler"]), bar)
    finally:
        bar.close()


def _past(given: Options, home: "ProjectStore", wanted: "BuildFilter") -> "ImportSource":
    """What there is to learn from."""
    if not (given["github"] or given["gitlab"] or _is_url(given["source"])):
        from fedstep.importers.registry import open_path

        return open_path(Path(given["source"]), wanted)
    from fedstep.importers.api_client import RateLimitPolicy
    from fedstep.importers.registry import open_service

    return open_service(given, os.environ, home, wanted, RateLimitPolicy(tell=echo_warnings))


def _wanted(given: Options) -> "BuildFilter":
    from fedstep.importers.base import BuildFilter
    from fedstep.ingest.ci import parse_time

    since = parse_time(given["since"]) if given["since"] else 0.0
    if not isinstance(since, float):
        raise UsageError(f"--since: {since.reason}", "Give a date like 2026-01-31")
    return BuildFilter(since, given["limit"], given["job"])


def _check(given: Options) -> None:
    """Raise UsageError unless there is one source, and it fits its options."""
    sources = [name for name in ("source", "github", "gitlab") if given[name]]
    if len(sources) != 1:
        remedy = "Give a folder, a table, a Jenkins home or URL; or --github OWNER/REPO; or --gitlab PROJECT"
        raise UsageError("two sources are given" if sources else "no source is given", remedy)
    if given["source"] and not _is_url(given["source"]) and not Path(given["source"]).exists():
        raise UsageError(f"{given['source']} does not exist", "Give a folder, a table, a Jenkins home or URL")
    if (given["backend"] == "dask") != bool(given["scheduler"]):
        raise UsageError("--backend dask and --scheduler ADDRESS belong together", "Give both")


def _is_url(source: str | None) -> bool:
    return bool(source) and str(source).startswith(("http://", "https://"))
