"""The study of recorded histories, as whoever wants to see the evidence runs it."""

import csv
import gzip
import json
import random
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from fedstep.cli.main import main
from tests.helpers.cli import Checkout, Ran
from tests.helpers.narrow import expect

COLUMNS = ("build", "started_at", "seconds", "outcome", "branch", "event", "author")


def write_builds(path: Path, seed: int, count: int = 90) -> None:
    """A project whose branch `slow` takes three times as long and fails more often."""
    draw = random.Random(seed)
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(count):
            slow = draw.random() < 0.4
            seconds = (300 if slow else 100) * draw.lognormvariate(0, 0.1)
            failed = draw.random() < (0.6 if slow else 0.1)
            started = f"2026-03-{1 + number // 24:02d}T{number % 24:02d}:00:00Z"
            outcome, branch = "failed" if failed else "passed", "slow" if slow else "main"
            writer.writerow((number, started, f"{seconds:.1f}", outcome, branch, "push", draw.choice("ab")))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three projects, in a folder without a configuration."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("ant", "bee", "cat")):
        write_builds(tmp_path / "corpus" / name / "builds.csv.gz", seed)
    return tmp_path / "corpus"


def simulated(*arguments: str) -> Ran:
    """`fedstep simulate` in this process: one of its own would spend its time on imports."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main(("simulate", *arguments))
    return Ran(expect(int, left.value.code), out.getvalue(), err.getvalue(), 0.0)


class TestFigures:
    def test_the_figures_of_durations_are_those_promised(self, corpus: Path, tmp_path: Path) -> None:
        ran = simulated("--task", "build-duration", str(corpus), "--figures", str(tmp_path / "out.json"))
        assert ran.code == 0, ran.err
        found = json.loads((tmp_path / "out.json").read_text())
        assert (found["task"], found["mode"], sorted(found["projects"])) == (
            "build-duration",
            "federated",
            ["ant", "bee", "cat"],
        )
        assert set(found["summary"]) >= {
            "mae_ratio_jenkins",
            "mae_ratio_jenkins_mean",
            "mae_ratio_jenkins_worst",
            "mae_ratio_jenkins_cold",
            "mdape",
            "within_20",
            "coverage_90",
            "interval_ratio",
            "wins",
        }
        assert set(found["baselines"]) == {"jenkins", "last", "median-20", "average"}
        assert found["baselines"]["jenkins"]["mae_ratio_jenkins"] == pytest.approx(1.0)
        # The branch tells the time: whoever knows it beats the mean of the last three by far.
        assert found["summary"]["mae_ratio_jenkins"] < 0.7
        assert found["summary"]["wins"] == 1.0
        assert found["intervals"]["mae_ratio_jenkins"][0] <= found["summary"]["mae_ratio_jenkins"]
        assert found["second_interleaving"]["mae_ratio_jenkins"] == pytest.approx(
            found["summary"]["mae_ratio_jenkins"], abs=0.1
        )
        assert "ant" in ran.out
        assert "Simple predictors" in ran.out

    @pytest.mark.parametrize("mode", ["federated", "local", "pooled", "global-only", "starter"])
    def test_failures_are_ranked_in_every_mode(self, corpus: Path, tmp_path: Path, mode: str) -> None:
        target = tmp_path / "out.json"
        ran = simulated("--task", "build-failure", "--mode", mode, str(corpus), "--figures", str(target))
        assert ran.code == 0, ran.err
        found = json.loads(target.read_text())
        assert found["mode"] == mode
        assert found["summary"]["auc"] > 0.6
        assert set(found["baselines"]) == {"last", "rate-20", "branch-rate-20"}
        assert {"ap", "pooled_ap", "brier_skill", "calibration_slope", "mcc"} <= set(found["summary"])

    def test_the_same_seed_gives_the_same_figures_whoever_works(
        self, fresh: Checkout, corpus: Path, tmp_path: Path
    ) -> None:
        task = ("--task", "build-failure", str(corpus), "--figures")
        assert simulated(*task, str(tmp_path / "one")).code == 0
        ran = fresh.run("simulate", *task, str(tmp_path / "a process a core"), "--jobs", "0")
        assert ran.code == 0, ran.err
        assert (tmp_path / "one").read_text() == (tmp_path / "a process a core").read_text()

    @pytest.mark.full
    def test_dask_gives_the_same_figures(self, fresh: Checkout, corpus: Path, tmp_path: Path) -> None:
        task = ("--task", "build-failure", str(corpus), "--figures")
        assert simulated(*task, str(tmp_path / "one")).code == 0
        ran = fresh.run("simulate", *task, str(tmp_path / "dask"), "--backend", "dask", "--jobs", "2")
        assert ran.code == 0, ran.err
        assert (tmp_path / "one").read_text() == (tmp_path / "dask").read_text()


class TestInput:
    def test_bad_rows_are_named_and_counted_and_the_rest_is_studied(self, corpus: Path, tmp_path: Path) -> None:
        path = corpus / "ant" / "builds.csv.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        lines[5] = lines[5].replace(lines[5].split(",")[2], "soon")
        lines[9] = "only this"
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        ran = simulated("--task", "build-duration", str(corpus), "--figures", str(tmp_path / "out.json"))
        assert ran.code == 0
        assert "2 records could not be used" in ran.out
        assert "builds.csv.gz:6" in ran.out
        assert json.loads((tmp_path / "out.json").read_text())["dropped"]["count"] == 2

    def test_what_cannot_be_studied_is_said(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        empty = simulated("--task", "triage", str(tmp_path / "empty"))
        assert (empty.code, "build.json" in empty.err) == (3, True)
        unknown = simulated("--task", "build-failure", str(corpus), "--hold-out", "dog")
        assert (unknown.code, "dog" in unknown.err) == (2, True)
        unwritable = simulated("--task", "build-failure", str(corpus), "--figures", str(tmp_path / "no" / "out.json"))
        assert (unwritable.code, "no/out.json" in unwritable.err) == (3, True)


class TestPage:
    def test_the_page_is_whole_and_needs_nothing_from_elsewhere(self, corpus: Path, tmp_path: Path) -> None:
        page = tmp_path / "out.html"
        assert simulated("--task", "build-duration", str(corpus), "--html", str(page)).code == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        assert [word for word in ("http://", "https://", "<script", "@import", "url(") if word in text] == []
        for said in (
            "By project",
            "Interval coverage",
            "As a project grows older",
            "each project alone",
            "cat",
            "median-20",
        ):
            assert said in text
