"""Run the command line on data that an earlier version wrote, and collect what it prints.

    python -m tests.helpers.earlier_data EMPTY_FOLDER

writes `tests/data/before_renaming/expected.json`, with which `test_reads_earlier_data.py` compares. Nothing of the
package is imported here: the names of its modules and classes may change.
"""

import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from xml.sax.saxutils import quoteattr

from tests.helpers.prefork import Finished, can_fork, run_forked

DATA = Path(__file__).parents[1] / "data" / "before_renaming"
NOW = 1_796_000_000.0  # seconds since the epoch: the clock of every command whose output is compared
TESTS, HOUR = 60, 3600.0
LONGEST = 240.0  # seconds that a command may take on a busy machine
NONE: Mapping[str, str] = MappingProxyType({})
START = NOW - 120 * HOUR
TOKEN = (DATA / "token.txt").read_text(encoding="utf-8").strip() if (DATA / "token.txt").exists() else ""
PROSE = ("says", "fix", "headline", "warnings", "reason", "incident_reason", "base", "note")  # keys of sentences
PRIVACY = ("--privacy-epsilon", "8", "--privacy-days", "0.0002")  # terms of the store that has a privacy budget
PEER_TOKEN = "known-to-the-two-of-them"  # of the stores of leader and helper

# `python -m fedstep` at another time: predictions depend on the hour and on the day of the week, aggregators on who was
# active lately. The clock of a client stands still, that of a server runs.
AT_ANOTHER_TIME = (
    "import runpy, sys, time; now, rate = float(sys.argv.pop(1)), float(sys.argv.pop(1)); "
    "real = time.time; began = real(); time.time = lambda: now + rate * (real() - began); "
    "runpy.run_module('fedstep', run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Folder:
    """A working folder and the environment of a machine without CI variables, proxies and configuration files."""

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, now: float | None = NOW, env: Mapping[str, str] = NONE) -> Finished:
        """Run one command to its end, at `now` (None: at the real time). AssertionError if it shows a traceback."""
        variables = {**environment(self.root.parent / "home"), **self.env, **env}
        if can_fork(variables):
            ended = run_forked(arguments, self.root, variables, LONGEST, now)
        else:
            real = subprocess.run(
                [*command(now, 0), *arguments],
                cwd=self.root,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=LONGEST,
            )
            ended = Finished(real.returncode, real.stdout, real.stderr)
        assert "Traceback" not in ended.err, ended.err
        return ended

    def json(self, *arguments: str, now: float | None = NOW, env: Mapping[str, str] = NONE) -> object:
        """Return the JSON that a command prints, with the path of this folder left out."""
        ended = self.run(*arguments, now=now, env=env)
        assert ended.code == 0, (arguments, ended.code, ended.err)
        return without_prose(json.loads(ended.out.replace(str(self.root), "ROOT")))

    def git(self, *arguments: str) -> str:
        """Run git to its end; its standard output."""
        env = {**environment(self.root.parent / "home"), **self.env}
        return subprocess.run(
            ("git", *arguments), cwd=self.root, env=env, check=True, capture_output=True, text=True, timeout=120
        ).stdout


def without_prose(value: object) -> object:
    """Return JSON in which each sentence is replaced by the numbers in it: sentences may be written anew."""
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: figures(json.dumps(inner, ensure_ascii=False)) if name in PROSE else without_prose(inner)
        for name, inner in value.items()
    }


def command(now: float | None, rate: float) -> list[str]:
    """Return the words that start `fedstep` at this time, from which its clock runs at this rate; None: as it is."""
    if now is None:
        return [sys.executable, "-m", "fedstep"]
    return [sys.executable, "-c", AT_ANOTHER_TIME, f"{now}", f"{rate}"]


def environment(home: Path) -> dict[str, str]:
    """Return the environment variables of a machine that was never configured."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "OMP_NUM_THREADS": "1",
        **{name: os.environ[name] for name in ("COVERAGE_PROCESS_START",) if name in os.environ},
    }


def unpack(archive: str, folder: Path) -> Path:
    """Unpack one archive of the kept data into a folder; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(DATA / archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


def clone(root: Path) -> Folder:
    """Clone the kept repository, with the branch `main` checked out."""
    home = root.parent / "home"
    bundle = str(DATA / "history-ref.bundle")
    words = ("git", "clone", "-q", "-b", "main", bundle, str(root))
    subprocess.run(words, env=environment(home), check=True, capture_output=True, timeout=120)
    return Folder(root)


def ci(number: int, commit: str = "", **more: str) -> dict[str, str]:
    """Return the variables of a CI job on `main` that began five minutes before `NOW`."""
    return {
        "FEDSTEP_CI_RUN": str(number),
        "FEDSTEP_CI_JOB": "test",
        "FEDSTEP_CI_BRANCH": "main",
        "FEDSTEP_CI_EVENT": "push",
        "FEDSTEP_CI_STARTED_AT": str(NOW - 300),
        **({"FEDSTEP_CI_COMMIT": commit} if commit else {}),
        **more,
    }


def report(path: Path, cases: Sequence[tuple[str, str, str, float]]) -> str:
    """Write a JUnit report of (class, test, outcome, seconds), outcome passed, failed, flaky or skipped; its name."""
    bodies = {
        "passed": "",
        "skipped": "<skipped/>",
        "failed": '<failure message="AssertionError: no">trace</failure>',
        "flaky": '<flakyFailure message="timeout" type="java.lang.AssertionError">trace</flakyFailure>',
    }
    rows = "".join(
        f"<testcase classname={quoteattr(group)} name={quoteattr(name)} time='{took:.3f}'>{bodies[outcome]}</testcase>"
        for group, name, outcome, took in cases
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<testsuite name="shop" tests="{len(cases)}">{rows}</testsuite>\n', encoding="utf-8")
    return path.name


def cases(seed: int, build: int, renamed: bool = True) -> list[tuple[str, str, str, float]]:
    """Return the tests of one drawn build: 7, 19 and 33 flake, 31 breaks for three builds of seventeen."""
    dice = random.Random(f"{seed}/{build}")
    drawn = []
    for number in range(TESTS):
        outcome = "passed"
        if number in (7, 19, 33) and dice.random() < 0.3:
            outcome = "flaky" if dice.random() < 0.5 else "failed"
        if number == 31 and build % 17 in (3, 4, 5):
            outcome = "failed"
        if number == 50:
            outcome = "skipped"
        group = ("store.test_cart" if renamed else "shop.test_cart") if number < 20 else "shop.test_pay"
        seconds = (0.01 + number / 100) * dice.uniform(0.8, 1.3) + seed / 100
        drawn.append((group, f"test_{number}", outcome, seconds))
    return drawn


def recorded(folder: Path, seed: int, builds: range, renamed: bool = True, start: float = START) -> str:
    """Write recorded builds, an hour apart, for `fedstep backfill`; the path of their folder."""
    for build in builds:
        place = folder / f"{build:04d}"
        drawn = cases(seed, build, renamed)
        report(place / "report.xml", drawn)
        told = {
            "build": str(build),
            "job": "test",
            "branch": "main" if build % 4 else "topic",
            "event": "push",
            "author": f"dev{build % 3}@example.org",
            "commit": f"{seed:02x}{build:038x}",
            "started_at": start + build * HOUR,
            "seconds": 240 + random.Random(f"{seed}-{build}").uniform(0, 90) + build,
            "outcome": "failed" if any(outcome == "failed" for *_, outcome, _ in drawn) else "passed",
            "changes": [{"path": f"shop/part{build % 5}.py", "added": 3 + build % 7, "deleted": 1}],
        }
        (place / "build.json").write_text(json.dumps(told))
    return str(folder)


def next_report(path: Path) -> str:
    """Write the report of the build after the kept history: a known flaky test fails, and one that never failed.

    Its time is `NOW`, as the clock of the commands: a report older than its job is not read.
    """
    cases = [
        (
            "store.test_cart" if number < 20 else "shop.test_pay",
            f"test_{number}",
            "failed" if number in (7, 31) else "passed",
            0.01 + number / 100,
        )
        for number in range(60)
    ]
    written = report(path, cases)
    os.utime(path, (NOW, NOW))
    return written


def history_output(work: Path, archive: str = "history.tar.gz") -> dict[str, object]:
    """Return what the client prints of the kept history folder, before and after it learned one more build."""
    place = clone(work / "checkout")
    unpack(archive, place.root)
    next_report(place.root / "report.xml")
    variables = ci(900, place.git("rev-parse", "HEAD").strip())
    seen: dict[str, object] = {
        "history show": place.json("history", "show", "--format", "json"),
        "status": place.json("status", "--json"),
        "predict": place.json("predict", "--format", "json", env=variables),
        "predict by hand": place.json("predict", "--format", "json"),
        "triage": place.json("triage", "--junit", "report.xml", "--format", "json", env=variables),
        "explain flaky": place.json("explain", "store.test_cart#test_7", "--json"),
        "explain renamed": place.json("explain", "shop.test_cart#test_3", "--json"),
        "explain stable": place.json("explain", "shop.test_pay#test_40", "--json"),
        "inspect": place.json("inspect", "--all", "--json"),
        "inspect last": place.json("inspect", "--last", "--all", "--json"),
        "inspect audit": place.json("inspect", "--audit", "--json"),
    }
    model = [place.root / ".fedstep" / name for name in ("model.safetensors", "model.json")]
    kept = [path.read_bytes() for path in model]
    for path in model:
        path.unlink()
    seen["predict without the pulled model"] = place.json("predict", "--format", "json", env=variables)
    for path, content in zip(model, kept, strict=True):
        path.write_bytes(content)
    seen["train"] = place.json("train", "--junit", "report.xml", "--format", "json", env=variables)
    seen["explain after train"] = place.json("explain", "store.test_cart#test_7", "--json")
    seen["inspect after train"] = place.json("inspect", "--all", "--json")
    rebuilt = place.run("history", "rebuild")
    assert rebuilt.code == 0, rebuilt.err
    seen["explain after rebuild"] = place.json("explain", "store.test_cart#test_7", "--json")
    return seen


def git_history_output(work: Path) -> dict[str, object]:
    """Return what the client prints of the history in the ref of the kept repository."""
    place = clone(work / "checkout")
    place.git("fetch", "-q", "origin", "refs/fedstep/history:refs/fedstep/history")
    next_report(place.root / "report.xml")
    git = ("--history", "git")
    variables = ci(901, place.git("rev-parse", "HEAD").strip())
    merged = place.run("history", "merge", *git)
    assert merged.code == 0, merged.err
    shown = place.json("history", "show", *git, "--format", "json")
    assert isinstance(shown, dict)
    return {
        "history show": {name: shown[name] for name in ("builds", "tests", "streams", "first", "last", "record_bytes")},
        "predict": place.json("predict", *git, "--format", "json", env=variables),
        "triage": place.json("triage", "--junit", "report.xml", *git, "--format", "json", env=variables),
        "explain": place.json("explain", "store.test_cart#test_7", *git, "--json"),
    }


def figures(text: str) -> list[list[str]]:
    """Return the numbers and times of each line, sorted, and no word: words and order of these texts may change.

    >>> figures("task 12 of 2026-11-29T16:57Z\\nschema 01ab\\n")
    [['12', '2026-11-29T16:57Z']]
    """
    pattern = r"\d{4}-\d\d-\d\dT[\d:]+Z|(?<![\w.-])-?\d(?:[\d.]*\d)?(?:e[+-]\d+)?(?![\w.]*\w)"
    return sorted(found for line in text.splitlines() if (found := re.findall(pattern, line)))


def administer(folder: Path, store: str, *words: str) -> str:
    """Run `fedstep server` on a store in this folder; what it prints."""
    ended = Folder(folder).run("server", *words, "--store", f"sqlite:///{folder / store}")
    assert ended.code == 0, ended.err
    return ended.out


def store_output(work: Path, store: str) -> dict[str, object]:
    """Return what `fedstep server` prints of one kept store, on a copy of it."""
    folder = unpack("stores.tar.gz", work / "stores")
    tokens = administer(folder, store, "token", "list")
    return {
        "status": figures(administer(folder, store, "status")),
        "versions": figures(administer(folder, store, "versions", "--most", "100")),
        "tokens": sorted(re.findall(r"\b[0-9a-f]{8}\b|\w+/\w+", tokens)),
    }


@contextmanager
def serving(folder: Path, *options: str, now: float | None = None) -> Iterator[str]:
    """Serve an aggregator as a process of its own on any free port; its URL. It is ended by its process id."""
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command(now, 1), "serve", "--port", "0", *options],
            cwd=folder,
            env=environment(folder.parent / "home"),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(60)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + 120
    while True:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        if found:
            return found.group()
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.05)


def tensors(body: bytes) -> list[list[float]]:
    """Return count, L2 norm and sum of every tensor of a safetensors file, sorted: names and order may change."""
    (length,) = struct.unpack("<Q", body[:8])
    header = json.loads(body[8 : 8 + length])
    measured = []
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            numbers = array({"F32": "f", "I32": "i", "U32": "I", "F64": "d", "U64": "Q", "I64": "q"}[entry["dtype"]])
            numbers.frombytes(body[8 + length + start : 8 + length + end])
            measured.append([float(len(numbers)), math.sqrt(sum(x * x for x in numbers)), math.fsum(numbers)])
    return sorted(measured)


def pulled(place: Folder, url: str, *options: str) -> list[list[float]]:
    """Pull the model of this aggregator, the newest candidate, production and trials; `tensors` of it."""
    ended = place.run("pull", "--aggregator", url, *options)
    assert ended.code == 0, ended.err
    assert not ended.err, ended.err
    return tensors((place.root / ".fedstep" / "model.safetensors").read_bytes())


def without_port(told: object) -> object:
    """Leave out of a JSON report the URL that a model came from: the port is another one every time."""
    assert isinstance(told, dict)
    model = told["model"]
    assert model.pop("url").startswith("http://127.0.0.1:")
    return told


def served_output(work: Path) -> dict[str, object]:
    """Return what an aggregator on a copy of the kept store serves, what a client makes of it, and the next version."""
    folder = unpack("stores.tar.gz", work / "stores")
    place = clone(work / "client")
    unpack("history.tar.gz", place.root)
    next_report(place.root / "report.xml")
    store = ("--store", "sqlite:///store.sqlite")
    seen: dict[str, object] = {}
    with serving(folder, *store, "--buffer-size", "100", "--max-wait", "100000", now=NOW) as url:
        seen["model"] = pulled(place, url)
        seen["predict"] = without_port(place.json("predict", "--format", "json", env=ci(902)))
        triaged = place.json("triage", "--junit", "report.xml", "--format", "json", env=ci(902))
        seen["triage"] = without_port(triaged)
    with serving(folder, *store, "--buffer-size", "6", "--max-wait", "100000", now=NOW) as url:
        wait_for(lambda: "22" in administer(folder, "store.sqlite", "status"))
        seen["next model"] = pulled(place, url)
        seen["next versions"] = figures(re.sub(r"2026-11-30T\S*", "", administer(folder, "store.sqlite", "versions")))
    return seen


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return once the condition holds. AssertionError if it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"nothing happened within {seconds:g} seconds"
        time.sleep(0.2)


def leader_model(work: Path) -> list[list[float]]:
    """Return the model that the leader of the kept stores serves."""
    folder = unpack("stores.tar.gz", work / "stores")
    place = Folder(work / "project")
    place.root.mkdir()
    options = ("--role", "leader", "--peer", "http://127.0.0.1:9", "--peer-token", PEER_TOKEN)
    with serving(folder, *options, "--store", "sqlite:///leader.sqlite") as url:
        return pulled(place, url)


def private_output(work: Path) -> dict[str, object]:
    """Return what the store with a privacy budget and the history of one of its projects give."""
    place = clone(work / "client")
    unpack("history-private.tar.gz", place.root)
    folder = work / "imported"
    folder.mkdir()
    imported = Folder(folder).run("server", "import", str(DATA / "export.jsonl.gz"), "--store", "sqlite:///new.sqlite")
    assert imported.code == 0, imported.err
    return {
        **store_output(work, "private.sqlite"),
        "client status": place.json("status", "--json"),
        "imported versions": figures(administer(folder, "new.sqlite", "versions", "--most", "100")),
    }


def everything(work: Path) -> dict[str, object]:
    """Return all values that are compared with expected.json."""
    return {
        "history": history_output(work / "history"),
        "git history": git_history_output(work / "git"),
        **{name: store_output(work / name, f"{name}.sqlite") for name in ("store", "leader", "helper")},
        "private": private_output(work / "private"),
        "leader model": leader_model(work / "sharing"),
        "served": served_output(work / "served"),
    }


def differences(expected: object, seen: object, path: str = "") -> list[str]:
    """Return where two JSON values differ, numbers by more than one millionth; each with both values.

    >>> differences({"a": [1.0, "x"]}, {"a": [1.00001, "x"]})
    ['/a/0: 1.0 is 1.00001']
    """
    if isinstance(expected, dict) and isinstance(seen, dict):
        found = [f"{path}/{name}: missing" for name in expected.keys() - seen.keys()]
        found += [f"{path}/{name}: new" for name in seen.keys() - expected.keys()]
        for name in sorted(expected.keys() & seen.keys()):
            found += differences(expected[name], seen[name], f"{path}/{name}")
        return found
    if isinstance(expected, list) and isinstance(seen, list) and len(expected) == len(seen):
        return [
            found
            for place, (one, other) in enumerate(zip(expected, seen, strict=True))
            for found in differences(one, other, f"{path}/{place}")
        ]
    if isinstance(expected, float) and isinstance(seen, float | int) and not isinstance(seen, bool):
        same = math.isclose(expected, seen, rel_tol=1e-6, abs_tol=1e-9)
    else:
        same = type(expected) is type(seen) and expected == seen
    return [] if same else [f"{path}: {expected} is {seen}"]


if __name__ == "__main__":
    os.umask(0o022)
    written = json.dumps(everything(Path(sys.argv[1])), indent=1, sort_keys=True)
    (DATA / "expected.json").write_text(f"{written}\n", encoding="utf-8")
