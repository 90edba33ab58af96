"""To see what is read of test reports, before anything is learned from them."""

import os
from pathlib import Path
from typing import Any

import click

from fedstep.commands.options import FORMAT, JUNIT, STRICT
from fedstep.commands.sinks import exit_code, say, show
from fedstep.errors import InputError, UsageError

__all__ = ["reports"]


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@JUNIT
@FORMAT
@STRICT
def reports(**given: Any) -> int:
    """Show what is read of test reports: dialect, counts, what is repaired and what is refused.

    \b
    Example: fedstep reports 'build/**/TEST-*.xml'
    """
    from fedstep.build.gitrun import repository_root
    from fedstep.ingest.junit import combine_files, expand, summarize
    from fedstep.report.reports_table import Survey, survey_json, survey_markdown, survey_text

    here = os.getcwd()
    globs = given["files"] or given["junit"]
    if not globs:
        raise UsageError("no report is given", "Name files, or set --junit")
    readings = tuple(summarize(expand(globs, Path(here)), repository_root(here) or here))
    found = Survey(readings, combine_files(readings))
    show({"json": survey_json, "markdown": survey_markdown, "text": survey_text}[given["format"]](found))
    refused = [drop for reading in readings for drop in reading.dropped if not drop.kept]
    problems = tuple(InputError(f"{drop.source}: {drop.reason}") for drop in refused)
    if problems:
        say(f"{problems[0]}" + (f" ({len(problems) - 1} more)" if len(problems) > 1 else ""))
    return exit_code(given, problems)
