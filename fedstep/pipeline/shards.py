"""Divide tests among the machines of one CI run, balanced by predicted time.

Machines that divide the same tests must agree, whatever each of them knows. A shard is therefore a function of the
test's name and of a plan: one machine makes the plan from its history, and the text of the plan is handed to all.
Without a plan the names alone decide.
"""

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import heapify, heapreplace
from math import isfinite
from typing import NamedTuple

from fedstep.errors import MALFORMED, UsageError
from fedstep.history.summary import PastBuild
from fedstep.ingest.change_impact import file_of, group_of
from fedstep.types import LeftOut, Unavailable

UNITS = ("file", "class", "test")
MOST_SHARDS = 1000
NEWEST_JOBS = 20  # from which the fixed time of a machine is learned
MOST_PLACED = 2000  # units with a place of their own in the plan; the shorter ones are placed by their names
LARGEST_PLAN = 4 << 20  # bytes, unpacked
_FORMAT = 1
_DIGITS = 12


class Shard(NamedTuple):
    """What one machine is predicted to run."""

    number: int  # from 1
    tests: int
    seconds: float


class ShardPlan(NamedTuple):
    """Which shard runs which unit: the same on every machine that was given the plan's text.

    `places` has the longest units by the hash of their names. The other units are placed by the hash alone, and so is a
    unit that the plan does not know.
    """

    total: int
    unit: str  # what is kept together: file, class or test
    places: Mapping[str, int]
    skipped: frozenset[str] = frozenset()  # hashes of the tests that a selection leaves out
    shadow: bool = False  # these run nevertheless

    def shard_of(self, test: str) -> int:
        """Return the shard of a test, from 1 to `total`."""
        return self.shard_of_unit(unit_of(test, self.unit))

    def shard_of_unit(self, unit: str) -> int:
        """Return the shard of a unit, from 1 to `total`."""
        name = _hash(unit)
        return self.places.get(name) or int(name, 16) % self.total + 1

    def choose(self, tests: Iterable[str], index: int) -> list[str]:
        """Return the tests that the shard with this number runs, in the given order."""
        return [test for test in tests if self.shard_of(test) == index and not (self.skips(test) and not self.shadow)]

    def skips(self, test: str) -> bool:
        """Return whether the selection leaves out the test."""
        return bool(self.skipped) and _test_hash(test) in self.skipped

    def find_left_out(self, tests: Iterable[str], index: int | None) -> LeftOut | None:
        """Return which of the tests the selection leaves out, on one machine or (None) on all; None without one."""
        if not self.skipped:
            return None
        chosen = (test for test in tests if self.skips(test) and index in (None, self.shard_of(test)))
        return LeftOut(tuple(chosen), shadow=self.shadow)

    def encode(self) -> str:
        """Return the plan as one line of letters, digits, `-`, `_` and `=`."""
        fields = {"format": _FORMAT, "total": self.total, "unit": self.unit, "places": dict(self.places)}
        if self.skipped:  # keys that older versions of fedstep do not read: they run all tests
            fields |= {"skipped": "".join(sorted(self.skipped)), "shadow": self.shadow}
        text = json.dumps(fields, separators=(",", ":"), sort_keys=True)
        return urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()


def decode_plan(text: str) -> ShardPlan:
    """Return the plan of `ShardPlan.encode`. Raise UsageError if the text is no such plan."""
    try:
        packed = urlsafe_b64decode(text.strip().encode("ascii"))
        fields = json.loads(zlib.decompressobj().decompress(packed, LARGEST_PLAN))
        places = {str(name): int(shard) for name, shard in fields["places"].items()}
        hashes = str(fields.get("skipped", ""))
        skipped = frozenset(hashes[start : start + _DIGITS] for start in range(0, len(hashes), _DIGITS))
        plan = ShardPlan(int(fields["total"]), str(fields["unit"]), places, skipped, bool(fields.get("shadow", False)))
        if fields["format"] != _FORMAT or plan.unit not in UNITS or not 1 <= plan.total <= MOST_SHARDS:
            raise ValueError("unknown format")
        if any(len(digest) != _DIGITS for digest in skipped):
            raise ValueError("a damaged list of tests")
        if any(not 1 <= shard <= plan.total for shard in places.values()):
            raise ValueError("a shard that the plan does not have")
        return plan
    except MALFORMED as error:
        remedy = "Hand on what `fedstep shard --total N` printed, unchanged"
        raise UsageError("the plan cannot be read, so no test was chosen", remedy) from error


def hash_plan(total: int, unit: str) -> ShardPlan:
    """Return the plan that knows no times: every machine makes the same one."""
    return ShardPlan(total, unit, {})


def unit_of(test: str, unit: str) -> str:
    """Return the name of what is kept together with a test `class#name`.

    >>> unit_of("tests.test_cart.TestCart#test_pay", "class"), unit_of("tests.test_cart.TestCart#test_pay", "file")
    ('tests.test_cart.TestCart', 'tests/test_cart')
    """
    if unit == "test":
        return test
    return group_of(test) if unit == "class" else file_of(test)


def plan_shards(
    tests: Iterable[str], seconds: Mapping[str, float | Unavailable], total: int, unit: str
) -> tuple[ShardPlan, tuple[Shard, ...]]:
    """Return a plan that balances the predicted seconds of the shards, and what each shard is predicted to run.

    Longest processing time first (Graham, "Bounds on multiprocessing timing anomalies", 1969): the longest unit that is
    left goes to the shard with the least to do. A test without a known time counts as the median of those with one.

    Args:
        tests: The tests to divide, each once.
        seconds: The predicted time of each known test.
        total: Number of shards.
        unit: What is kept together: file, class or test.
    """
    units, counts = _unit_times(tests, seconds, unit)
    ordered = sorted(units, key=lambda name: (-units[name], name))
    by_name = hash_plan(total, unit)
    loads = [(0.0, shard, 0) for shard in range(1, total + 1)]  # seconds, shard, tests
    for name in ordered[MOST_PLACED:]:
        position = by_name.shard_of_unit(name) - 1
        load, shard, count = loads[position]
        loads[position] = (load + units[name], shard, count + counts[name])
    heapify(loads)
    places = {}
    for name in ordered[:MOST_PLACED]:
        least, shard, count = loads[0]
        places[_hash(name)] = shard
        heapreplace(loads, (least + units[name], shard, count + counts[name]))
    shards = (Shard(shard, count, load) for load, shard, count in loads)
    return ShardPlan(total, unit, places), tuple(sorted(shards))


def _unit_times(
    tests: Iterable[str], seconds: Mapping[str, float | Unavailable], unit: str
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the predicted seconds and the number of tests of each unit, both by its name."""
    known = sorted(time for time in seconds.values() if isinstance(time, float))
    usual = known[len(known) // 2] if known else 1.0
    units: dict[str, float] = {}
    counts: dict[str, int] = {}
    for test in tests:
        name = unit_of(test, unit)
        time = seconds.get(test, usual)
        units[name] = units.get(name, 0.0) + (time if isinstance(time, float) else usual)
        counts[name] = counts.get(name, 0) + 1
    return units, counts


def fixed_seconds(builds: Sequence[PastBuild]) -> float | Unavailable:
    """Return what a job takes beside its tests, which each machine takes again: the median of the newest 20 jobs.

    A job whose tests ran beside each other says nothing, and neither does one whose time is the sum of its tests'.
    """
    known = [build for build in builds if not build.stream.endswith("|tests")]
    beside = [build.seconds - build.test_seconds for build in known if isfinite(build.seconds - build.test_seconds)]
    times = sorted(beside[-NEWEST_JOBS:])
    if not times or times[len(times) // 2] <= 0:
        return Unavailable("the history does not know what a job takes beside its tests")
    return times[len(times) // 2]


def check_shard(index: int, total: int) -> None:
    """Raise UsageError unless `index` is one of the shards 1 to `total`."""
    if not 1 <= total <= MOST_SHARDS:
        raise UsageError(f"--total {total} is not between 1 and {MOST_SHARDS}", "Give the number of machines")
    if not 1 <= index <= total:
        raise UsageError(f"--index {index} is not between 1 and --total {total}", "Count the machines from 1")


def with_skipped(plan: ShardPlan, tests: Iterable[str], shadow: bool) -> ShardPlan:
    """Return the plan with tests that a selection leaves out."""
    return plan._replace(skipped=frozenset(map(_test_hash, tests)), shadow=shadow)


def _test_hash(test: str) -> str:
    """Return 12 hex digits: of a million tests one in 300 million is taken for another that is left out."""
    return sha256(test.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]


def _hash(name: str) -> str:
    """Return 8 hex digits: two units with the same ones run on one machine, which is no harm."""
    return sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
