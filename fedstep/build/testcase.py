"""The `<testcase>` elements of one JUnit report, in every dialect we know, as a stream of values."""

from collections import Counter
from xml.parsers import expat

from fedstep.build.attributes import (
    LONGEST_NAME,
    LONGEST_TEXT,
    LONGEST_TYPE,
    below_root,
    failure_word,
    is_absolute,
    path_pattern,
    relative,
    seconds,
    tamed,
)
from fedstep.build.dialect import NO_SIGNATURE, Signature, advice
from fedstep.build.markup import DEEPEST, Refused, too_deep
from fedstep.build.record import NO_SECONDS, Dropped, Outcome, TestRun
from fedstep.build.robot import Robot
from fedstep.build.trx import Trx

__all__ = ["Cases"]

ROOTS = {"testsuites", "testsuite", "testcase"}
FOREIGN: dict[str, type[Trx] | type[Robot]] = {"TestRun": Trx, "robot": Robot}
FAILED, AGAIN, SKIPPED = 1, 2, 4
MARKS = {"failure": FAILED, "error": FAILED, "skipped": SKIPPED, "disabled": SKIPPED}
MARKS |= dict.fromkeys(("flakyFailure", "flakyError", "rerunFailure", "rerunError"), AGAIN)
NAMELESS = "a test case without name and class"
NO_CLASS = "\0"  # no class of an XML file has this name
NOT_RUN = {"notrun", "skipped", "disabled", "ignored", "suppressed"}  # GoogleTest and CTest say it in an attribute
PASSED = Outcome.PASSED  # measured: an attribute of an enumeration costs 0.1 µs on Python 3.11
new_tuple = tuple.__new__  # a NamedTuple's own constructor is a Python function, three times as slow
TOLD_ONE_BY_ONE = 100  # of the same reason in one file; the others are told as a number


class Cases:
    """What has been read of one report: `take` hands out the cases that are complete, in the order of the report."""

    def __init__(self, source: str, root: str) -> None:
        self.source, self.root = source, root.replace("\\", "/").rstrip("/")
        self._path = path_pattern(self.root)
        self._folder = self.root.rpartition("/")[2]  # told apart faster than a path in either notation
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start_root
        self.started = False  # a root element of a report was seen
        self.pytest = self.node = self.playwright = False
        self.signature = NO_SIGNATURE
        self.declared = self.cases = 0  # tests that the suites announce, cases that stand in them
        self.told: Counter[tuple[str, bool]] = Counter()
        self._items: list[TestRun | Dropped] = []
        self._suites: list[tuple[str, str, int]] = []  # name, file and depth of the open ones
        self._case: dict[str, str] | None = None
        self._marks, self._type, self._text, self._depth = 0, "", "", 0
        self._listening = False
        self._class, self._prefix, self._suite_file, self._project = NO_CLASS, "", "", ""
        self._foreign: Trx | Robot | None = None

    def take(self) -> list[TestRun | Dropped]:
        """The cases, and what was wrong with them, since the last call."""
        items, self._items = self._items, []
        return items

    def cut_off(self) -> None:
        """Note the case that was open when the document stopped."""
        if self._foreign:
            self._foreign.finish()
        if self._case is not None:
            self._note("the report stops inside this test case", kept=False)

    def untold(self) -> list[Dropped]:
        """One line for each reason that came too often to be told case by case."""
        more = ((reason, kept, count - TOLD_ONE_BY_ONE) for (reason, kept), count in self.told.items())
        return [Dropped(f"{self.source}:*", f"{n} more: {reason}", kept) for reason, kept, n in more if n > 0]

    def begin(self, dialect: str) -> None:
        """The file is a report, of a dialect that is no JUnit."""
        self.started, self.signature = True, Signature(dialect)

    def add(
        self,
        group: str,
        name: str,
        outcome: Outcome,
        seconds: float = NO_SECONDS,
        failure_type: str = "",
        file: str = "",
        line: int = 0,
    ) -> None:
        """One attempt at a test that a reader of another format has found."""
        self.cases += 1
        if not name and not group:
            self.drop(NAMELESS)
            return
        test = tamed(f"{relative(group, self.root)}#{self._path.sub(below_root, name) if self.root else name}")
        place = relative(file, self.root)[:LONGEST_NAME]
        self._items.append(TestRun(test, outcome, seconds, failure_type[:LONGEST_TYPE], place, line))

    def drop(self, reason: str) -> None:
        """A case that cannot be used, at this place of the file."""
        self._note(reason, kept=False)

    def _note(self, reason: str, kept: bool) -> None:
        self.told[reason, kept] += 1
        if self.told[reason, kept] <= TOLD_ONE_BY_ONE:
            self._items.append(Dropped(f"{self.source}:{self.parser.CurrentLineNumber}", reason, kept))

    def _start_root(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        if local not in ROOTS and local not in FOREIGN:
            raise Refused(f"not a test report that is read here: its root element is <{name[:60]}>{advice(local)}")
        self.started, self.signature = True, Signature(local, attributes)
        if local in FOREIGN:
            self._foreign = FOREIGN[local](self.parser, self)
            return
        self.node = local == "testsuites" and not attributes
        self.pytest = attributes.get("name") == "pytest tests"
        self.playwright = tuple(attributes)[:2] == ("id", "name") and "skipped" in attributes
        self.parser.StartElementHandler, self.parser.EndElementHandler = self._start_first, self._end
        self._start_first(name, attributes)

    def _start_first(self, name: str, attributes: dict[str, str]) -> None:
        """`_start` up to the first test case, which with its suite tells the dialect."""
        local = name.rpartition(":")[2]
        if local == "testsuite" and not self.signature.suite:
            self.signature = self.signature._replace(suite=attributes)
        elif local == "testcase":
            self.signature = self.signature._replace(case=attributes)
            self.parser.StartElementHandler = self._start
        self._start(name, attributes)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "testcase":
            if self._case is not None:
                self._note("a test case inside a test case", kept=False)
            self._case, self._marks, self._type = attributes, 0, ""
        elif ":" in name:
            self._start(name.rpartition(":")[2], attributes)
        else:
            self._enter(name, attributes)

    def _enter(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise too_deep(self.parser)
        if name == "testsuite":
            self._open_suite(attributes)
        elif self._case is not None and (mark := MARKS.get(name, 0)):
            self._marks |= mark
            if mark != SKIPPED and not self._type:
                self._fail(attributes)
        elif name == "error" and self._suites and self._depth == self._suites[-1][2] + 1:
            self._fail_suite(attributes)

    def _fail_suite(self, attributes: dict[str, str]) -> None:
        """A suite that could not even start is one failed test, as Jenkins has it."""
        kind = attributes.get("type", "") or failure_word(attributes.get("message", ""))
        self.add(self._suites[-1][0], "<init>", Outcome.FAILED, NO_SECONDS, kind, self._suite_file)

    def _open_suite(self, attributes: dict[str, str]) -> None:
        name = attributes.get("name", "")
        self._suite_file = attributes.get("file", "")[:LONGEST_NAME]
        self._suites.append((name[:LONGEST_TYPE], self._suite_file, self._depth))
        self.pytest = self.pytest or name == "pytest"
        if self.playwright:  # runs the same tests once for each of its projects, which it calls hosts
            self._project, self._class = attributes.get("hostname", "")[:LONGEST_TYPE], NO_CLASS
        tests = attributes.get("tests", "")
        self.declared += int(tests) if tests.isdecimal() and len(tests) < 10 else 0

    def _fail(self, attributes: dict[str, str]) -> None:
        self._type = attributes.get("type", "").strip()[:LONGEST_TYPE] or failure_word(attributes.get("message", ""))
        if not self._type:  # Jest and gotestsum say it in the text
            self._listening = True
            self.parser.CharacterDataHandler = self._read_text

    def _read_text(self, text: str) -> None:
        self._text = (self._text + text[:LONGEST_TEXT]).lstrip()
        if len(self._text) >= LONGEST_TEXT:
            self._stop_text()

    def _stop_text(self) -> None:
        self.parser.CharacterDataHandler = None
        self._type = self._type or failure_word(self._text)
        self._text, self._listening = "", False

    def _end(self, name: str) -> None:
        if name == "testcase":
            case, self._case = self._case, None
            if case is not None:
                self._finish(case)
        elif ":" in name:
            self._end(name.rpartition(":")[2])
        else:
            self._depth -= 1
            if self._listening:
                self._stop_text()
            if name == "testsuite" and self._suites:
                self._suites.pop()
                self._suite_file = self._suites[-1][1] if self._suites else ""

    def _finish(self, case: dict[str, str]) -> None:
        self.cases += 1
        get = case.get
        name, class_name, time = get("name", ""), get("classname") or get("class", ""), get("time")
        if not name and not class_name:
            self._note(NAMELESS, kept=False)
            return
        file = self._file(case) if self._suite_file or "file" in case else ""
        if class_name != self._class:
            self._change_class(class_name, file)
        if self._folder and self._folder in name:
            name = self._path.sub(below_root, name)
        test = self._prefix + name
        if len(test) > LONGEST_NAME or not test.isprintable():
            test = tamed(test)
        outcome = self._outcome(case) if self._marks or "status" in case else PASSED
        value = seconds(time) if time else NO_SECONDS
        if time and value != value:
            self._note(f"time {time[:40]!r} is not a duration", kept=True)
        line = self._line(case["line"]) if "line" in case else 0
        self._items.append(new_tuple(TestRun, (test, outcome, value, self._type, file, line)))

    def _file(self, case: dict[str, str]) -> str:
        file = case.get("file") or self._suite_file
        return relative(file, self.root)[:LONGEST_NAME]

    def _change_class(self, class_name: str, file: str) -> None:
        if not class_name or (self.node and class_name == "test"):  # Node's reporter calls every class "test"
            self._class, self._prefix = NO_CLASS, self._suite_prefix(file, class_name)
        else:
            project = f"[{self._project}] " if self._project else ""
            self._class, self._prefix = class_name, f"{relative(class_name, self.root)}#{project}"

    def _suite_prefix(self, file: str, class_name: str) -> str:
        suites = [relative(name, self.root) for name, _, _ in self._suites[-8:] if name]
        if file and not is_absolute(file) and file not in suites:
            suites.insert(0, file)
        return ("/".join(suites) or class_name) + "#"

    def _outcome(self, case: dict[str, str]) -> Outcome:
        marks = self._marks
        if marks & FAILED:
            return Outcome.CONFIRMED if marks & AGAIN else Outcome.FAILED
        if marks & AGAIN:
            return Outcome.FLAKED
        return Outcome.SKIPPED if marks & SKIPPED or case.get("status", "").lower() in NOT_RUN else PASSED

    def _line(self, line: str) -> int:
        if not line.isdecimal() or len(line) > 9:
            return 0
        return int(line) + self.pytest  # pytest's xunit1 counts from 0
