"""The trials in the database: the open ones, their votes, how the others ended. Each call is inside a transaction."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from fedstep.federation.messages import TrialScore
from fedstep.federation.tensors import Vector
from fedstep.server.aggregation.inputs import ModelVersion, Trial, TrialOutcome
from fedstep.server.gate import ActiveCounts, Evaluation
from fedstep.server.storage.tables import evaluations, trials, updates, verdicts

ACTIVE_SECONDS = 7 * 86_400.0  # who sent nothing for so long is not waited for


class TrialRepository:
    """The trials of one schema, over one connection."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def on_trial(self) -> Mapping[str, int]:
        """The version of the open trial of each task that has one."""
        rows = self._connection.execute(select(trials.c.task, trials.c.version).where(trials.c.schema == self._schema))
        return {row.task: row.version for row in rows}

    def trials(self, vectors: Mapping[int, Mapping[str, Vector]]) -> Mapping[str, Trial]:
        """The open trials; `vectors` has the tasks of their versions."""
        rows = self._connection.execute(select(trials).where(trials.c.schema == self._schema))
        return {
            row.task: Trial(row.task, row.version, row.against, row.began, vectors[row.version][row.task])
            for row in rows
        }

    def votes(self) -> Mapping[str, tuple[Evaluation, ...]]:
        """The votes on the open trials by task, in the order of their arrival."""
        return {task: self._votes_on(task, version) for task, version in self.on_trial().items()}

    def active(self, now: float) -> ActiveCounts:
        """Who sent an update in the last seven days."""
        return self.attendance(now)[0]

    def attendance(self, now: float) -> tuple[ActiveCounts, int]:
        """Who sent an update in the last seven days, and how many updates that were."""
        projects, owners = (func.count(func.distinct(column)) for column in (updates.c.project, updates.c.owner))
        lately = (updates.c.schema == self._schema) & (updates.c.received > now - ACTIVE_SECONDS)
        found, owning, sent = self._connection.execute(select(projects, owners, func.count()).where(lately)).one()
        return ActiveCounts(found, owning), sent

    def spent(self) -> Mapping[str, float]:
        """How much of the margin is gone, by task."""
        newest = (
            select(func.max(verdicts.c.id)).where(verdicts.c.schema == self._schema).group_by(verdicts.c.task)
        ).scalar_subquery()
        rows = self._connection.execute(select(verdicts.c.task, verdicts.c.spent).where(verdicts.c.id.in_(newest)))
        return {row.task: row.spent for row in rows}

    def replayed(self) -> Mapping[str, float]:
        """When each task was last folded again, in seconds since 1970."""
        rows = self._connection.execute(
            select(verdicts.c.task, func.max(verdicts.c.decided).label("decided"))
            .where(verdicts.c.schema == self._schema, verdicts.c.replayed)
            .group_by(verdicts.c.task)
        )
        return {row.task: row.decided for row in rows}

    def vote(self, cast: Iterable[tuple[str, str, str, Mapping[str, TrialScore]]]) -> None:
        """Keeps the scores (update, project, owner, scores) of those trials that are open; others are too late."""
        scored = [item for item in cast if item[-1]]
        known = self.on_trial() if scored else {}
        rows = [
            {
                "schema": self._schema,
                "task": task,
                "trial": score.trial,
                "update_id": number,
                "project": project,
                "owner": owner,
                "difference": score.difference,
            }
            for number, project, owner, scores in scored
            for task, score in sorted(scores.items())
            if known.get(task) == score.trial
        ]
        if rows:
            self._connection.execute(insert(evaluations), rows)

    def begin(self, begun: Sequence[Trial]) -> None:
        """Makes these the open trials, and no others."""
        self._connection.execute(delete(trials).where(trials.c.schema == self._schema))
        rows = [
            {"schema": self._schema, "task": t.task, "version": t.version, "against": t.against, "began": t.began}
            for t in begun
        ]
        if rows:
            self._connection.execute(insert(trials), rows)

    def end(self, decisions: Iterable[TrialOutcome], version: ModelVersion) -> None:
        """Writes how trials ended with this version, and lets go of their votes."""
        for decision in decisions:
            self._write(decision.trial, version, decision.verdict.outcome, decision.verdict.spent, decision)
            self._connection.execute(
                delete(evaluations).where(
                    evaluations.c.trial == decision.trial.version, evaluations.c.task == decision.trial.task
                )
            )

    def roll_back(self, version: ModelVersion, target: int) -> None:
        """Writes that every task went back to the production of `target`: the trials are over, the margin is whole."""
        for task in version.vectors:
            trial = Trial(task, version.version, target, version.created, version.vectors[task])
            self._write(trial, version, "rollback", 0.0, None)
        self._connection.execute(delete(evaluations).where(evaluations.c.schema == self._schema))
        self.begin(())

    def _votes_on(self, task: str, version: int) -> tuple[Evaluation, ...]:
        rows = self._connection.execute(
            select(evaluations.c.project, evaluations.c.owner, evaluations.c.difference)
            .where(evaluations.c.trial == version, evaluations.c.task == task, evaluations.c.schema == self._schema)
            .order_by(evaluations.c.id)
        )
        return tuple(Evaluation(row.project, row.owner, row.difference) for row in rows)

    def _write(
        self, trial: Trial, version: ModelVersion, outcome: str, spent: float, decision: TrialOutcome | None
    ) -> None:
        self._connection.execute(
            insert(verdicts).values(
                schema=self._schema,
                version=version.version,
                task=trial.task,
                trial=trial.version,
                against=trial.against,
                began=trial.began,
                decided=version.created,
                outcome=outcome,
                replayed=bool(decision and decision.replayed),
                left_out=decision.left_out if decision else 0,
                spent=spent,
                figures=json.dumps(decision.verdict.figures() if decision else {}),
            )
        )
