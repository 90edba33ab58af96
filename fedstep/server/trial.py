"""What a fold decides: how snapshots on trial fared, what is production, what is tried next. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from fedstep.federation.tensors import Vector
from fedstep.server.aggregate import Contribution, Rules
from fedstep.server.gate import Gate, Verdict, judge
from fedstep.server.lineage import contributions, fold_again, fold_stored, wide
from fedstep.server.records import Decision, Made, Moment, Stored, Trial, Version
from fedstep.server.suspects import suspects

__all__ = ["REFOLD_SECONDS", "next_version"]

REFOLD_SECONDS = 86_400.0  # a head is folded again once in this time, or rejections could be used to stop the learning


@dataclass(frozen=True, slots=True)
class _Track:
    """One head after the fold: its vector, the version its production is from, its open trial, the one that ended."""

    vector: Vector
    source: int
    trial: Trial | None = None
    decision: Decision | None = None


def next_version(moment: Moment, rules: Mapping[str, Rules], gate: Gate | None) -> Made:
    """The next version, each head judged on its own. Without a gate production is always the newest head."""
    before = moment.current.head
    number = moment.number
    vectors = fold_stored(before, moment.buffered, rules)
    tracks = {
        name: _track(moment, name, vector, rules[name], gate) if gate else _Track(vector, number)
        for name, vector in vectors.items()
    }
    sources = {name: track.source for name, track in tracks.items()}
    production = number if sources != before.sources else before.production
    heads = {name: track.vector for name, track in tracks.items()}
    decisions = tuple(track.decision for track in tracks.values() if track.decision)
    return Made(
        Version(number, production, moment.now, heads, sources),
        tuple(track.trial for track in tracks.values() if track.trial),
        decisions,
    )


def _track(moment: Moment, name: str, vector: Vector, rules: Rules, gate: Gate) -> _Track:
    trial, source = moment.current.trials.get(name), moment.current.head.sources[name]
    production = moment.current.production[name]
    if trial is None:
        return _on_trial(moment, name, vector, source, production)
    verdict = judge(moment.votes.get(name, ()), moment.active, moment.spent.get(name, 0.0), gate)
    if verdict.outcome == "open":
        return _Track(vector, source, trial)
    decision = Decision(trial, verdict)
    if verdict.outcome == "promoted":
        source, production = trial.version, trial.vector
    elif verdict.outcome == "rejected":
        vector, decision = _restart(moment, trial, verdict, vector, rules, gate)
    return _on_trial(moment, name, vector, source, production, decision)


def _on_trial(
    moment: Moment, name: str, vector: Vector, source: int, production: Vector, decision: Decision | None = None
) -> _Track:
    """The newest head on trial, unless it is what production is."""
    if vector == production:
        return _Track(vector, source, None, decision)
    return _Track(vector, source, Trial(name, moment.number, source, moment.now, vector), decision)


def _restart(
    moment: Moment, trial: Trial, verdict: Verdict, vector: Vector, rules: Rules, gate: Gate
) -> tuple[Vector, Decision]:
    """Head folded again from production without the suspects; as it is, if that was done less than a day ago."""
    if moment.now - moment.refolded.get(trial.head, -REFOLD_SECONDS) < REFOLD_SECONDS:
        return vector, Decision(trial, verdict)
    production, number = moment.current.production[trial.head], moment.number
    damage = wide(trial.vector) - wide(production)
    parts = _parts(trial.head, _all_since(moment, trial.against), number)
    without = suspects(parts, damage, rules.clip, gate.liars, gate.voters)
    again = fold_again(trial.head, production, _all_since(moment, trial.against), number, rules, without)
    return again, Decision(trial, verdict, refolded=True, left_out=len(without))


def _all_since(moment: Moment, version: int) -> Iterable[Stored]:
    return chain(moment.since(version), moment.buffered)


def _parts(name: str, updates: Iterable[Stored], number: int) -> Iterable[Contribution]:
    for stored in updates:
        base = (number if stored.folded < 0 else stored.folded) - 1
        yield from (part for head, part in contributions(stored, base) if head == name)
