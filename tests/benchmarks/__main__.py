"""`make bench`: every figure with its target and its yardstick of the same run, written as JSON.

python -m tests.benchmarks docs/benchmarks.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fedstep.history.home import Home
from tests.benchmarks import aggregation, scale, throughput
from tests.benchmarks.actions import actions_figure
from tests.benchmarks.project import grow, write_report
from tests.benchmarks.server import aggregator, sent_sizes
from tests.benchmarks.shares import share_figures
from tests.benchmarks.timing import paired

PYTHON = sys.executable
FEDSTEP = str(Path(PYTHON).with_name("fedstep"))
NUMPY = [PYTHON, "-c", "import numpy"]
SKLEARN = [PYTHON, "-c", "import sklearn.linear_model"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "NO_PROXY": "127.0.0.1"}
Figure = Mapping[str, object]


def predict_figure(tests: int, builds: int, target: float) -> Figure:
    """A cold `fedstep predict` against `import numpy`."""
    with tempfile.TemporaryDirectory() as folder:
        _repository(folder)
        grow(Home(f"{folder}/.fedstep"), tests, builds)
        pair = paired([FEDSTEP, "predict"], NUMPY, folder, ENVIRONMENT)
    return _figure(f"predict, {tests} tests, {builds} builds", pair.ratio, target, "python -c 'import numpy'", pair)


def train_figure(tests: int, target: float) -> Figure:
    """A cold `fedstep train` with an aggregator on loopback against `import sklearn.linear_model`."""
    with tempfile.TemporaryDirectory() as folder, aggregator(Path(folder)) as url:
        _repository(folder)
        grow(Home(f"{folder}/.fedstep"), tests, 25)
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
            "import sys\nfrom fedstep.build.junit import iter_cases\n"
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
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    subprocess.run(
        [
            "git",
            "-C",
            folder,
            "-c",
            "user.name=b",
            "-c",
            "user.email=b@example.org",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "start",
        ],
        check=True,
    )


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


FIGURES: tuple[Callable[[], object], ...] = (
    lambda: predict_figure(5_000, 100, 1.2),
    lambda: predict_figure(50_000, 20, 6.0),
    lambda: train_figure(5_000, 1.8),
    lambda: update_figure(5_000, 16_384),
    lambda: install_figure(15.0),
    lambda: junit_figures(100, 1.6, 150.0),
    throughput.figures,
    aggregation.figures,
    share_figures,
    lambda: actions_figure(2.0),
)


def main() -> None:
    figures: list[Figure] = []
    for measure in FIGURES:
        found = measure()
        for figure in found if isinstance(found, list) else [found]:
            figures.append(figure)  # type: ignore[arg-type]
            verdict = "ok  " if figure["met"] else "MISS"
            print(
                f"{verdict} {figure['name']}: {figure['value']} {figure['unit']}, target {figure['target']}", flush=True
            )
    Path(sys.argv[1]).write_text(
        json.dumps({"command": "make bench", "figures": figures}, indent=1) + "\n", encoding="utf-8"
    )
    if Path(sys.argv[1]).resolve() == scale.FIGURES:
        scale.rewrite()


if __name__ == "__main__":
    main()
