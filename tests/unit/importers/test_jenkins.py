"""Facts about builds of Jenkins: in its home on disk, and on a stand-in that answers as its REST API does."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.cli.backfill import open_path
from fedstep.errors import InputError
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter, ImportSource
from fedstep.importers.jenkins_home import open_jenkins_home
from fedstep.importers.jenkins_server import open_jenkins_server
from fedstep.types import BuildOutcome, Change, Dropped, Duration, FileChange, FinishedBuild, Outcome, Unavailable
from tests.helpers.importers import Reply, StandIn, asker, new_home, serving

STARTED = 1_700_000_000_000  # ms

RESULT = """<?xml version='1.1' encoding='UTF-8'?>
<result plugin="junit@1300">
  <suites><suite>
    <file>/w/TEST-a.xml</file><name>org.acme.ATest</name><duration>1.2</duration><timestamp>t</timestamp>
    <cases>
      <case><duration>0.5</duration><className>org.acme.ATest</className><testName>works</testName>
        <skipped>false</skipped><failedSince>0</failedSince></case>
      <case><duration>0.25</duration><className>org.acme.ATest</className><testName>fails</testName>
        <skipped>false</skipped><errorStackTrace>java.lang.AssertionError: no&#x1b;[0m
    at org.acme.ATest.fails</errorStackTrace><errorDetails>no</errorDetails><failedSince>3</failedSince></case>
      <case><duration>0.0</duration><className>org.acme.ATest</className><testName>waits</testName>
        <skipped>true</skipped><skippedMessage>later</skippedMessage><failedSince>0</failedSince></case>
      <case><duration>0.1</duration><className></className><testName>again</testName><skipped>false</skipped>
        <failedSince>0</failedSince></case>
      <case><duration>0.1</duration><className></className><testName>again</testName><skipped>false</skipped>
        <errorDetails>once</errorDetails><failedSince>0</failedSince></case>
    </cases><nodeId>9</nodeId></suite></suites>
  <duration>1.2</duration><keepLongStdio>false</keepLongStdio>
</result>"""


def build_xml(
    number: int, result: str = "UNSTABLE", root: str = "build", cause: str = "hudson.triggers.TimerTrigger"
) -> str:
    outcome = f"<result>{result}</result>" if result else ""
    return f"""<?xml version='1.1' encoding='UTF-8'?>
<{root} plugin="workflow-job@1">
  <actions>
    <hudson.model.CauseAction><causeBag><entry><{cause}_-Cause/><int>1</int></entry></causeBag></hudson.model.CauseAction>
    <hudson.plugins.git.util.BuildData>
      <buildsByBranchName>
        <entry><string>origin/old</string><hudson.plugins.git.util.Build>
          <marked><sha1>{"0" * 39}1</sha1><branches/></marked><hudsonBuildNumber>1</hudsonBuildNumber>
        </hudson.plugins.git.util.Build></entry>
        <entry><string>origin/main</string><hudson.plugins.git.util.Build>
          <marked><sha1>{number:040x}</sha1><branches/></marked><hudsonBuildNumber>{number}</hudsonBuildNumber>
        </hudson.plugins.git.util.Build></entry>
      </buildsByBranchName><lastBuild reference="../buildsByBranchName/entry[2]"/>
    </hudson.plugins.git.util.BuildData>
  </actions>
  <queueId>1</queueId><timestamp>{STARTED + number * 3_600_000}</timestamp>
  <startTime>{STARTED + number * 3_600_000 + 5}</startTime>
  {outcome}<duration>{600_000 + number}</duration><charset>UTF-8</charset><keepLog>false</keepLog>
</{root}>"""


def put(folder: Path, number: int, tests: bool = True, **changed: str) -> None:
    """A build in a job's folder."""
    at = folder / "builds" / str(number)
    at.mkdir(parents=True)
    (at / "build.xml").write_text(build_xml(number, **changed))
    if tests:
        (at / "junitResult.xml").write_text(RESULT)


def found(past: ImportSource) -> list[FinishedBuild | Dropped]:
    return [one for pending in past.items for one in pending.read()]


def read(home: Path, wanted: BuildFilter = BuildFilter()) -> list[FinishedBuild]:  # noqa: B008
    builds = found(open_jenkins_home(home, wanted))
    assert all(isinstance(one, FinishedBuild) for one in builds), builds
    return [one for one in builds if isinstance(one, FinishedBuild)]


class TestHome:
    def test_a_build_of_a_job_in_a_folder_is_named_as_train_names_it(self, tmp_path: Path) -> None:
        put(tmp_path / "jobs" / "team" / "jobs" / "shop", 12)
        (one,) = read(tmp_path)
        ci = one.situation.ci
        assert (ci.vendor, ci.run, ci.attempt, ci.job, ci.branch) == ("jenkins", "team/shop/12", 1, "team/shop", "")
        assert (one.outcome, one.duration, ci.event) == (
            BuildOutcome.UNSTABLE,
            Duration(600.012, "jenkins"),
            "schedule",
        )
        assert one.situation.started_at == (STARTED + 12 * 3_600_000 + 5) / 1000
        assert one.situation.change == Change(f"{12:040x}", "", "")
        assert [(r.test, r.outcome, r.seconds, r.failure_type) for r in one.reports.tests] == [
            ("org.acme.ATest#works", Outcome.PASSED, 0.5, ""),
            ("org.acme.ATest#fails", Outcome.FAILED, 0.25, "java.lang.AssertionError"),
            ("org.acme.ATest#waits", Outcome.SKIPPED, 0.0, ""),
            ("org.acme.ATest#again", Outcome.FLAKED, 0.1, "once"),
        ]

    def test_the_branches_of_a_multibranch_job_are_one_job(self, tmp_path: Path) -> None:
        shop = tmp_path / "jobs" / "shop"
        put(shop / "branches" / "main", 1)
        put(shop / "branches" / "feature-x.abc123", 2)
        (shop / "branches" / "feature-x.abc123" / "name-utf8.txt").write_text("feature%2Fx")
        put(shop / "branches" / "PR-7", 3, root="flow-build")
        (shop / "branches" / "PR-7" / "config.xml").write_text(
            "<?xml version='1.1'?><flow-definition><properties><x.BranchJobProperty><branch>"
            "<head class='PullRequestSCMHead'><name>PR-7</name><number>7</number><target><name>main</name></target>"
            "<sourceOwner>ada</sourceOwner>"
            "<sourceBranch>fix/y</sourceBranch></head></branch></x.BranchJobProperty></properties></flow-definition>"
        )
        told = [(one.situation.ci.run, one.situation.ci.job, one.situation.ci.branch) for one in read(tmp_path)]
        assert told == [
            ("shop/main/1", "shop", "main"),
            ("shop/feature%2Fx/2", "shop", "feature/x"),
            ("shop/PR-7/3", "shop", "fix/y"),
        ]
        last = read(tmp_path)[2].situation.ci
        assert (last.event, last.base_branch) == ("pull_request", "main")

    def test_the_cells_of_a_matrix_are_jobs_and_its_parent_is_none(self, tmp_path: Path) -> None:
        matrix = tmp_path / "jobs" / "shop"
        put(matrix, 4, tests=False, root="matrix-build")
        put(matrix / "configurations" / "axis-os" / "linux" / "axis-jdk" / "21", 4, root="matrix-run")
        put(matrix / "configurations" / "axis-os" / "mac" / "axis-jdk" / "21", 4, root="matrix-run")
        assert [one.situation.ci.run for one in read(tmp_path)] == ["shop/jdk=21,os=linux/4", "shop/jdk=21,os=mac/4"]

    def test_finished_builds_come_in_the_order_of_their_ends(self, tmp_path: Path) -> None:
        """Builds come in the order of their ends, and only finished ones."""
        for number, result in enumerate(("SUCCESS", "ABORTED", "FAILURE", "", "NOT_BUILT", "SUCCESS"), 1):
            put(tmp_path / "jobs" / f"j{number % 2}", number, result=result)
        (tmp_path / "jobs" / "j1" / "builds" / "lastStableBuild").symlink_to("1")
        (tmp_path / "jobs" / "j1" / "builds" / "legacyIds").touch()
        assert [one.situation.ci.run for one in read(tmp_path)] == ["j1/1", "j1/3", "j0/6"]
        assert [one.situation.ci.run for one in read(tmp_path, BuildFilter(limit=1))] == ["j0/6"]
        assert [one.situation.ci.run for one in read(tmp_path, BuildFilter(job="j1"))] == ["j1/1", "j1/3"]

    def test_one_job_and_a_home_without_builds(self, tmp_path: Path) -> None:
        put(tmp_path / "jobs" / "shop", 1)
        assert [one.situation.ci.run for one in read(tmp_path / "jobs" / "shop")] == ["shop/1"]
        (tmp_path / "empty" / "jobs").mkdir(parents=True)
        with pytest.raises(InputError, match="no recorded build was found"):
            open_path(tmp_path / "empty", BuildFilter())

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"<build><timestamp>soon</timestamp></build>",
            b"<!DOCTYPE x [<!ENTITY a 'b'>]><build>&a;</build>",
            b"\0" * 99,
        ],
        ids=["empty", "no time", "entities", "zeros"],
    )
    def test_a_broken_build_is_named(self, tmp_path: Path, content: bytes) -> None:
        put(tmp_path / "jobs" / "shop", 1)
        (tmp_path / "jobs" / "shop" / "builds" / "1" / "build.xml").write_bytes(content)
        (one,) = found(open_jenkins_home(tmp_path, BuildFilter()))
        assert isinstance(one, Dropped)
        assert one.source.endswith("jobs/shop/builds/1/build.xml")

    def test_results_that_are_cut_off_keep_what_stands(self, tmp_path: Path) -> None:
        put(tmp_path / "jobs" / "shop", 1)
        place = tmp_path / "jobs" / "shop" / "builds" / "1" / "junitResult.xml"
        place.write_text(RESULT[: RESULT.index("<testName>waits")])
        (one,) = read(tmp_path)
        assert [run.test for run in one.reports.tests] == ["org.acme.ATest#works", "org.acme.ATest#fails"]

    @given(content=st.binary(max_size=200) | st.text(alphabet="<>/casebuildrsult &;\n", max_size=200).map(str.encode))
    def test_any_bytes_for_results_are_read_or_named(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        home = tmp_path_factory.mktemp("any")
        put(home / "jobs" / "shop", 1)
        (home / "jobs" / "shop" / "builds" / "1" / "junitResult.xml").write_bytes(content)
        (one,) = found(open_jenkins_home(home, BuildFilter()))
        assert isinstance(one, FinishedBuild | Dropped)

    def test_a_home_is_learned_once(self, tmp_path: Path) -> None:
        for number in range(1, 9):
            put(tmp_path / "home" / "jobs" / "shop", number)
        history = new_home(tmp_path / "history")
        first, again = (backfill(history, open_path(tmp_path / "home", BuildFilter())) for _ in range(2))
        assert (first.recorded, first.tests, first.warnings) == (8, 32, ())
        assert (again.recorded, again.known, again.rows) == (0, 8, 0)


CASE = {"className": "org.acme.ATest", "duration": 0.5, "errorDetails": None, "name": "works", "status": "PASSED"}
REPORT = {
    "_class": "hudson.tasks.junit.TestResult",
    "suites": [
        {
            "name": "org.acme.ATest",
            "cases": [
                CASE,
                {**CASE, "name": "fixed", "status": "FIXED"},
                {**CASE, "name": "fails", "status": "REGRESSION", "errorDetails": "java.io.IOException: no"},
                {**CASE, "name": "waits", "status": "SKIPPED"},
            ],
        }
    ],
}


def build_json(number: int, **changed: object) -> dict[str, object]:
    told: dict[str, object] = {
        "_class": "org.jenkinsci.plugins.workflow.job.WorkflowRun",
        "number": number,
        "result": "UNSTABLE",
        "timestamp": STARTED + number * 3_600_000,
        "duration": 600_000,
        "building": False,
        "actions": [
            {"_class": "hudson.model.CauseAction", "causes": [{"_class": "hudson.model.Cause$UserIdCause"}]},
            {},
            {"_class": "hudson.plugins.git.util.BuildData", "lastBuiltRevision": {"SHA1": f"{number:040x}"}},
        ],
        "changeSets": [
            {"items": [{"commitId": "1", "authorEmail": "ada@example.org", "affectedPaths": ["src/A.java", "pom.xml"]}]}
        ],
    }
    return {**told, **changed}


class Jenkins:
    """A folder with a multibranch job and a matrix, and a plain job of many builds; builds come as asked for, {m,n}."""

    def __init__(self, builds: int) -> None:
        job, folder = "org.jenkinsci.plugins.workflow.job.WorkflowJob", "com.cloudbees.hudson.plugin.folder.Folder"
        multi = "org.jenkinsci.plugins.workflow.multibranch.WorkflowMultiBranchProject"
        self.items: dict[str, dict[str, object]] = {
            "/": {"_class": "hudson.model.Hudson", "jobs": [{"name": "team"}, {"name": "plain"}]},
            "/job/team/": {
                "_class": folder,
                "name": "team",
                "fullName": "team",
                "jobs": [{"name": "shop"}, {"name": "m"}],
            },
            "/job/team/job/shop/": {
                "_class": multi,
                "name": "shop",
                "fullName": "team/shop",
                "jobs": [{"name": "feature%2Fx"}, {"name": "PR-7"}],
            },
            "/job/team/job/m/": {
                "_class": "hudson.matrix.MatrixProject",
                "fullName": "team/m",
                "activeConfigurations": [{"name": "jdk=21,os=linux"}],
                "builds": [{"number": 1}],
            },
        }
        for place, name in (
            ("/job/team/job/shop/job/feature%2Fx/", "team/shop/feature%2Fx"),
            ("/job/team/job/shop/job/PR-7/", "team/shop/PR-7"),
            ("/job/plain/", "plain"),
        ):
            self.items[place] = {
                "_class": job,
                "name": name.rpartition("/")[2],
                "fullName": name,
                "builds": [{"number": 1}],
            }
        self.builds = {place: [build_json(1)] for place, item in self.items.items() if "builds" in item}
        self.builds["/job/team/job/m/jdk=21,os=linux/"] = [build_json(1)]
        self.builds["/job/plain/"] = [build_json(number) for number in range(builds, 0, -1)]

    def __call__(self, path: str, headers: Mapping[str, str]) -> Reply:
        if headers.get("authorization") != "Bearer t0ken":
            return Reply(status=401, body=b"<html>")
        parts = urlsplit(path)
        place, tree = unquote(parts.path), parse_qs(parts.query)["tree"][0]
        if place.endswith("testReport/api/json"):
            number = re.search(r"/(\d+)/testReport", place)
            return Reply(REPORT) if number and int(number[1]) % 2 else Reply(status=404, body=b"<html>")
        place = place.removesuffix("api/json")
        if found := re.fullmatch(r"allBuilds\[.*\]\{(\d+),(\d+)\}", tree):
            return Reply({"_class": "x", "allBuilds": self.builds[place][int(found[1]) : int(found[2])]})
        return Reply(self.items[place]) if place in self.items else Reply(status=404, body=b"<html>")


ALL = BuildFilter()


def asked(
    folder: Path, service: Jenkins, wanted: BuildFilter = ALL, at: str = "", keep: list[StandIn] | None = None
) -> list[FinishedBuild]:
    with serving(service) as server:
        if keep is not None:
            keep.append(server)
        builds = found(open_jenkins_server(asker(new_home(folder), f"{server.url}{at}"), wanted))
    assert all(isinstance(one, FinishedBuild) for one in builds), builds
    return [one for one in builds if isinstance(one, FinishedBuild)]


class TestServer:
    def test_jobs_of_a_server_are_named_as_train_names_them(self, tmp_path: Path) -> None:
        """All jobs of a server are found and named as `train` names them."""
        told = {
            (one.situation.ci.run, one.situation.ci.job, one.situation.ci.branch) for one in asked(tmp_path, Jenkins(1))
        }
        assert told == {
            ("plain/1", "plain", ""),
            ("team/shop/feature%2Fx/1", "team/shop", "feature/x"),
            ("team/shop/PR-7/1", "team/shop", "PR-7"),
            ("team/m/jdk=21,os=linux/1", "team/m/jdk=21,os=linux", ""),
        }

    def test_a_build_of_a_server_tells_what_it_was_and_what_changed(self, tmp_path: Path) -> None:
        (one,) = asked(tmp_path, Jenkins(1), at="/job/plain")
        assert (one.outcome, one.duration) == (BuildOutcome.UNSTABLE, Duration(600.0, "jenkins"))
        assert one.situation.ci.event == "manual"
        files = (FileChange("src/A.java"), FileChange("pom.xml"))
        assert one.situation.change == Change(f"{1:040x}", "", "ada@example.org", files, "the build before")
        assert [(r.test, r.outcome, r.failure_type) for r in one.reports.tests] == [
            ("org.acme.ATest#works", Outcome.PASSED, ""),
            ("org.acme.ATest#fixed", Outcome.PASSED, ""),
            ("org.acme.ATest#fails", Outcome.FAILED, "java.io.IOException"),
            ("org.acme.ATest#waits", Outcome.SKIPPED, ""),
        ]

    @pytest.mark.slow
    def test_hundred_builds_are_asked_for_at_once(self, tmp_path: Path) -> None:
        """A server is asked for a hundred builds at once and for no more than wanted."""
        service = Jenkins(230)
        service.builds["/job/plain/"][5].update(result="ABORTED")
        service.builds["/job/plain/"][0].update(building=True, result=None)
        servers: list[StandIn] = []
        found = asked(tmp_path, service, BuildFilter(job="plain"), keep=servers)
        assert [one.situation.ci.run for one in found[:2]] == ["plain/1", "plain/2"]
        assert len(found) == 228
        assert [len(one.reports.tests) for one in found[:2]] == [4, 0]
        assert sum("allBuilds" in path for path in servers[0].paths()) == 3
        servers.clear()
        assert len(asked(tmp_path, service, BuildFilter(job="plain", limit=7), keep=servers)) == 7
        assert sum("allBuilds" in path for path in servers[0].paths()) == 1
        assert sum("testReport" in path for path in servers[0].paths()) == 7

    def test_a_build_without_a_commit_and_without_a_duration_says_so(self, tmp_path: Path) -> None:
        service = Jenkins(1)
        service.builds["/job/plain/"] = [build_json(1, actions=[], changeSets=[], duration=0)]
        (one,) = asked(tmp_path, service, at="/job/plain")
        assert isinstance(one.situation.change, Unavailable)
        assert isinstance(one.duration, Unavailable)

    def test_a_page_that_is_no_jenkins_is_named(self, tmp_path: Path) -> None:
        with (
            serving(lambda _path, _headers: Reply(json.loads('["nothing"]'))) as server,
            pytest.raises(InputError, match="does not answer as Jenkins does"),
        ):
            open_jenkins_server(asker(new_home(tmp_path), server.url), BuildFilter())
