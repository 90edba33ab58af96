"""Finds recorded projects below folders: `builds.csv`, `results.csv`, `tests.csv`, or folders of builds."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fedstep.errors import InputError

__all__ = ["Project", "find_projects", "projects_below"]

TABLES = {"builds": "builds.csv", "results": "results.csv", "tests": "tests.csv"}


@dataclass(frozen=True, slots=True)
class Project:
    """One recorded project. `kind` tells what is in `path`: a table of this name, or folders of builds."""

    name: str
    kind: str
    path: Path

    def beside(self, name: str) -> Path:
        """A file of this name in the project's folder."""
        return (self.path if self.path.is_dir() else self.path.parent) / name


def find_projects(places: Iterable[Path], kinds: Iterable[str]) -> tuple[Project, ...]:
    """The projects of these kinds below the places, by name; a project's name is that of its folder.

    Raises InputError where there is none, and where two of one kind have the same name.
    """
    places, kinds = tuple(places), tuple(kinds)
    projects = sorted(projects_below(places, kinds), key=lambda project: (project.name, project.kind))
    for one, other in pairwise(projects):
        if (one.name, one.kind) == (other.name, other.kind):
            raise InputError(f"two projects are called {one.name}: {one.path} and {other.path}", "Rename a folder")
    if not projects:
        wanted = " or ".join("build.json" if kind == "folders" else TABLES[kind] for kind in kinds)
        raise InputError(f"no {wanted} below {', '.join(map(str, places))}", "Name the folder of a recorded project")
    return tuple(projects)


def projects_below(places: Iterable[Path], kinds: Iterable[str]) -> tuple[Project, ...]:
    """Every project of these kinds below the places, by path; none twice."""
    wanted = set(kinds)
    found = {project for place in places for project in _below(place) if project.kind in wanted}
    return tuple(sorted(found, key=lambda project: project.path))


def _below(place: Path) -> Iterator[Project]:
    """Every project below a folder; a build's own folder is not entered."""
    for folder, inner, files in os.walk(place, followlinks=True):
        here = Path(folder).resolve()
        inner.sort()
        for kind, table in TABLES.items():
            yield from (Project(here.name, kind, here / file) for file in (table, f"{table}.gz") if file in files)
        builds = [name for name in inner if (here / name / "build.json").is_file()]
        if builds:
            yield Project(here.name, "folders", here)
            inner[:] = [name for name in inner if name not in builds]
