"""Facts about what is known of a build before it starts."""

from fedstep.history.summary import PastBuild, plan_build, stream_name, usual_stream
from fedstep.types import BuildContext, Change, CiRun, FileChange, Unavailable

MONDAY_NOON = 1_700_481_600.0  # 2023-11-20 12:00 UTC
CI = CiRun(vendor="github", job="unit", cell="py=3.11", branch="main", event="push")


def past(stream: str, number: int = 0) -> PastBuild:
    return PastBuild(stream=stream, started_at=float(number), finished_at=number + 1.0, outcome="passed")


def numbered(run: int, number: int, workflow: str = "") -> PastBuild:
    """A build that was recorded under the name of its job alone."""
    return past("unit|py=3.11|mark", run)._replace(run=f"{run}/1", number=number, workflow=workflow)


class TestPlan:
    def test_a_plan_says_when_what_and_how_much(self) -> None:
        change = Change("c0ffee", "", "ann", (FileChange("pom.xml", 2, 3), FileChange("a.py", 5, 0)))
        planned = plan_build(BuildContext(CI, change, MONDAY_NOON), "unit|py=3.11|mark", "a1")
        assert (planned.weekday, planned.hour, planned.is_pr) == (0, 12.0, False)
        assert (planned.files, planned.lines, planned.build_file_touched) == (2.0, 10.0, True)
        assert (planned.author, planned.commit, planned.branch) == ("a1", "c0ffee", "main")
        assert planned.kinds == "build source-python"

    def test_what_git_does_not_tell_is_none(self) -> None:
        planned = plan_build(BuildContext(CI._replace(event=""), Unavailable("no git"), MONDAY_NOON), "s", "a1")
        assert (planned.files, planned.lines, planned.build_file_touched, planned.is_pr) == (None, None, None, None)
        assert (planned.author, planned.commit) == ("", "")


class TestStreams:
    def test_streams_differ_by_job_cell_and_source(self) -> None:
        streams = {
            stream_name(CI, "mark"),
            stream_name(CI, "jenkins"),
            stream_name(CI._replace(cell=""), "mark"),
            stream_name(CI._replace(job="e2e"), "mark"),
        }
        assert len(streams) == 4

    def test_the_usual_stream_is_the_newest_of_the_job(self) -> None:
        builds = [past("unit|py=3.11|mark"), past("unit|py=3.11|github"), past("e2e||mark")]
        assert usual_stream(builds, CI) == "unit|py=3.11|github"

    def test_a_build_without_times_is_not_the_usual_one(self) -> None:
        """After modules that could not be imported, the next build was the first of a job that had failed once."""
        builds = [past("||tests"), past("||tests"), past("||")]
        assert usual_stream(builds, CiRun(vendor="local")) == "||tests"
        assert usual_stream([past("unit|py=3.11|mark"), past("unit|py=3.11|")], CI) == "unit|py=3.11|mark"
        assert usual_stream([past("||")], CiRun(vendor="local")) == "||"

    def test_jobs_of_two_workflows_are_two_streams(self) -> None:
        names = {stream_name(CI._replace(workflow=workflow), "mark") for workflow in ("", "CI", "Nightly")}
        assert names == {"unit|py=3.11|mark", "CI/unit|py=3.11|mark", "Nightly/unit|py=3.11|mark"}

    def test_a_stream_named_without_its_workflow_goes_on(self) -> None:
        """The workflow whose run numbers follow continues it; another one begins a stream of its own."""
        old = [numbered(1000 + 7 * n, 40 + n) for n in range(5)]
        ci, nightly = (CI._replace(workflow=name, number=number) for name, number in (("CI", 46), ("Nightly", 9)))
        assert stream_name(ci, "mark", old) == usual_stream(old, ci) == "unit|py=3.11|mark"
        assert stream_name(nightly, "mark", old) == "Nightly/unit|py=3.11|mark"
        assert stream_name(ci._replace(number=900), "mark", old) == "CI/unit|py=3.11|mark"
        continued = [*old, numbered(1100, 46, "CI")]
        assert stream_name(ci._replace(number=None), "mark", continued) == "unit|py=3.11|mark"
        assert stream_name(nightly._replace(number=47), "mark", continued) == "Nightly/unit|py=3.11|mark"

    def test_a_stream_that_two_workflows_shared_does_not_go_on(self) -> None:
        """Their numbers go up and down. Whichever continued it would be told the times of both."""
        shared = [numbered(1000 + n, n // 2 if n % 2 else 40 + n // 2) for n in range(8)]
        for name, number in (("CI", 44), ("Nightly", 4)):
            ci = CI._replace(workflow=name, number=number)
            assert stream_name(ci, "mark", shared) == f"{name}/unit|py=3.11|mark"

    def test_a_rerun_does_not_look_like_another_workflow(self) -> None:
        again = numbered(1003, 43)._replace(run="1003/2", started_at=2000.0)
        old = [*(numbered(1000 + n, 40 + n) for n in range(6)), again]
        assert stream_name(CI._replace(workflow="CI", number=45), "mark", old) == "unit|py=3.11|mark"

    def test_unnumbered_runs_continue_the_stream_they_find(self) -> None:
        """Azure and TeamCity do not number the runs of a pipeline one by one."""
        assert stream_name(CI._replace(workflow="Shop"), "mark", [past("unit|py=3.11|mark")]) == "unit|py=3.11|mark"

    def test_a_new_cell_is_timed_as_the_others_are(self) -> None:
        builds = [past("unit|py=3.10|mark"), past("unit|py=3.12|github"), past("unit|py=3.12|"), past("e2e||tests")]
        assert usual_stream(builds, CI) == "unit|py=3.11|github"
        nightly = CI._replace(workflow="Nightly", cell="")
        assert usual_stream([past("CI/unit|py=3.10|mark")], nightly) == "Nightly/unit||mark"

    def test_a_laptop_finds_the_job_of_any_workflow(self) -> None:
        builds = [past("CI/unit||mark"), past("CI/lint||mark"), past("CI/lint||mark"), past("Nightly/unit||mark")]
        laptop = CiRun(vendor="local")
        assert usual_stream(builds, laptop) == "CI/lint||mark"
        assert usual_stream(builds, laptop._replace(job="unit")) == "CI/unit||mark"
        assert usual_stream(builds, laptop._replace(job="unit", workflow="Nightly")) == "Nightly/unit||mark"
        assert usual_stream(builds, laptop._replace(job="Nightly/unit")) == "Nightly/unit||mark"

    def test_laptop_expects_the_most_frequent_stream(self) -> None:
        """A laptop expects the most frequent stream, and a new job its own."""
        builds = [past("unit||mark"), past("unit||mark"), past("e2e||mark")]
        assert usual_stream(builds, CiRun(vendor="local")) == "unit||mark"
        assert usual_stream(builds, CI._replace(job="new")) == "new|py=3.11|"
        assert usual_stream([], CiRun(vendor="local")) == "||"
