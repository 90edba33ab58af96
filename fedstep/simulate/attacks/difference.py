"""What somebody learns who only pulls: the difference of two versions, one fold apart."""

from collections.abc import Iterator

from fedstep.simulate.attacks.finding import Finding
from fedstep.simulate.attacks.membership import membership_finding
from fedstep.simulate.attacks.reconstruct import row_findings
from fedstep.simulate.attacks.scene import Scene
from fedstep.simulate.attacks.view import PULLED
from fedstep.simulate.attacks.words import word_findings

__all__ = ["attack_versions"]


def attack_versions(scene: Scene) -> Iterator[Finding]:
    """The attacks on words, rows and membership, for one project in the difference."""
    for protection in PULLED:
        yield from word_findings("difference", protection, scene)
        yield from row_findings("difference", protection, scene)
        yield membership_finding("difference", protection, scene)
