"""The page's figures of this process, read from what /metrics says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Figures", "figures"]

Samples = Sequence[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Since this process began: updates by outcome, the share of deltas at their bound by head, and of staleness.

    `refused` has the names of problems; `staleness` pairs words with shares of the accepted updates.
    """

    accepted: int
    repeats: int
    refused: Mapping[str, int]
    clipped: Mapping[str, float]
    staleness: Sequence[tuple[str, float]]


def figures(exposition: bytes) -> Figures:
    """What the text format says of them; nothing is zero where it says nothing."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    outcomes: Counter[str] = Counter()
    for name in ("fedstep_updates_total", "fedstep_shares_total"):
        outcomes.update({labels["outcome"]: int(value) for labels, value in samples.get(name, ())})
    accepted, repeats = outcomes.pop("accepted", 0), outcomes.pop("repeat", 0)
    refused = dict(sorted(outcomes.items(), key=lambda pair: -pair[1]))
    return Figures(accepted, repeats, refused, _clipped(samples), _staleness(samples))


def _clipped(samples: Mapping[str, Samples]) -> Mapping[str, float]:
    at_bound = {labels["head"]: value for labels, value in samples.get("fedstep_deltas_at_bound_total", ())}
    deltas = {labels["head"]: value for labels, value in samples.get("fedstep_deltas_total", ())}
    return {head: at_bound.get(head, 0.0) / count for head, count in deltas.items() if count}


def _staleness(samples: Mapping[str, Samples]) -> Sequence[tuple[str, float]]:
    """Shares between the bounds of the histogram; those without any update are left out."""
    found = [(labels["le"], value) for labels, value in samples.get("fedstep_staleness_folds_bucket", ())]
    total = found[-1][1] if found else 0.0
    if not total:
        return ()
    steps = pairwise([("-1", 0.0), *found])
    return [
        (_folds(above, upto), (value - before) / total) for (above, before), (upto, value) in steps if value > before
    ]


def _folds(above: str, upto: str) -> str:
    """
    >>> _folds("2.0", "4.0"), _folds("0.0", "1.0"), _folds("128.0", "+Inf")
    ('3 to 4 folds', '1 fold', '129 folds or more')
    """
    least = int(float(above)) + 1
    if upto == "+Inf":
        return f"{least} folds or more"
    most = int(float(upto))
    if least == most:
        return "1 fold" if most == 1 else f"{most} folds"
    return f"{least} to {most} folds"
