"""What a fold decides: how snapshots on trial fared, what is production, what is tried next. Pure."""

from collections.abc import Iterable, Mapping
from itertools import chain

from fedstep.federation.tensors import Vector
from fedstep.server.aggregation.fedbuff import AggregationRules, Contribution
from fedstep.server.gate import Gate, judge
from fedstep.server.lineage import contributions, fold_again, fold_stored, wide
from fedstep.server.records import Made, Moment, Stored, Trial
from fedstep.server.suspects import suspects
from fedstep.server.tracks import Birth, Track

__all__ = ["next_version"]


def next_version(moment: Moment, rules: Mapping[str, AggregationRules], gate: Gate | None) -> Made:
    """The next version, each head judged on its own. Without a gate production is always the newest head."""
    birth = Birth(moment.current, moment.number, moment.now, moment.refolded)
    vectors = fold_stored(birth.before, moment.buffered, rules)
    tracks = {
        name: _track(moment, birth, name, vector, rules[name], gate) if gate else Track(vector, birth.number)
        for name, vector in vectors.items()
    }
    return birth.made(tracks)


def _track(moment: Moment, birth: Birth, name: str, vector: Vector, rules: AggregationRules, gate: Gate) -> Track:
    verdict = judge(moment.votes.get(name, ()), moment.active, moment.spent.get(name, 0.0), gate)
    return birth.judged(name, vector, verdict, lambda trial: _folded_again(moment, trial, rules, gate))


def _folded_again(moment: Moment, trial: Trial, rules: AggregationRules, gate: Gate) -> tuple[Vector, int]:
    """Head folded again from production without the suspects, and how many those are."""
    production, number = moment.current.production[trial.head], moment.number
    damage = wide(trial.vector) - wide(production)
    parts = _parts(trial.head, _all_since(moment, trial.against), number)
    without = suspects(parts, damage, rules.clip, gate.liars, gate.voters)
    again = fold_again(trial.head, production, _all_since(moment, trial.against), number, rules, without)
    return again, len(without)


def _all_since(moment: Moment, version: int) -> Iterable[Stored]:
    return chain(moment.since(version), moment.buffered)


def _parts(name: str, updates: Iterable[Stored], number: int) -> Iterable[Contribution]:
    for stored in updates:
        base = (number if stored.folded < 0 else stored.folded) - 1
        yield from (part for head, part in contributions(stored, base) if head == name)
