"""Runs attacks by name, and says what they reached."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from fedstep.evaluation.corpus import projects_below
from tests.studies.attacks.build_membership import attack_builds
from tests.studies.attacks.build_scene import BuildScene, make_build_scene
from tests.studies.attacks.difference import attack_versions
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.halves import attack_as_helper, attack_as_leader
from tests.studies.attacks.identify import attack_identity
from tests.studies.attacks.liar import attack_with_lies
from tests.studies.attacks.membership import attack_membership
from tests.studies.attacks.probe import attack_by_probes
from tests.studies.attacks.reconstruct import attack_rows
from tests.studies.attacks.scene import AttackScene, make_scene
from tests.studies.attacks.words import attack_strangers, attack_words

ATTACKS: Mapping[str, Callable[[AttackScene], Iterator[Finding]]] = {
    "reconstruct": attack_rows,
    "words": attack_words,
    "strangers": attack_strangers,
    "membership": attack_membership,
    "identify": attack_identity,
    "difference": attack_versions,
    "probe": attack_by_probes,
    "liar": attack_with_lies,
    "leader": attack_as_leader,
    "helper": attack_as_helper,
}

BUILD_ATTACKS: Mapping[str, Callable[[BuildScene], Iterator[Finding]]] = {"build-membership": attack_builds}


def attacks_on(places: Sequence[Path]) -> tuple[str, ...]:
    """The attacks that something is recorded for below the places; those on tests where nothing is."""
    kinds = {project.kind for project in projects_below(places, ("tests", "builds"))}
    builds = (*BUILD_ATTACKS,) if "builds" in kinds else ()
    return builds if kinds == {"builds"} else (*ATTACKS, *builds)


def run_attacks(places: Sequence[Path], names: Iterable[str], seed: int) -> Iterator[tuple[Finding, ...]]:
    """What each of these attacks found on the recorded tests or builds below the places. Raises InputError."""
    tests, builds = cache(lambda: make_scene(places, seed)), cache(lambda: make_build_scene(places, seed))
    for name in names:
        yield tuple(BUILD_ATTACKS[name](builds()) if name in BUILD_ATTACKS else ATTACKS[name](tests()))


def attacks_text(findings: Sequence[Finding]) -> str:
    """A line for each finding, below the name of its attack."""
    lines, attack = [f"{'':<48}reached  yardstick"], ""
    for one in findings:
        if one.attack != attack:
            attack = one.attack
            lines.append(attack)
        lines.append(f"  {one.measure:<24}{one.protection:<22}{one.reached:7.3f}  {one.yardstick:9.3f}")
    return "".join(f"{line}\n" for line in lines)


def attacks_json(findings: Sequence[Finding]) -> str:
    """All figures."""
    return json.dumps([asdict(one) for one in findings], indent=2) + "\n"


def attacks_table(findings: Sequence[Finding]) -> str:
    """The same as Markdown."""
    rows = [
        f"| {one.attack} | {one.measure} | {one.protection} | {one.reached:.3f} | {one.yardstick:.3f} |"
        for one in findings
    ]
    return "\n".join(["| attack | measure | protection | reached | yardstick |", "|---|---|---|---|---|", *rows]) + "\n"
