"""Facts about a repository's past on GitHub, against a stand-in with the fields of the REST API (2022-11-28)."""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fedstep.errors import InputError
from fedstep.history.project_store import ProjectStore
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter, ImportSource
from fedstep.importers.github import WorkflowJob, find_owner, open_github
from fedstep.ingest.junit import read_reports
from fedstep.types import BuildOutcome, Change, Dropped, Duration, FinishedBuild, Outcome
from tests.helpers.importers import Patience, Reply, StandIn, asker, new_home, serving

REPORT = (
    '<testsuite name="s"><testcase classname="org.acme.ATest" name="works" time="0.5"/>'
    '<testcase classname="org.acme.ATest" name="fails" time="0.1"><failure type="E" message="m"/></testcase>'
    "</testsuite>"
)


def zipped(**files: str | bytes) -> bytes:
    """A zip of these files; "__" in a name stands for "/" and "_xml" for ".xml"."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return out.getvalue()


def at(minute: float) -> str:
    """A time of the API."""
    return f"2026-01-01T{int(minute) // 60:02d}:{int(minute) % 60:02d}:00Z"


def run(number: int, **changed: object) -> dict[str, object]:
    """A workflow run; one an hour."""
    repository = {"id": 1, "name": "shop", "full_name": "acme/shop"}
    told: dict[str, object] = {
        "id": number,
        "name": "CI",
        "node_id": "x",
        "head_branch": "main",
        "head_sha": f"{number:040x}",
        "path": ".github/workflows/ci.yml",
        "run_number": number,
        "event": "push",
        "display_title": "a change",
        "status": "completed",
        "conclusion": "failure",
        "workflow_id": 7,
        "pull_requests": [],
        "created_at": at(60 * number),
        "updated_at": at(60 * number + 30),
        "actor": {"login": "ada"},
        "run_attempt": 1,
        "run_started_at": at(60 * number),
        "head_commit": {"id": f"{number:040x}", "author": {"name": "Ada", "email": "ada@example.org"}},
        "repository": repository,
        "head_repository": repository,
    }
    return {**told, **changed}


def job(number: int, name: str, start: float, end: float, **changed: object) -> dict[str, object]:
    """A job of a run; times are minutes after the run's creation."""
    told: dict[str, object] = {
        "id": number * 10,
        "run_id": number,
        "workflow_name": "CI",
        "run_attempt": 1,
        "status": "completed",
        "conclusion": "failure",
        "created_at": at(60 * number),
        "started_at": at(60 * number + start),
        "completed_at": at(60 * number + end),
        "name": name,
        "steps": [],
        "labels": ["ubuntu-latest"],
        "runner_name": "r",
    }
    return {**told, **changed}


class GitHub:
    """What the stand-in serves: runs, jobs and artifacts by run, zips by artifact; two of a list on a page."""

    def __init__(self, runs: list[dict[str, object]]) -> None:
        self.runs = runs
        self.jobs = {one["id"]: [job(int(str(one["id"])), "test", 1, 11)] for one in runs}
        self.artifacts: dict[object, list[tuple[str, float, bytes]]] = {
            one["id"]: [("test-reports", 10, zipped(TEST_a_xml=REPORT))] for one in runs
        }
        self.expired: set[str] = set()
        self.storage = ""

    def __call__(self, path: str, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(path)
        if headers.get("authorization") != "Bearer t0ken":
            return Reply({"message": "Requires authentication"}, 401)
        rest = parts.path.removeprefix("/repos/acme/shop/actions/")
        if rest == "runs":
            return self.paged(path, headers, "workflow_runs", sorted(self.runs, key=lambda r: -int(str(r["id"]))))
        if found := re.fullmatch(r"runs/(\d+)/jobs", rest):
            return self.paged(path, headers, "jobs", self.jobs[int(found[1])])
        if found := re.fullmatch(r"runs/(\d+)/artifacts", rest):
            return self.paged(path, headers, "artifacts", self.listed(int(found[1]), headers["host"]))
        if found := re.fullmatch(r"artifacts/(\d+)_(\d+)/zip", rest):
            return Reply(status=302, headers={"Location": f"{self.storage}/{found[1]}/{found[2]}?sig=secret"})
        return Reply({"message": "Not Found"}, 404)

    def listed(self, number: int, host: str) -> list[dict[str, object]]:
        return [
            {
                "id": place,
                "node_id": "x",
                "name": name,
                "size_in_bytes": len(content),
                "url": f"http://{host}/repos/acme/shop/actions/artifacts/{number}_{place}",
                "archive_download_url": f"http://{host}/repos/acme/shop/actions/artifacts/{number}_{place}/zip",
                "expired": name in self.expired,
                "created_at": at(60 * number + minute),
                "expires_at": "2026-04-01T00:00:00Z",
                "workflow_run": {"id": number, "head_branch": "main"},
            }
            for place, (name, minute, content) in enumerate(self.artifacts[number])
        ]

    def paged(self, path: str, headers: Mapping[str, str], name: str, items: list[dict[str, object]]) -> Reply:
        query = parse_qs(urlsplit(path).query)
        number = int(query.get("page", ["1"])[0])
        etag = f'W/"{abs(zip_hash(repr(items)))}"'
        if headers.get("if-none-match") == etag:
            return Reply(status=304, body=b"")
        page, more = items[2 * number - 2 : 2 * number], len(items) > 2 * number
        link = f'<http://{headers["host"]}{path.split("&page")[0]}&page={number + 1}>; rel="next"'
        return Reply(
            {"total_count": len(items), name: page}, headers={"ETag": etag, **({"Link": link} if more else {})}
        )

    def stored(self, path: str, headers: Mapping[str, str]) -> Reply:
        assert "authorization" not in headers
        _, number, place = urlsplit(path).path.split("/")
        return Reply(body=self.artifacts[int(number)][int(place)][2])


def zip_hash(text: str) -> int:
    return zlib.crc32(text.encode())


def asked(
    home: ProjectStore,
    service: GitHub,
    wanted: BuildFilter = BuildFilter(),  # noqa: B008
    keep: list[StandIn] | None = None,
) -> list[object]:
    """Everything that the repository's past gives, in the order in which its runs were made."""
    with serving(service.stored) as storage, serving(service) as server:
        service.storage = storage.url
        if keep is not None:
            keep.append(server)
        past = open_github(asker(home, server.url), "acme/shop", wanted, ())
        return [found for pending in past.items for found in pending.read()]


def evidence(found: list[object]) -> list[FinishedBuild]:
    assert all(isinstance(one, FinishedBuild) for one in found), found
    return [one for one in found if isinstance(one, FinishedBuild)]


class TestRuns:
    def test_job_with_reports_is_named_as_train_names_it(self, tmp_path: Path) -> None:
        """A job with its reports is a build, named as `train` names it."""
        (one,) = evidence(asked(new_home(tmp_path), GitHub([run(3)])))
        ci = one.situation.ci
        assert (ci.vendor, ci.run, ci.attempt, ci.job, ci.cell) == ("github", "3", 1, "test", "")
        assert ci.workflow == "CI"
        assert (ci.branch, ci.event, one.outcome, one.duration) == (
            "main",
            "push",
            BuildOutcome.FAILED,
            Duration(600, "github"),
        )
        assert one.situation.change == Change(f"{3:040x}", "", "ada@example.org")
        assert [(r.test, r.outcome, r.seconds) for r in one.reports.tests] == [
            ("org.acme.ATest#works", Outcome.PASSED, 0.5),
            ("org.acme.ATest#fails", Outcome.FAILED, 0.1),
        ]
        here = read_reports([("x", lambda: io.BytesIO(REPORT.encode()))])
        assert one.reports.digest == here.digest, "the same files, so the same build as the one that train recorded"

    def test_runs_are_paged_and_come_oldest_first(self, tmp_path: Path) -> None:
        servers: list[StandIn] = []
        found = evidence(asked(new_home(tmp_path), GitHub([run(number) for number in range(1, 6)]), keep=servers))
        assert [one.situation.ci.run for one in found] == ["1", "2", "3", "4", "5"]
        assert [path for path in servers[0].paths() if "/actions/runs?" in path] == [
            "/repos/acme/shop/actions/runs?per_page=100",
            "/repos/acme/shop/actions/runs?per_page=100&page=2",
            "/repos/acme/shop/actions/runs?per_page=100&page=3",
        ]

    def test_no_more_pages_are_asked_for_than_are_wanted(self, tmp_path: Path) -> None:
        service = GitHub([run(number) for number in range(1, 9)])
        for wanted in (BuildFilter(limit=2), BuildFilter(since=1767250800.0)):  # 07:00: two runs
            servers: list[StandIn] = []
            found = evidence(asked(new_home(tmp_path), service, wanted, servers))
            assert [one.situation.ci.run for one in found] == ["7", "8"]
            assert sum("/actions/runs?" in path for path in servers[0].paths()) <= 2

    def test_runs_of_forks_dependabot_and_unfinished_are_left_out(self, tmp_path: Path) -> None:
        """Runs of forks, of Dependabot and those that go on are left out."""
        fork = {"full_name": "stranger/shop"}
        service = GitHub(
            [
                run(1, event="pull_request", head_repository=fork),
                run(2, event="pull_request", head_repository=None),
                run(3, actor={"login": "dependabot[bot]"}),
                run(4, status="in_progress", conclusion=None),
                run(5, event="pull_request", pull_requests=[{"base": {"ref": "release"}}]),
            ]
        )
        (one,) = evidence(asked(new_home(tmp_path), service))
        assert (one.situation.ci.run, one.situation.ci.event, one.situation.ci.base_branch) == (
            "5",
            "pull_request",
            "release",
        )


class TestJobs:
    def test_artifact_belongs_to_the_job_that_ran_at_its_time(self, tmp_path: Path) -> None:
        """Every attempt is a build, and an artifact belongs to the job that ran when it was made."""
        service = GitHub([run(1, run_attempt=2)])
        service.jobs[1] = [
            job(1, "test", 1, 11),
            job(1, "test", 21, 31, run_attempt=2, conclusion="success"),
            job(1, "lint", 1, 2, conclusion="success"),
            job(1, "deploy", 1, 2, conclusion="skipped", started_at=None, completed_at=None),
        ]
        passed = zipped(TEST_a_xml=REPORT.replace('<failure type="E" message="m"/>', ""))
        service.artifacts[1] = [
            ("test-1", 10, zipped(TEST_a_xml=REPORT)),
            ("test-2", 30, passed),
            ("logs", 10, b"no zip"),
        ]
        first, second = evidence(asked(new_home(tmp_path), service))
        assert [(one.situation.ci.attempt, one.outcome) for one in (first, second)] == [
            (1, BuildOutcome.FAILED),
            (2, BuildOutcome.PASSED),
        ]
        assert first.reports.tests[1].outcome == Outcome.FAILED
        assert second.reports.tests[1].outcome == Outcome.PASSED

    def test_the_cells_of_a_matrix_are_told_apart_by_name(self, tmp_path: Path) -> None:
        service = GitHub([run(1)])
        service.jobs[1] = [job(1, "test (ubuntu, 3.12)", 1, 11), job(1, "test (windows, 3.12)", 1, 15)]
        service.artifacts[1] = [
            ("reports-windows-3.12", 10, zipped(a_xml=REPORT)),
            ("reports-ubuntu-3.12", 10, zipped(a_xml=REPORT)),
        ]
        found = evidence(asked(new_home(tmp_path), service))
        assert {(one.situation.ci.job, one.situation.ci.cell) for one in found} == {
            ("test", "ubuntu, 3.12"),
            ("test", "windows, 3.12"),
        }

    def test_reports_without_an_owner_are_a_build_of_all_jobs(self, tmp_path: Path) -> None:
        """Reports that no job can be told to own are a build of all."""
        service = GitHub([run(1)])
        service.jobs[1] = [job(1, "test (a)", 1, 11), job(1, "test (b)", 1, 15, conclusion="success")]
        service.artifacts[1] = [("all-reports", 10, zipped(a_xml=REPORT))]
        (one,) = evidence(asked(new_home(tmp_path), service))
        assert (one.situation.ci.job, one.situation.ci.cell, one.duration) == ("test", "", Duration(840, "github"))
        assert one.outcome == BuildOutcome.FAILED

    def test_run_with_expired_reports_tells_time_and_outcome(self, tmp_path: Path) -> None:
        """A run whose reports have expired still tells its time and outcome."""
        service = GitHub([run(1)])
        service.expired = {"test-reports"}
        (one,) = evidence(asked(new_home(tmp_path), service))
        assert (one.reports.tests, one.duration) == ((), Duration(600, "github"))


class TestErrors:
    def test_broken_report_in_an_artifact_is_named(self, tmp_path: Path) -> None:
        """What is no report in an artifact is no matter, and a broken one is named."""
        service = GitHub([run(1)])
        content = zipped(**{"pom_xml": "<project/>", "a_xml": REPORT, "cut_xml": REPORT[:90], "log.txt": "x" * 1000})
        service.artifacts[1] = [("test", 10, content), ("junit", 10, b"PK no zip")]
        (one,) = evidence(asked(new_home(tmp_path), service))
        assert len(one.reports.tests) == 2
        lost = [item.source for item in one.reports.dropped if not item.kept]
        assert "artifact junit" in lost
        assert not any("pom" in source for source in lost)

    def test_invalid_run_is_named_and_others_are_read(self, tmp_path: Path) -> None:
        """A run that is not what the API says is named, and the others are read."""
        service = GitHub([run(1), run(2)])
        service.jobs[1] = [{"nonsense": True}]
        found = asked(new_home(tmp_path), service)
        assert isinstance(found[0], Dropped)
        assert found[0].source == "run 1"
        assert isinstance(found[1], FinishedBuild)

    @pytest.mark.parametrize(("project", "said"), [("acme/gone", "404"), ("acme/shop", "401")])
    def test_a_refusal_names_what_to_do(self, tmp_path: Path, project: str, said: str) -> None:
        token = "t0ken" if said == "404" else "wrong"
        with serving(GitHub([run(1)])) as server, pytest.raises(InputError, match=f"{said}.*GITHUB_TOKEN"):
            open_github(asker(new_home(tmp_path), server.url, token=token), project, BuildFilter(), ())

    def test_import_waits_for_the_limit_and_uses_kept_answers(self, tmp_path: Path) -> None:
        """An import waits for the limit, goes on, and asks cheaply the next time."""
        service, patience, home = (
            GitHub([run(number) for number in range(1, 6)]),
            Patience(),
            new_home(tmp_path / "home"),
        )
        left = [7]

        def limited(path: str, headers: Mapping[str, str]) -> Reply:
            if not left[0]:
                left[0] = 100
                reset = f"{patience.now + 900:.0f}"
                return Reply(
                    {"message": "API rate limit exceeded"},
                    403,
                    {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset},
                )
            left[0] -= 1
            return service(path, headers)

        def past(url: str) -> ImportSource:
            return open_github(asker(home, url, patience.manners()), "acme/shop", BuildFilter(), ())

        with serving(service.stored) as storage, serving(limited) as server:
            service.storage = storage.url
            first = backfill(home, past(server.url))
            assert (first.recorded, first.tests) == (5, 10)
            assert [round(pause) for pause in patience.pauses] == [900]
            before = len(server.asked)
            again = backfill(home, past(server.url))
            assert (again.recorded, again.known) == (0, 5)
            repeated = server.asked[before:]
            assert len(repeated) == 3, "the pages of runs, and nothing else"
            assert all("if-none-match" in headers for _, headers in repeated)


class TestOwners:
    def test_the_owner_of_an_artifact(self) -> None:
        jobs = (
            WorkflowJob("test (linux)", "success", 100.0, 200.0, 1),
            WorkflowJob("test (mac)", "success", 100.0, 900.0, 1),
            WorkflowJob("lint", "success", 100.0, 900.0, 1),
        )
        assert find_owner("junit-mac", 800.0, jobs) == jobs[1]
        assert find_owner("test-mac", 150.0, jobs) == jobs[1]
        assert find_owner("test", 150.0, jobs) is None
        assert find_owner("anything", 150.0, jobs[:1]) == jobs[0]
        assert find_owner("anything", 9e9, jobs[:1]) == jobs[0]

    def test_a_job_can_be_chosen_by_its_key_or_by_the_name_of_a_cell(self, tmp_path: Path) -> None:
        service = GitHub([run(1)])
        service.jobs[1] = [job(1, "test (a)", 1, 11), job(1, "test (b)", 1, 15), job(1, "lint", 1, 5)]
        service.artifacts[1] = []

        def learned(name: str) -> int:
            with serving(service) as server:
                wanted, home = BuildFilter(job=name), new_home(tmp_path / name)
                return backfill(home, open_github(asker(home, server.url), "acme/shop", wanted, ()), wanted).recorded

        assert [learned(name) for name in ("test", "test (b)", "lint", "deploy")] == [2, 1, 1, 0]
