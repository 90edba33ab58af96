"""Makes the usual features of the package: the mean of every feature over recorded public CI.

    python -m tests.studies.usual FOLDER... > fedstep/schema/usual.json

Explanations compare with it. Each project counts the same, whatever its size, and what is 0 on average is left out.
Features are named, so that the file stays of use when the schema gets another feature.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from fedstep.schema.schema import TASK_NAMES, schema
from tests.studies.starter import read_rows

SMALLEST = 0.00005


def usual_features(places: list[Path], task: str, folder: Path) -> dict[str, float]:
    """The mean over projects of the mean over a project's examples, by the name of the feature."""
    names, sums = schema().tasks[task].names(), Counter[int]()
    projects = [rows for rows in read_rows(places, task, folder).values() if rows]
    for rows in projects:
        for row in rows:
            for index, value in zip(row.example.indices, row.example.values, strict=True):
                sums[index] += value / len(rows) / len(projects)  # type: ignore[assignment]
    return {names[index]: round(mean, 4) for index, mean in sorted(sums.items()) if abs(mean) >= SMALLEST}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fedstep-usual-") as folder:
        places = [Path(argument) for argument in sys.argv[1:]]
        json.dump({task: usual_features(places, task, Path(folder)) for task in TASK_NAMES}, sys.stdout, indent=0)
        print()


if __name__ == "__main__":
    main()
