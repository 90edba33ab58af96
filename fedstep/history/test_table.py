"""What the history knows of each test: one `TestStats` per test by its id, stored as one column per field."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache, lru_cache
from itertools import starmap
from math import exp, isfinite, log
from operator import attrgetter
from typing import Any, NamedTuple

from fedstep.schema.schema import schema, sub_words
from fedstep.types import FINGERPRINT, PART, Origin, Outcome, Reports, fingerprint

NEVER = -1  # a run or build index: it has not happened
UNTIMED = -99.0  # a log time: no report gave one
RECENT = 20  # outcomes kept as letters


class SpellState(IntEnum):
    """What is known of a test's spell, its failures since it last passed. The numbers are stored."""

    SETTLED = 0  # there is no spell, or it is judged a flake
    OPEN = 1
    EXPLAINED = 2  # no flake: the test failed in its first run or in every rerun


@dataclass(slots=True)
class TestStats:
    """What is known of one test. Run indices count the runs of this test, from 0; skipped runs are not counted.

    Mutable, but only `flakiness.apply_test_runs` changes it, on copies. `failed_5` and the like are decayed sums with a
    horizon of that many runs; `decayed_rate` makes rates of them.
    """

    __test__ = False  # pytest: a value, not a test class

    test: str
    former: str = ""  # the id before a rename, "" without one
    runs: int = 0
    recent: str = ""  # letters of the last Outcomes, oldest first
    failures: int = 0
    flips: int = 0
    failed_5: float = 0
    failed_50: float = 0
    flipped_20: float = 0
    flipped_100: float = 0
    gold_100: float = 0
    flaked_100: float = 0  # flips, each weighted by how certainly it is a flake
    spells_100: float = 0  # spells that ended
    last_failure: int = NEVER
    last_flip: int = NEVER
    revealed: str = ""  # a letter of Flip beside each letter of `recent`
    streak: int = 0  # failures in a row
    spell: SpellState = SpellState.SETTLED
    failed_in: str = ""  # the stream of the newest failure in the streak: only a pass in this stream ends it
    failed_on: str = ""  # the branch of that failure
    proven: int = NEVER  # the newest run after which the test had flipped for certain often enough to be called flaky
    failed_as: str = ""  # `type_fingerprint` of the newest failure
    flip_types: str = ""  # those of the newest flips, oldest first
    change: float = 0  # evidence of the change with which the spell began, in nats
    companions: float = 0  # evidence of the tests that began to fail with it, in nats
    doubted_100: float = 0  # failures judged no flake that may be one, each by its probability
    dismissed: float = 0  # evidence, but for the past, of its last spell where that was judged no flake; 0 without
    log_seconds: float = UNTIMED  # decayed mean of log(seconds)
    log_spread: float = 0  # decayed mean of |log(seconds) - mean|
    times: str = ""  # the last 20 times, as `read_times` reads them
    last_build: int = 0  # index of the last build of the project that ran it
    mixed: int = NEVER  # index of the newest build whose run had the test before, in a cell that is not told apart
    origin: str = ""  # where the newest report had it, as in BuildRecord; "" where that is not known
    failing_since: int = NEVER  # index of the build with which the streak began
    signatures: str = ""  # of the last distinct failures, oldest first, with a space between them
    # Coordinates in BagOfWords as `read_coordinates` reads them: lists of numbers take twice as long to load.
    name_words: str = ""
    source_words: str | None = None  # None: source not found

    @property
    def failed_lately(self) -> int:
        """Return in how many of its recent runs it failed, whether reruns confirmed that or not."""
        return self.recent.count(Outcome.FAILED) + self.recent.count(Outcome.CONFIRMED)

    def copy(self) -> "TestStats":
        """Return a copy. It takes 0.5 us, `copy.copy` 3 us."""
        return TestStats(*_get_values(self))


TestTable = Mapping[str, TestStats]  # by test id; in columns and sums of all tests their order is the order here

# The names of the columns on disk, in the order of the fields of TestStats.
_COLUMNS = {
    name: {"test": "ids", "spell": "open", "last_build": "seen"}.get(name, name) for name in TestStats.__slots__
}
# What each column has; coordinates and states are read by `unpack_tests`, which raises for any other value.
_KINDS = {
    _COLUMNS[field.name]: field.type
    for field in fields(TestStats)
    if field.type in (int, float, str) and field.name != "name_words"
}
_get_values = attrgetter(*_COLUMNS)
_SPELL_STATES = {state.value: state for state in SpellState}


def pack_tests(tests: TestTable) -> dict[str, list[Any]]:
    """Return the table as JSON values by column."""
    return {column: list(map(attrgetter(name), tests.values())) for name, column in _COLUMNS.items()}


def unpack_tests(columns: Mapping[str, Sequence[Any]]) -> dict[str, TestStats]:
    """Return the table of `pack_tests`' columns.

    Measured with 5,000 tests against bare columns: reading takes 4.7 ms in place of 2.5, applying a build 22 ms as
    before, judging its failures 14.5 ms in place of 16.6.

    Raises:
        ValueError: A column is missing, unknown or of another length, or a test is there twice.
        KeyError: A spell is in no known state.
        TypeError: An id is not hashable.
    """
    if columns.keys() != set(_COLUMNS.values()):
        raise ValueError("the columns are not those of this version")
    read: dict[str, Sequence[Any]] = {"open": list(map(_SPELL_STATES.__getitem__, columns["open"]))}
    read |= {name: _coordinates_as_text(columns[name]) for name in ("name_words", "source_words")}
    values = [read.get(column, columns[column]) for column in _COLUMNS.values()]
    tests = {stats.test: stats for stats in starmap(TestStats, zip(*values, strict=True))}
    if len(tests) != len(columns["ids"]):
        raise ValueError("a test is there twice")
    return tests


def check_column(column: str, values: Sequence[Any]) -> None:
    """Raise TypeError or ValueError where a value of a column is not of the kind that its field has.

    Sums and joins, because to look at the type of each value takes longer than to read the table.
    """
    kind = _KINDS.get(column)
    if kind is str:
        "".join(values)
    elif kind and not isfinite(total := sum(values)):
        raise ValueError(f"{column} has a number that is not finite")
    elif kind is int and type(total) is not int:
        raise ValueError(f"{column} has a number that is not whole")


def _coordinates_as_text(column: Sequence[Any]) -> Sequence[Any]:
    """Return a column of coordinates, which earlier versions wrote as lists."""
    if list not in set(map(type, column)):
        return column
    return [write_coordinates(value) if isinstance(value, list) else value for value in column]


def write_coordinates(coordinates: Iterable[int]) -> str:
    """Return coordinates as text."""
    return " ".join(map(str, coordinates))


def read_coordinates(text: str) -> list[int]:
    """Return the coordinates of a text.

    >>> read_coordinates(write_coordinates([3, 14]))
    [3, 14]
    """
    return list(map(int, text.split()))


def decayed_rate(total: float, runs: int, pace: float) -> float:
    """Return a decayed sum over its largest possible value: a weighted mean in [0, 1], 0 without runs."""
    return min(1.0, total / capacity(runs, pace)) if runs else 0.0


@lru_cache(maxsize=4096)
def capacity(runs: int, pace: float) -> float:
    """Return the largest possible decayed sum after so many runs."""
    return (1.0 - (1.0 - pace) ** min(runs, 2000)) / pace


def index_tests(tests: TestTable) -> dict[str, TestStats]:
    """Return the stats of each test by its id and by the id before a rename, unless that is another test now."""
    return {stats.former: stats for stats in tests.values() if stats.former} | dict(tests)


def former_ids(tests: TestTable) -> dict[str, str]:
    """Return the id of each renamed test by the id before, unless that is another test now."""
    return {stats.former: stats.test for stats in tests.values() if stats.former and stats.former not in tests}


def with_tests(tests: TestTable, ids: Iterable[str], ran: Collection[str] = ()) -> dict[str, TestStats]:
    """Return the table with an entry for each id that it does not know, also not as a former one.

    The entry is blank, or that of the id that an earlier version of fedstep gave to the test, where it is the only one
    of `ran`, the tests of the build, that can be meant.
    """
    known = index_tests(tests)
    entries = {test: new_test(test) for test in ids if test not in known}
    if entries and ran:
        from fedstep.ingest.test_identity import find_earlier

        for earlier, test in find_earlier(of_earlier_versions(tests), set(ran).difference(known), ran).items():
            if test in entries:
                entries[test] = tests[earlier].copy()
                entries[test].test = test
    return {**tests, **entries}


def of_earlier_versions(tests: TestTable) -> TestTable:
    """Return the tests that did not run since the history knows where a test came from: their ids may have changed."""
    return {test: stats for test, stats in tests.items() if not stats.origin}


def taken_ids(tests: TestTable) -> frozenset[str]:
    """Return the ids of which the history knows whose they are: no other test means one of them as its earlier id."""
    return frozenset(test for test, stats in tests.items() if stats.origin)


class OriginMatch(NamedTuple):
    """The ids that tests of a build have in the history, where those differ, and the ids that others have there."""

    ids: Mapping[str, str]  # by the id in the build
    newcomers: tuple[str, ...] = ()  # ids of the build that belong to another test of the history


NO_MATCH = OriginMatch({})


def match_origins(tests: TestTable, origins: Mapping[str, str]) -> OriginMatch:
    """Return which tests of the history those of a build are, where several have one class and name.

    A test keeps the id under which the history knows its origin, however many others of its class and name come and
    go. It is known by the first part of its origin, of suite, file, folder and report, in which these tests differ;
    where two agree in that one too, by the next.

    Args:
        tests: The table, as it was before the build.
        origins: The origin of each test of the build by its id, as `fingerprint` writes it.
    """
    if not origins:
        return NO_MATCH
    long_ids: dict[str, list[str]] = {}  # by the short one
    for test, stats in tests.items():
        if len(stats.origin) > FINGERPRINT:
            long_ids.setdefault(stats.origin[FINGERPRINT:], []).append(test)
    families: dict[str, list[str]] = {short: [short] for short in long_ids if short in origins}
    for test, origin in origins.items():
        if len(origin) > FINGERPRINT:
            families.setdefault(origin[FINGERPRINT:], []).append(test)
    ids: dict[str, str] = {}
    newcomers: list[str] = []
    for short, members in families.items():
        known = [test for test in (*long_ids.get(short, ()), short) if test in tests and tests[test].origin]
        family = [*(tests[test].origin for test in known), *(origins[test] for test in members)]
        owners: dict[str, str] = {}
        for test in known:
            if owner := _owner(tests[test].origin, members, origins, family):
                owners.setdefault(owner, test)
        ids |= {member: test for member, test in owners.items() if member != test}
        taken = {*owners.values(), *(short for test in known if test == short)}
        newcomers += [member for member in members if member not in owners and member in taken]
    return OriginMatch(ids, tuple(newcomers)) if ids or newcomers else NO_MATCH


def _owner(origin: str, members: Sequence[str], origins: Mapping[str, str], family: Sequence[str]) -> str:
    """Return the one of these tests of a build that has this origin, "" where none or several may have it."""
    left, is_told = list(members), False
    for start in range(0, FINGERPRINT, PART):
        part = slice(start, start + PART)
        if len({other[part] for other in family}) > 1:
            left, is_told = [test for test in left if origins[test][part] == origin[part]], True
            if len(left) < 2:
                break
    return left[0] if is_told and len(left) == 1 else ""


def with_known_ids(reports: Reports, tests: TestTable) -> Reports:
    """Return the reports with the ids that the history has for their tests.

    The first test of its class and name keeps the short id; others that appear later have their suite, file or report
    in theirs, also in a build that runs only one of them.
    """
    runs, origins = reports.tests, reports.origins
    stored = dict(zip((run.test for run in runs), map(fingerprint, origins), strict=False))
    match = match_origins(tests, stored)
    if match is NO_MATCH:
        return reports
    used = {*tests, *stored}
    ids = dict(match.ids)
    places = {run.test: origin for run, origin in zip(runs, origins, strict=True)}
    for test in match.newcomers:
        ids[test] = _free_id(places[test]._replace(short=places[test].short or test), used)
        used.add(ids[test])
    shorts = {test: origin.short or test for test, origin in places.items() if test in ids}
    return reports._replace(
        tests=tuple(run._replace(test=ids.get(run.test, run.test)) for run in runs),
        origins=tuple(
            origin._replace(short=shorts[run.test] if ids[run.test] != shorts[run.test] else "")
            if run.test in ids
            else origin
            for run, origin in zip(runs, origins, strict=True)
        ),
    )


def _free_id(origin: Origin, used: Collection[str]) -> str:
    """Return an id that no test has yet, from what tells this one from others; the short one if nothing does."""
    from fedstep.ingest.test_identity import labellings, qualify  # predictions read the table and do not need it

    ids = (qualify(origin.short, suite, variant) for suite, variant in labellings(origin))
    return next((test for test in ids if test not in used), origin.short)


def new_test(test: str) -> TestStats:
    """Return the stats of a test that never ran."""
    return TestStats(test, name_words=name_words(test))


def name_words(test: str) -> str:
    """Return the coordinates of the listed words in a test's class or file and its name, ascending, as text.

    Words of the package are left out: they tell a project from others rather than a test from its neighbours, and
    without them tests of unknown projects are ranked better.
    """
    from fedstep.ingest.test_identity import split_identity  # its patterns take 2 ms that a prediction does not need

    _, group, _, name = split_identity(test)
    simple = group.rpartition("/" if "/" in group else ".")[2]
    return write_coordinates(schema().words("name").listed(sub_words((simple, name))))


WINDOW = 20  # times kept; an older one weighs less than a tenth of the newest
SHORTEST = 0.001  # seconds; reports round to milliseconds, so shorter times count as one
STEPS = 400  # of the logarithm, each a quarter of a percent: from 1 ms to eleven days
# The letters that JSON writes without an escape.
_LETTERS = "".join(chr(code) for code in range(ord("#"), ord("~") + 1) if chr(code) != "\\")
_DIGITS = {letter: digit for digit, letter in enumerate(_LETTERS)}
_MOST_STEPS = len(_LETTERS) ** 2 - 1
_LONGEST = SHORTEST * exp(_MOST_STEPS / STEPS)


def with_time(times: str, seconds: float, most: int = WINDOW) -> str:
    """Return the text of `read_times` after one more time in seconds, not NaN; the newest `most` are kept."""
    steps = round(log(min(max(seconds, SHORTEST), _LONGEST) / SHORTEST) * STEPS)
    high, low = divmod(steps, len(_LETTERS))
    return (times + _LETTERS[high] + _LETTERS[low])[-2 * most :]


def read_times(times: str) -> tuple[float, ...]:
    """Return the times in seconds, oldest first, exact to an eighth of a percent.

    >>> [round(seconds, 2) for seconds in read_times(with_time(with_time("", 0.25), 60.0))]
    [0.25, 60.02]
    """
    return tuple(_seconds(times[start : start + 2]) for start in range(0, len(times), 2))


@cache
def _seconds(pair: str) -> float:
    steps = _DIGITS[pair[0]] * len(_LETTERS) + _DIGITS[pair[1]]
    return SHORTEST * exp(steps / STEPS)
