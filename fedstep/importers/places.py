"""What kind of history a path holds: tables, a Jenkins home, or folders of recorded builds."""

from pathlib import Path

from fedstep.errors import InputError
from fedstep.importers.folder import folder_past
from fedstep.importers.past import Past, Wanted

__all__ = ["past_at"]

TABLES = ("builds.csv", "builds.csv.gz", "results.csv", "results.csv.gz")


def past_at(path: Path, wanted: Wanted) -> Past:
    """The past builds at this path. InputError where it holds none of a kind that is known."""
    if path.is_file() or any((path / name).is_file() for name in TABLES):
        from fedstep.importers.tables import tables_past

        return tables_past(path, wanted)
    if (path / "jobs").is_dir() or (path / "builds").is_dir():
        from fedstep.importers.jenkins_home import jenkins_home_past

        past = jenkins_home_past(path, wanted)
    else:
        past = folder_past(path, wanted)
    if not past.total and not wanted.limited():
        remedy = "Give a folder of builds with a build.json each, builds.csv or results.csv, or a Jenkins home"
        raise InputError(f"no recorded build was found in {path}", remedy)
    return past
