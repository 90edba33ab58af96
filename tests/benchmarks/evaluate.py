"""`make evaluate`: recorded CI through the real command line, build by build, with the counts asserted.

python -m tests.benchmarks.evaluate ../shared/corpora ../shared/tools/replay_junit.py
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.server import aggregator

FEDSTEP = str(Path(sys.executable).with_name("fedstep"))
BUILDS = 2  # of each project through the command line: a process a step, about 3 s a train
TOTALS = {"click": 62_260, "pluggy": 3_984, "sqlite-utils": 101_353, "svcs": 6_330}  # test results of all builds


def main() -> None:
    corpora, replay = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        projects = [*_recorded(corpora, work), *_replayed(replay, work)]
        for name, builds in projects:
            _count_everything(name, builds)
        with aggregator(work) as url:
            for name, builds in projects:
                _live(name, builds, work, url)


def _recorded(corpora: Path, work: Path) -> list[tuple[str, list[Path]]]:
    """The JUnit corpora, unpacked."""
    found = []
    for archive in sorted((corpora / "junit").glob("*.tar.gz")):
        name = archive.name.removesuffix(".tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(work / "recorded", filter="data")
        found.append((name, sorted((work / "recorded" / name).iterdir())))
    return found


def _replayed(replay: Path, work: Path) -> list[tuple[str, list[Path]]]:
    """Replays of measured flaky tests, without and with reruns."""
    found = []
    for reruns in (0, 2):
        out = work / f"replay-{reruns}"
        command = [
            sys.executable,
            str(replay),
            "--out",
            str(out),
            "--builds",
            "30",
            "--reruns",
            str(reruns),
            "--seed",
            "5",
        ]
        subprocess.run([*command, "--max-tests", "200"], check=True, capture_output=True)
        for project in sorted(path for path in out.iterdir() if path.is_dir()):
            found.append(
                (f"{project.name}, {reruns} reruns", sorted(path for path in project.iterdir() if path.is_dir()))
            )
    return found


def _count_everything(name: str, builds: list[Path]) -> None:
    """Our reader and a plain count of the XML agree on every report; totals are those of the corpus' own README."""
    from fedstep.ingest.junit import expand, read_reports

    ours, plain = Counter[str](), Counter[str]()
    for build in builds:
        reports = read_reports(expand(["report.xml"], build))
        assert not reports.dropped, (name, build, reports.dropped[:3])
        ours.update("f" if run.outcome == "c" else run.outcome.value for run in reports.tests)
        plain.update(_plain(build / "report.xml"))
    assert ours == plain, (name, ours, plain)
    assert name not in TOTALS or ours.total() == TOTALS[name], (name, ours.total())
    print(f"{name}: {len(builds)} builds, {ours.total()} results {dict(ours)}", flush=True)


def _plain(report: Path) -> Counter[str]:
    """Outcomes of one report by a reading of our own that knows one dialect each; an id counts once."""
    ids: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        kind = (
            "k" if "flakyFailure" in tags else "f" if tags & {"failure", "error"} else "s" if "skipped" in tags else "p"
        )
        ids[f"{case.get('classname')}#{case.get('name')}"] = kind
    return Counter(ids.values())


def _live(name: str, builds: list[Path], work: Path, url: str) -> None:
    """The first builds through train, triage and predict as processes; each says what it read and never fails."""
    repository = work / "repositories" / name.replace(", ", "-").replace(" ", "-")
    repository.mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "NO_PROXY": "127.0.0.1"}
    git = ["git", "-C", str(repository), "-c", "user.name=e", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
    for number, build in enumerate(builds[:BUILDS], 1):
        told = json.loads((build / "build.json").read_text())
        report, expected = str(build / "report.xml"), _plain(build / "report.xml")
        ci = {"FEDSTEP_CI_RUN": told["build"], "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": told["branch"]}
        triage = _run(["triage", "--junit", report], repository, {**environment, **ci})
        train = _run(["train", "--junit", report, "--aggregator", url], repository, {**environment, **ci})
        predict = _run(["predict"], repository, environment)
        failed = expected["f"] + expected["k"]
        assert train["reports"]["tests"] == expected.total(), (name, number, train["reports"])
        assert train["status"] == "ok", (name, number, train["warnings"])
        assert len(triage["failures"]) == len(train["failures"]) == failed, (name, number, failed)
        assert predict["builds_known"] == number, (name, number, predict)
    print(f"{name}: {min(BUILDS, len(builds))} builds through train, triage and predict", flush=True)


def _run(arguments: list[str], cwd: Path, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [FEDSTEP, *arguments, "--format", "json"], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, (arguments, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
