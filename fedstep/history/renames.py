"""Which tests of a build are old ones under a new name: found by what git renamed, by class, and by parameter.

Only what is one to one and unambiguous is taken: a test that is mistaken for another has a wrong history, one that is
not recognised merely starts anew.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from fedstep.history.records import BuildRecord
from fedstep.history.test_table import NEVER, TestStats, TestTable, name_words
from fedstep.types import FileChange

Pairs = dict[str, str]  # old id -> new id
_PARTS = re.compile(r"[./$+:]+")
_PARAMETERS = re.compile(r"\[|\(| with data set ")
SHARED = 3  # tests that two classes of different names must have, and all alike, to be the same class


def match_renames(
    known: Collection[str],
    ran: Collection[str],
    gone: Iterable[str],
    files: Sequence[FileChange] = (),
    returning: Mapping[str, str] | None = None,
) -> Pairs:
    """The new id of each old one, for tests of a build.

    `known` are the ids with a history, `ran` those of the build, `gone` the known ones that it should have run and did
    not. `returning` maps former ids that ran to the known ones they are now: only git can rename those once more.
    """
    former = returning or {}
    old = set(gone) - set(ran)
    new = set(ran) - set(known)
    found = _by_files(old, new, files)
    old -= found.keys() | set(former.values())
    new -= set(found.values()) | former.keys()
    if len(old) > len(ran):  # a run that was cut short: what is missing has not moved
        return found
    found |= _by_class(old, new, _groups(ran), _groups(known))
    old, new = old - found.keys(), new - set(found.values())
    return found | _by_parameters(old, new)


def _by_files(old: Collection[str], new: Collection[str], files: Sequence[FileChange]) -> Pairs:
    """Tests of the same name whose classes are in a file that git renamed."""
    moved = [(_place(file.renamed_from), _place(file.path)) for file in files if file.renamed_from]
    if not moved or not old or not new:
        return {}
    old_places, new_places = _by_step(old), _by_step(new)
    before: dict[Hashable, list[str]] = defaultdict(list)
    after: dict[Hashable, list[str]] = defaultdict(list)
    for number, (source, target) in enumerate(moved):
        for tests, places, place in ((before, old_places, source), (after, new_places, target)):
            folder, stem = ("", *place.steps)[-2:]
            for test in {*places.get((folder, stem), ()), *places.get(("", stem), ())}:
                if (rest := _inside(test, place)) is not None:
                    tests[number, rest, _name(test)].append(test)
    return _one_to_one(before, after)


def _by_class(old: Collection[str], new: Collection[str], ran: set[str], known: set[str]) -> Pairs:
    """Tests of the same name in two classes: the old one vanished whole, the new one is new as a whole.

    The classes have the same simple name, and half of the tests in common; or at least three tests, and the same.
    """
    gone = {group: tests for group, tests in _tests(old).items() if group not in ran}
    come = {group: tests for group, tests in _tests(new).items() if group not in known}
    by_simple = _one_to_one(_keyed(gone, _simple), _keyed(come, _simple))
    pairs = {one: other for one, other in by_simple.items() if 2 * len(gone[one] & come[other]) >= len(gone[one])}
    rest = {group: tests for group, tests in gone.items() if group not in pairs and len(tests) >= SHARED}
    others = {group: tests for group, tests in come.items() if group not in pairs.values()}
    pairs |= _one_to_one(_keyed(rest, lambda g: frozenset(rest[g])), _keyed(others, lambda g: frozenset(others[g])))
    return {
        f"{one}#{name}": f"{other}#{name}" for one, other in pairs.items() for name in sorted(gone[one] & come[other])
    }


def _by_parameters(old: Collection[str], new: Collection[str]) -> Pairs:
    """Tests of one class and one base name: a single one that went and a single one that came, as test_x[1] and [2].

    Of several, those that have grown by a parameter: test_x[1] and test_x[1-True], or test_x[True-1].
    """
    before, after = _keyed(old, _base), _keyed(new, _base)
    before.pop("", None)
    found = _one_to_one(before, after)
    for base, tests in before.items():
        grown: dict[Hashable, list[str]] = {test: [test] for test in tests if test not in found}
        heirs: dict[Hashable, list[str]] = defaultdict(list)
        for heir in after.get(base, []) if grown else []:
            origins = {_parameters(heir).rpartition("-")[0], _parameters(heir).partition("-")[2]}
            for test in (f"{base}[{origin}]" for origin in origins if origin):
                heirs[test].append(heir)
        found |= _one_to_one(grown, heirs)
    return found


def _one_to_one(before: Mapping[Hashable, list[str]], after: Mapping[Hashable, list[str]]) -> Pairs:
    """The pairs of those that are alone under a key which both sides have, and under no other such key."""
    pairs = [(b[0], a[0]) for key, b in before.items() if len(b) == 1 and len(a := after.get(key, [])) == 1]
    olds, news = ([pair[side] for pair in pairs] for side in (0, 1))
    many = {value for values in (_repeated(olds), _repeated(news)) for value in values}
    return {old: new for old, new in pairs if old not in many and new not in many}


def _repeated(values: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {value for value in values if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


def _keyed(ids: Iterable[str], key: Callable[[str], Hashable]) -> dict[Hashable, list[str]]:
    keyed: dict[Hashable, list[str]] = defaultdict(list)
    for test in sorted(ids):
        keyed[key(test)].append(test)
    return keyed


def _groups(ids: Iterable[str]) -> set[str]:
    return {test.partition("#")[0] for test in ids}


def _tests(ids: Iterable[str]) -> dict[str, set[str]]:
    """The names by class."""
    groups: dict[str, set[str]] = defaultdict(set)
    for test in ids:
        group, _, name = test.partition("#")
        groups[group].add(name)
    return groups


def _name(test: str) -> str:
    return test.partition("#")[2]


def _simple(group: str) -> str:
    """The last part of a class or path; an inner class with its outer one."""
    return group.rpartition("/" if "/" in group else ".")[2]


def _base(test: str) -> str:
    """The id without parameters; "" where it has none."""
    group, _, name = test.partition("#")
    found = _PARAMETERS.search(name)
    return f"{group}#{name[: found.start()].rstrip()}" if found and found.start() else ""


def _parameters(test: str) -> str:
    """What stands in the brackets at the end; "" where there are none."""
    return test.partition("#")[2].partition("[")[2].removesuffix("]") if test.endswith("]") else ""


class _FilePath(NamedTuple):
    """Folders and stem of a file, and its extension: src/org/CartTest.java -> (src, org, CartTest), java."""

    steps: tuple[str, ...]
    extension: str


def _place(path: str) -> _FilePath:
    folder, _, name = path.rpartition("/")
    stem = name.partition(".")[0] or name
    return _FilePath((*filter(None, folder.split("/")), stem), name.rpartition(".")[2])


def _by_step(ids: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """The ids by each part of their class, with the one before it: one such pair is a file's folder and stem."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for test in ids:
        for step in pairwise(("", *_PARTS.split(test.partition("#")[0]))):
            places[step].append(test)
    return places


def _inside(test: str, place: _FilePath) -> tuple[str, ...] | None:
    """What a test's class has below this file: ("Empty",) of org.shop.CartTest$Empty; None if it is not in it."""
    parts = tuple(_PARTS.split(test.partition("#")[0]))
    for size in range(len(parts), 0, -1):
        if parts[:size] == place.steps[-size:]:
            rest = parts[size:]
            return rest[:-1] if rest[-1:] == (place.extension,) else rest
    return None


def follow_renames(
    tests: TestTable, record: BuildRecord, unknown: Sequence[str]
) -> tuple[dict[str, TestStats], dict[str, str]]:
    """Return the table with renamed tests under their new ids, and the id of each former id that ran again.

    A branch that has the old names goes on in the same stats. `unknown` are the ids of the build that are not in the
    table.
    """
    ran = {run.test for run in record.tests}
    # Gone is what ran together with these, and not what only another job runs.
    latest = {tests[test].last_build for test in ran if test in tests}
    latest = latest or {max((stats.last_build for stats in tests.values()), default=NEVER)}
    gone = [test for test, stats in tests.items() if stats.last_build in latest and test not in ran]
    if not gone:
        return dict(tests), {}
    former = {stats.former: test for test, stats in tests.items() if stats.former}
    returning = {test: former[test] for test in unknown if test in former and former[test] not in ran}
    pairs = match_renames(tests.keys(), ran, gone, record.files, returning)
    # In place of the old one: sums over all tests are made in this order, and a table made again has the same.
    after = {pairs.get(test, test): stats for test, stats in tests.items()}
    for old, new in pairs.items():
        after[new] = replace(tests[old], test=new, former=old, name_words=name_words(new))
    return after, {test: now for test, now in returning.items() if now in after}
