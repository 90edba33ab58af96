"""Where each head stands after a fold, and the version that all heads make together. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedstep.federation.tensors import Vector
from fedstep.server.records import Decision, Made, Trial, Version

__all__ = ["Birth", "Track"]


@dataclass(frozen=True, slots=True)
class Track:
    """One head after the fold: its vector, the version its production is from, its open trial, the one that ended."""

    vector: Vector
    source: int
    trial: Trial | None = None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """The version to come: what it follows, its number, which no version of any schema has yet, and when it is made."""

    before: Version
    number: int
    now: float

    def on_trial(
        self, name: str, vector: Vector, source: int, production: Vector, decision: Decision | None = None
    ) -> Track:
        """The newest head on trial, unless it is what production is."""
        if vector == production:
            return Track(vector, source, None, decision)
        return Track(vector, source, Trial(name, self.number, source, self.now, vector), decision)

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
