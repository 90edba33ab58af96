"""Makes the starter model of the package from recorded public CI.

    python -m fedstep.simulate.starter FOLDER... > fedstep/model/starter.safetensors

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
from fedstep.features.schema import HEAD_NAMES, schema
from fedstep.federation.wire import Model, pack_model
from fedstep.model.labels import Ripe
from fedstep.simulate.corpus import projects_below
from fedstep.simulate.extract import extract
from fedstep.simulate.global_only import lessons, train_global
from fedstep.simulate.study import TASKS

__all__ = ["learn_starter"]

CREATED = "2026-11-21T00:00Z"


def learn_starter(places: Sequence[Path], seed: int = 1) -> Mapping[str, "array[float]"]:
    """The heads learned from all projects below the places, as `global-only` learns from all but one."""
    with tempfile.TemporaryDirectory(prefix="fedstep-starter-") as folder:
        return {head: array("f", train_global(head, _rows(places, head, Path(folder)), seed)) for head in HEAD_NAMES}


def _rows(places: Sequence[Path], head: str, folder: Path) -> Mapping[str, Sequence[Ripe]]:
    """The rows of every project by its path: two replays of one project are two projects here."""
    rows: dict[str, Sequence[Ripe]] = {}
    for project in projects_below(places, TASKS[head]):
        named = replace(project, name=str(project.path))
        rows[named.name] = lessons(extract(named, head, None, folder / "steps.jsonl"))
        print(head, project.name, len(rows[named.name]), file=sys.stderr)
    if not rows:
        raise InputError(f"no recorded project to learn {head} from", "Name folders that have some")
    return rows


def main() -> None:
    heads = learn_starter([Path(argument) for argument in sys.argv[1:]])
    sys.stdout.buffer.write(pack_model(Model(schema().digest, 0, 0, CREATED, heads, heads)))


if __name__ == "__main__":
    main()
