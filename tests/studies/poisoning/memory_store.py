"""A store in memory with the transactions that a simulated federation needs: as `Store`, at a third of its time."""

from collections.abc import Mapping, Sequence

from fedstep.federation.messages import Vector, hour
from fedstep.server.aggregation.inputs import (
    AggregationInput,
    CurrentModels,
    ModelVersion,
    StoredUpdate,
    TrialOutcome,
)
from fedstep.server.aggregation.step import EARLIER
from fedstep.server.gate import ActiveCounts, Evaluation, UpdateEvaluations
from fedstep.server.storage.store import MAX_RECENT, Step
from fedstep.server.storage.trial_repository import ACTIVE_SECONDS, KNOWN_SECONDS, MOST_KNOWN
from fedstep.server.storage.update_repository import StoredReceipt, UpdateOffer
from fedstep.server.storage.version_repository import TrialSummary, VersionListing


class MemoryStore:
    """The updates, versions, trials and verdicts of one federation, whose updates are learned from the candidate."""

    def __init__(self) -> None:
        self._ended: list[tuple[ModelVersion, TrialOutcome]] = []  # with the version of each decision, the oldest first
        self._buffered: list[UpdateOffer] = []
        self._aggregated: list[StoredUpdate] = []
        self._received: list[tuple[float, str, str]] = []  # time, project, owner
        self._evaluations: dict[str, list[Evaluation]] = {}  # of the open trials, by task

    def start(self, vectors: Mapping[str, Vector], now: float) -> None:
        """Make the first version."""
        version = ModelVersion(0, 0, now, vectors, dict.fromkeys(vectors, 0))
        self._current = CurrentModels(version, vectors, {})
        self._earlier: list[ModelVersion] = []

    def current(self) -> CurrentModels:
        """Return the models that are served."""
        return self._current

    def accept(
        self, offers: Sequence[UpdateOffer], candidate: int, max_staleness: int, now: float
    ) -> tuple[StoredReceipt, ...]:
        """Return a receipt for each offer; all are learned from the candidate."""
        for offer in offers:
            assert candidate - offer.base <= max_staleness
            self._received.append((now, offer.project, offer.owner))
            for task, score in offer.scores.items():
                trial = self._current.trials.get(task)
                if trial and trial.version == score.trial:
                    self._evaluations[task].append(Evaluation(offer.project, offer.owner, score.difference))
        self._buffered += offers
        return tuple(StoredReceipt(offer.id, candidate) for offer in offers)

    def aggregate(self, step: Step, now: float) -> None:
        """Make the next version of the buffer."""
        current, active = self._current, self._known(now)
        recent = sorted(self._aggregated, key=lambda one: (-one.version, one.update().id))[:MAX_RECENT]
        given = AggregationInput(
            current=current,
            version=current.candidate.version + 1,
            spent={outcome.trial.task: outcome.verdict.spent for _, outcome in self._ended},
            restarted={outcome.trial.task: made.created for made, outcome in self._ended if outcome.restarted},
            promoted={outcome.trial.task for _, outcome in self._ended if outcome.verdict.outcome == "promoted"},
            now=now,
            earlier=self._earlier,
            buffered=tuple(
                StoredUpdate(b"", offer.owner, project=offer.project, known=offer.update) for offer in self._buffered
            ),
            evidence={task: UpdateEvaluations(tuple(own), active) for task, own in self._evaluations.items()},
            recent=lambda: recent,
        )
        result = step(given)
        made = result.version
        promoted = {task: source for task, source in made.sources.items() if source != current.candidate.sources[task]}
        production = {task: current.trials[task].vector for task in promoted}
        self._evaluations = {
            trial.task: self._evaluations[trial.task] if trial == current.trials.get(trial.task) else []
            for trial in result.trials
        }
        self._ended += [(made, outcome) for outcome in result.decisions]
        self._aggregated = recent + [
            StoredUpdate(b"", one.owner, made.version, one.project, one.known) for one in given.buffered
        ]
        self._buffered = []
        self._earlier = [current.candidate, *self._earlier][:EARLIER]
        self._current = CurrentModels(
            made, {**current.production, **production}, {trial.task: trial for trial in result.trials}
        )

    def lineage(self, limit: int) -> VersionListing:
        """Return the newest verdicts, at most so many."""
        return VersionListing("", (), (), tuple(_summarize(*ended) for ended in reversed(self._ended[-limit:])))

    def _known(self, now: float) -> ActiveCounts:
        """Return how many projects and owners are active, or took part in a promotion of the last ninety days."""
        recent = [(project, owner) for time, project, owner in self._received if time > now - ACTIVE_SECONDS]
        promoted = [
            outcome.verdict
            for made, outcome in self._ended
            if outcome.verdict.outcome == "promoted" and made.created > now - KNOWN_SECONDS
        ][-MOST_KNOWN:]
        projects, owners = (len(set(names)) for names in zip(*recent, strict=True))
        return ActiveCounts(
            max(projects, *(one.projects for one in promoted), 0), max(owners, *(one.owners for one in promoted), 0)
        )


def _summarize(made: ModelVersion, ended: TrialOutcome) -> TrialSummary:
    trial = ended.trial
    return TrialSummary(
        made.version,
        trial.task,
        trial.version,
        trial.against,
        hour(trial.began),
        hour(made.created),
        ended.verdict.outcome,
        ended.restarted,
        ended.verdict.figures(),
    )
