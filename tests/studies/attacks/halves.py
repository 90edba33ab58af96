"""A curious leader and a curious helper: each has one half of an update, and all the attacks."""

from collections.abc import Iterator

from tests.studies.attacks.finding import Finding
from tests.studies.attacks.identify import identity_finding
from tests.studies.attacks.membership import membership_finding
from tests.studies.attacks.reconstruct import row_findings
from tests.studies.attacks.scene import AttackScene
from tests.studies.attacks.view import HELPER, LEADER, Protection
from tests.studies.attacks.words import word_findings


def attack_as_leader(scene: AttackScene) -> Iterator[Finding]:
    """With the numbers less the pad."""
    return _all("leader", LEADER, scene)


def attack_as_helper(scene: AttackScene) -> Iterator[Finding]:
    """With the seed of the pad."""
    return _all("helper", HELPER, scene)


def _all(attack: str, half: Protection, scene: AttackScene) -> Iterator[Finding]:
    yield from row_findings(attack, half, scene)
    yield from word_findings(attack, half, scene)
    yield membership_finding(attack, half, scene)
    yield identity_finding(attack, half, scene)
