"""Facts about what is known of a build before it starts."""

from fedstep.history.summary import PastBuild, plan_build, stream_name, usual_stream
from fedstep.types import BuildContext, Change, CiRun, FileChange, Unavailable

MONDAY_NOON = 1_700_481_600.0  # 2023-11-20 12:00 UTC
CI = CiRun(vendor="github", job="unit", cell="py=3.11", branch="main", event="push")


def past(stream: str, number: int = 0) -> PastBuild:
    return PastBuild(stream=stream, started_at=float(number), finished_at=number + 1.0, outcome="passed")


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

    def test_laptop_expects_the_most_frequent_stream(self) -> None:
        """A laptop expects the most frequent stream, and a new job its own."""
        builds = [past("unit||mark"), past("unit||mark"), past("e2e||mark")]
        assert usual_stream(builds, CiRun(vendor="local")) == "unit||mark"
        assert usual_stream(builds, CI) == "unit|py=3.11|"
        assert usual_stream([], CiRun(vendor="local")) == "||"
