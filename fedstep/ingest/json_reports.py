"""The readers of reports that are one JSON document: one function for each tool, and the table that recognises them.

xcresult is the JSON of `xcrun xcresulttool get test-results tests` (node types and results as Apple names them in Xcode
16), CTRF that of https://ctrf.io. The others are what the runners' own reporters write: Jest and Vitest `--json`,
Playwright `--reporter=json`, Mocha `--reporter json`, mochawesome, RSpec `--format json`, Cucumber and Behave
`--format json`, and Allure 2 (`*-result.json`).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from fedstep.ingest.cases import MAX_TEXT, CaseCollector, failure_word, parse_seconds
from fedstep.ingest.change_impact import NOT_STARTED
from fedstep.ingest.xml import RejectedDocument
from fedstep.types import NO_SECONDS, Outcome

MAX_JSON_BYTES = 32 << 20  # a tree of objects takes about ten times as much memory
PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED
FLAKED, CONFIRMED = Outcome.FLAKED, Outcome.CONFIRMED
Node = dict[str, Any]


class JsonDialect(NamedTuple):
    """A document of one tool: how it is recognised and read."""

    tool: str
    matches: Callable[[Any], bool]
    read: Callable[[Any, CaseCollector], None]


def read_json(chunks: Iterator[bytes], collector: CaseCollector) -> str:
    """Add every attempt of every test, and return the tool that wrote the document.

    Raises RejectedDocument where the JSON is of another kind, too large or damaged.
    """
    tree = _parse_document(chunks)
    for row in DIALECTS:
        if row.matches(tree):
            row.read(tree, collector)
            return row.tool
    raise RejectedDocument(f"JSON, but not of a test report that is read here; {_advise(tree)}")


def _advise(tree: Any) -> str:
    return next((text for text, matches in ADVICE if matches(tree)), OTHER_JSON)


def _parse_document(chunks: Iterable[bytes]) -> Any:
    blocks, size = [], 0
    for block in chunks:
        blocks.append(block)
        size += len(block)
        if size > MAX_JSON_BYTES:
            raise RejectedDocument(f"JSON of more than {MAX_JSON_BYTES >> 20} MB; give the tool's JUnit report")
    text = b"".join(blocks).decode("utf-8-sig", "replace")
    try:
        return load_json(text)
    except (ValueError, RecursionError) as error:
        with suppress(ValueError, RecursionError):  # one value a line
            tree = json.loads(text.lstrip().partition("\n")[0])
            reason = f"lines of JSON, but not of a test report that is read here; {_advise(tree)}"
            raise RejectedDocument(reason) from None
        raise RejectedDocument(f"not JSON, or it ends too early: {error}"[:200]) from None


def load_json(text: str) -> Any:
    """Return the value of a JSON text, with texts that can be encoded. Raises ValueError and RecursionError."""
    value = json.loads(text)
    if "\\ud" in text or "\\uD" in text:  # half of a character that is written as two
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def as_list(value: object) -> list[Any]:
    """Return the value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_nodes(value: object) -> list[Node]:
    """Return the objects of a list, and none of anything else."""
    return [node for node in as_list(value) if isinstance(node, dict)]


def as_node(value: object) -> Node:
    """Return the value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text_of(node: Node, key: str) -> str:
    """Return the value where it is a text, else ""."""
    value = node.get(key)
    return value if isinstance(value, str) else ""


def number_of(node: Node, key: str) -> float:
    """Return a number that is neither negative nor infinite; NO_SECONDS for anything else."""
    value = node.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NO_SECONDS
    return float(value) if 0 <= value < 1e18 else NO_SECONDS


def count_of(node: Node, key: str) -> int:
    """Return a whole number that is not negative; 0 for anything else."""
    value = number_of(node, key)
    return int(value) if value == value else 0


def milliseconds_of(node: Node) -> float:
    """Return the milliseconds of `duration` as seconds; NO_SECONDS where there are none."""
    return number_of(node, "duration") / 1000


def line_of(node: Node, key: str = "line") -> int:
    """Return the number of a line, 0 for anything else."""
    return min(count_of(node, key), 999_999_999)


def add_run_failure(collector: CaseCollector, name: str, message: str) -> None:
    """Add one failed test for a file or a run that failed outside of its tests."""
    collector.add(name, NOT_STARTED, FAILED, text=message)


def compare_totals(collector: CaseCollector, announced: int, seen: int) -> None:
    """Note tests that the report announces and that do not stand in it."""
    if announced > seen:
        collector.drop(f"the report announces {announced} tests, {seen} stand here")


def after_retries(outcome: Outcome, retries: int) -> Outcome:
    """Return the outcome of a test whose last attempt ended so, and whose earlier attempts all failed."""
    if retries <= 0:
        return outcome
    return {PASSED: FLAKED, FAILED: CONFIRMED}.get(outcome, outcome)


# xcresult

XCRESULT_BUNDLES = ("Unit test bundle", "UI test bundle")
XCRESULT_ATTEMPTS = ("Repetition", "Test Case Run")
XCRESULT_OUTCOMES = {"Passed": PASSED, "Expected Failure": PASSED, "Failed": FAILED, "Skipped": SKIPPED}
XCRESULT_PLACE = re.compile(r"^[^\s:]{1,200}:\d{1,9}: ")  # a message begins with file and line


def _read_xcresult(tree: Any, collector: CaseCollector) -> None:
    for case, bundle in _iter_xcresult_cases(tree["testNodes"]):
        name = text_of(case, "name")
        suite = text_of(case, "nodeIdentifier").rpartition("/")[0].replace("/", ".")
        group = ".".join(filter(None, (bundle, suite)))
        for argument in _children_of_kind(case, "Arguments") or [case]:
            suffix = "" if argument is case else f"({text_of(argument, 'name')})"
            attempts = _xcresult_attempts(argument)
            for ordinal, attempt in enumerate(attempts, 1):
                word = text_of(attempt, "result")
                if outcome := collector.outcome_of(word, XCRESULT_OUTCOMES, "a test with the result"):
                    collector.add(
                        group,
                        name.removesuffix("()") + suffix,
                        outcome,
                        _xcresult_seconds(attempt),
                        attempt=ordinal if len(attempts) > 1 else 0,
                        text=_xcresult_failure(attempt),
                    )


def _iter_xcresult_cases(nodes: list[Any]) -> Iterator[tuple[Node, str]]:
    """Yield the test cases in the order of the file, each with the name of its bundle."""
    remaining = [(node, "") for node in reversed(nodes)]
    while remaining:
        node, bundle = remaining.pop()
        if not isinstance(node, dict):
            continue
        kind = node.get("nodeType")
        if kind == "Test Case":
            yield node, bundle
        else:
            name = text_of(node, "name") if kind in XCRESULT_BUNDLES else bundle
            remaining += ((child, name) for child in reversed(as_list(node.get("children"))))


def _xcresult_attempts(node: Node) -> list[Node]:
    """Return the runs of a test, each as a node with a result; on one device they are its children."""
    devices = _children_of_kind(node, "Device")
    parent = devices[0] if len(devices) == 1 else node
    return _children_of_kind(parent, *XCRESULT_ATTEMPTS) or [node]


def _xcresult_failure(node: Node) -> str:
    messages = _children_of_kind(node, "Failure Message")
    return XCRESULT_PLACE.sub("", text_of(messages[0], "name")) if messages else ""


def _xcresult_seconds(node: Node) -> float:
    exact = number_of(node, "durationInSeconds")
    rounded = text_of(node, "duration")
    return exact if exact == exact or not rounded else parse_seconds(rounded)


def _children_of_kind(node: Node, *kinds: str) -> list[Node]:
    return [child for child in as_nodes(node.get("children")) if child.get("nodeType") in kinds]


# CTRF

CTRF_OUTCOMES = {"passed": PASSED, "failed": FAILED, "skipped": SKIPPED, "pending": SKIPPED}
CTRF_RAW_OUTCOMES = {"todo": SKIPPED, "disabled": SKIPPED, "error": FAILED, "broken": FAILED, "timedOut": FAILED}


def _read_ctrf(tree: Any, collector: CaseCollector) -> None:
    results = tree["results"]
    tests = as_nodes(results["tests"])
    for test in tests:
        outcome = CTRF_OUTCOMES.get(text_of(test, "status")) or CTRF_RAW_OUTCOMES.get(text_of(test, "rawStatus"))
        if outcome is None:
            collector.drop(f"a test with the status {text_of(test, 'status')[:40]!r}")
            continue
        attempts = [
            attempt for attempt in as_nodes(test.get("retryAttempts")) if text_of(attempt, "status") == "failed"
        ]
        retries = max(count_of(test, "retries"), len(attempts), int(test.get("flaky") is True and outcome == PASSED))
        message = text_of(test, "message") or next((text_of(attempt, "message") for attempt in attempts), "")
        group, name = _ctrf_name(test)
        collector.add(
            group,
            name,
            after_retries(outcome, retries),
            milliseconds_of(test),
            file=text_of(test, "filePath"),
            line=line_of(test),
            variant=text_of(test, "browser")[:MAX_TEXT],
            text=message,
        )
    summary = as_node(results.get("summary"))
    compare_totals(collector, count_of(summary, "tests"), len(tests))
    if count_of(summary, "failed") and not any(text_of(test, "status") == "failed" for test in tests):
        add_run_failure(collector, text_of(as_node(results.get("tool")), "name"), "failed")


def _ctrf_name(test: Node) -> tuple[str, str]:
    """Return the file, or else the suite, of a test, and its name with the suites that it does not begin with."""
    name, file, suite = text_of(test, "name"), text_of(test, "filePath"), test.get("suite")
    suites = [str(part) for part in suite] if isinstance(suite, list) else str(suite or "").split(" > ")
    suites = [part for part in suites if part and part != file and part != re.split(r"[\\/]", file)[-1]]
    name = name.removeprefix(f"{file}::") if file else name
    if not file:
        return " > ".join(suites), name
    if suites and not name.startswith(" ".join(suites)):
        name = " > ".join((*suites, name))
    return file, name


# Jest and Vitest

VITEST_TIMEOUT = "Error: STACK_TRACE_ERROR"  # it makes the error before, and the JSON report loses its later message
JEST_OUTCOMES = {
    "passed": PASSED,
    "failed": FAILED,
    **dict.fromkeys(("pending", "skipped", "todo", "disabled", "focused"), SKIPPED),
}


def _read_jest(tree: Any, collector: CaseCollector) -> None:
    seen = failed = 0
    for file in as_nodes(tree["testResults"]):
        path, tests = text_of(file, "name"), as_nodes(file.get("assertionResults"))
        seen += len(tests)
        for test in tests:
            _add_jest_test(path, test, collector)
        if text_of(file, "status") == "failed" and not any(text_of(test, "status") == "failed" for test in tests):
            add_run_failure(collector, path, _jest_message(text_of(file, "message")))
            failed += 1
        failed += sum(text_of(test, "status") == "failed" for test in tests)
    compare_totals(collector, count_of(tree, "numTotalTests"), seen)
    if tree.get("success") is False and not failed:
        add_run_failure(collector, "jest" if _is_jest(tree) else "vitest", "failed")


def _add_jest_test(path: str, test: Node, collector: CaseCollector) -> None:
    outcome = collector.outcome_of(text_of(test, "status"), JEST_OUTCOMES, "a test with the status")
    if outcome is None:
        return
    titles = [str(title) for title in as_list(test.get("ancestorTitles"))]
    messages = [message for message in as_list(test.get("failureMessages")) if isinstance(message, str)]
    if "invocations" in test:  # Jest
        name, retries = text_of(test, "fullName"), count_of(test, "invocations") - 1
    else:  # Vitest, whose JUnit report has the same names; a test that passed has messages of earlier attempts only
        name = " > ".join((*titles, text_of(test, "title")))
        retries = int(outcome == PASSED and bool(messages))
    reasons = [reason for reason in as_list(test.get("retryReasons")) if isinstance(reason, str)]
    retries = max(retries, len(reasons))
    messages += reasons  # of a flake Jest has them alone
    text = messages[0] if messages else ""
    if text.startswith(VITEST_TIMEOUT):
        text = "Timeout: the test, or a hook of it, took longer than its limit"
    collector.add(
        path,
        name or text_of(test, "fullName") or text_of(test, "title"),
        after_retries(outcome, retries),
        milliseconds_of(test),
        file=path,
        line=line_of(as_node(test.get("location"))),
        text=text,
    )


def _jest_message(text: str) -> str:
    """Return the message of a file that could not be run, below its heading."""
    return re.sub(r"^\s*●[^\n]*\n", "", text[:MAX_TEXT]).lstrip()


def _is_jest(tree: Any) -> bool:
    return "numRuntimeErrorTestSuites" in tree or "openHandles" in tree


# Playwright

PLAYWRIGHT_OUTCOMES = {"passed": PASSED, "failed": FAILED, "timedOut": FAILED, "skipped": SKIPPED}


def _read_playwright(tree: Any, collector: CaseCollector) -> None:
    root = text_of(as_node(tree.get("config")), "rootDir").rstrip("/\\")
    remaining: list[tuple[Node, tuple[str, ...]]] = [(suite, ()) for suite in reversed(as_nodes(tree["suites"]))]
    while remaining:
        suite, titles = remaining.pop()
        title = text_of(suite, "title")
        titles = titles if title == text_of(suite, "file") else (*titles, title)  # the outermost is the file
        for spec in as_nodes(suite.get("specs")):
            for test in as_nodes(spec.get("tests")):
                _add_playwright_test(spec, test, titles, root, collector)
        remaining += [(child, titles) for child in reversed(as_nodes(suite.get("suites")))]
    for error in as_nodes(tree.get("errors")):
        add_run_failure(collector, "playwright", text_of(error, "message"))


def _add_playwright_test(spec: Node, test: Node, titles: tuple[str, ...], root: str, collector: CaseCollector) -> None:
    """Add every attempt; one with the status that the test expects has passed."""
    file = text_of(spec, "file")
    name = " › ".join((*titles, text_of(spec, "title")))
    expected = text_of(test, "expectedStatus")
    attempts = as_nodes(test.get("results"))
    if not attempts:
        attempts, expected = [{"status": "skipped"}], "skipped"
    for ordinal, attempt in enumerate(attempts, 1):
        outcome = collector.outcome_of(text_of(attempt, "status"), PLAYWRIGHT_OUTCOMES, "a test with the status")
        if outcome is None:  # interrupted
            continue
        if outcome != SKIPPED:
            outcome = PASSED if text_of(attempt, "status") == expected else FAILED
        errors = [as_node(attempt.get("error")), *as_nodes(attempt.get("errors"))]
        message = next((text for error in errors if (text := text_of(error, "message"))), text_of(attempt, "status"))
        collector.add(
            file,
            name,
            outcome,
            milliseconds_of(attempt),
            file=f"{root}/{file}" if root else file,
            line=line_of(spec),
            variant=text_of(test, "projectName")[:MAX_TEXT],
            attempt=ordinal if len(attempts) > 1 else 0,
            text=message,
        )


# Mocha and mochawesome


def _read_mocha(tree: Any, collector: CaseCollector) -> None:
    """Add the tests, and the hooks that failed, which stand among the failures only."""
    failures = {_mocha_key(test): test for test in as_nodes(tree.get("failures"))}
    pending = {_mocha_key(test) for test in as_nodes(tree.get("pending"))}
    tests = as_nodes(tree["tests"])
    for test in tests:
        key = _mocha_key(test)
        failed = bool(as_node(test.get("err")))
        failures.pop(key, None)
        _add_mocha_test(test, FAILED if failed else SKIPPED if key in pending else PASSED, collector)
    for hook in failures.values():
        _add_mocha_test(hook, FAILED, collector)
    stats = as_node(tree.get("stats"))
    compare_totals(collector, count_of(stats, "tests"), len(tests))


def _mocha_key(test: Node) -> tuple[str, str]:
    return text_of(test, "file"), text_of(test, "fullTitle")


def _add_mocha_test(test: Node, outcome: Outcome, collector: CaseCollector) -> None:
    error = as_node(test.get("err"))
    message = text_of(error, "stack") or text_of(error, "message") or text_of(error, "estack")
    name, file = text_of(test, "fullTitle") or text_of(test, "title"), text_of(test, "file")
    collector.add(
        file or name.removesuffix(text_of(test, "title")).strip(),
        name,
        after_retries(outcome, count_of(test, "currentRetry")),
        milliseconds_of(test),
        file=file,
        text=message,
    )


def _read_mochawesome(tree: Any, collector: CaseCollector) -> None:
    remaining = [(suite, "") for suite in reversed(as_nodes(tree["results"]))]
    seen = 0
    while remaining:
        suite, file = remaining.pop()
        file = text_of(suite, "file").lstrip("/") or file
        hooks = [*as_nodes(suite.get("beforeHooks")), *as_nodes(suite.get("afterHooks"))]
        tests = as_nodes(suite.get("tests"))
        seen += len(tests)
        for test in [*tests, *(hook for hook in hooks if hook.get("fail") is True)]:
            failed = test.get("fail") is True
            outcome = FAILED if failed else PASSED if test.get("pass") is True else SKIPPED
            _add_mocha_test({**test, "file": file}, outcome, collector)
        remaining += [(child, file) for child in reversed(as_nodes(suite.get("suites")))]
    compare_totals(collector, count_of(as_node(tree.get("stats")), "tests"), seen)


# RSpec

RSPEC_OUTCOMES = {"passed": PASSED, "failed": FAILED, "pending": SKIPPED}


def _read_rspec(tree: Any, collector: CaseCollector) -> None:
    examples = as_nodes(tree["examples"])
    for example in examples:
        outcome = collector.outcome_of(text_of(example, "status"), RSPEC_OUTCOMES, "an example with the status")
        if outcome is None:
            continue
        file = text_of(example, "file_path")
        group = re.sub(r"\.[^/.]*$", "", file).replace("/", ".").strip(".")  # as in rspec_junit_formatter
        exception = as_node(example.get("exception"))
        line = line_of(example, "line_number")
        name = text_of(example, "full_description") or text_of(example, "description")
        details = number_of(example, "run_time"), text_of(exception, "class")
        collector.add(group, name, outcome, *details, file, line, text=text_of(exception, "message"))
    summary = as_node(tree.get("summary"))
    compare_totals(collector, count_of(summary, "example_count"), len(examples))
    if count_of(summary, "errors_outside_of_examples_count"):
        messages = " ".join(message for message in as_list(tree.get("messages")) if isinstance(message, str))
        add_run_failure(collector, "rspec", re.sub(r"^\s*An error occurred[^\n]*\n", "", messages[:4000]))


# Cucumber and Behave

CUCUMBER_FAILURES = ("failed", "error", "hook_error", "cleanup_error", "ambiguous")
CUCUMBER_UNDEFINED = ("undefined", "pending", "pending_warn")


def _read_cucumber(tree: Any, collector: CaseCollector) -> None:
    for feature in as_nodes(tree):
        background: list[Node] = []
        scenarios = []
        for element in as_nodes(feature.get("elements")):
            if element.get("type") == "background":
                background = _cucumber_steps(element)
            else:
                scenarios.append((element, background + _cucumber_steps(element)))
                background = []
        names = Counter(name for name, _ in {(text_of(e, "name"), _cucumber_place(feature, e)) for e, _ in scenarios})
        places: dict[str, list[tuple[str, int]]] = {}
        attempts: Counter[tuple[str, int]] = Counter()
        for element, steps in scenarios:
            name, location = text_of(element, "name"), _cucumber_place(feature, element)
            attempts[location] += 1
            rows = places.setdefault(name, [])
            if location not in rows:
                rows.append(location)
            suffix = f" [{rows.index(location) + 1}]" if names[name] > 1 else ""
            _add_scenario(feature, element, steps, name + suffix, attempts[location], collector)


def _add_scenario(
    feature: Node, element: Node, steps: list[Node], name: str, attempt: int, collector: CaseCollector
) -> None:
    results = [result for step in steps if (result := as_node(step.get("result")))]
    outcome, failed = _scenario_outcome(element, results)
    unit = 1.0 if "location" in element else 1e-9  # Behave tells seconds, Cucumber nanoseconds
    durations = [seconds * unit for result in results if (seconds := number_of(result, "duration")) == seconds]
    message = failed.get("error_message", "")
    message = "\n".join(map(str, message)) if isinstance(message, list) else str(message)
    file, line = _cucumber_place(feature, element)
    collector.add(
        text_of(feature, "name") or file,
        name,
        outcome,
        sum(durations) if durations else NO_SECONDS,
        failure_word(message) or text_of(failed, "status"),
        file,
        line,
        suite=file,
        attempt=attempt,
        text=message or f"a step is {failed.get('status', 'failed')}",
    )


def _scenario_outcome(element: Node, results: list[Node]) -> tuple[Outcome, Node]:
    """Return the outcome of a scenario and the result that decided it.

    Undefined steps fail a scenario of Cucumber for Java and JavaScript, and do not fail one of Ruby.
    """
    failed = next((result for result in results if result.get("status") in CUCUMBER_FAILURES), None)
    if failed or text_of(element, "status") in CUCUMBER_FAILURES:
        return FAILED, failed or {}
    undefined = next((result for result in results if result.get("status") in CUCUMBER_UNDEFINED), None)
    if undefined:
        steps = as_nodes(element.get("steps"))
        is_strict = "start_timestamp" in element or any("arguments" in step or "hidden" in step for step in steps)
        return (FAILED if is_strict else SKIPPED), undefined
    is_skipped = not results or any(result.get("status") != "passed" for result in results)
    return (SKIPPED if is_skipped else PASSED), {}


def _cucumber_steps(element: Node) -> list[Node]:
    steps = [step for key in ("before", "steps", "after") for step in as_nodes(element.get(key))]
    hooks = [hook for step in steps for key in ("before", "after") for hook in as_nodes(step.get(key))]
    return steps + hooks


def _cucumber_place(feature: Node, element: Node) -> tuple[str, int]:
    if "location" in element:
        file, _, line = text_of(element, "location").rpartition(":")
        return file, int(line) if line.isdecimal() and len(line) < 10 else 0
    return text_of(feature, "uri").removeprefix("file:").removeprefix("classpath:"), line_of(element)


# Allure 2

ALLURE_OUTCOMES = {"passed": PASSED, "failed": FAILED, "broken": FAILED, "skipped": SKIPPED}
MAX_PARAMETERS = 10


def _read_allure(tree: Any, collector: CaseCollector) -> None:
    """Add one result. Those of one test, which Allure shows as its retries, are numbered by the time they began."""
    outcome = collector.outcome_of(text_of(tree, "status"), ALLURE_OUTCOMES, "a test with the status")
    if outcome is None:
        return
    start, stop = number_of(tree, "start"), number_of(tree, "stop")
    group, name, variant = _allure_name(tree)
    collector.add(
        group,
        name,
        outcome,
        max(0.0, stop - start) / 1000 if start == start and stop == stop else NO_SECONDS,
        variant=variant,
        attempt=count_of(tree, "start"),
        text=text_of(as_node(tree.get("statusDetails")), "message"),
    )


def _allure_name(tree: Node) -> tuple[str, str, str]:
    """Return class, name and variant; the parameters that the name does not show are the variant."""
    labels = {text_of(label, "name"): text_of(label, "value") for label in as_nodes(tree.get("labels"))}
    name, full_name = text_of(tree, "name"), text_of(tree, "fullName")
    group, mark, method = full_name.rpartition("#")
    if labels.get("testClass"):
        group = labels["testClass"]
    elif mark:
        name = name if name.startswith(method) else method
    elif full_name.endswith(name) and full_name != name:
        group = re.sub(r"[\s.:/›>-]+$", "", full_name.removesuffix(name))
    else:
        suites = (labels.get(key, "") for key in ("parentSuite", "suite", "subSuite"))
        group = " > ".join(filter(None, suites)) or labels.get("package", "")
    parameters = [
        text_of(parameter, "value")
        for parameter in as_nodes(tree.get("parameters"))[:MAX_PARAMETERS]
        if parameter.get("excluded") is not True
    ]
    missing = [value for value in parameters if value and not re.search(rf"(?<!\w){re.escape(value)}(?!\w)", name)]
    return group, name or full_name, ", ".join(missing)[:MAX_TEXT]


def _read_allure_container(_tree: Any, _collector: CaseCollector) -> None:
    """Read nothing: a fixture that failed breaks the tests that need it, and their results say so."""


def _read_allure_globals(tree: Any, collector: CaseCollector) -> None:
    for error in as_nodes(tree["errors"]):
        add_run_failure(collector, "allure", text_of(error, "message"))


def _has(tree: Any, **kinds: type) -> bool:
    """Tell whether the document is an object with these keys, of these types."""
    return isinstance(tree, dict) and all(isinstance(tree.get(key), kind) for key, kind in kinds.items())


# The first that holds is taken.
DIALECTS = (
    JsonDialect("xcresult", lambda tree: _has(tree, testNodes=list), _read_xcresult),
    JsonDialect("CTRF", lambda tree: _has(tree, results=dict) and _has(tree["results"], tests=list), _read_ctrf),
    JsonDialect("Playwright JSON", lambda tree: _has(tree, suites=list, config=dict), _read_playwright),
    JsonDialect("Jest JSON", lambda tree: _has(tree, testResults=list) and _is_jest(tree), _read_jest),
    JsonDialect("Vitest JSON", lambda tree: _has(tree, testResults=list, numTotalTests=int), _read_jest),
    JsonDialect("mochawesome", lambda tree: _has(tree, stats=dict, results=list), _read_mochawesome),
    JsonDialect("Mocha JSON", lambda tree: _has(tree, stats=dict, tests=list), _read_mocha),
    JsonDialect("RSpec JSON", lambda tree: _has(tree, examples=list), _read_rspec),
    JsonDialect("Allure", lambda tree: _has(tree, uuid=str, name=str, status=str), _read_allure),
    JsonDialect("Allure container", lambda tree: _has(tree, uuid=str) and "start" in tree, _read_allure_container),
    JsonDialect("Allure globals", lambda tree: _has(tree, attachments=list, errors=list), _read_allure_globals),
    JsonDialect(
        "Cucumber JSON",
        lambda tree: (
            isinstance(tree, list) and bool(as_nodes(tree)) and all("elements" in node for node in as_nodes(tree))
        ),
        _read_cucumber,
    ),
)
OTHER_JSON = "give the tool's JUnit report, or CTRF"
# What other JSON is, and what to give instead.
ADVICE: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    (
        "it is Cucumber's stream of messages: use `--format json` or `--format junit`",
        lambda tree: _has(tree, meta=dict),
    ),
    ("it is pytest-reportlog's: use `--junit-xml`", lambda tree: isinstance(tree, dict) and "$report_type" in tree),
    ("it is pytest-reportlog's: use `--junit-xml`", lambda tree: _has(tree, pytest_version=str)),
    ("it is Rust's libtest: use the JUnit report of cargo-nextest", lambda tree: _has(tree, type=str, event=str)),
    ("it is Bazel's stream of build events: give bazel-testlogs/**/test.xml", lambda tree: _has(tree, id=dict)),
    ("it is GoogleTest's: use `--gtest_output=xml`", lambda tree: _has(tree, testsuites=list)),
    ("it is pytest-json-report's: use `--junit-xml`", lambda tree: _has(tree, tests=list, exitcode=int)),
    ("it is a log of static analysis (SARIF), no tests", lambda tree: _has(tree, runs=list, version=str)),
    ("it is coverage, no tests", lambda tree: _has(tree, files=dict, totals=dict)),
    ("an empty list: the run had no features or tests", lambda tree: tree == []),
)
