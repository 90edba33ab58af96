"""Give mutated reports to the readers: `python -m tests.fuzz [--seconds 600] [--seed N]`, or `make fuzz`.

Inputs are made of all files of tests/data/junit, tests/data/formats and tests/data/hostile. Each round takes one or two
of them, mutates bytes, lines, tags or values of JSON, and reads the result as a build's report. A round fails if
anything is raised, if a value breaks what `fedstep.types` promises, if it takes more than MAX_SECONDS of processor
time, or if the process needs more than MAX_BYTES of memory. An input that fails is kept in .venv/fuzz and named; the
same seed gives the same inputs.
"""

import argparse
import gzip
import io
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedstep.ingest.ci import read_ci
from fedstep.ingest.git import parse_numstat, parse_objects, parse_raw, parse_status
from fedstep.ingest.junit import FileReading, combine_files, read_reports, summarize
from fedstep.types import Dropped, Outcome

ROOT = Path(__file__).parents[1]
FAILED_INPUTS = ROOT / ".venv" / "fuzz"
MAX_INPUT_BYTES = 200_000
MAX_SECONDS = 10.0  # of processor time for one input: a hundred times what the slowest takes
MAX_BYTES = 2 << 30
MAX_NAME = 1000
TOKENS = (
    *(b"<testcase name='a'/>", b"<testsuite name='s'>", b"</testsuite>", b"<failure>", b"<![CDATA[", b"]]>", b"<!--"),
    *(b"&#0;", b"&amp", b"<!DOCTYPE a [", b"\x00", b"\xff\xfe", b"\x1b[31m", b"\xe2\x80\xa8", b"\xf0\x9f\x92\xa5"),
    *(b"<test-suite type='Assembly'>", b"<assembly>", b"<TestRun>", b"<Site>", b"<TestLog>", b"<robot>", b"<TestCase>"),
    *(b"1..3\n", b"ok 1 - a\n", b"not ok 2 # TODO\n", b"    # Subtest: x\n", b"Bail out!\n", b"  ---\n", b"  ...\n"),
    *(b'{"Action":"run","Package":"p","Test":"T"}\n', b'{"Action":"fail","Package":"p"}\n', b'{"type":"start"}\n'),
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"1e999", b"-1", b"NaN", b"\n", b"\r\n", b" " * 50),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, 10**30, float("inf"), float("nan"), "", "a" * 2000, "\ud800", "\x00", "passed"),
    *("failed", [], {}, [[]], [None], {"": None}, [{}], "2026-01-01T00:00:00Z", "/home/ada/shop/x", "📦 ‮", "1..3"),
)
ATTRIBUTE = re.compile(rb' ([\w:-]+)="[^"]*"')
VARIABLES = ("GITHUB_ACTIONS", "GITLAB_CI", "CI", "TRAVIS", "SEMAPHORE", "bamboo_buildKey", "CODEBUILD_BUILD_ARN")


class Fuzzer:
    """Make and read mutated inputs."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        # The hostile files are many, and few of them are reports.
        self._samples = [*_contents("junit"), *_contents("formats"), *_contents("hostile")[:20]]
        self.read = Counter[str]()  # by dialect
        self.slowest = 0.0

    def make_input(self) -> bytes:
        """Return the next input."""
        content = self._random.choice(self._samples)
        gentle: tuple[Callable[[bytes], bytes], ...] = (self._flip, self._cut, self._insert, self._mutate_json)
        rough: tuple[Callable[[bytes], bytes], ...] = (self._repeat, self._splice, self._swap_lines, self._encode)
        for _ in range(self._random.randint(1, 4)):
            mutations = rough if self._random.random() < 0.1 else gentle
            content = self._random.choice(mutations)(content)[:MAX_INPUT_BYTES]
        return content

    def run(self, content: bytes) -> None:
        """Read one input. Raises AssertionError, or whatever a reader raises."""
        started = time.process_time()
        name = self._random.choice(("r.xml", "r.json", "r.tap"))
        files = [(name, lambda: io.BytesIO(content))]
        root = self._random.choice(("", "/home/ada/shop", "D:/a/shop"))
        readings = tuple(summarize(files, root))
        self._check(readings)
        reports = read_reports(files, root)
        assert repr(reports.tests) == repr(combine_files(readings)), "read_reports and summarize disagree"
        self._read_others(content)
        self.read[readings[0].dialect or "none"] += 1
        seconds = time.process_time() - started
        self.slowest = max(self.slowest, seconds)
        assert seconds < MAX_SECONDS, f"{seconds:.1f} s of processor time"

    def _check(self, readings: tuple[FileReading, ...]) -> None:
        for reading in readings:
            for run in reading.tests:
                assert run.test, "a test without a name"
                assert len(run.test) <= MAX_NAME + 200, f"a name of {len(run.test)} characters"
                assert "\n" not in run.test, "a name of two lines"
                assert isinstance(run.outcome, Outcome), "an outcome that is none"
                assert run.seconds != run.seconds or 0 <= run.seconds <= 7 * 86_400, f"{run.seconds} seconds"
                assert 0 <= run.line < 2**31, f"line {run.line}"
                for text in (run.test, run.failure_type, run.file):
                    text.encode()
            for item in reading.dropped:
                assert isinstance(item, Dropped), "a note that is none"
                assert item.reason, "a note without a reason"
                item.reason.encode()

    def _read_others(self, content: bytes) -> None:
        text = content[:5000].decode("utf-8", "replace")
        read_ci(dict.fromkeys(self._random.sample(VARIABLES, 2), text[:200]), text)
        for parse in (parse_numstat, parse_raw, parse_status):
            parse(content[:5000])
        parse_objects(("HEAD",), content[:5000])

    def _place(self, content: bytes) -> int:
        return self._random.randint(0, len(content))

    def _flip(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.choice((1, 1, 2, 20))):
            if changed:
                changed[self._random.randrange(len(changed))] = self._random.choice((34, 60, 62, 38, 32, 49, 0, 255))
        return bytes(changed)

    def _cut(self, content: bytes) -> bytes:
        start = self._place(content)
        return content[:start] + content[start + self._random.choice((1, 2, 10, 100, len(content))) :]

    def _insert(self, content: bytes) -> bytes:
        place = self._place(content)
        return content[:place] + self._random.choice(TOKENS) * self._random.choice((1, 1, 1, 3, 200)) + content[place:]

    def _repeat(self, content: bytes) -> bytes:
        start, end = sorted((self._place(content), self._place(content)))
        return content[:end] + content[start:end] * self._random.choice((1, 2, 50)) + content[end:]

    def _splice(self, content: bytes) -> bytes:
        other = self._random.choice(self._samples)
        return content[: self._place(content)] + other[self._place(other) :]

    def _swap_lines(self, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        self._random.shuffle(lines)
        return b"".join(lines)

    def _encode(self, content: bytes) -> bytes:
        text = content.decode("utf-8", "replace")
        encoded = (gzip.compress(content, 1), text.encode("utf-16"), b"\xef\xbb\xbf" + content, text.encode("utf-32"))
        return self._random.choice(encoded)

    def _mutate_json(self, content: bytes) -> bytes:
        """Return a document, or one event of a stream, with some values replaced, removed or repeated."""
        try:
            return json.dumps(self._mutate_value(json.loads(content))).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            pass
        lines = content.split(b"\n")
        index = self._random.randrange(len(lines))
        try:
            lines[index] = json.dumps(self._mutate_value(json.loads(lines[index]))).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            return ATTRIBUTE.sub(self._mutate_attribute, content)
        return b"\n".join(lines)

    def _mutate_attribute(self, attribute: re.Match[bytes]) -> bytes:
        if self._random.random() > 0.02:
            return attribute[0]
        value = str(self._random.choice(VALUES)).encode("utf-8", "replace").replace(b'"', b"")
        return b"" if self._random.random() < 0.3 else b' %s="%s"' % (attribute[1], value)

    def _mutate_value(self, value: Any) -> Any:
        if self._random.random() < 0.03:
            return self._random.choice(VALUES)
        if isinstance(value, dict):
            kept = {key: self._mutate_value(inner) for key, inner in value.items() if self._random.random() > 0.02}
            if kept and self._random.random() < 0.002:
                kept[self._random.choice(list(kept))] = self._mutate_value(value)
            return kept
        if isinstance(value, list):
            kept_items = [self._mutate_value(inner) for inner in value if self._random.random() > 0.02]
            return kept_items * 2 if self._random.random() < 0.02 else kept_items
        return value


def _contents(folder: str) -> list[bytes]:
    paths = sorted(path for path in (ROOT / "tests" / "data" / folder).rglob("*") if path.is_file())
    contents = (path.read_bytes() for path in paths if path.suffix != ".md" and path.name != "expected.json")
    return [content for content in contents if 0 < len(content) <= MAX_INPUT_BYTES]


def main() -> int:
    """Run rounds until the time is over or one fails; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    fuzzer, rounds, ends = Fuzzer(seed), 0, time.monotonic() + arguments.seconds
    print(f"seed {seed}", flush=True)
    while time.monotonic() < ends:
        content = fuzzer.make_input()
        rounds += 1
        try:
            fuzzer.run(content)
        except BaseException:
            FAILED_INPUTS.mkdir(parents=True, exist_ok=True)
            path = FAILED_INPUTS / f"{seed}-{rounds}"
            path.write_bytes(content)
            print(f"round {rounds} of seed {seed} failed; its input is {path}", file=sys.stderr)
            raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    read = ", ".join(f"{dialect} {count}" for dialect, count in fuzzer.read.most_common())
    print(f"{rounds} inputs, no failure; slowest {fuzzer.slowest:.2f} s of processor time, peak memory {peak:.0f} MB")
    print(f"read as: {read}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
