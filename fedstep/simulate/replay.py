"""Replays recorded builds through the production rooms in memory and gives back the rows as they ripen."""

from collections.abc import Iterable, Iterator, Mapping
from zlib import crc32

from fedstep.build.record import Build, Duration
from fedstep.features.plan import plan, stream_of
from fedstep.features.rows import rows_of_build
from fedstep.features.schema import HEAD_NAMES, schema
from fedstep.history.entry import Row, entry_of
from fedstep.history.summary import Summary, fold
from fedstep.model.labels import Ripe, is_due, numbered, ripen
from fedstep.steps import Evidence

__all__ = ["ripe_rows"]


def ripe_rows(builds: Iterable[Evidence]) -> Iterator[Mapping[str, tuple[Ripe, ...]]]:
    """After each build the rows by head that ripened with it; the builds are in time order."""
    summary = Summary()
    pending: dict[str, list[Row]] = {head: [] for head in HEAD_NAMES}
    for number, evidence in enumerate(builds):
        build = Build(
            f"{number:032x}",
            evidence.situation,
            evidence.finished_at,
            evidence.duration,
            evidence.outcome,
            evidence.reports,
        )
        source = build.duration.source if isinstance(build.duration, Duration) else ""
        planned = plan(build.situation, stream_of(build.situation.ci, source), "")
        rows = rows_of_build(summary, build, planned, _due)
        summary = fold(summary, build.name, entry_of(build, planned.stream, "")._replace(rows=rows))
        ripe: dict[str, tuple[Ripe, ...]] = {}
        for head in HEAD_NAMES:
            now_ripe, pending[head] = ripen(head, (*pending[head], *numbered(rows[head], summary.tests)), summary.tests)
            ripe[head] = tuple(now_ripe)
        yield ripe


def _due(test: str, runs: int) -> bool:
    return is_due(crc32(test.encode()), runs, schema().heads["flaky"].horizon)
