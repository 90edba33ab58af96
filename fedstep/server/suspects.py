"""Whose updates pointed along a damage: the share that is left out when head is folded again. Pure."""

from collections.abc import Iterable
from math import ceil

from fedstep.server.aggregation.fedbuff import Contribution, clip_delta
from fedstep.server.aggregation.vectors import Vector, staleness_weight

__all__ = ["suspects"]


def suspects(parts: Iterable[Contribution], damage: Vector, bound: float, share: float, owners: int) -> frozenset[str]:
    """The share of senders, rounded up, whose clipped deltas together went furthest along `damage`.

    Senders are owners where there are at least `owners` of them, else projects. Nobody who went the other way is one.
    """
    by_owner: dict[str, float] = {}
    by_project: dict[str, float] = {}
    direction = damage.astype(float)
    for part in parts:
        along = staleness_weight(part.staleness) * float(clip_delta(part.delta, bound) @ direction)
        by_owner[part.owner] = by_owner.get(part.owner, 0.0) + along
        by_project[part.project] = by_project.get(part.project, 0.0) + along
    senders = by_owner if len(by_owner) >= owners else by_project
    worst = sorted(senders, key=lambda sender: (-senders[sender], sender))[: ceil(share * len(senders))]
    return frozenset(sender for sender in worst if senders[sender] > 0.0)
