"""How much speaks for a failure being a flake rather than a regression, in nats: one formula for features and labels.

Each function gives the log of how much likelier a flake makes what was seen than a regression does. The constants are
rounded from a logistic fit on replayed histories with known truth, and hold for every project.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import log
from typing import NamedTuple

from fedstep.build.relation import Touched, group_of, package_of

__all__ = [
    "PASSED_ON_COMMIT",
    "Base",
    "Shares",
    "base_of",
    "capacity",
    "companions",
    "of_change",
    "of_companions",
    "of_past",
    "of_repeats",
    "shares_of",
]

PASSED_ON_COMMIT = 5.0  # the test passed on the very commit that it fails on

START, PAST_WEIGHT = 1.1, 0.7
PAST_LOW, PAST_HIGH = -2.5, 5.0
OWN_RUNS, CLASS_RUNS = 10.0, 10.0  # how many runs the rate of the class, and of the project, is worth
LEAST_FLIPS = 0.0002  # a run: nobody's tests are quite free of flakes
BREAKS, BREAKS_RUNS = 0.0005, 20_000.0  # spells of a test that were no flips, a run, before any run is known
UNSURE = 0.3  # a spell that was not judged a flip still counts so much of one

REPEAT_WEIGHT, REPEAT_LOW = 0.64, -3.2
STAYS_BROKEN = 0.7  # a broken test fails in the next build too
FIRST_FAILURES, FIRST_RUNS = 0.3, 5.0

ITSELF, NEAR, ELSEWHERE, BUILD_FILE = 0.9, 0.7, 0.6, -1.0
COMPANION, MOST_COMPANIONS = 0.85, 4


class Base(NamedTuple):
    """What is usual in a project: flips and runs of each class, and how often a test flips or breaks, a run."""

    class_flips: Mapping[str, float]  # decayed sums
    class_runs: Mapping[str, float]
    flip_rate: float
    break_rate: float


class Shares(NamedTuple):
    """Of all classes of the project, the share that a change names, and the share that it names or is near."""

    itself: float
    near: float


@lru_cache(maxsize=4096)
def capacity(runs: int, pace: float) -> float:
    """The largest possible decayed sum after so many runs."""
    return (1.0 - (1.0 - pace) ** min(runs, 2000)) / pace


def base_of(ids: Sequence[str], flips: Sequence[float], spells: Sequence[float], runs: Sequence[float]) -> Base:
    """The base of a project from its tests' flips, spells of failure and runs: decayed sums of one pace."""
    class_flips: dict[str, float] = {}
    class_runs: dict[str, float] = {}
    for test, flipped, ran in zip(ids, flips, runs, strict=True):
        group = group_of(test)
        class_flips[group] = class_flips.get(group, 0.0) + flipped
        class_runs[group] = class_runs.get(group, 0.0) + ran
    breaks = sum(spell - flip for spell, flip in zip(spells, flips, strict=True) if spell > flip)
    total = sum(runs)
    break_rate = (breaks + BREAKS * BREAKS_RUNS) / (total + BREAKS_RUNS)
    return Base(class_flips, class_runs, sum(flips) / max(total, 1.0), break_rate)


def of_past(base: Base, test: str, flips: float, spells: float, runs: float) -> float:
    """How often the test flipped, shrunk to its class-mates and to the project, against how often tests break."""
    group, usual = group_of(test), base.flip_rate + LEAST_FLIPS
    others = max(0.0, base.class_flips[group] - flips), max(0.0, base.class_runs[group] - runs)
    class_rate = (others[0] + CLASS_RUNS * usual) / (others[1] + CLASS_RUNS)
    rate = (flips + UNSURE * max(0.0, spells - flips) + OWN_RUNS * class_rate) / (runs + OWN_RUNS)
    return START + PAST_WEIGHT * max(PAST_LOW, min(PAST_HIGH, log(rate / base.break_rate)))


def of_repeats(repeats: int, failures: int, runs: int) -> float:
    """A test that goes on failing: what is broken stays so, a flake fails again as seldom as it does.

    `failures` and `runs` are those outside the failures in a row.
    """
    chance = min(STAYS_BROKEN, (failures + FIRST_FAILURES) / (runs + FIRST_RUNS))
    return max(REPEAT_LOW, REPEAT_WEIGHT * repeats * log(chance / STAYS_BROKEN))


def shares_of(touched: Touched, groups: Iterable[str]) -> Shares:
    """How much of the project a change names: naming one class of a hundred says more than one of two."""
    found = Counter(touched.relation(group) for group in groups)
    of = found.total() + 1.0
    return Shares((found["itself"] + 0.5) / of, (found["itself"] + found["near"] + 0.5) / of)


def of_change(relation: str | None, shares: Shares) -> float:
    """Half of all regressions come from a change that names the test; a flake meets such a change by chance.

    0 where the change is not known.
    """
    if relation in ("itself", "near"):
        share, weight = (shares.itself, ITSELF) if relation == "itself" else (shares.near, NEAR)
        return -weight * log((0.5 + 0.5 * share) / share)
    return {None: 0.0, "build-file": BUILD_FILE}.get(relation, ELSEWHERE)


def companions(tests: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many of the tests are of each package, by (package, ""), and of each class, by (package, class)."""
    counts: Counter[tuple[str, str]] = Counter()
    for test in tests:
        counts.update(((package_of(test), ""), (package_of(test), group_of(test))))
    return counts


def of_companions(count: int) -> float:
    """Tests of other classes in the package that never failed before and began to fail in the same build."""
    return -COMPANION * min(count, MOST_COMPANIONS)
