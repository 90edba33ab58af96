"""What a person or a job waits for: whole commands against imports, sizes, and reports read."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fedstep.history.project_store import ProjectStore
from tests.benchmarks.project import change_source, grow, write_report
from tests.benchmarks.server import aggregator, sent_sizes
from tests.benchmarks.timing import Figure, paired

__all__ = [
    "hook_figure",
    "import_figure",
    "install_figure",
    "junit_figures",
    "predict_figure",
    "shortening_figures",
    "train_figure",
    "update_figure",
]

PYTHON = sys.executable
FEDSTEP = str(Path(PYTHON).with_name("fedstep"))
NUMPY = [PYTHON, "-c", "import numpy"]
SKLEARN = [PYTHON, "-c", "import sklearn.linear_model"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "NO_PROXY": "127.0.0.1"}


def predict_figure(tests: int, builds: int, target: float) -> Figure:
    """A cold `fedstep predict` against `import numpy`."""
    with tempfile.TemporaryDirectory() as folder:
        _repository(folder)
        grow(ProjectStore(f"{folder}/.fedstep"), tests, builds)
        pair = paired([FEDSTEP, "predict"], NUMPY, folder, ENVIRONMENT)
    return _figure(f"predict, {tests} tests, {builds} builds", pair.ratio, target, "python -c 'import numpy'", pair)


def shortening_figures(tests: int, builds: int, target: float) -> list[Figure]:
    """A cold `fedstep order`, `select` and `shard` of all tests against `import numpy`."""
    with tempfile.TemporaryDirectory() as folder:
        _repository(folder)
        grow(ProjectStore(f"{folder}/.fedstep"), tests, builds)
        change_source(Path(folder))
        commands = {"order": (), "select": ("--share", "0.2"), "shard": ("--total", "8")}
        pairs = {
            name: paired([FEDSTEP, name, *options], NUMPY, folder, ENVIRONMENT) for name, options in commands.items()
        }
    yardstick = "python -c 'import numpy'"
    return [
        _figure(f"{name}, {tests} tests, {builds} builds", pair.ratio, target, yardstick, pair)
        for name, pair in pairs.items()
    ]


def import_figure(target: float) -> Figure:
    """Processor milliseconds of `import fedstep`, the fastest of nine processes."""
    code = "import time, typing; t = time.process_time(); import fedstep; print(time.process_time() - t)"
    runs = [subprocess.run((PYTHON, "-c", code), capture_output=True, text=True, check=True) for _ in range(9)]
    milliseconds = round(1000 * min(float(run.stdout) for run in runs), 1)
    return {
        "name": "import fedstep",
        "value": milliseconds,
        "unit": "ms of CPU",
        "target": target,
        "met": milliseconds <= target,
    }


def hook_figure(tests: int, builds: int, target: float) -> Figure:
    """The whole pre-push hook of a person, as git runs it, against `import numpy`."""
    with tempfile.TemporaryDirectory() as folder:
        _repository(folder)
        grow(ProjectStore(f"{folder}/.fedstep"), tests, builds)
        subprocess.run([FEDSTEP, "hook", "install"], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
        pushed = f"refs/heads/main $(git rev-parse TASK) refs/heads/main {'0' * 40}"
        push = ["/bin/sh", "-c", f'echo "{pushed}" | .git/hooks/pre-push origin https://git.example.org/acme']
        pair = paired(push, NUMPY, folder, ENVIRONMENT)
    return _figure(
        f"pre-push hook, {tests} tests, {builds} builds", pair.ratio, target, "python -c 'import numpy'", pair
    )


def train_figure(tests: int, target: float) -> Figure:
    """A cold `fedstep train` with an aggregator on loopback against `import sklearn.linear_model`."""
    with tempfile.TemporaryDirectory() as folder, aggregator(Path(folder)) as url:
        _repository(folder)
        grow(ProjectStore(f"{folder}/.fedstep"), tests, 25)
        report = Path(folder) / "report.xml"
        write_report(report, tests)
        # Each run must be another build, or it would be told that it is known.
        command = [
            "/bin/sh",
            "-c",
            f"FEDSTEP_CI_RUN=$(date +%s%N) exec {FEDSTEP} train --junit report.xml --aggregator {url} --strict",
        ]
        pair = paired(command, SKLEARN, folder, ENVIRONMENT, runs=7)
    return _figure(
        f"train, {tests} tests, loopback", pair.ratio, target, "python -c 'import sklearn.linear_model'", pair
    )


def update_figure(tests: int, target: float) -> Figure:
    """The largest body that a project of so many tests posts."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = sent_sizes(Path(folder), tests)
    return {
        "name": f"update of a build of {tests} tests",
        "value": max(sizes),
        "unit": "bytes",
        "target": target,
        "yardstick": "bytes of the POST body",
        "met": max(sizes) <= target,
    }


def install_figure(target: float) -> Figure:
    """What `pip install fedstep` without extras puts on disk."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [PYTHON, "-m", "pip", "install", "--quiet", "--target", folder, "."], check=True, capture_output=True
        )
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6
    return {
        "name": "pip install fedstep",
        "value": round(size, 1),
        "unit": "MB",
        "target": target,
        "yardstick": "bytes on disk",
        "met": size <= target,
    }


def junit_figures(megabytes: int, ratio_target: float, memory_target: float) -> list[Figure]:
    """Parsing a large report: time against a bare iterparse loop, and resident memory of the process."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "large.xml"
        _large_report(report, megabytes)
        bare = "import sys, xml.etree.ElementTree as E\nfor _, e in E.iterparse(sys.argv[1]): e.clear()"
        ours = (
            "import sys\nfrom fedstep.ingest.junit import iter_cases\n"
            "n = sum(1 for _ in iter_cases(open(sys.argv[1], 'rb'), 'x'))\n"
            # Not getrusage: its maximum is that of the process that forked.
            "print(n, open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
        )
        pair = paired([PYTHON, "-c", ours, str(report)], [PYTHON, "-c", bare, str(report)], folder, ENVIRONMENT, runs=3)
        out = subprocess.run([PYTHON, "-c", ours, str(report)], capture_output=True, text=True, check=True).stdout
    memory = int(out.split()[1]) / 1024
    return [
        _figure(f"JUnit, {megabytes} MB", pair.ratio, ratio_target, "bare iterparse loop", pair),
        {
            "name": f"JUnit, {megabytes} MB, resident",
            "value": round(memory),
            "unit": "MB",
            "target": memory_target,
            "yardstick": "whole process",
            "met": memory <= memory_target,
        },
    ]


def _figure(name: str, ratio: float, target: float, yardstick: str, pair: object) -> Figure:
    return {
        "name": name,
        "value": ratio,
        "unit": "times the yardstick",
        "target": target,
        "yardstick": yardstick,
        "met": ratio <= target,
        "medians_ms": vars(pair),
    }


def _repository(folder: str) -> None:
    who = ("-c", "user.name=b", "-c", "user.email=b@example.org")
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    subprocess.run(["git", "-C", folder, *who, "commit", "-q", "--allow-empty", "-m", "start"], check=True)


def _large_report(path: Path, megabytes: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("<testsuites><testsuite name='large'>\n")
        number = 0
        while file.tell() < megabytes * 1_000_000:
            file.write(
                "".join(
                    f'<testcase classname="org.acme.Case{n // 50}" name="test{n}" time="0.01"/>\n'
                    for n in range(number, number + 5000)
                )
            )
            number += 5000
        file.write("</testsuite></testsuites>\n")
