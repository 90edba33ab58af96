"""What counts as one build, and how long it took."""

import json
import time
from dataclasses import replace

import pytest

from tests.helpers.cli import Checkout, forty_tests

CASES = forty_tests(12)
CI = {"CI": "true", "FEDSTEP_CI_RUN": "77", "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": "main"}


@pytest.fixture
def job(experienced, without_sklearn):
    """A CI job that records builds and learns later: starting it costs little."""
    return without_sklearn(experienced.with_env(**CI))


class TestBuildIdentity:
    def test_the_same_report_twice_counts_once_and_says_so(self, job):
        report = job.report(CASES)
        first, second = (json.loads(job.run("train", "--junit", report, "--format", "json").out) for _ in range(2))
        assert first["build"] == second["build"]
        assert len(job.builds()) == 13
        assert not any("already" in warning for warning in first["warnings"])
        assert any("in the history already; nothing is learned twice" in warning for warning in second["warnings"])

    @pytest.mark.parametrize(
        "another",
        [
            {"FEDSTEP_CI_ATTEMPT": "2"},
            {"FEDSTEP_CI_CELL": "3.12"},
            {"FEDSTEP_CI_RUN": "78"},
            {"FEDSTEP_CI_JOB": "lint"},
        ],
    )
    def test_rerun_cell_run_and_job_are_other_builds(self, job, another):
        """A rerun, a matrix cell, another run and another job are other builds."""
        report = job.report(CASES)
        assert job.run("train", "--junit", report).code == 0
        assert job.with_env(**another).run("train", "--junit", report).code == 0
        assert len(job.builds()) == 14

    def test_builds_without_a_report_are_told_apart(self, without_sklearn, experienced):
        """By hand, without a run: the second one was said to be in the history already."""
        place = without_sklearn(experienced)
        before = len(place.builds())
        first, second = (place.run("train", "--outcome", how, "--format", "json") for how in ("failed", "passed"))
        assert json.loads(first.out)["build"] != json.loads(second.out)["build"]
        assert len(place.builds()) == before + 2


class TestWorkflows:
    def test_jobs_of_one_name_in_two_workflows_have_own_times(self, without_sklearn, experienced):
        """A nightly run of an hour does not make the builds of pushes longer, nor the other way round."""
        github = {"GITHUB_ACTIONS": "true", "GITHUB_JOB": "build", "GITHUB_REF_NAME": "main"}
        place: Checkout = without_sklearn(experienced.with_env(**github))

        def job(workflow: str, run: int, number: int, seconds: float) -> Checkout:
            started = {"FEDSTEP_CI_STARTED_AT": str(time.time() - seconds)}
            names = {"GITHUB_WORKFLOW": workflow, "GITHUB_RUN_ID": str(run), "GITHUB_RUN_NUMBER": str(number)}
            return place.with_env(**started, **names)

        for n in range(3):
            job("CI", 100 + 2 * n, 50 + n, 600.0).run("train", "--outcome", "passed")
            job("Nightly", 101 + 2 * n, 7 + n, 3600.0).run("train", "--outcome", "passed")
        expected = {
            name: json.loads(job(name, 200, number, 0.0).run("predict", "--format", "json").out)["duration"]["seconds"]
            for name, number in (("CI", 53), ("Nightly", 10))
        }
        assert expected == {"CI": pytest.approx(600, rel=0.05), "Nightly": pytest.approx(3600, rel=0.05)}
        assert "CI/build" in place.run("history", "show").out
        by_hand = experienced.with_env(FEDSTEP_CI_JOB="build", FEDSTEP_CI_WORKFLOW="Nightly")
        told = json.loads(by_hand.run("predict", "--format", "json").out)
        assert told["duration"]["seconds"] == pytest.approx(3600, rel=0.05)


class TestTimes:
    def test_a_mark_of_predict_at_the_start_times_the_job(self, job):
        began = time.time()
        assert job.run("predict").code == 0
        assert job.run("predict").code == 0, "the first mark stands"
        time.sleep(0.5)
        told = json.loads(job.run("train", "--junit", job.report(CASES), "--format", "json").out)
        assert told["duration"]["source"] == "mark"
        assert 0.5 < told["duration"]["seconds"] < time.time() - began
        other = json.loads(
            job.with_env(FEDSTEP_CI_RUN="78").run("train", "--junit", "report.xml", "--format", "json").out
        )
        assert other["duration"]["source"] == "tests", "a mark is of one run"

    @pytest.mark.parametrize("ci_start", [{}, {"FEDSTEP_CI_STARTED_AT": "500"}])
    def test_time_of_installing_is_not_time_of_the_build(self, job, ci_start):
        """The steps began 400 and 60 s ago: the first took until now to install and predict, the second to install."""
        now = time.time()
        ci = {name: str(now - float(ago)) for name, ago in ci_start.items()}
        assert job.with_env(**ci, FEDSTEP_STEP_STARTED_AT=str(now - 400)).run("predict").code == 0
        mark = next((job.history / "marks").iterdir())
        mark.write_text(f"{now - 400:.3f} 100.0\n")  # as if the installation had taken 100 s
        train = job.with_env(**ci, FEDSTEP_STEP_STARTED_AT=str(now - 60))
        told = json.loads(train.run("train", "--junit", job.report(CASES), "--format", "json").out)
        assert told["duration"]["seconds"] == pytest.approx((500 if ci else 400) - 60 - 100, abs=1)

    def test_a_step_start_of_another_job_is_ignored(self, job):
        stale = job.with_env(FEDSTEP_STEP_STARTED_AT=str(time.time() - 90_000))
        stale.run("predict")
        assert float(next((job.history / "marks").iterdir()).read_text().split()[0]) > time.time() - 60

    def test_a_start_that_the_ci_tells_times_the_job(self, job):
        started = job.with_env(FEDSTEP_CI_STARTED_AT=str(int(time.time()) - 300))
        told = json.loads(started.run("train", "--junit", job.report(CASES), "--format", "json").out)
        assert told["duration"]["source"] == "generic"
        assert 299 < told["duration"]["seconds"] < 400

    def test_a_start_in_the_future_gives_no_time_and_a_reason(self, job):
        started = job.with_env(FEDSTEP_CI_STARTED_AT=str(int(time.time()) + 3600))
        told = json.loads(started.run("train", "--junit", job.report(CASES), "--format", "json").out)
        assert told["duration"]["seconds"] is None
        assert "clocks" in told["duration"]["reason"]

    def test_test_times_stand_in_where_no_start_is_known(self, job):
        told = json.loads(job.run("train", "--junit", job.report(CASES), "--format", "json").out)
        assert told["duration"]["source"] == "tests"
        assert told["duration"]["seconds"] == pytest.approx(sum(seconds for _, _, seconds in CASES), abs=0.01)


class TestOutcomes:
    def test_what_could_not_be_loaded_is_no_known_test(self, job):
        """A module without its tests counted as one more test in every sum."""
        (job.root / "r.xml").write_text(
            '<testsuite name="pytest"><testcase classname="a" name="x" time="1"/>'
            '<testcase classname="" name="tests.b" time="0"><error message="collection failure">ImportError</error>'
            "</testcase></testsuite>"
        )
        job.run("train", "--junit", "r.xml")
        assert json.loads(job.run("predict", "--format", "json").out)["tests_known"] == 41  # 40 and x
        assert "41 tests known" in job.run("doctor").out
        assert json.loads(job.run("history", "show", "--format", "json").out)["tests"] == 41

    def test_the_outcome_is_the_options_else_the_cis_else_the_tests(self, job):
        report = job.report(forty_tests(7))  # all pass

        def outcome(place: Checkout, *more: str) -> str:
            return str(json.loads(place.run("train", "--junit", report, "--format", "json", *more).out)["outcome"])

        assert outcome(job) == "passed"
        assert outcome(job.with_env(FEDSTEP_CI_OUTCOME="failure")) == "failed"
        assert outcome(job.with_env(FEDSTEP_CI_OUTCOME="failure"), "--outcome", "unstable") == "unstable"
        assert [outcome(job, "--exit-code", code) for code in ("0", "1", "-9")] == ["passed", "failed", "failed"]

    def test_two_jobs_at_once_both_count(self, job):
        report = job.report(CASES)
        cells = [job.with_env(FEDSTEP_CI_CELL=str(cell)) for cell in range(3)]
        running = [cell.start("train", "--junit", report) for cell in cells]
        for process in running:
            with process:
                _, err = process.communicate(timeout=60)
            assert process.returncode == 0
            assert "Traceback" not in err
        assert len(job.builds()) == 15
        job.no_leftovers()

    def test_reports_that_wait_in_the_work_tree_are_no_change(self, experienced):
        def said(place: Checkout, *more: str) -> str:
            return str(json.loads(place.run("predict", "--format", "json", *more).out)["base"])

        experienced.report(CASES)
        (experienced.root / "shop" / "cart.py").write_text("total = 2\n")
        assert said(experienced) == "2 files changed against merge-base with main"
        assert said(experienced, "--junit", "*.xml") == "1 file changed against merge-base with main"
        inside = replace(experienced, root=experienced.root / "shop").with_env(FEDSTEP_JUNIT="../report.xml")
        assert said(inside) == "1 file changed against merge-base with main"
        assert "1 file changed" in inside.run("hook", "run").out
        assert "1 changed file against" in inside.run("doctor", "--json").out
