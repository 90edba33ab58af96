"""Makes the starter model of the package from recorded public CI.

    python -m tests.studies.starter FOLDER... > fedstep/model/starter.safetensors

The folders hold projects as `fedstep simulate` reads them. The same input gives the same bytes. Licences of what it
was learned from: docs/reference/data.md.
"""

import sys
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedstep.errors import InputError
from fedstep.evaluation.corpus import projects_below
from fedstep.evaluation.replay import extract
from fedstep.evaluation.simulated_federation import lessons, train_global
from fedstep.evaluation.study import TASKS, learn_words
from fedstep.federation.messages import Model, pack_model
from fedstep.model.labels import LabelledExample
from fedstep.schema.schema import TASK_NAMES, schema

CREATED = "2026-11-21T00:00Z"


def learn_starter(places: Sequence[Path], seed: int = 1) -> Mapping[str, "array[float]"]:
    """The tasks learned from all projects below the places, as `global-only` learns from all but one."""
    with tempfile.TemporaryDirectory(prefix="fedstep-starter-") as folder:
        return {
            task: array("f", train_global(task, read_rows(places, task, Path(folder)), seed)) for task in TASK_NAMES
        }


def read_rows(places: Sequence[Path], task: str, folder: Path) -> Mapping[str, Sequence[LabelledExample]]:
    """The rows of every project by its path: two replays of one project are two projects here."""
    rows: dict[str, Sequence[LabelledExample]] = {}
    projects = projects_below(places, TASKS[task])
    tables = {project.name: project for project in projects if project.kind == "tests"} if task == "triage" else {}
    weights = learn_words(projects, 1, folder / "words.jsonl") if tables else {}
    for project in projects:
        if project.kind == "tests" and tables:  # they teach the words, each those of the other projects
            continue
        named = replace(project, name=str(project.path))
        steps = extract(named, task, tables.get(project.name), folder / "steps.jsonl", weights.get(project.name, ()))
        rows[named.name] = lessons(steps)
        print(task, project.name, len(rows[named.name]), file=sys.stderr)
    if not rows:
        raise InputError(f"no recorded project to learn {task} from", "Name folders that have some")
    return rows


def main() -> None:
    tasks = learn_starter([Path(argument) for argument in sys.argv[1:]])
    sys.stdout.buffer.write(pack_model(Model(schema().digest, 0, 0, CREATED, tasks, tasks)))


if __name__ == "__main__":
    main()
