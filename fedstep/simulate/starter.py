"""Makes the starter model of the package from recorded public CI.

    python -m fedstep.simulate.starter CORPORA REPLAYS > fedstep/model/starter.safetensors

CORPORA holds `builds.csv.gz`, `tests.csv.gz` and `*.tar.gz` of build folders, REPLAYS build folders. The same input
gives the same bytes. Licences of what it was learned from: docs/data.md.
"""

import random
import sys
import tarfile
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isnan, log
from pathlib import Path

import numpy as np

from fedstep.build.record import Absent, Dropped
from fedstep.features.builds import PastBuild
from fedstep.features.duration import duration_features
from fedstep.features.failure import failure_features
from fedstep.features.flaky import flaky_values
from fedstep.features.rows import FARTHEST
from fedstep.features.schema import HEAD_NAMES, schema
from fedstep.features.words import sub_words
from fedstep.federation.wire import Model, pack_model
from fedstep.history.entry import Row
from fedstep.history.summary import MAXIMUM_BUILDS
from fedstep.history.tests import TestTable, with_tests
from fedstep.importers.folder import build_folders, read_folder
from fedstep.model.labels import Ripe
from fedstep.model.sgd import learn_shared
from fedstep.simulate.replay import ripe_rows
from fedstep.simulate.tables import RerunTest, planned_of, read_builds, read_tests
from fedstep.steps import Evidence

BATCH = 50
EPOCHS = {
    "flaky": 5,
    "triage": 10,
    "build-failure": 3,
    "build-duration": 2,
}  # best of a few, each project left out in turn
MOST_ROWS = 3000  # of one project and head, drawn: no project may speak for all
CREATED = "2026-11-21T00:00Z"

Rows = dict[str, list[Ripe]]  # by head


def build_rows(builds: Sequence[PastBuild]) -> Rows:
    """The rows of the build heads of one project, each with the builds before it alone."""
    rows: Rows = {"build-failure": [], "build-duration": []}
    for number in range(max(0, len(builds) - MOST_ROWS), len(builds)):
        build = builds[number]
        past, planned = builds[max(0, number - MAXIMUM_BUILDS) : number], planned_of(build)
        failed = float(build.outcome != "passed")
        rows["build-failure"].append(_ripe("build-failure", failure_features(past, planned), failed))
        found = duration_features(past, planned)
        if not isinstance(found, Absent):
            target = max(-FARTHEST, min(FARTHEST, found[0].departure(build.seconds)))
            rows["build-duration"].append(_ripe("build-duration", found[1], target))
    return rows


def test_rows(tests: Sequence[RerunTest]) -> Rows:
    """A row without history for each test, labelled by whether it ever flipped in its thousands of reruns.

    The chance that it flips within the head's horizon would be the exact label; with it words are ranked worse (mean
    AUC 0.69 against 0.75 on left-out projects), for half of all flaky tests fail less than once in a hundred runs.
    """
    table = _timed(with_tests(TestTable(), [test.test for test in tests]), tests)
    head = schema().heads["flaky"]
    labelled = zip(tests, flaky_values(table), strict=True)
    rows = [Ripe(Row(test.test, 0, *head.encode_values(values), ()), float(test.flaky)) for test, values in labelled]
    return {"flaky": rows}


def folder_rows(folder: Path) -> Rows:
    """The rows of all heads from a folder of recorded builds, as they ripened."""
    found = [read_folder(path) for path in build_folders(folder)]
    rows: Rows = {head: [] for head in HEAD_NAMES}
    for ripe in ripe_rows(_in_order(found)):
        for head, some in ripe.items():
            rows[head] += some
    return rows


def learn_starter(projects: Mapping[str, Rows], seed: int = 1) -> Mapping[str, "array[float]"]:
    """The heads learned from all projects: batches of one project each, in an order drawn by the seed.

    The weights are averaged over the second half of the epochs (Polyak and Juditsky, 1992).
    """
    return {
        head: _learn(head, [rows[head] for rows in projects.values() if rows.get(head)], seed) for head in HEAD_NAMES
    }


def _learn(head: str, projects: Sequence[Sequence[Ripe]], seed: int) -> "array[float]":
    draw = random.Random(f"{seed} {head}")
    chosen = [draw.sample(rows, min(len(rows), MOST_ROWS)) for rows in projects]
    weights: Sequence[float] = [0.0] * schema().heads[head].size()
    total, count = np.zeros(len(weights)), 0
    for epoch in range(EPOCHS[head]):
        batches = [batch for rows in chosen for batch in _batches(draw.sample(rows, len(rows)))]
        draw.shuffle(batches)
        for batch in batches:
            weights = learn_shared(head, weights, batch)
        if epoch >= EPOCHS[head] // 2:
            total, count = total + np.array(weights), count + 1
    return array("f", total / max(count, 1))


def _batches(rows: Sequence[Ripe]) -> Iterator[Sequence[Ripe]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _ripe(head: str, raw: Mapping[str, object], label: float) -> Ripe:
    return Ripe(Row("", 0, *schema().heads[head].encode(raw), (), label), label)  # type: ignore[arg-type]


def _timed(table: TestTable, tests: Sequence[RerunTest]) -> TestTable:
    """The table with each test's time and the words of its source, still without a run."""
    listed = schema().words("source").listed
    for number, test in enumerate(tests):
        if not isnan(test.seconds):
            table.log_seconds[number] = log(max(test.seconds, 0.001))
        table.source_words[number] = listed(sub_words(test.identifiers))
    return table


def _in_order(found: Iterable[Evidence | Dropped]) -> list[Evidence]:
    for item in found:
        if isinstance(item, Dropped):
            print(f"{item.source}: {item.reason}", file=sys.stderr)
    return sorted((item for item in found if isinstance(item, Evidence)), key=lambda item: item.situation.started_at)


def read_projects(corpora: Path, replays: Path) -> Mapping[str, Rows]:
    """The rows of every project found, by name."""
    projects: dict[str, Rows] = {}
    for path in sorted(corpora.glob("**/builds.csv.gz")):
        projects[f"builds/{path.parent.name}"] = build_rows(read_builds(path)[0])
    for path in sorted(corpora.glob("**/tests.csv.gz")):
        projects[f"tests/{path.parent.name}"] = test_rows(read_tests(path))
    for path in sorted(corpora.glob("junit/*.tar.gz")):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
            projects[f"junit/{path.name}"] = folder_rows(Path(folder))
    for folder_ in sorted(path for path in replays.glob("*") if path.is_dir()):
        projects[f"replays/{folder_.name}"] = folder_rows(folder_)
    return projects


def main() -> None:
    projects = read_projects(Path(sys.argv[1]), Path(sys.argv[2]))
    for name, rows in projects.items():
        print(name, {head: len(some) for head, some in rows.items() if some}, file=sys.stderr)
    heads = learn_starter(projects)
    sys.stdout.buffer.write(pack_model(Model(schema().digest, 0, 0, CREATED, heads, heads)))


if __name__ == "__main__":
    main()
