"""Where each head stands after a fold, and the version that all heads make together. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fedstep.federation.tensors import Vector
from fedstep.server.gate import Verdict
from fedstep.server.records import Current, Decision, Made, Trial, Version

__all__ = ["REFOLD_SECONDS", "Birth", "Track"]

# What a head that is sent back after its trial starts from, and without how many of its sources.
Again: TypeAlias = Callable[[Trial], tuple[Vector, int]]

REFOLD_SECONDS = 86_400.0  # a head goes back once in this time, or rejections could be used to stop the learning


@dataclass(frozen=True, slots=True)
class Track:
    """One head after the fold: its vector, the version its production is from, its open trial, the one that ended."""

    vector: Vector
    source: int
    trial: Trial | None = None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """The version to come: what it follows, its number, which no version of any schema has yet, and when it is made.

    `refolded` has when a rejection last sent each head back, in seconds since 1970.
    """

    current: Current
    number: int
    now: float
    refolded: Mapping[str, float]

    @property
    def before(self) -> Version:
        """The newest head."""
        return self.current.head

    def judged(self, name: str, vector: Vector, verdict: Verdict, again: Again) -> Track:
        """The head after this verdict on its trial; where it has none it begins one."""
        trial, source = self.current.trials.get(name), self.before.sources[name]
        production = self.current.production[name]
        if trial is None:
            return self._on_trial(name, vector, source, production)
        if verdict.outcome == "open":
            return Track(vector, source, trial)
        decision = Decision(trial, verdict)
        if verdict.outcome == "promoted":
            source, production = trial.version, trial.vector
        elif verdict.outcome == "rejected" and self.now - self.refolded.get(name, -REFOLD_SECONDS) >= REFOLD_SECONDS:
            vector, left_out = again(trial)
            decision = Decision(trial, verdict, refolded=True, left_out=left_out)
        return self._on_trial(name, vector, source, production, decision)

    def made(self, tracks: Mapping[str, Track]) -> Made:
        """The version of these heads; production is new with it where any head's is."""
        sources = {name: track.source for name, track in tracks.items()}
        production = self.number if sources != self.before.sources else self.before.production
        heads = {name: track.vector for name, track in tracks.items()}
        return Made(
            Version(self.number, production, self.now, heads, sources),
            tuple(track.trial for track in tracks.values() if track.trial),
            tuple(track.decision for track in tracks.values() if track.decision),
        )

    def _on_trial(
        self, name: str, vector: Vector, source: int, production: Vector, decision: Decision | None = None
    ) -> Track:
        """The newest head on trial, unless it is what production is."""
        if vector == production:
            return Track(vector, source, None, decision)
        return Track(vector, source, Trial(name, self.number, source, self.now, vector), decision)
