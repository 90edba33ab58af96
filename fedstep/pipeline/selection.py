"""Names of tests as runners write them, and what the history knows of each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from fedstep.errors import UsageError
from fedstep.features.test_duration import expected_test_seconds
from fedstep.features.test_features import ACTIVE_BUILDS
from fedstep.history.summary import Summary
from fedstep.history.test_table import TestTable
from fedstep.ingest.change_impact import file_of, group_of
from fedstep.types import Unavailable


class NamedTest(NamedTuple):
    """One line of a list of tests: a test, or a class, module or file with all its tests."""

    name: str  # as it was given
    identity: str  # as the history writes it: `class#name`, or the class, module or file alone
    tests: tuple[str, ...] = ()  # the known tests that it stands for


def read_names(lines: Iterable[str], tests: TestTable) -> tuple[NamedTest, ...]:
    """Return the named tests of a list, one per line, each once. Raise UsageError if the list is empty.

    A name is a test id, a node id of pytest, a file, a class or module, or a test's own name where only one has it.
    """
    names = dict.fromkeys(name for line in lines if (name := line.strip()))
    if not names:
        raise UsageError("the list of tests is empty", "Give one test per line; check what collected them")
    members = _index_members(tests)
    return tuple(NamedTest(name, *_identify(name, members)) for name in names)


def active_tests(summary: Summary) -> list[str]:
    """Return the tests that ran in one of the last 20 builds, in the order of the table."""
    since = summary.count - ACTIVE_BUILDS
    return [test for test, stats in summary.tests.items() if stats.last_build >= since]


def identify_node(node_id: str, prefix: str = "") -> str:
    """Return the id under which pytest's `--junit-xml` reports a test, given its node id.

    >>> identify_node("shop/test_cart.py::TestCart::test_pay[a::b]")
    'shop.test_cart.TestCart#test_pay[a::b]'
    """
    address, bracket, parameters = node_id.partition("[")
    path, *names = address.split("::")
    module = path.removesuffix(".py").replace("/", ".")
    *classes, name = names or [""]
    return ".".join(filter(None, (prefix, module, *classes))) + f"#{name}{bracket}{parameters}"


def predict_seconds(named: Sequence[NamedTest], tests: TestTable) -> Mapping[str, float | Unavailable]:
    """Return the predicted seconds of each named test by its identity: the sum over the tests that it stands for."""
    unknown = Unavailable("the history knows no time of it")
    seconds: dict[str, float | Unavailable] = {}
    for one in named:
        times = [expected_test_seconds(tests[test]) for test in one.tests]
        known = [time for time in times if isinstance(time, float)]
        seconds[one.identity] = sum(known) if known else unknown
    return seconds


def _index_members(tests: TestTable) -> Mapping[str, tuple[str, ...]]:
    """Return the known tests by everything that may name them: their id, class, file, and own name."""
    members: dict[str, list[str]] = {}
    for test in tests:
        group, _, name = test.partition("#")
        for key in dict.fromkeys((test, group, file_of(test), name)):
            members.setdefault(key, []).append(test)
    return {key: tuple(found) for key, found in members.items()}


def _identify(name: str, members: Mapping[str, tuple[str, ...]]) -> tuple[str, tuple[str, ...]]:
    if name in members:
        found = members[name]
        is_own_name = all(group_of(test) != name and file_of(test) != name and test != name for test in found)
        if not is_own_name:
            return name, found
        return (found[0], found) if len(found) == 1 else (name, ())
    if "::" in name:
        identity = identify_node(name)
        if identity in members:
            return identity, members[identity]
        group = identity.replace("#", ".")  # a class: tests/test_cart.py::TestCart
        return (group, members[group]) if group in members else (identity, ())
    bare = name.removeprefix("./").removesuffix(".py")
    return (bare, members[bare]) if bare in members else (name, ())
