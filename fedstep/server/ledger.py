"""The trials in the database: the open ones, their votes, how the others ended. Each call is inside a transaction."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from fedstep.federation.tensors import Vector
from fedstep.federation.wire import Score
from fedstep.server.gate import Active, Vote
from fedstep.server.records import Decision, Trial, Version
from fedstep.server.tables import trials, updates, verdicts, votes

__all__ = ["Ledger"]

ACTIVE_SECONDS = 7 * 86_400.0  # who sent nothing for so long is not waited for


class Ledger:
    """The trials of one schema, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def on_trial(self) -> Mapping[str, int]:
        """The version of the open trial of each head that has one."""
        rows = self._connection.execute(select(trials.c.head, trials.c.version).where(trials.c.schema == self._schema))
        return {row.head: row.version for row in rows}

    def trials(self, vectors: Mapping[int, Mapping[str, Vector]]) -> Mapping[str, Trial]:
        """The open trials; `vectors` has the heads of their versions."""
        rows = self._connection.execute(select(trials).where(trials.c.schema == self._schema))
        return {
            row.head: Trial(row.head, row.version, row.against, row.began, vectors[row.version][row.head])
            for row in rows
        }

    def votes(self) -> Mapping[str, tuple[Vote, ...]]:
        """The votes on the open trials by head, in the order of their arrival."""
        return {head: self._votes_on(head, version) for head, version in self.on_trial().items()}

    def active(self, now: float) -> Active:
        """Who sent an update in the last seven days."""
        return self.attendance(now)[0]

    def attendance(self, now: float) -> tuple[Active, int]:
        """Who sent an update in the last seven days, and how many updates that were."""
        projects, owners = (func.count(func.distinct(column)) for column in (updates.c.project, updates.c.owner))
        lately = (updates.c.schema == self._schema) & (updates.c.received > now - ACTIVE_SECONDS)
        found, owning, sent = self._connection.execute(select(projects, owners, func.count()).where(lately)).one()
        return Active(found, owning), sent

    def spent(self) -> Mapping[str, float]:
        """How much of the margin is gone, by head."""
        newest = (
            select(func.max(verdicts.c.number)).where(verdicts.c.schema == self._schema).group_by(verdicts.c.head)
        ).scalar_subquery()
        rows = self._connection.execute(select(verdicts.c.head, verdicts.c.spent).where(verdicts.c.number.in_(newest)))
        return {row.head: row.spent for row in rows}

    def refolded(self) -> Mapping[str, float]:
        """When each head was last folded again, in seconds since 1970."""
        rows = self._connection.execute(
            select(verdicts.c.head, func.max(verdicts.c.decided).label("decided"))
            .where(verdicts.c.schema == self._schema, verdicts.c.refolded)
            .group_by(verdicts.c.head)
        )
        return {row.head: row.decided for row in rows}

    def vote(self, cast: Iterable[tuple[str, str, str, Mapping[str, Score]]]) -> None:
        """Keeps the scores (update, project, owner, scores) of those trials that are open; others are too late."""
        scored = [item for item in cast if item[-1]]
        known = self.on_trial() if scored else {}
        rows = [
            {
                "schema": self._schema,
                "head": head,
                "trial": score.trial,
                "update_id": number,
                "project": project,
                "owner": owner,
                "difference": score.difference,
            }
            for number, project, owner, scores in scored
            for head, score in sorted(scores.items())
            if known.get(head) == score.trial
        ]
        if rows:
            self._connection.execute(insert(votes), rows)

    def begin(self, begun: Sequence[Trial]) -> None:
        """Makes these the open trials, and no others."""
        self._connection.execute(delete(trials).where(trials.c.schema == self._schema))
        rows = [
            {"schema": self._schema, "head": t.head, "version": t.version, "against": t.against, "began": t.began}
            for t in begun
        ]
        if rows:
            self._connection.execute(insert(trials), rows)

    def end(self, decisions: Iterable[Decision], version: Version) -> None:
        """Writes how trials ended with this version, and lets go of their votes."""
        for decision in decisions:
            self._write(decision.trial, version, decision.verdict.outcome, decision.verdict.spent, decision)
            self._connection.execute(
                delete(votes).where(votes.c.trial == decision.trial.version, votes.c.head == decision.trial.head)
            )

    def roll_back(self, version: Version, target: int) -> None:
        """Writes that every head went back to the production of `target`: the trials are over, the margin is whole."""
        for head in version.vectors:
            trial = Trial(head, version.version, target, version.created, version.vectors[head])
            self._write(trial, version, "rollback", 0.0, None)
        self._connection.execute(delete(votes).where(votes.c.schema == self._schema))
        self.begin(())

    def _votes_on(self, head: str, version: int) -> tuple[Vote, ...]:
        rows = self._connection.execute(
            select(votes.c.project, votes.c.owner, votes.c.difference)
            .where(votes.c.trial == version, votes.c.head == head, votes.c.schema == self._schema)
            .order_by(votes.c.number)
        )
        return tuple(Vote(row.project, row.owner, row.difference) for row in rows)

    def _write(self, trial: Trial, version: Version, outcome: str, spent: float, decision: Decision | None) -> None:
        self._connection.execute(
            insert(verdicts).values(
                schema=self._schema,
                version=version.version,
                head=trial.head,
                trial=trial.version,
                against=trial.against,
                began=trial.began,
                decided=version.created,
                outcome=outcome,
                refolded=bool(decision and decision.refolded),
                left_out=decision.left_out if decision else 0,
                spent=spent,
                figures=json.dumps(decision.verdict.figures() if decision else {}),
            )
        )
