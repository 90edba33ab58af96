"""One project of a replayed federation: it predicts, then learns what has become known, as production does."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import NamedTuple

from fedstep.features.duration import Estimate
from fedstep.model.calibration import Trackers, probability, untried
from fedstep.model.labels import Ripe
from fedstep.model.learner import absorb_ripe, full_margin
from fedstep.model.linear import Local
from fedstep.model.state import Backlog, Correction
from fedstep.simulate.cases import Case, Known, Step
from fedstep.simulate.shared import Shared

__all__ = ["Participant", "Prediction"]


class Prediction(NamedTuple):
    """What was said of one case, and what came of it: seconds with an interval, or a chance (`low` and `high` too)."""

    project: str
    number: int  # of the build in its project, from 0
    said: float
    low: float
    high: float
    truth: float
    guesses: Mapping[str, float]


class _Asked(NamedTuple):
    case: Case
    prediction: Prediction


class Participant:
    """A project with weights and a calibration of its own on top of the shared ones."""

    def __init__(self, name: str, head: str, shared: Shared, learns: bool = True) -> None:
        self._name, self._head, self._shared, self._learns = name, head, shared, learns
        self._correction, self._backlog = Correction(), Backlog()
        self._asked: dict[int, _Asked] = {}

    def live(self, step: Step) -> Iterator[Prediction]:
        """Learn what is known by the start of this build, then predict it; the predictions whose truth is known."""
        for batch in _batches(self._head, step.known):
            yield from self._learn(batch)
        for case in step.cases:
            prediction = self._predict(step.number, case)
            self._asked[case.key] = _Asked(case, prediction)
            if case.scored and not isnan(case.truth):
                yield prediction

    def _learn(self, batch: Sequence[Known]) -> Iterator[Prediction]:
        asked = [self._asked.pop(known.key) for known in batch]
        if self._learns:
            self._absorb(
                [Ripe(one.case.row, known.label, known.weight) for one, known in zip(asked, batch, strict=True)],
                asked[0].case.stream,
            )
        for one, known in zip(asked, batch, strict=True):
            if one.case.scored and isnan(one.case.truth):
                yield one.prediction._replace(truth=known.label if isnan(known.truth) else known.truth)

    def _absorb(self, ripe: Sequence[Ripe], stream: str) -> None:
        correction, backlog = absorb_ripe(
            self._head, self._correction, self._backlog, ripe, self._shared.weights, stream
        )
        self._correction, self._backlog = correction, self._shared.offer(self._name, backlog)

    def _predict(self, number: int, case: Case) -> Prediction:
        local = self._correction.local.get(self._head, Local())
        score = full_margin(self._shared.weights, local, case.row)
        said, low, high = self._meant(case, score)
        return Prediction(self._name, number, said, low, high, case.truth, case.guesses)

    def _meant(self, case: Case, score: float) -> tuple[float, float, float]:
        if self._head != "build-duration":
            chance = probability(self._correction.platt.get(self._head, untried(self._head)), score)
            return chance, chance, chance
        estimate = Estimate(*case.estimate, 0)
        trackers = self._correction.trackers.get(case.stream, Trackers())
        return (
            estimate.corrected(score),
            estimate.corrected(score + trackers.low),
            estimate.corrected(score + trackers.high),
        )


def _batches(head: str, known: Sequence[Known]) -> Iterator[Sequence[Known]]:
    """What one record reveals is learned together: of a build one label, of its tests all."""
    if head.startswith("build-"):
        yield from ((one,) for one in known)
    elif known:
        yield known
