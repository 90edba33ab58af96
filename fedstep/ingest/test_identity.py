"""What one test is: its id from suite or file, class, name and variant, and which cases are attempts at one test.

An id is `class#name`; `class#[variant] name` where the report tells a browser or project; `file#title` for a test in
JavaScript, whose class is prose. Where two tests of a build would have one id, the suite is added, `suite::class#name`,
else the folder of the report, as its variant. Cases are attempts only where the report says so: then passed and failed
are a flake. Other cases with one id are one test, which failed if one of them failed.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, groupby
from operator import itemgetter
from typing import NamedTuple

from fedstep.types import Origin, Outcome, TestRun

MAX_NAME = 1000  # characters of an id
MAX_LABEL = 100  # characters of a suite or variant in an id
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
JAVASCRIPT = re.compile(r"\.(?:[cm]?[jt]sx?|vue|svelte)$", re.I)
_VARIANT = re.compile(r"\[[^\[\]]{1,100}\] ")
_VERSION = re.compile(r"[\s/@_-]*v?\d[\w.]*")


class TestIdentity(NamedTuple):
    """The parts of an id."""

    suite: str  # "" where it is not in the id
    group: str  # the class, module or file
    variant: str  # "" where it is not in the id
    name: str


TestIdentity.__test__ = False  # type: ignore[attr-defined]  # pytest: a value, not a test class


def make_identity(test: str) -> str:
    """Return `test` on one line and at most MAX_NAME characters long.

    The rest of a long one becomes a hash, so that identities stay distinct.
    """
    test = UNPRINTABLE.sub(lambda match: escape_character(match[0]), test)
    if len(test) <= MAX_NAME:
        return test
    return f"{test[: MAX_NAME - 17]}~{hashlib.sha256(test.encode()).hexdigest()[:16]}"


def split_identity(test: str) -> TestIdentity:
    """Return the parts of an id.

    >>> split_identity("web::shop.Cart#[firefox] adds")
    TestIdentity(suite='web', group='shop.Cart', variant='firefox', name='adds')
    """
    group, _, name = test.partition("#")
    suite, separator, rest = group.rpartition("::")
    variant = _VARIANT.match(name)
    return TestIdentity(
        suite if separator else "",
        rest if separator else group,
        variant[0][1:-2] if variant else "",
        name[variant.end() :] if variant else name,
    )


def script_of(file: str, suite: str) -> str:
    """Return the JavaScript file that holds a test, from its file and suite; "" for none, or one of this machine."""
    if JAVASCRIPT.search(file):
        return "" if is_absolute(file) else file
    return suite if JAVASCRIPT.search(suite) and not re.search(r"\s", suite) and not is_absolute(suite) else ""


def identify_script(file: str, group: str, name: str) -> str:
    """Return the id of a test in the JavaScript file `file`, whose class or suite is `group`.

    >>> identify_script("src/form.test.ts", "Form renders", "Form renders")
    'src/form.test.ts#Form renders'
    """
    is_told = not group or group == file or name == group or name.endswith(f" {group}") or name.startswith(f"{group} ")
    return f"{file}#{name}" if is_told else f"{file}::{group}#{name}"


def is_absolute(path: str) -> bool:
    """Tell whether `path`, with "/" as separator, starts at a root or a drive."""
    return path.startswith("/") or path[1:3] == ":/"


def file_of(run: TestRun) -> str:
    """Return the source file of a case, "" for none, or one of this machine."""
    return "" if is_absolute(run.file) else run.file


def variant_of(text: str) -> str:
    """Return a browser or project as a part of an id: on one line, in lower case, without the version.

    >>> variant_of("Firefox 108")
    'firefox'
    """
    return label_of(_VERSION.split(text.strip().lower(), maxsplit=1)[0] or text)


def label_of(text: str) -> str:
    """Return the text as a suite or variant in an id: without the characters that separate its parts."""
    return re.sub(r"\s+", " ", re.sub(r"[\[\]#]|::", " ", text)).strip()[:MAX_LABEL]


def earlier_ids(test: str) -> Iterator[str]:
    """Yield the ids that versions of fedstep before suites and variants were in them may have given to this test.

    >>> list(earlier_ids("src/form.test.ts#Form renders"))
    ['Form renders#Form renders', 'renders#Form renders']
    """
    suite, group, variant, name = split_identity(test)
    if suite or variant:
        yield f"{group}#{name}"
    if suite and variant:
        yield f"{group}#[{variant}] {name}"
    if "/" in group and not suite and not JAVASCRIPT.search(group):
        yield f"{group.rpartition('/')[2]}#{name}"
    elif JAVASCRIPT.search(group):
        words = name.split(" ")[:20]
        yield from (f"{' '.join(words[start:])}#{name}" for start in range(len(words)))


def find_earlier(known: Mapping[str, object], new: Iterable[str], ran: Iterable[str]) -> dict[str, str]:
    """Return the new id of each known test that has another id since suites and variants are in it, by the earlier id.

    Only where one test alone can be meant: an earlier id that several tests shared says nothing about one of them.
    """
    heirs: dict[str, list[str]] = defaultdict(list)
    present = set(ran)
    for test in new:
        for earlier in dict.fromkeys(earlier_ids(test)):
            if earlier in known and earlier not in present:
                heirs[earlier].append(test)
    pairs = {earlier: tests[0] for earlier, tests in heirs.items() if len(tests) == 1}
    claims = Counter(pairs.values())
    return {earlier: test for earlier, test in pairs.items() if claims[test] == 1}


Rule = Callable[[str], Outcome]
"""Returns the outcome of the cases with one id inside one suite, from their letters in the order of the report."""


def unite(outcomes: str) -> Outcome:
    """Return the outcome of cases that are no attempts at one test: failed if one of them failed.

    >>> unite("pfp"), unite("pk")
    (<Outcome.FAILED: 'f'>, <Outcome.FLAKED: 'k'>)
    """
    return next((Outcome(letter) for letter in "cfkp" if letter in outcomes), Outcome.SKIPPED)


def combine_outcomes(outcomes: str) -> Outcome:
    """Return the outcome of a test with these attempts; their order does not matter."""
    failures = outcomes.count(Outcome.FAILED) + 2 * outcomes.count(Outcome.CONFIRMED)
    if Outcome.FLAKED in outcomes or (failures and Outcome.PASSED in outcomes):
        return Outcome.FLAKED
    if failures:
        return Outcome.CONFIRMED if failures > 1 else Outcome.FAILED
    return Outcome.PASSED if Outcome.PASSED in outcomes else Outcome.SKIPPED


def combine_retries(outcomes: str) -> Outcome:
    """Combine the cases of a tool that repeats a case only after a failure: all but the last have to have failed."""
    return combine_outcomes(outcomes) if set(outcomes[:-1]) == {Outcome.FAILED.value} else unite(outcomes)


def combine_pytest(outcomes: str) -> Outcome:
    """Combine those of a report of pytest, where two failures in a row are one attempt: its call and its teardown."""
    return unite(re.sub("f+", "f", outcomes))


def combine_pytest_counted(outcomes: str) -> Outcome:
    """Combine cases that pytest counts: subtests, or the one rerun of a failure by `--fedstep-rerun`.

    >>> combine_pytest_counted("fp"), combine_pytest_counted("ppp"), combine_pytest_counted("ppf")
    (<Outcome.FLAKED: 'k'>, <Outcome.PASSED: 'p'>, <Outcome.FAILED: 'f'>)
    """
    return Outcome.FLAKED if outcomes == "fp" else combine_pytest(outcomes)


def combine_pytest_reruns(outcomes: str) -> Outcome:
    """Combine those of pytest with pytest-rerunfailures or flaky, where order matters (seen with pytest 9.2).

    They write an attempt that failed and is run again as a case that passed.

    >>> combine_pytest_reruns("pp"), combine_pytest_reruns("ppf")
    (<Outcome.FLAKED: 'k'>, <Outcome.CONFIRMED: 'c'>)
    """
    attempts = re.sub("f+", "f", outcomes.replace(Outcome.SKIPPED, ""))
    if len(attempts) < 2:
        return combine_pytest(outcomes)
    return Outcome.FLAKED if attempts.endswith(Outcome.PASSED) else Outcome.CONFIRMED


# The tools that repeat a case inside one suite when they retry a test, as the samples in tests/data/junit show.
REPEATING_TOOLS: Mapping[str, Rule] = {
    "Gradle": combine_retries,  # test-retry: gradle-retry.xml
    "gotestsum": combine_outcomes,  # --rerun-fails, failures first; Go numbers equal names: gotestsum-rerun-fails.xml
}


def settle_suites(repeated: Sequence[tuple[int, TestRun]], rule: Rule) -> Iterator[TestRun]:
    """Yield one run for each suite and file that has cases of one id, from (index of the suite element, case)."""
    elements: dict[tuple[int, str], list[TestRun]] = defaultdict(list)
    for element, run in repeated:
        elements[element, file_of(run)].append(run)
    suites: dict[tuple[str, str], list[TestRun]] = defaultdict(list)
    for runs in elements.values():
        run = runs[0] if len(runs) == 1 else _settle(runs, rule)
        suites[run.suite, file_of(run)].append(run)
    for runs in suites.values():
        yield runs[0] if len(runs) == 1 else unite_runs(runs)


def _settle(runs: Sequence[TestRun], rule: Rule) -> TestRun:
    """Return one run of the cases with one id inside one suite."""
    attempts: dict[int, list[TestRun]] = defaultdict(list)
    for run in runs:
        attempts[run.attempt].append(run)
    if len(attempts) > 1:  # the report numbers them
        ordered = [unite_runs(attempts[attempt]) for attempt in sorted(attempts)]
        return merge_attempts(ordered, combine_outcomes("".join(run.outcome for run in ordered)))
    outcome = rule("".join(run.outcome for run in runs))
    is_attempt = outcome in "kc" and rule is not unite
    return merge_attempts(runs, outcome) if is_attempt else unite_runs(runs)._replace(outcome=outcome)


def merge_attempts(runs: Sequence[TestRun], outcome: Outcome) -> TestRun:
    """Return one run of these attempts, in order: the seconds are those of the last that ran."""
    timed = [run.seconds for run in runs if run.seconds == run.seconds and run.outcome != Outcome.SKIPPED]
    return _merge(runs, outcome, timed[-1] if timed else runs[0].seconds)


def unite_runs(runs: Sequence[TestRun]) -> TestRun:
    """Return one run of cases with one id that are no attempts: it takes the seconds of all."""
    timed = [run.seconds for run in runs if run.seconds == run.seconds]
    outcome = unite("".join(run.outcome for run in runs))
    return _merge(runs, outcome, sum(timed) if timed else runs[0].seconds)


def _merge(runs: Sequence[TestRun], outcome: Outcome, seconds: float) -> TestRun:
    """Return the first run with this outcome and time, completed by what only the others have."""
    first = runs[0]
    return first._replace(
        outcome=outcome,
        seconds=seconds,
        failure_type=next((run.failure_type for run in runs if run.failure_type), ""),
        file=next((run.file for run in runs if run.file), ""),
        line=next((run.line for run in runs if run.line), 0),
        attempt=0,
        message=next((run.message for run in runs if run.message), ""),
        signature=next((run.signature for run in runs if run.signature), ""),
    )


class ReportTests(NamedTuple):
    """The tests of one report, each once in each suite."""

    source: str
    tests: tuple[TestRun, ...]
    timestamps: frozenset[str] = frozenset()  # of its suites, as they stand there


MAX_COPIES = 20  # reports with one test that are compared; more are no copies
_Occurrence = tuple[int, TestRun]  # the index of the report, and the run in it

_RETRY = re.compile(r"(?:^|[-_.])(?:attempt|retry|retries|rerun|reruns)[-_]?(\d{0,4})(?=[-_.]|$)", re.I)
_UNSTABLE = re.compile(  # VSTest's user_host_time, UUIDs, times, digests and numbers of runs
    r"(?<![^/])[^/_]+_[^/_]+_\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d(?:[._]\d+)?(?:\[\d+\])?"
    r"|[-_. ]*(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[T _-]?[\d.:_+-]*Z?"
    r"|(?<![^\W_])(?=(?:[a-f]*\d){2})[0-9a-f]{7,40}(?![^\W_])|(?=[a-f]*\d)[0-9a-f]{12,}|\d{8,})"
)
_BROWSER_VERSION = re.compile(r"(?<=[a-z]) \d+(?:\.\d+)+", re.I)
_USUAL_FOLDERS = frozenset(
    ("target", "build", "out", "dist", "test", "tests", "junit", "xml", "report", "reports", "result", "results")
) | {"surefire-reports", "failsafe-reports", "test-results", "test-reports", "testresults", "artifacts", "."}


class CombinedTests(NamedTuple):
    """The tests of a build, each once, and where each of them stood, in the same order."""

    tests: tuple[TestRun, ...]
    origins: tuple[Origin, ...]


def combine_reports(reports: Sequence[ReportTests]) -> CombinedTests:
    """Return the tests of the build that these reports make, each once.

    A test that stands in two suites or reports is two tests, and its suite or the folder of its report becomes a part
    of the id. It is one test where a report is a copy of another, as Ant's merged report is: then every test that both
    have has the same outcome and time. It is one test with several attempts where the reports' names tell that:
    `attempt`, `retry` or `rerun` and a number.
    """
    ids: set[str] = set()
    repeated: set[str] = set()
    for report in reports:
        for run in report.tests:
            (repeated if run.test in ids else ids).add(run.test)
    locators = [ReportLocator(report.source) for report in reports]
    if not repeated:
        origins = tuple(chain.from_iterable(map(ReportLocator.locate, locators, (report.tests for report in reports))))
        return CombinedTests(tuple(chain.from_iterable(report.tests for report in reports)), origins)
    occurrences: dict[str, list[_Occurrence]] = defaultdict(list)
    tests: dict[str, tuple[TestRun, Origin]] = {}
    for index, report in enumerate(reports):
        for run, origin in zip(report.tests, locators[index].locate(report.tests), strict=True):
            if run.test in repeated:
                occurrences[run.test].append((index, run))
            else:
                tests[run.test] = run, origin
    copies = _find_copies(reports, occurrences.values())
    for repetitions in occurrences.values():
        merged = _merge_occurrences(reports, repetitions, copies)
        located = [(run, origin) for index, run in merged for origin in locators[index].locate((run,))]
        for run, origin in _name_apart(located):
            other = tests.get(run.test)
            tests[run.test] = (unite_runs((other[0], run)), other[1]) if other else (run, origin)
    return CombinedTests(tuple(run for run, _ in tests.values()), tuple(origin for _, origin in tests.values()))


# Measured: 0.1 µs for a test of a report that may have a million, where attributes and a loop take 0.4.
_get_place = itemgetter(TestRun._fields.index("suite"), TestRun._fields.index("file"))


class ReportLocator:
    """Tell where the tests of one report stand."""

    def __init__(self, source: str) -> None:
        path = retry_of(source)[0].split("/")
        self._folder = label_of("/".join(part for part in path[:-1] if part.lower() not in _USUAL_FOLDERS))
        self._report = label_of(_UNSTABLE.sub("", "/".join(path)))
        self._origins: dict[tuple[str, str], Origin] = {}

    def locate(self, tests: Iterable[TestRun]) -> list[Origin]:
        """Return the place of each test; tests of one suite and file follow each other, and share it."""
        origins: list[Origin] = []
        for suite_and_file, equal in groupby(map(_get_place, tests)):
            origins += [self._origin(*suite_and_file)] * len(list(equal))
        return origins

    def _origin(self, suite: str, file: str) -> Origin:
        if (suite, file) not in self._origins:
            exact = label_of(_UNSTABLE.sub("", suite))
            own = label_of("" if is_absolute(file) else file)
            self._origins[suite, file] = Origin(_BROWSER_VERSION.sub("", exact), own, self._folder, self._report, exact)
        return self._origins[suite, file]


def _find_copies(reports: Sequence[ReportTests], repeated: Iterable[Sequence[_Occurrence]]) -> set[tuple[int, int]]:
    """Return the pairs of reports of which one is a copy of the other, or of a part of it."""
    alike: set[tuple[int, int]] = set()
    unlike: set[tuple[int, int]] = set()
    for occurrences in repeated:
        measured = {index: (run.outcome, repr(run.seconds)) for index, run in occurrences}
        for pair in combinations(measured, 2) if len(measured) <= MAX_COPIES else ():
            (alike if measured[pair[0]] == measured[pair[1]] else unlike).add(pair)
    return {pair for pair in alike - unlike if _same_moment(reports[pair[0]], reports[pair[1]])}


def _same_moment(report: ReportTests, other: ReportTests) -> bool:
    """Tell whether the reports may describe the same run of their suites."""
    return not report.timestamps or not other.timestamps or bool(report.timestamps & other.timestamps)


def _merge_occurrences(
    reports: Sequence[ReportTests], occurrences: Sequence[_Occurrence], copies: set[tuple[int, int]]
) -> list[_Occurrence]:
    """Return the occurrences of one id without copies, and with the attempts in several reports as one run."""
    kept: list[_Occurrence] = []
    for index, run in occurrences:
        original = next(
            (n for n, (other, same) in enumerate(kept) if (other, index) in copies and same.outcome == run.outcome),
            None,
        )
        if original is None:
            kept.append((index, run))
        else:
            first, merged = kept[original]
            kept[original] = (first, _merge((merged, run), merged.outcome, merged.seconds))
    suites: dict[tuple[str, str], list[_Occurrence]] = defaultdict(list)
    for index, run in kept:
        suites[run.suite, file_of(run)].append((index, run))
    return [occurrence for group in suites.values() for occurrence in _merge_retries(reports, group)]


def _merge_retries(reports: Sequence[ReportTests], occurrences: Sequence[_Occurrence]) -> Iterator[_Occurrence]:
    """Yield the occurrences of one suite, of attempts only one: of those with a number or a report's name for it."""
    numbers = {run.attempt for _, run in occurrences}
    if len(numbers) == len(occurrences) > 1 and 0 not in numbers:  # Allure writes a file for each attempt
        yield _as_attempts(sorted(occurrences, key=lambda occurrence: occurrence[1].attempt))
        return
    paths: dict[str, list[tuple[int, _Occurrence]]] = defaultdict(list)
    for occurrence in occurrences:
        path, attempt = retry_of(reports[occurrence[0]].source)
        paths[path].append((attempt, occurrence))
    for folder in [path for path, group in paths.items() if all(attempt for attempt, _ in group)]:
        beside = [path for path in paths if path != folder and path.rpartition("/")[0] == folder]
        if len(beside) == 1:  # rerun.xml beside report.xml: its name is nothing but the word
            paths[beside[0]] += paths.pop(folder)
    for group in paths.values():
        yield _as_attempts([occurrence for _, occurrence in sorted(group, key=lambda numbered: numbered[0])])


def _as_attempts(occurrences: Sequence[_Occurrence]) -> _Occurrence:
    if len(occurrences) == 1:
        return occurrences[0]
    runs = [run for _, run in occurrences]
    return occurrences[0][0], merge_attempts(runs, combine_outcomes("".join(run.outcome for run in runs)))


def retry_of(source: str) -> tuple[str, int]:
    """Return the path of a report without the words that make it a retry, and the number of the attempt, from 0.

    >>> retry_of("out/report-rerun-2.xml"), retry_of("cart_test/test_attempts/attempt_1.xml")
    (('out/report', 2), ('cart_test/test', 1))
    """
    path = re.sub(r"\.\w{1,5}(?:\.gz)?$", "", source).replace("test_attempts/attempt_", "test.attempt_")
    attempt = 0
    folders = []
    for folder in path.split("/"):
        for match in _RETRY.finditer(folder):
            attempt = max(attempt, int(match[1] or 1))
        folders.append(_RETRY.sub("", folder))
    return "/".join(filter(None, folders)), attempt


def _name_apart(located: Sequence[tuple[TestRun, Origin]]) -> Iterator[tuple[TestRun, Origin]]:
    """Yield the runs of one id under ids of their own; those that no label tells apart are one test."""
    if len(located) == 1:
        yield located[0]
        return
    by_labelling = zip(*(labellings(origin) for _, origin in located), strict=True)
    labels = max(by_labelling, key=lambda labels: len(set(labels)))
    tests: dict[tuple[str, str], list[tuple[TestRun, Origin]]] = defaultdict(list)
    for label, run_and_origin in zip(labels, located, strict=True):
        tests[label].append(run_and_origin)
    for (suite, variant), group in tests.items():
        run = group[0][0] if len(group) == 1 else unite_runs([run for run, _ in group])
        origin = group[0][1]
        qualified = qualify(run.test, suite, variant) if len(tests) > 1 else run.test
        yield run._replace(test=qualified), origin._replace(short=run.test if qualified != run.test else "")


def labellings(origin: Origin) -> tuple[tuple[str, str], ...]:
    """Return what may tell a test from others of its class and name, the simplest first: each a suite and a variant."""
    suite, file, folder, report, exact, _ = origin
    simple = (suite, ""), (exact, ""), (file, ""), ("", folder), ("", report)
    return (*simple, (file, folder), (exact, report), (file, report))


def qualify(test: str, suite: str, variant: str) -> str:
    """Return the id with its suite or variant, where it does not have them already.

    >>> qualify("util#TestAdds", "example.com/a/util", ""), qualify("Cart#adds", "Cart", "windows")
    ('example.com/a/util#TestAdds', 'Cart#[windows] adds')
    """
    group, _, name = test.partition("#")
    if suite.endswith(f"/{group}"):
        group = suite
    elif suite and suite != group:
        group = f"{suite}::{group}"
    return make_identity(f"{group}#[{variant}] {name}" if variant else f"{group}#{name}")


def escape_character(character: str) -> str:
    r"""Return the character's number in pytest's notation, so that names that differ in it stay distinct.

    >>> escape_character("\x1b")
    '#x1B'
    """
    return f"#x{ord(character):02X}"
