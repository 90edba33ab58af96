"""What a leader shows of itself: as an aggregator does, with who takes part counted from the halves that it holds."""

from dataclasses import replace

from sqlalchemy import Connection, Subquery, func, select

from fedstep.server.gate import Active
from fedstep.server.gate_sums import judge_sums
from fedstep.server.ledger import ACTIVE_SECONDS
from fedstep.server.overview import Look, Overview, days, volumes
from fedstep.server.share_book import in_halves
from fedstep.server.share_tables import halves, told_of

__all__ = ["ShareOverview"]


class ShareOverview(Overview):
    """As another one, of a store that has halves. A verdict counts sums of scores: single votes nobody knows."""

    def look(self, now: float) -> Look:
        """What there is to see at this time. Raises UsageError where nothing of this schema was ever started."""
        look, schema = super().look(now), self._shape.digest
        with self._reader.begin() as connection:
            trials = look.current.trials.items()
            told = {name: told_of(connection, schema, name, trial.version) for name, trial in trials}
            return replace(
                look,
                pending=in_halves(connection, schema),
                active=_active(connection, schema, now),
                standing={
                    name: judge_sums(found, self._gate, look.spent.get(name, 0.0))
                    for name, found in told.items()
                    if self._gate and found
                },
                days=days(connection, _sent(), schema, now),
                volumes=volumes(connection, _sent(), schema, now),
            )


def _active(connection: Connection, schema: str, now: float) -> Active:
    counts = select(func.count(func.distinct(halves.c.project)), func.count(func.distinct(halves.c.owner)))
    recent = (halves.c.schema == schema) & (halves.c.received > now - ACTIVE_SECONDS) & (halves.c.project != "")
    projects, owners = connection.execute(counts.where(recent)).one()
    return Active(projects, owners)


def _sent() -> Subquery:
    """One row for each update, as the table of whole ones has; without those of projects that were forgotten."""
    columns = halves.c.id, halves.c.schema, halves.c.project, halves.c.received
    return select(*columns).where(halves.c.project != "").distinct().subquery()
