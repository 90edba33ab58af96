"""Facts about a project's past on GitLab, against a stand-in with the fields of the REST API (v4)."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fedstep.errors import InputError
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter, ImportSource
from fedstep.importers.gitlab import open_gitlab
from fedstep.types import BuildOutcome, Change, Dropped, Duration, FinishedBuild, Outcome
from tests.helpers.importers import Patience, Reply, asker, new_home, serving

CASES = [
    {
        "status": "success",
        "name": "works",
        "classname": "shop.test_cart",
        "file": "shop/test_cart.py",
        "execution_time": 0.5,
        "system_output": None,
        "stack_trace": None,
        "recent_failures": None,
        "attachment_url": None,
    },
    {
        "status": "failed",
        "name": "fails",
        "classname": "shop.test_cart",
        "execution_time": 0.1,
        "system_output": "ValueError: no\n  at x",
        "stack_trace": None,
    },
    {"status": "error", "name": "breaks", "classname": "", "execution_time": 0, "system_output": {"message": "Boom"}},
    {"status": "skipped", "name": "waits", "classname": "shop.test_cart", "execution_time": 0},
]


def pipeline(number: int, **changed: object) -> dict[str, object]:
    told: dict[str, object] = {
        "id": number,
        "iid": number,
        "project_id": 1,
        "sha": f"{number:040x}",
        "ref": "main",
        "status": "failed",
        "source": "push",
        "created_at": f"2026-01-01T{number:02d}:00:00.000Z",
        "updated_at": f"2026-01-01T{number:02d}:30:00.000Z",
        "web_url": "https://example.org",
    }
    return {**told, **changed}


def job(number: int, name: str, place: int = 0, **changed: object) -> dict[str, object]:
    told: dict[str, object] = {
        "id": number * 10 + place,
        "status": "failed",
        "stage": "test",
        "name": name,
        "ref": "main",
        "tag": False,
        "allow_failure": False,
        "created_at": f"2026-01-01T{number:02d}:00:00.000Z",
        "started_at": f"2026-01-01T{number:02d}:01:00.000Z",
        "finished_at": f"2026-01-01T{number:02d}:{11 + place}:00.500Z",
        "duration": 600.5,
        "queued_duration": 1.0,
        "commit": {"id": f"{number:040x}", "author_email": "ada@example.org"},
        "pipeline": {"id": number, "ref": "main"},
    }
    return {**told, **changed}


class GitLab:
    """What the stand-in serves; two of a list on a page, limits as GitLab tells them."""

    def __init__(self, *pipelines: dict[str, object]) -> None:
        self.pipelines = sorted(pipelines, key=lambda one: -int(str(one["id"])))
        self.jobs = {one["id"]: [job(int(str(one["id"])), "test")] for one in pipelines}
        self.suites: dict[object, list[dict[str, object]]] = {
            one["id"]: [{"name": "test", "total_time": 0.6, "total_count": 4, "suite_error": None, "test_cases": CASES}]
            for one in pipelines
        }

    def __call__(self, path: str, headers: Mapping[str, str]) -> Reply:
        if headers.get("authorization") != "Bearer t0ken":
            return Reply({"message": "401 Unauthorized"}, 401)
        rest = urlsplit(path).path.removeprefix("/api/v4/projects/acme%2Fweb%2Fshop/pipelines")
        if not rest:
            return self.paged(path, headers, self.pipelines)
        if found := re.fullmatch(r"/(\d+)/jobs", rest):
            return self.paged(path, headers, self.jobs[int(found[1])])
        if found := re.fullmatch(r"/(\d+)/test_report", rest):
            return Reply({"total_time": 0.6, "total_count": 4, "test_suites": self.suites[int(found[1])]})
        return Reply({"message": "404 Project Not Found"}, 404)

    def paged(self, path: str, headers: Mapping[str, str], items: list[dict[str, object]]) -> Reply:
        number = int(parse_qs(urlsplit(path).query).get("page", ["1"])[0])
        link = f'<http://{headers["host"]}{path.split("&page")[0]}&page={number + 1}>; rel="next"'
        more = len(items) > 2 * number
        return Reply(items[2 * number - 2 : 2 * number], headers={"Link": link} if more else {})


def asked(folder: Path, service: GitLab, wanted: BuildFilter = BuildFilter()) -> list[object]:  # noqa: B008
    with serving(service) as server:
        past = open_gitlab(asker(new_home(folder), f"{server.url}/api/v4"), "acme/web/shop", wanted)
        return [found for pending in past.items for found in pending.read()]


class TestPipelines:
    def test_job_with_report_is_named_as_train_names_it(self, tmp_path: Path) -> None:
        """A job with its report is a build, named as `train` names it."""
        (one,) = asked(tmp_path, GitLab(pipeline(3)))
        assert isinstance(one, FinishedBuild)
        ci = one.situation.ci
        assert (ci.vendor, ci.run, ci.job, ci.cell, ci.branch, ci.event) == (
            "gitlab",
            "3/30",
            "test",
            "",
            "main",
            "push",
        )
        assert (one.outcome, one.duration) == (BuildOutcome.FAILED, Duration(600.5, "gitlab"))
        assert one.situation.change == Change(f"{3:040x}", "", "ada@example.org")
        assert [(r.test, r.outcome, r.seconds, r.failure_type) for r in one.reports.tests] == [
            ("shop.test_cart#works", Outcome.PASSED, 0.5, ""),
            ("shop.test_cart#fails", Outcome.FAILED, 0.1, "ValueError"),
            ("test#breaks", Outcome.FAILED, 0.0, "Boom"),
            ("shop.test_cart#waits", Outcome.SKIPPED, 0.0, ""),
        ]

    def test_finished_pipelines_come_oldest_first(self, tmp_path: Path) -> None:
        """Pipelines are paged, come oldest first, and only finished ones."""
        service = GitLab(*(pipeline(number) for number in range(1, 6)), pipeline(6, status="running"))
        found = asked(tmp_path, service)
        assert [one.situation.ci.run for one in found if isinstance(one, FinishedBuild)] == [
            "1/10",
            "2/20",
            "3/30",
            "4/40",
            "5/50",
        ]
        assert len(asked(tmp_path, service, BuildFilter(limit=2))) == 2
        assert len(asked(tmp_path, service, BuildFilter(since=1767236400.0))) == 3  # from 03:00 on

    @pytest.mark.parametrize("names", [("test 1/2", "test 2/2"), ("test: [linux]", "test: [mac]")])
    def test_a_suite_of_parallel_jobs_is_one_build_of_all_of_them(self, tmp_path: Path, names: tuple[str, str]) -> None:
        service = GitLab(pipeline(1))
        service.jobs[1] = [job(1, names[0]), job(1, names[1], 5, status="success"), job(1, "lint", 1)]
        (one,) = asked(tmp_path, service)
        assert isinstance(one, FinishedBuild)
        assert (one.situation.ci.run, one.situation.ci.job, one.duration) == ("1", "test", Duration(900.5, "gitlab"))

    def test_jobs_without_any_report_still_tell_time_and_outcome(self, tmp_path: Path) -> None:
        service = GitLab(pipeline(1))
        service.suites[1] = []
        service.jobs[1] = [job(1, "build"), job(1, "lint", 1, status="success"), job(1, "deploy", 2, status="manual")]
        found = asked(tmp_path, service)
        assert [(one.situation.ci.job, one.outcome) for one in found if isinstance(one, FinishedBuild)] == [
            ("build", BuildOutcome.FAILED),
            ("lint", BuildOutcome.PASSED),
        ]
        assert [type(one) for one in asked(tmp_path, service, BuildFilter(job="lint"))] == [FinishedBuild]


class TestErrors:
    def test_a_report_that_is_not_what_the_api_says_is_named(self, tmp_path: Path) -> None:
        service = GitLab(pipeline(1), pipeline(2))
        service.suites[1] = [{"name": "test", "test_cases": [{"status": "dubious"}]}]
        bad, good = asked(tmp_path, service)
        assert isinstance(bad, Dropped)
        assert bad.source == "pipeline 1"
        assert isinstance(good, FinishedBuild)

    def test_a_project_that_is_not_there_names_what_to_do(self, tmp_path: Path) -> None:
        with serving(GitLab(pipeline(1))) as server, pytest.raises(InputError, match="404"):
            open_gitlab(asker(new_home(tmp_path), f"{server.url}/api/v4"), "acme/gone", BuildFilter())

    def test_an_import_waits_for_the_limit_and_is_learned_once(self, tmp_path: Path) -> None:
        service, patience, home = GitLab(*(pipeline(number) for number in range(1, 5))), Patience(), new_home(tmp_path)
        limits = iter([False, False, True])

        def limited(path: str, headers: Mapping[str, str]) -> Reply:
            if next(limits, False):
                return Reply("Retry later", 429, {"Retry-After": "60", "RateLimit-Remaining": "0"})
            return service(path, headers)

        def past(url: str) -> ImportSource:
            return open_gitlab(asker(home, f"{url}/api/v4", patience.manners()), "acme/web/shop", BuildFilter())

        with serving(limited) as server:
            first, again = (backfill(home, past(server.url)) for _ in range(2))
        assert (first.recorded, first.tests, again.recorded, again.known) == (4, 16, 0, 4)
        assert patience.pauses == [60.5]
