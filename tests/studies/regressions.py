"""Record builds with real regressions from the history of a project: its fixes, taken back on later commits.

python -m tests.studies.regressions NAME CHECKOUT --source PREFIX... --tests PATH... --python PATH --into FOLDER

CHECKOUT is a clone that may be moved about; the interpreter has the project's dependencies and the project itself,
installed from the checkout (`pip install -e`). FOLDER/NAME gets the builds and truth.csv, and FOLDER/NAME.tar.xz the
same, packed. tests/data/regressions/README.md describes the format and what such builds can and cannot show.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import tarfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple, Self, TypeAlias

from fedstep.ingest.change_impact import file_kind
from fedstep.ingest.git import parse_numstat, parse_words
from fedstep.ingest.test_source import extract_words, read_source

MOST_FILES = 8  # of a fix that are no tests
SOONEST, LATEST = 3, 25  # fixes between a fix and the commit that it is taken back on
MOST_OF_A_COMMIT = 2  # builds with a fix taken back
MOST_FAILING = 0.3  # of a build's tests
LEAST_TESTS = 0.7  # of the tests before the fix was taken back
LONGEST_MESSAGE = 80

Report: TypeAlias = "ET.ElementTree[ET.Element]"


class Fix(NamedTuple):
    """A commit that changes sources and their tests."""

    commit: str
    committed_at: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What to record of a project."""

    name: str
    checkout: Path
    sources: tuple[str, ...]  # prefixes of paths
    tests: tuple[str, ...]  # arguments of pytest
    python: str
    since: int = 2018  # year
    builds: int = 30  # of commits as they are, at most
    regressions: int = 26  # builds with a fix taken back, at most
    each: int = 2  # times that one fix is taken back, at most
    seconds: float = 60.0  # that a run of the tests may take
    minutes: float = 10.0  # that all may take
    options: tuple[str, ...] = ()  # of pytest

    @property
    def folders(self) -> tuple[str, str]:
        """The checkout, and the environment of the interpreter."""
        return str(self.checkout), str(Path(self.python).parents[1])


@dataclass
class RecordingBuilder:
    """The builds and regressions recorded so far, written below a folder."""

    plan: Plan
    folder: Path
    builds: int = 0
    regressions: list[tuple[str, str, str]] = field(default_factory=list)  # build, test, its state before the fix
    known: dict[str, str] = field(default_factory=dict)  # words by test
    reverted: dict[str, int] = field(default_factory=dict)  # times, by commit

    @property
    def failing_builds(self) -> int:
        """The number of builds with a regression."""
        return len({build for build, _, _ in self.regressions})

    def add(self, commit: str, started_at: int, seconds: float, report: Report, reverted: str = "") -> str:
        """Write a build of the checkout as it is, and return its name."""
        self.builds += 1
        name, folder = f"{self.plan.name}-{self.builds:04d}", self.folder / f"{self.builds:04d}"
        folder.mkdir(parents=True)
        diff = ("diff", "HEAD") if reverted else ("show", "--format=", commit)
        changes = parse_numstat(self.git(*diff, "--no-renames", "--numstat", "-z"))
        build = {
            "build": name,
            "commit": commit,
            "started_at": datetime.fromtimestamp(started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seconds": round(seconds, 2),
            "branch": "topic" if reverted else "main",
            "event": "push",
            "outcome": "unstable" if any(read_outcomes(report).values()) else "passed",
            "changes": [{"path": one.path, "added": one.added, "deleted": one.deleted} for one in changes],
            "words": list(parse_words(self.git(*diff, "--no-renames", "-U0"))),
        }
        if reverted:
            build["reverted"] = reverted
        (folder / "build.json").write_text(json.dumps(build), encoding="utf-8")
        strip_report(report, *self.plan.folders).write(folder / "report.xml", encoding="utf-8")
        words = read_words(self.plan.checkout)
        news = {test: text for test, text in words.items() if self.known.get(test) != text}
        if news:
            (folder / "sources.json").write_text(json.dumps({"tests": news}), encoding="utf-8")
        self.known |= news
        return name

    def finish(self) -> None:
        """Write the table of regressions."""
        with (self.folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
            rows = ((build, test, "regression", before) for build, test, before in self.regressions)
            csv.writer(file).writerows([("build", "test", "kind", "before_fix"), *rows])

    def git(self, *arguments: str, given: bytes | None = None) -> bytes:
        """Return the output of git in the checkout."""
        command = ["git", "-C", str(self.plan.checkout), *arguments]
        return subprocess.run(command, input=given, check=True, capture_output=True).stdout


def is_test(path: str) -> bool:
    """Return whether a file has tests, or helps them."""
    return file_kind(path) == "test"


def parse_fixes(log: str, sources: tuple[str, ...]) -> list[Fix]:
    """Return the fixes of `git log --format=@%H %ct --name-only`, oldest first."""
    fixes = []
    for entry in log.split("@")[1:]:
        first, *paths = [line for line in entry.splitlines() if line]
        changed = tuple(p for p in paths if p.endswith(".py") and p.startswith(sources) and not is_test(p))
        tests = [path for path in paths if path.endswith(".py") and is_test(path)]
        if tests and 0 < len(changed) <= MOST_FILES:
            commit, when = first.split()
            fixes.append(Fix(commit, int(when), changed))
    return fixes[::-1]


def pick_bases(fixes: Sequence[Fix], count: int) -> list[int]:
    """Return the places of at most `count` fixes to build, evenly spread, after the first few."""
    places = range(SOONEST, len(fixes))
    stride = max(1.0, len(places) / count)
    return sorted({places[int(number * stride)] for number in range(min(count, len(places)))})


def read_outcomes(report: Report) -> dict[str, bool]:
    """Return by test of a report whether it failed."""
    outcomes: dict[str, bool] = {}
    for case in report.iter("testcase"):
        name = f"{case.get('classname')}#{case.get('name')}"
        bad = case.find("failure") is not None or case.find("error") is not None
        outcomes[name] = outcomes.get(name, False) or bad
    return outcomes


def strip_report(report: Report, *folders: str) -> Report:
    """Return the report without outputs, traces, the time and the name of the machine, and these folders of it."""
    for suite in report.iter("testsuite"):
        suite.attrib.pop("timestamp", None)
        suite.set("hostname", "host")
    for case in report.iter("testcase"):
        for child in list(case):
            if child.tag in ("system-out", "system-err", "properties"):
                case.remove(child)
                continue
            child.text = None
            message = child.get("message", "")
            for folder in folders:
                message = message.replace(folder, ".")
            lines = message.splitlines()
            child.set("message", lines[0][:LONGEST_MESSAGE] if lines else "")
    return report


def read_words(checkout: Path) -> dict[str, str]:
    """Return the words of each test function of the checkout, as `train` reads them, by test."""
    words = {}
    for path in sorted(checkout.rglob("*.py")):
        name = path.relative_to(checkout).as_posix()
        if is_test(name) and not name.startswith("."):
            for function, text in _functions(path.read_text(encoding="utf-8", errors="replace")).items():
                owner, _, bare = function.rpartition(".")
                module = name.removesuffix(".py").replace("/", ".")
                if bare.startswith("test"):
                    words[f"{module}{'.' * bool(owner)}{owner}#{bare}"] = text
    return words


def _functions(text: str) -> dict[str, str]:
    source = read_source(text, ".py")
    return {name: " ".join(extract_words(source, one)) for name, one in source.functions.items()}


def find_file(test: str, exists: Mapping[str, str] | Sequence[str]) -> tuple[str, str]:
    """Return the file of a test of pytest's, and its function's name with its classes in it; ("", "") if unknown."""
    owner, _, name = test.partition("#")
    parts, bare = owner.split("."), name.partition("[")[0]
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length]) + ".py"
        if path in exists:
            return path, ".".join([*parts[length:], bare])
    return "", ""


def state_before(builder: RecordingBuilder, test: str, fix: str) -> str:
    """Return whether a test was "new" with the fix, "changed" by it, or the "same" before and after; else "later"."""
    texts = []
    for commit in (f"{fix}^", fix):
        files = builder.git("ls-tree", "-r", "--name-only", commit).decode("utf-8", "replace").splitlines()
        path, function = find_file(test, files)
        text = builder.git("show", f"{commit}:{path}").decode("utf-8", "replace") if path else ""
        source = read_source(text, ".py")
        one = source.functions.get(function)
        texts.append(text[one.start : one.end] if one else "")
    before, after = texts
    if not after:
        return "later"
    if not before:
        return "new"
    return "same" if before == after else "changed"


_FIRST_CHANGE = 365 * 24 * 3600  # seconds since 1970: no file of a checkout is older, and no number of runs is as high
# Importing pytest takes longer than many suites: it is imported once, and each run is a fork.
_SERVER = """
import importlib, json, os, sys, time
import _pytest.config
for name in _pytest.config.default_plugins:
    importlib.import_module("_pytest." + name)
for line in sys.stdin:
    arguments, seconds = json.loads(line)
    child = os.fork()
    if not child:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        sys.path.insert(0, os.getcwd())
        sys.argv = ["pytest", *arguments]
        os._exit(_pytest.config.main(arguments))
    end = time.monotonic() + seconds
    while not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.01)
        if time.monotonic() > end:
            os.kill(child, 9)
            end += seconds
    print(flush=True)
"""


class TestRunner:
    """Runs a project's tests, and returns pytest's report."""

    __test__ = False

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self._plan, self._report = plan, scratch / "report.xml"
        kept = {"PYTHONPYCACHEPREFIX": str(scratch / "bytecode"), "PY_COLORS": "0", "PYTHONHASHSEED": "0"}
        self._server = subprocess.Popen(
            [plan.python, "-c", _SERVER],
            cwd=plan.checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | kept,
            text=True,
        )
        self._runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(self, tests: Sequence[str]) -> tuple[Report, float] | None:
        """Return the report and the seconds that the run took; None where it is not whole."""
        self._report.unlink(missing_ok=True)
        self._date_changed_files()
        start = time.monotonic()
        own = ("-q", "-p", "no:cacheprovider", "-o", "addopts=", "--junit-xml", str(self._report))
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = json.dumps([[*own, *self._plan.options, *tests], self._plan.seconds])
        print(request, file=self._server.stdin, flush=True)
        if not self._server.stdout.readline():
            raise RuntimeError(f"pytest does not start with {self._plan.python}")
        try:
            return ET.parse(self._report), time.monotonic() - start
        except (OSError, ET.ParseError):
            return None

    def _date_changed_files(self) -> None:
        """Give the files that changed since the last run a time of their own.

        Bytecode is kept by the second of a file's change, and two checkouts can be in one second.
        """
        self._runs += 1
        for path in self._plan.checkout.rglob("*.py"):
            if path.stat().st_mtime >= _FIRST_CHANGE:
                os.utime(path, (self._runs, self._runs))


def record(plan: Plan, folder: Path, scratch: Path) -> RecordingBuilder:
    """Return the builds recorded below `folder`, oldest first."""
    builder = RecordingBuilder(plan, folder)
    log = builder.git(
        "log", "--no-merges", "--min-parents=1", "--no-renames", "--name-only", "--format=@%H %ct", "HEAD", "--", "."
    )
    fixes = parse_fixes(log.decode("utf-8", "replace"), plan.sources)
    fixes = [one for one in fixes if datetime.fromtimestamp(one.committed_at, UTC).year >= plan.since]
    bases, random = pick_bases(fixes, plan.builds), Random(1)
    deadline = time.monotonic() + 60 * plan.minutes
    with TestRunner(plan, scratch) as runner:
        for number, place in enumerate(bases, 1):
            by_now = min(plan.regressions, plan.regressions * number // len(bases) + 1)
            quota = min(by_now, builder.failing_builds + MOST_OF_A_COMMIT)
            if time.monotonic() > deadline:
                break
            _record_base(builder, runner, fixes, place, quota, random)
            print(plan.name, f"{number}/{len(bases)}", builder.builds, builder.failing_builds, flush=True)
    builder.finish()
    return builder


def _record_base(
    builder: RecordingBuilder, runner: TestRunner, fixes: Sequence[Fix], place: int, quota: int, random: Random
) -> None:
    """Record the commit of a fix as it is, and with earlier fixes taken back until `quota` builds have regressions."""
    base = fixes[place]
    _check_out(builder, base.commit)
    ran = runner.run(builder.plan.tests)
    outcomes = read_outcomes(ran[0]) if ran else {}
    if not ran or not outcomes or sum(outcomes.values()) > MOST_FAILING * len(outcomes):
        print("unfit", base.commit[:10], len(outcomes), sum(outcomes.values()), flush=True)
        return
    builder.add(base.commit, base.committed_at, ran[1], ran[0])
    candidates = list(fixes[max(0, place - LATEST) : place - SOONEST + 1])
    random.shuffle(candidates)
    candidates.sort(key=lambda one: builder.reverted.get(one.commit, 0))
    minutes = 0
    for fix in candidates:
        if builder.failing_builds >= quota:
            return
        if builder.reverted.get(fix.commit, 0) >= builder.plan.each:
            continue
        minutes += 1
        _record_revert(builder, runner, base._replace(committed_at=base.committed_at + 60 * minutes), fix, outcomes)


def _record_revert(
    builder: RecordingBuilder, runner: TestRunner, base: Fix, fix: Fix, outcomes: Mapping[str, bool]
) -> None:
    """Record the base with a fix taken back, if tests fail that passed without, twice."""
    _check_out(builder, base.commit)
    if not _take_back(builder, fix):
        return
    ran = runner.run(builder.plan.tests)
    broken = read_outcomes(ran[0]) if ran else {}
    failing = [test for test, bad in broken.items() if bad and outcomes.get(test) is False]
    if not ran or not failing or len(broken) < LEAST_TESTS * len(outcomes):
        builder.reverted[fix.commit] = builder.reverted.get(fix.commit, 0) + 1
        return
    if sum(broken.values()) > MOST_FAILING * len(broken):
        return
    files = {find_file(test, _list_files(builder.plan.checkout))[0] for test in failing} - {""}
    again = runner.run(sorted(files) or builder.plan.tests)
    seen = read_outcomes(again[0]) if again else {}
    failing = [test for test in failing if seen.get(test)]
    if failing:
        builder.reverted[fix.commit] = builder.reverted.get(fix.commit, 0) + 1
        name = builder.add(base.commit, base.committed_at, ran[1], ran[0], fix.commit)
        builder.regressions += [(name, test, state_before(builder, test, fix.commit)) for test in failing]


def _check_out(builder: RecordingBuilder, commit: str) -> None:
    builder.git("checkout", "-q", "-f", "--detach", commit)
    builder.git("clean", "-fdq")


def _take_back(builder: RecordingBuilder, fix: Fix) -> bool:
    """Revert the sources of a fix in the checkout, and return whether that went without a conflict."""
    patch = builder.git("diff", "--binary", f"{fix.commit}^", fix.commit, "--", *fix.sources)
    try:
        builder.git("apply", "-R", "-3", given=patch)
    except subprocess.CalledProcessError:
        return False
    return bool(builder.git("diff", "HEAD", "--numstat"))


def _list_files(checkout: Path) -> list[str]:
    return [path.relative_to(checkout).as_posix() for path in checkout.rglob("*.py")]


def pack(folder: Path, archive: Path) -> None:
    """Write the builds below `folder` to an archive that is the same for the same builds."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in _sorted_files(folder):
            data = path.read_bytes()
            entry = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}")
            entry.size, entry.mtime = len(data), 1764460800
            packed.addfile(entry, io.BytesIO(data))


def _sorted_files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Record one project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("checkout", type=Path)
    for option in ("--source", "--tests"):
        parser.add_argument(option, nargs="+", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--option", action="append", default=[])
    for name, kind in (("since", int), ("builds", int), ("regressions", int), ("each", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Plan, name))
    for name in ("seconds", "minutes"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Plan, name))
    given = parser.parse_args()
    plan = Plan(
        given.name,
        given.checkout.resolve(),
        tuple(given.source),
        tuple(given.tests),
        given.python,
        given.since,
        given.builds,
        given.regressions,
        given.each,
        given.seconds,
        given.minutes,
        tuple(given.option),
    )
    scratch = given.into / f"{plan.name}.scratch"
    scratch.mkdir(parents=True)
    builder = record(plan, given.into / plan.name, scratch)
    pack(given.into / plan.name, given.into / f"{plan.name}.tar.xz")
    print(plan.name, builder.builds, builder.failing_builds, len(builder.regressions))


if __name__ == "__main__":
    main()
