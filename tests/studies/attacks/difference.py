"""What somebody learns who only pulls: the difference of two versions, one aggregation apart."""

from collections.abc import Iterator

from tests.studies.attacks.finding import Finding
from tests.studies.attacks.membership import membership_finding
from tests.studies.attacks.reconstruct import row_findings
from tests.studies.attacks.scene import AttackScene
from tests.studies.attacks.view import PULLED
from tests.studies.attacks.words import word_findings


def attack_versions(scene: AttackScene) -> Iterator[Finding]:
    """The attacks on words, rows and membership, for one project in the difference."""
    for protection in PULLED:
        yield from word_findings("difference", protection, scene)
        yield from row_findings("difference", protection, scene)
        yield membership_finding("difference", protection, scene)
