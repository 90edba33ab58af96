"""A curious leader and a curious helper: each has one half of an update, and all the attacks."""

from collections.abc import Iterator

from fedstep.simulate.attacks.finding import Finding
from fedstep.simulate.attacks.identify import identity_finding
from fedstep.simulate.attacks.membership import membership_finding
from fedstep.simulate.attacks.reconstruct import row_findings
from fedstep.simulate.attacks.scene import Scene
from fedstep.simulate.attacks.view import HELPER, LEADER, Protection
from fedstep.simulate.attacks.words import word_findings

__all__ = ["attack_as_helper", "attack_as_leader"]


def attack_as_leader(scene: Scene) -> Iterator[Finding]:
    """With the numbers less the pad."""
    return _all("leader", LEADER, scene)


def attack_as_helper(scene: Scene) -> Iterator[Finding]:
    """With the seed of the pad."""
    return _all("helper", HELPER, scene)


def _all(attack: str, half: Protection, scene: Scene) -> Iterator[Finding]:
    yield from row_findings(attack, half, scene)
    yield from word_findings(attack, half, scene)
    yield membership_finding(attack, half, scene)
    yield identity_finding(attack, half, scene)
