"""How likely each test is to show a failure of a change, in comparison with the others, and the order that follows.

The score adds what is known before a build: how near the change is to the test, and what began to fail with such
changes before. Its weights are constants: on recorded regressions a model learned from other projects has not ordered
better.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, compress
from math import log
from types import MappingProxyType
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.features.test_duration import usual_test_seconds
from fedstep.history.cofailures import CofailureTable, changed_places
from fedstep.history.flakiness import is_incident
from fedstep.history.summary import Summary
from fedstep.history.test_table import NEVER, SHORTEST, TestStats, TestTable, index_tests, with_tests
from fedstep.history.word_index import NO_WORDS, WordIndex, split_words
from fedstep.ingest.change_impact import file_of, group_of, own_files
from fedstep.schema.schema import sub_words
from fedstep.types import NO_SECONDS, Build, Change, FileChange, Outcome, Unavailable

# In nats. Chosen on four projects with regressions; a plateau: half or twice as much changes APFDc by less than 0.01.
PATH, NAME, FILES, FOLDERS, CLASSMATES = 3.0, 0.75, 6.0, 1.5, 4.0
SOURCE = 4.0  # words of the changed lines in the test's own source; 3 to 6 are as good
COMMON = 0.25  # share of the tests above which a word in their source says nothing
STEM = 1.0  # learned on ten projects, from 0; there and on eleven others anything from 0.5 to 2 is as good
# Where the change is not known: runs that a test which failed is taken to have had at the project's rate of failures,
# which is at least `RAREST`. Chosen on ABB's stream; 0.1 to 0.3 are as good.
BORROWED, RAREST = 0.1, 0.001
# Exponent of the time, and seconds added to it. Chosen on the projects that choose: 0.7 to 0.9, 2 to 5 ms are as good.
TIME, BESIDE = 0.8, 0.003
SHRINK = 2.0  # changes without a failure that each file is taken to have had
NEW = "new"  # why a test runs always
LATELY = 10  # runs in which a failure makes a test run always
SHORTEST_WORD = 3  # letters that a word of a path needs to be sought in names of tests
_COMMON = frozenset(("test", "tests", "src", "main", "java", "py", "init", "the", "and", "lib", "spec"))
_KEYWORDS = frozenset(
    (
        *("and", "assert", "async", "await", "break", "case", "catch", "class", "const", "continue", "def"),
        *("default", "del", "elif", "else", "enum", "except", "export", "extends", "false", "final", "finally"),
        *("for", "from", "func", "function", "global", "import", "interface", "lambda", "let", "new", "nil"),
        *("none", "nonlocal", "not", "null", "package", "pass", "private", "protected", "public", "raise"),
        *("return", "self", "static", "super", "switch", "this", "throw", "throws", "true", "try", "type", "var"),
        *("void", "while", "with", "yield"),
    )
)
_FAILURES = frozenset((Outcome.FAILED, Outcome.CONFIRMED))
_TEST_PATH = re.compile(r"(^|/)(tests?|__tests__|specs?|testing)/|(^|[/_.-])(tests?|spec)[_.-]|(Tests?|IT|Spec)\.\w+$")


def failure_scores(
    table: CofailureTable,
    tests: TestTable,
    files: Sequence[FileChange] | None,
    source: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Return for each test the logarithm of its chance to show a failure, up to a constant of the build.

    Args:
        table: Which tests began to fail when which files changed.
        tests: All tests.
        files: The files of the change, None where it is not known: then only how lately and how often a test failed
            counts.
        source: The `source_overlap` of tests with the change.
    """
    if files is None:
        runs, failures = sum(stats.runs for stats in tests.values()), sum(stats.failures for stats in tests.values())
        usual = max(RAREST, failures / max(1, runs))
        return {test: log(_failure_rate(stats, usual)) for test, stats in tests.items()}
    parts = score_parts(table, tests, files)
    of_groups = {
        group: PATH * share + STEM * (group in parts.named_after) + CLASSMATES * parts.classmates.get(group, 0.0)
        for group, share in parts.path.items()
    }
    scores = {test: of_groups[group] + SOURCE * source.get(test, 0.0) for test, group in parts.groups.items()}
    for weight, shares in ((NAME, parts.name), (FILES, parts.with_files), (FOLDERS, parts.with_folders)):
        for test, share in shares.items():
            if test in scores:
                scores[test] += weight * share
    return scores


class ScoreParts(NamedTuple):
    """What the score of a test consists of, where the change is known. What a mapping does not have is 0."""

    groups: Mapping[str, str]  # the class or module of each test
    path: Mapping[str, float]  # by class or module: `path_overlap`
    named_after: Collection[str]  # classes and modules whose file has the name of a changed one
    classmates: Mapping[str, float]  # by class or module: the largest of `with_files`
    name: Mapping[str, float]  # by test: words of the changed paths in its own name
    with_files: Mapping[str, float]  # by test: `cofailure_rates`
    with_folders: Mapping[str, float]  # by test: the same of the changed folders


def score_parts(table: CofailureTable, tests: TestTable, files: Sequence[FileChange]) -> ScoreParts:
    """Return the parts of the scores of all tests; `failure_scores` says what the arguments are."""
    paths = [file.path for file in files]
    words = _change_words(paths)
    with_files, with_folders = _largest_rates(table, paths)
    classmates: dict[str, float] = {}
    for test, rate in with_files.items():
        classmates[group_of(test)] = max(rate, classmates.get(group_of(test), 0.0))
    groups = {test: test.partition("#")[0] for test in tests}
    near = _group_overlap(set(groups.values()), words)
    named_after = _named_after(near, {_stem(path) for path in paths if not _TEST_PATH.search(path)})
    named = _name_overlap(tests, words)
    return ScoreParts(groups, near, named_after, classmates, named, with_files, with_folders)


def priority(score: float, seconds: float) -> float:
    """Return what tests are ordered by, the largest first: the logarithm of the chance of a failure per time.

    The longer a test takes, the likelier it fails, and each takes some time beside what its report says.
    """
    return score - TIME * log(seconds + BESIDE)


def usual_seconds(times: Iterable[float]) -> float:
    """Return what a test without a known time counts as: the median of those with one."""
    known = sorted(times)
    return known[len(known) // 2] if known else SHORTEST


def always_run(tests: Iterable[TestStats], files: Sequence[FileChange] | None) -> dict[str, str]:
    """Return why a selection always contains a test, for those that it does: they are new, changed or failed lately."""
    changed, reasons = own_files(files or ()), {}
    for stats in tests:
        if not stats.runs:
            reasons[stats.test] = NEW
        elif stats.streak or (stats.last_failure != NEVER and stats.runs - stats.last_failure <= LATELY):
            reasons[stats.test] = "failed lately"
        elif changed and file_of(stats.test) in changed:
            reasons[stats.test] = "changed"
    return reasons


def began_to_fail(summary: Summary, build: Build, real: Iterable[str]) -> tuple[str, ...]:
    """Return those of the failing tests that did not fail when they ran last, none in an incident.

    Args:
        summary: The history before the build.
        build: The build.
        real: The tests that fail in it and are not judged flaky.
    """
    real = tuple(dict.fromkeys(real))
    if not real or is_incident(build.reports.tests):
        return ()
    by_id = index_tests(with_tests(summary.tests, real))
    return tuple(by_id[test].test for test in real if not by_id[test].streak)


def first_failure_share(summary: Summary, build: Build, began: Collection[str], index: WordIndex = NO_WORDS) -> float:
    """Return the share of the build's test time until its first real failure, had the tests run in their order.

    NO_SECONDS where no test begins to fail; 0 where one of them would always be run.

    Args:
        summary: The history before the build.
        build: The build.
        began: The tests that begin to fail in it.
        index: The words of the tests' own source.
    """
    if not began:
        return NO_SECONDS
    runs = [run for run in build.reports.tests if run.outcome != Outcome.SKIPPED]
    by_id = index_tests(with_tests(summary.tests, (run.test for run in runs)))
    change = build.situation.change
    files = change.files if isinstance(change, Change) else None
    if always_run(map(by_id.__getitem__, began), files):
        return 0.0
    tests = {by_id[run.test].test: by_id[run.test] for run in runs}
    return _share_until(order_tests(summary, tests, files, source_overlap(index, change)), began)


def order_tests(
    summary: Summary,
    tests: TestTable,
    files: Sequence[FileChange] | None,
    source: Mapping[str, float] = MappingProxyType({}),
) -> list[tuple[str, float]]:
    """Return the tests in their order, each with its predicted seconds."""
    times = {test: usual_test_seconds(stats) for test, stats in tests.items()}
    usual = usual_seconds(time for time in times.values() if isinstance(time, float))
    seconds = {test: time if isinstance(time, float) else usual for test, time in times.items()}
    scores = failure_scores(summary.cofailures, tests, files, source)
    return sorted(seconds.items(), key=lambda item: (-priority(scores[item[0]], item[1]), item[0]))


def _share_until(ordered: Sequence[tuple[str, float]], began: Collection[str]) -> float:
    total, spent = sum(seconds for _, seconds in ordered), 0.0
    for test, seconds in ordered:
        spent += seconds
        if test in began:
            break
    return round(spent / total, 4) if total else NO_SECONDS


def _change_words(paths: Sequence[str]) -> frozenset[str]:
    """Return the words of the changed paths that are no tests; of all where only tests changed."""
    code = [path for path in paths if not _TEST_PATH.search(path)] or paths
    return frozenset(sub_words(map(_without_suffix, code))) - _COMMON


def _failure_rate(stats: TestStats, usual: float) -> float:
    """Return how often the test is expected to fail where `usual` is the project's rate.

    One that never failed in n runs has 1 / (1 + n) of the project's rate.
    """
    if not stats.failures:
        return usual / (1 + stats.runs)
    age = stats.runs - stats.last_failure
    return _recent_rate(stats.recent, age if age > len(stats.recent) else 0, usual)


@lru_cache(maxsize=10_000)
def _recent_rate(recent: str, older: int, usual: float) -> float:
    """Return the weighted share of failures in the recent runs: one k runs ago weighs 1 / k, also an older one."""
    weights = [1.0 / age for age in range(1, len(recent) + 1)]
    failed: float = sum(compress(weights, map(_FAILURES.__contains__, reversed(recent))))
    failed += 1.0 / older if older else 0.0
    return (failed + BORROWED * usual) / (sum(weights) + BORROWED)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].lower()


def _named_after(groups: Collection[str], stems: Collection[str]) -> frozenset[str]:
    """Return the classes whose file of tests has the name of a changed file in its own, or the other way round.

    >>> sorted(_named_after(["tests.test_form", "tests.test_cart"], {"forms", "io"}))
    ['tests.test_form']
    """
    long_stems, text = [stem for stem in stems if len(stem) >= SHORTEST_WORD], "\n".join(stems)
    named = []
    for group in groups:
        own = _stem(file_of(group)).removeprefix("test_").removesuffix("_test").removesuffix("_tests")
        if len(own) < SHORTEST_WORD:
            continue
        if own in text or any(map(own.__contains__, long_stems)):
            named.append(group)
    return frozenset(named)


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0] or name}"


def path_overlap(tests: Collection[str], files: Sequence[FileChange]) -> Mapping[str, float]:
    """Return for each test the weight of the words that its class or module shares with the changed paths, in [0, 1].

    A word that few classes have weighs more. The largest weight of the build counts as 1.
    """
    shares = _group_overlap(set(map(group_of, tests)), _change_words([file.path for file in files]))
    return {test: shares[group_of(test)] for test in tests}


def _group_overlap(groups: Collection[str], words: frozenset[str]) -> dict[str, float]:
    """Return for each class or module the weight of the words that it shares with those of the change, in [0, 1]."""
    occurs = re.compile("|".join(map(re.escape, words)) or "(?!)", re.IGNORECASE).search  # most have none
    shared = {group: _shared_words(group, words) if occurs(group) else frozenset() for group in groups}
    counts = Counter(word for own in shared.values() for word in own)
    weights = {word: log(1.0 + len(shared) / count) for word, count in counts.items()}
    sums = {group: sum(weights[word] for word in sorted(own)) if own else 0.0 for group, own in shared.items()}
    return _shares_of_largest(sums)


def _shared_words(group: str, words: frozenset[str]) -> frozenset[str]:
    return words.intersection(chain.from_iterable(map(_words_of, group.replace("/", ".").split("."))))


@lru_cache(maxsize=20_000)  # packages and folders are parts of many names
def _words_of(part: str) -> tuple[str, ...]:
    return sub_words((part,))


def source_overlap(index: WordIndex, change: Change | Unavailable) -> Mapping[str, float]:
    """Return for the tests whose own source has words of the changed lines their weight, in (0, 1].

    A word that few tests have weighs more (inverse document frequency); one that a quarter of the tests have weighs
    nothing. The largest weight of the build counts as 1. A damaged index gives none.
    """
    words = split_words(change.words) if isinstance(change, Change) and index.tests else ()
    scores = [0.0] * len(index.tests)
    most = max(COMMON * len(scores), 1.0)
    try:
        for word in words:
            numbers = () if word in _KEYWORDS else index.numbers(word, most)
            weight = log(1.0 + len(scores) / len(numbers)) if numbers else 0.0
            for position in numbers:
                scores[position] += weight
    except HistoryError:
        return {}
    largest = max(scores, default=0.0) or 1.0
    return {test: score / largest for test, score in zip(index.tests, scores, strict=True) if score}


def cofailure_rates(table: CofailureTable, files: Sequence[FileChange]) -> Mapping[str, float]:
    """Return how often tests began to fail when one of the files changed, for those that did."""
    return _largest_rates(table, [file.path for file in files])[0]


def _name_overlap(tests: Collection[str], words: frozenset[str]) -> Mapping[str, float]:
    """Return for each test whose own name contains words of the change their weight, as a share of the largest."""
    lowered = list(map(str.lower, tests))
    scores: dict[str, float] = {}
    for word in sorted(word for word in words if len(word) >= SHORTEST_WORD):
        holds = [word in name for name in lowered]
        matching = [test for test in compress(tests, holds) if word in test.rpartition("#")[2].lower()]
        for test in matching:
            scores[test] = scores.get(test, 0.0) + log(1.0 + len(tests) / len(matching))
    return _shares_of_largest(scores)


def _shares_of_largest(scores: Mapping[str, float]) -> dict[str, float]:
    """Return each score as a share of the largest: it then means the same in every project."""
    largest = max(scores.values(), default=0.0) or 1.0
    return {key: score / largest for key, score in scores.items()}


def _largest_rates(table: CofailureTable, paths: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Return how often each test began to fail when one of the files, and when one of the folders changed."""
    rates: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for changed_path in changed_places(paths):
        if changed_path in table:
            changes, failed = table[changed_path]
            of_kind = rates[changed_path.endswith("/")]
            for test, count in failed.items():
                of_kind[test] = max(of_kind.get(test, 0.0), count / (changes + SHRINK))
    return rates
