"""The trials in the database: the open ones with their evaluations, and how the others ended."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, func, insert, select

from fedstep.federation.messages import TrialScore, Vector
from fedstep.server.aggregation.inputs import ModelVersion, Trial, TrialOutcome
from fedstep.server.gate import ActiveCounts, Evaluation
from fedstep.server.storage.tables import evaluations, trials, updates, verdicts

ACTIVE_SECONDS = 7 * 86_400.0  # a project that sent nothing for so long is not active
KNOWN_SECONDS = 90 * 86_400.0  # a federation that was larger is remembered for so long
MOST_KNOWN = 200  # promotions that are read


class TrialRepository:
    """The trials of one schema, over one connection. Each call is part of the connection's transaction."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def open_versions(self) -> Mapping[str, int]:
        """Return the version on trial by task, for tasks that have an open trial."""
        rows = self._connection.execute(select(trials.c.task, trials.c.version).where(trials.c.schema == self._schema))
        return {row.task: row.version for row in rows}

    def open_trials(self, vectors: Mapping[int, Mapping[str, Vector]]) -> Mapping[str, Trial]:
        """Return the open trials by task. `vectors` has those of their versions, by version and task."""
        rows = self._connection.execute(select(trials).where(trials.c.schema == self._schema))
        return {
            row.task: Trial(row.task, row.version, row.against, row.began, vectors[row.version][row.task])
            for row in rows
        }

    def evaluations(self) -> Mapping[str, tuple[Evaluation, ...]]:
        """Return by task the evaluations of its open trial, in the order of their arrival."""
        return {task: self._evaluations_of(task, version) for task, version in self.open_versions().items()}

    def count_active(self, now: float) -> ActiveCounts:
        """Return how many projects and owners sent an update in the last seven days."""
        return self.count_recent(now)[0]

    def count_recent(self, now: float) -> tuple[ActiveCounts, int]:
        """Return how many projects and owners sent an update in the last seven days, and how many updates."""
        projects, owners = (func.count(func.distinct(column)) for column in (updates.c.project, updates.c.owner))
        recent = (updates.c.schema == self._schema) & (updates.c.received > now - ACTIVE_SECONDS)
        row = self._connection.execute(select(projects, owners, func.count()).where(recent)).one()
        return ActiveCounts(row[0], row[1]), row[2]

    def count_known(self, now: float, active: ActiveCounts) -> ActiveCounts:
        """Return how many projects and owners are active, or took part in a promotion of the last ninety days.

        Without the latter a sole attacker would count as a sole project as soon as the others are silent for a week.
        """
        recent = (verdicts.c.schema == self._schema) & (verdicts.c.decided > now - KNOWN_SECONDS)
        query = select(verdicts.c.figures).where(recent, verdicts.c.outcome == "promoted")
        rows = self._connection.execute(query.order_by(verdicts.c.id.desc()).limit(MOST_KNOWN))
        figures = [json.loads(row.figures) for row in rows]
        projects, owners = (
            max((int(entry.get(name, 0)) for entry in figures), default=0) for name in ("projects", "owners")
        )
        return ActiveCounts(max(active.projects, projects), max(active.owners, owners))

    def spent_margins(self) -> Mapping[str, float]:
        """Return by task how much of the gate's margin is spent."""
        newest = (
            select(func.max(verdicts.c.id)).where(verdicts.c.schema == self._schema).group_by(verdicts.c.task)
        ).scalar_subquery()
        rows = self._connection.execute(select(verdicts.c.task, verdicts.c.spent).where(verdicts.c.id.in_(newest)))
        return {row.task: row.spent for row in rows}

    def promoted_tasks(self) -> Collection[str]:
        """Return the tasks of which a version was ever promoted."""
        promoted = (verdicts.c.schema == self._schema) & (verdicts.c.outcome == "promoted")
        return frozenset(self._connection.execute(select(verdicts.c.task).where(promoted).distinct()).scalars())

    def last_restarts(self) -> Mapping[str, float]:
        """Return by task when it last went back to its production after a rejection, in seconds since 1970."""
        rows = self._connection.execute(
            select(verdicts.c.task, func.max(verdicts.c.decided).label("decided"))
            .where(verdicts.c.schema == self._schema, verdicts.c.replayed)
            .group_by(verdicts.c.task)
        )
        return {row.task: row.decided for row in rows}

    def add_evaluations(self, scored_updates: Iterable[tuple[str, str, str, Mapping[str, TrialScore]]]) -> None:
        """Keep the scores of open trials, from (update id, project, owner, scores by task). Ignore others."""
        scored_updates = [item for item in scored_updates if item[-1]]
        open_versions = self.open_versions() if scored_updates else {}
        rows = [
            {
                "schema": self._schema,
                "task": task,
                "trial": score.trial,
                "update_id": update_id,
                "project": project,
                "owner": owner,
                "difference": score.difference,
            }
            for update_id, project, owner, scores in scored_updates
            for task, score in sorted(scores.items())
            if open_versions.get(task) == score.trial
        ]
        if rows:
            self._connection.execute(insert(evaluations), rows)

    def replace_open(self, open_trials: Sequence[Trial]) -> None:
        """Replace the open trials by these."""
        self._connection.execute(delete(trials).where(trials.c.schema == self._schema))
        rows = [
            {"schema": self._schema, "task": t.task, "version": t.version, "against": t.against, "began": t.began}
            for t in open_trials
        ]
        if rows:
            self._connection.execute(insert(trials), rows)

    def close(self, outcomes: Iterable[TrialOutcome], version: ModelVersion) -> None:
        """Record how trials ended with this version, and delete their evaluations."""
        for outcome in outcomes:
            trial = outcome.trial
            self._add_verdict(trial, version, outcome.verdict.outcome, outcome.verdict.spent, outcome)
            self._connection.execute(
                delete(evaluations).where(evaluations.c.trial == trial.version, evaluations.c.task == trial.task)
            )

    def record_rollback(self, version: ModelVersion, target: int) -> None:
        """Record that `version` takes every task back to the production of `target`.

        All trials end without a verdict, and no margin is spent any more.
        """
        for task in version.vectors:
            trial = Trial(task, version.version, target, version.created, version.vectors[task])
            self._add_verdict(trial, version, "rollback", 0.0, None)
        self._connection.execute(delete(evaluations).where(evaluations.c.schema == self._schema))
        self.replace_open(())

    def _evaluations_of(self, task: str, version: int) -> tuple[Evaluation, ...]:
        rows = self._connection.execute(
            select(evaluations.c.project, evaluations.c.owner, evaluations.c.difference)
            .where(evaluations.c.trial == version, evaluations.c.task == task, evaluations.c.schema == self._schema)
            .order_by(evaluations.c.id)
        )
        return tuple(Evaluation(row.project, row.owner, row.difference) for row in rows)

    def _add_verdict(
        self, trial: Trial, version: ModelVersion, name: str, spent: float, outcome: TrialOutcome | None
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
                outcome=name,
                replayed=bool(outcome and outcome.restarted),
                left_out=0,
                spent=spent,
                figures=json.dumps(outcome.verdict.figures() if outcome else {}),
            )
        )
