"""Matching of renamed tests: by the files that git renamed, by class, by parameter, and by ids of earlier versions.

Only unambiguous one-to-one matches count: a wrong match gives a test a wrong history, a missed one only starts anew.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from fedstep.history.records import BuildRecord
from fedstep.history.test_table import (
    NEVER,
    TestStats,
    TestTable,
    name_words,
    of_earlier_versions,
)
from fedstep.ingest.test_identity import find_earlier
from fedstep.types import FileChange

Pairs = dict[str, str]  # old id -> new id
_PARTS = re.compile(r"[./$+:]+")
_PARAMETERS = re.compile(r"\[|\(| with data set ")
SHARED = 3  # fewest tests that two classes of different names must have, all equal, to match


def match_renames(
    known: Collection[str],
    ran: Collection[str],
    missing: Iterable[str],
    files: Sequence[FileChange] = (),
    returning: Mapping[str, str] | None = None,
) -> Pairs:
    """Return the new id of each renamed test of a build by its old id.

    `known` are the ids with a history, `ran` those of the build, `missing` the known ones that it should have run and
    did not. `returning` maps former ids that ran to their present ids: only a rename in git applies to those.
    """
    former = returning or {}
    old = set(missing) - set(ran)
    new = set(ran) - set(known)
    renamed = _by_files(old, new, files)
    old -= renamed.keys() | set(former.values())
    new -= set(renamed.values()) | former.keys()
    if len(old) > len(ran):  # an incomplete run: missing tests were not renamed
        return renamed
    renamed |= _by_class(old, new, _groups(ran), _groups(known))
    old, new = old - renamed.keys(), new - set(renamed.values())
    return renamed | _by_parameters(old, new)


def _by_files(old: Collection[str], new: Collection[str], files: Sequence[FileChange]) -> Pairs:
    """Match tests of the same name whose classes are in a file that git renamed."""
    moved = [(_place(file.renamed_from), _place(file.path)) for file in files if file.renamed_from]
    if not moved or not old or not new:
        return {}
    old_places, new_places = _by_step(old), _by_step(new)
    before: dict[Hashable, list[str]] = defaultdict(list)
    after: dict[Hashable, list[str]] = defaultdict(list)
    for index, (source, target) in enumerate(moved):
        for tests, places, path in ((before, old_places, source), (after, new_places, target)):
            folder, stem = ("", *path.steps)[-2:]
            for test in {*places.get((folder, stem), ()), *places.get(("", stem), ())}:
                if (rest := _inside(test, path)) is not None:
                    tests[index, rest, _name(test)].append(test)
    return _one_to_one(before, after)


def _by_class(old: Collection[str], new: Collection[str], ran: set[str], known: set[str]) -> Pairs:
    """Match tests of the same name in two classes, of which one vanished completely and one is completely new.

    The classes have the same simple name and half of the tests in common, or the same tests, at least three.
    """
    lost = {group: tests for group, tests in _tests(old).items() if group not in ran}
    fresh = {group: tests for group, tests in _tests(new).items() if group not in known}
    by_simple = _one_to_one(_group(lost, _simple), _group(fresh, _simple))
    pairs = {was: now for was, now in by_simple.items() if 2 * len(lost[was] & fresh[now]) >= len(lost[was])}
    rest = {group: tests for group, tests in lost.items() if group not in pairs and len(tests) >= SHARED}
    others = {group: tests for group, tests in fresh.items() if group not in pairs.values()}
    pairs |= _one_to_one(_group(rest, lambda g: frozenset(rest[g])), _group(others, lambda g: frozenset(others[g])))
    return {f"{was}#{name}": f"{now}#{name}" for was, now in pairs.items() for name in sorted(lost[was] & fresh[now])}


def _by_parameters(old: Collection[str], new: Collection[str]) -> Pairs:
    """Match the only vanished and the only new test of one class and base name, such as test_x[1] and test_x[2].

    Of several, match those that gained a parameter: test_x[1] and test_x[1-True], or test_x[True-1].
    """
    before, after = _group(old, _base), _group(new, _base)
    before.pop("", None)
    renamed = _one_to_one(before, after)
    for base, tests in before.items():
        grown: dict[Hashable, list[str]] = {test: [test] for test in tests if test not in renamed}
        heirs: dict[Hashable, list[str]] = defaultdict(list)
        for heir in after.get(base, []) if grown else []:
            origins = {_parameters(heir).rpartition("-")[0], _parameters(heir).partition("-")[2]}
            for test in (f"{base}[{origin}]" for origin in origins if origin):
                heirs[test].append(heir)
        renamed |= _one_to_one(grown, heirs)
    return renamed


def _one_to_one(before: Mapping[Hashable, list[str]], after: Mapping[Hashable, list[str]]) -> Pairs:
    """Return the pairs of ids that are alone under a common key and under no other common key."""
    pairs = [(b[0], a[0]) for key, b in before.items() if len(b) == 1 and len(a := after.get(key, [])) == 1]
    olds, news = ([pair[side] for pair in pairs] for side in (0, 1))
    many = {value for values in (_find_repeated(olds), _find_repeated(news)) for value in values}
    return {old: new for old, new in pairs if old not in many and new not in many}


def _find_repeated(values: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {value for value in values if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


def _group(ids: Iterable[str], key: Callable[[str], Hashable]) -> dict[Hashable, list[str]]:
    keyed: dict[Hashable, list[str]] = defaultdict(list)
    for test in sorted(ids):
        keyed[key(test)].append(test)
    return keyed


def _groups(ids: Iterable[str]) -> set[str]:
    return {test.partition("#")[0] for test in ids}


def _tests(ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the test names by class."""
    groups: dict[str, set[str]] = defaultdict(set)
    for test in ids:
        group, _, name = test.partition("#")
        groups[group].add(name)
    return groups


def _name(test: str) -> str:
    return test.partition("#")[2]


def _simple(group: str) -> str:
    """Return the last part of a class or path; an inner class keeps its outer one."""
    return group.rpartition("/" if "/" in group else ".")[2]


def _base(test: str) -> str:
    """Return the id without parameters, "" if it has none."""
    group, _, name = test.partition("#")
    parameters = _PARAMETERS.search(name)
    return f"{group}#{name[: parameters.start()].rstrip()}" if parameters and parameters.start() else ""


def _parameters(test: str) -> str:
    """Return the text in the brackets at the end, "" without brackets."""
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
    """Group the ids by each pair of adjacent class parts; a file's folder and stem are such a pair."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for test in ids:
        for step in pairwise(("", *_PARTS.split(test.partition("#")[0]))):
            places[step].append(test)
    return places


def _inside(test: str, file_path: _FilePath) -> tuple[str, ...] | None:
    """Return the test's class parts below this file, ("Empty",) of org.shop.CartTest$Empty; None if it is not in it."""
    parts = tuple(_PARTS.split(test.partition("#")[0]))
    for size in range(len(parts), 0, -1):
        if parts[:size] == file_path.steps[-size:]:
            rest = parts[size:]
            return rest[:-1] if rest[-1:] == (file_path.extension,) else rest
    return None


def follow_renames(
    tests: TestTable, record: BuildRecord, unknown: Sequence[str], ids: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, TestStats], dict[str, str]]:
    """Return the table with renamed tests under their new ids, and the id of each former id that ran again.

    A branch with the old names continues the same stats. `unknown` are the ids of the build that are not in the
    table, `ids` those that are others there.
    """
    ran = {ids.get(run.test, run.test) for run in record.tests}
    left_out = record.left_out.tests if record.left_out else ()
    tests = _rename(tests, find_earlier(of_earlier_versions(tests), unknown, ran))
    # Only tests that ran together with these can be gone, not those that only another job runs.
    latest = {tests[test].last_build for test in ran if test in tests}
    latest = latest or {max((stats.last_build for stats in tests.values()), default=NEVER)}
    kept = ran.union(left_out)
    missing = [test for test, stats in tests.items() if stats.last_build in latest and test not in kept]
    if not missing:
        return dict(tests), {}
    former = {stats.former: test for test, stats in tests.items() if stats.former}
    returning = {test: former[test] for test in unknown if test in former and former[test] not in ran}
    after = _rename(tests, match_renames(tests.keys(), ran, missing, record.files, returning))
    return after, {test: now for test, now in returning.items() if now in after}


def _rename(tests: TestTable, pairs: Pairs) -> dict[str, TestStats]:
    """Return the table with the tests of `pairs` under their new ids.

    They keep their positions: sums over all tests follow this order, which a rebuilt table must repeat.
    """
    after = {pairs.get(test, test): stats for test, stats in tests.items()}
    for old, new in pairs.items():
        after[new] = replace(tests[old], test=new, former=old, name_words=name_words(new))
    return after
