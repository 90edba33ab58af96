"""What each CI's variables say of a job: which run it is, what it builds, and whether it can be trusted."""

from pathlib import Path
from typing import TypedDict

import pytest

from fedstep.ingest.ci import read_ci
from fedstep.ingest.ci_vendors import FEDSTEP_VARIABLES, VENDORS
from fedstep.types import BuildOutcome, CiRun
from tests.helpers.ci import (
    APPVEYOR,
    AZURE,
    BAMBOO,
    BITBUCKET,
    BUILDKITE,
    CIRCLE,
    CIRRUS,
    CLOUD_BUILD,
    CODEBUILD,
    CODEFRESH,
    DRONE,
    FORK_PAYLOAD,
    GITHUB,
    GITHUB_PR,
    GITLAB,
    GITLAB_MR,
    JENKINS,
    JENKINS_PR,
    OLD,
    OWN_PAYLOAD,
    PULL_REQUESTS,
    SEMAPHORE,
    SHA,
    TEAMCITY,
    TRAVIS,
    WOODPECKER,
    ZEROS,
)

# Systems that do not tell whether a pull request is one of a fork.
NO_FORKS = ("drone", "woodpecker", "bamboo", "codebuild", "cirrus", "codefresh", "cloudbuild")


class Pushed(TypedDict):
    """What most of the builds have in common."""

    branch: str
    event: str
    commit: str


PUSHED: Pushed = {"branch": "main", "event": "push", "commit": SHA}


class TestWorkflows:
    @pytest.mark.parametrize(
        ("env", "told", "workflow"),
        [
            (GITHUB, {"GITHUB_WORKFLOW": "Nightly tests"}, "Nightly tests"),
            (GITHUB, {"GITHUB_WORKFLOW": ".github/workflows/ci.yml"}, "ci.yml"),
            (GITHUB, {"GITHUB_WORKFLOW": "CI", "FEDSTEP_CI_WORKFLOW": "Release"}, "Release"),
            (GITHUB, {}, ""),
            (BUILDKITE, {"BUILDKITE_PIPELINE_SLUG": "shop-nightly"}, "shop-nightly"),
            (AZURE, {"BUILD_DEFINITIONNAME": "Shop", "SYSTEM_STAGENAME": "Build"}, "Shop/Build"),
            (AZURE, {"BUILD_DEFINITIONNAME": "Shop", "SYSTEM_STAGENAME": "__default"}, "Shop"),
            (SEMAPHORE, {"SEMAPHORE_PIPELINE_NAME": "CI", "SEMAPHORE_BLOCK_NAME": "Lint"}, "CI/Lint"),
            (JENKINS, {}, ""),
        ],
    )
    def test_a_job_is_known_with_what_it_is_a_part_of(
        self, env: dict[str, str], told: dict[str, str], workflow: str
    ) -> None:
        """Jobs of several workflows, pipelines or stages may have one name; Jenkins' name says it all."""
        assert read_ci(env | told).workflow == workflow

    def test_numbers_of_a_branch_are_no_numbers_of_a_workflow(self) -> None:
        """Semaphore counts the runs of each branch: the numbers between belong to nobody."""
        assert read_ci(SEMAPHORE | {"SEMAPHORE_WORKFLOW_NUMBER": "42"}).number is None


class TestVendors:
    @pytest.mark.parametrize(
        ("env", "expected"),
        [
            (GITHUB, CiRun("github", "77", 2, "test", "os=linux,py=3.12", **PUSHED, os="linux", number=41)),
            (
                GITLAB,
                CiRun(
                    "gitlab",
                    "5/9",
                    1,
                    "test",
                    "2",
                    **PUSHED,
                    commit_before=OLD,
                    started_at=1767323045.0,
                    outcome=BuildOutcome.FAILED,
                    os="linux",
                ),
            ),
            (
                JENKINS,
                CiRun(
                    "jenkins",
                    "shop/main/8",
                    1,
                    "shop",
                    "",
                    "main",
                    commit=SHA,
                    commit_before=OLD,
                    started_at=1767323045.0,
                    outcome=BuildOutcome.UNSTABLE,
                ),
            ),
            (CIRCLE, CiRun("circleci", "w/6", 1, "test", "1", branch="main", commit=SHA)),
            (
                BUILDKITE,
                CiRun("buildkite", "b", 2, "test", "", "topic", "main", "pull_request", outcome=BuildOutcome.FAILED),
            ),
            (
                AZURE,
                CiRun(
                    "azure",
                    "c/3",
                    1,
                    "test",
                    "2",
                    **PUSHED,
                    outcome=BuildOutcome.UNSTABLE,
                    outcome_so_far=True,
                    os="windows",
                ),
            ),
            (
                TRAVIS,
                CiRun(
                    "travis",
                    "1/2",
                    branch="main",
                    event="schedule",
                    commit=SHA,
                    outcome=BuildOutcome.PASSED,
                    os="macos",
                ),
            ),
            (
                BITBUCKET,
                CiRun("bitbucket", "o/s/4/{u}", event="tag", commit=SHA, outcome=BuildOutcome.PASSED, number=4),
            ),
            (TEAMCITY, CiRun("teamcity", "Shop/Test/4", 1, "Test", commit=SHA, workflow="Shop")),
            (WOODPECKER, CiRun("woodpecker", "o/s/4", 1, "test", **PUSHED, os="linux", number=4)),
            (
                DRONE,
                CiRun(
                    "drone",
                    "o/s/4",
                    1,
                    "test",
                    **PUSHED,
                    commit_before=OLD,
                    started_at=1767323045.0,
                    outcome=BuildOutcome.PASSED,
                    outcome_so_far=True,
                    os="linux",
                    number=4,
                ),
            ),
            (
                APPVEYOR,
                CiRun("appveyor", "50/j1", 1, "shop", "Environment: PY=3.12", "main", event="schedule", commit=SHA),
            ),
            (
                BAMBOO,
                CiRun(
                    "bamboo",
                    "SHOP-CI-UNIT-12",
                    1,
                    "SHOP-CI-UNIT",
                    branch="main",
                    commit=SHA,
                    commit_before=OLD,
                    started_at=1767323045.0,
                ),
            ),
            (
                CODEBUILD,
                CiRun(
                    "codebuild",
                    "shop:2bf185df",
                    1,
                    "shop",
                    "linux",
                    **PUSHED,
                    commit_before=OLD,
                    started_at=1767323045.0,
                ),
            ),
            (
                SEMAPHORE,
                CiRun(
                    "semaphore",
                    "w1/j1",
                    1,
                    "Unit tests",
                    "2",
                    **PUSHED,
                    commit_before=OLD,
                    outcome=BuildOutcome.FAILED,
                ),
            ),
            (CIRRUS, CiRun("cirrus", "7/8", 1, "test", branch="main", event="schedule", commit=SHA, os="macos")),
            (CODEFRESH, CiRun("codefresh", "65a1", 1, "shop/test", "unit", **PUSHED)),
            (CLOUD_BUILD, CiRun("cloudbuild", "b1", 1, "test", branch="main", commit=SHA)),
            ({"BUILDER_OUTPUT": "/builder/outputs"}, CiRun("cloudbuild")),
            ({"CI": "true"}, CiRun("generic")),
            ({"FEDSTEP_CI_RUN": "r"}, CiRun("generic", "r")),
            ({}, CiRun("local")),
            ({"CI": "false"}, CiRun("local")),
        ],
    )
    def test_each_vendor_is_read(self, env: dict[str, str], expected: CiRun) -> None:
        assert read_ci(env) == expected

    def test_the_platform_is_the_system_where_the_ci_does_not_tell(self) -> None:
        assert [read_ci({}, platform=name).os for name in ("linux", "win32", "darwin", "plan9")] == [
            "linux",
            "windows",
            "macos",
            "",
        ]
        assert read_ci(GITHUB | {"RUNNER_OS": "macOS"}, platform="linux").os == "macos"

    @pytest.mark.parametrize(
        ("env", "more", "field", "value"),
        [
            (TRAVIS, {"TRAVIS_PYTHON_VERSION": "3.12"}, "cell", "3.12"),
            (TRAVIS, {"TRAVIS_NODE_VERSION": "22", "TRAVIS_JOB_NAME": "unit"}, "cell", "22"),
            (AZURE, {"SYSTEM_JOBATTEMPT": "3"}, "attempt", 3),
            (BUILDKITE, {"BUILDKITE_RETRY_COUNT": "0"}, "attempt", 1),
            (BITBUCKET, {"BITBUCKET_STEP_RUN_NUMBER": "2"}, "attempt", 2),
            (CODEBUILD, {"CODEBUILD_BUILD_NUMBER": "12"}, "number", 12),
        ],
    )
    def test_attempts_cells_and_numbers_are_as_documented(
        self, env: dict[str, str], more: dict[str, str], field: str, value: object
    ) -> None:
        assert getattr(read_ci(env | more), field) == value

    def test_our_variables_outrank_every_vendors(self) -> None:
        rows = [row for row in FEDSTEP_VARIABLES[2:] if isinstance(row, tuple)]
        ours = {str(name): "7" for row in rows for name in row}
        ours |= {
            "FEDSTEP_CI_EVENT": "manual",
            "FEDSTEP_CI_COMMIT": OLD,
            "FEDSTEP_CI_STARTED_AT": "2026-01-02T04:04:05+01:00",
            "FEDSTEP_CI_OUTCOME": "passed",
        }
        for env in (GITHUB, GITLAB, GITLAB_MR, JENKINS_PR, CIRCLE, BUILDKITE, AZURE, DRONE):
            ci = read_ci(env | ours)
            assert (ci.run, ci.attempt, ci.job, ci.cell, ci.branch, ci.base_branch) == ("7", 7, "7", "7", "7", "7")
            assert (ci.event, ci.commit, ci.started_at, ci.outcome) == (
                "manual",
                OLD,
                1767323045.0,
                BuildOutcome.PASSED,
            )


class TestBranchesAndEvents:
    def test_pull_request_names_branch_target_and_commit(self) -> None:
        """A pull request names its branch, its target and a commit of it."""
        github = read_ci(GITHUB_PR, OWN_PAYLOAD)
        assert (github.branch, github.base_branch, github.event) == ("topic", "main", "pull_request")
        assert (github.commit, github.commit_before, github.untrusted) == (SHA, "3" * 40, False)
        gitlab = read_ci(GITLAB_MR)
        assert (gitlab.branch, gitlab.base_branch, gitlab.event) == ("topic", "main", "pull_request")
        assert (gitlab.commit_before, gitlab.untrusted) == (OLD, False)
        jenkins = read_ci(JENKINS_PR)
        assert (jenkins.branch, jenkins.base_branch, jenkins.event) == ("topic", "main", "pull_request")
        assert (jenkins.job, jenkins.commit_before, jenkins.untrusted) == ("shop", "", False)

    def test_a_push_has_the_tip_before_it_and_a_new_branch_has_none(self) -> None:
        assert read_ci(GITHUB, f'{{"before": "{OLD}"}}').commit_before == OLD
        assert read_ci(GITHUB, f'{{"before": "{ZEROS}"}}').commit_before == ""
        assert read_ci(GITLAB | {"CI_COMMIT_BEFORE_SHA": ZEROS}).commit_before == ""

    def test_tags_are_tags(self) -> None:
        assert read_ci(GITHUB | {"GITHUB_REF_TYPE": "tag"}).event == "tag"
        assert read_ci(GITLAB | {"CI_COMMIT_TAG": "v1"}).event == "tag"
        assert read_ci(JENKINS | {"TAG_NAME": "v1"}).event == "tag"
        azure = read_ci(AZURE | {"BUILD_SOURCEBRANCH": "refs/tags/v1"})
        assert (azure.event, azure.branch) == ("tag", "v1")

    @pytest.mark.parametrize(
        ("word", "event"),
        [("schedule", "schedule"), ("workflow_dispatch", "manual"), ("release", "tag"), ("issues", "other"), ("", "")],
    )
    def test_events_have_common_words(self, word: str, event: str) -> None:
        assert read_ci(GITHUB | {"GITHUB_EVENT_NAME": word}).event == event

    @pytest.mark.parametrize("vendor", PULL_REQUESTS)
    def test_each_vendor_tells_a_pull_request(self, vendor: str) -> None:
        """Branch, target and, where the system tells it, a commit of the target are read."""
        ci = read_ci(PULL_REQUESTS[vendor], OWN_PAYLOAD)
        knows_target = vendor != "circleci"
        assert (ci.vendor, ci.event) == (vendor, "pull_request")
        assert ci.branch == ("pull/5" if vendor == "cirrus" else "topic")
        assert ci.base_branch == ("main" if knows_target else "")
        told = {
            "github": "3" * 40,
            "gitlab": OLD,
            "travis": OLD,
            "bitbucket": OLD[:12],
            "semaphore": OLD,
            "cirrus": OLD,
        }
        assert ci.commit_before == told.get(vendor, "")
        assert ci.untrusted == (vendor in NO_FORKS)

    @pytest.mark.parametrize(
        ("branch", "event"),
        [
            ("pull/7", "pull_request"),
            ("pull/7/merge", "pull_request"),
            ("refs/pull/7/head", "pull_request"),
            ("pull-requests/7", "pull_request"),
            ("merge-requests/7", "pull_request"),
            ("pull/request", ""),
            ("feature/pull/7", ""),
            ("main", ""),
        ],
    )
    def test_the_branch_of_a_pull_request_tells_it(self, branch: str, event: str) -> None:
        """TeamCity tells no event: what strangers propose was sent as the project's own."""
        ci = read_ci(TEAMCITY | {"FEDSTEP_CI_BRANCH": branch})
        assert (ci.event, ci.untrusted) == (event, event == "pull_request")

    def test_a_push_has_no_target(self) -> None:
        """Drone, AppVeyor and Semaphore name the branch itself as the target of a push."""
        for env in (DRONE | {"DRONE_TARGET_BRANCH": "main"}, APPVEYOR, SEMAPHORE, TRAVIS):
            assert read_ci(env).base_branch == ""

    def test_a_merge_queue_is_compared_with_its_base(self) -> None:
        """The branch of a queue has the pull request and the commit in its name, and occurs once."""
        env = GITHUB | {"GITHUB_EVENT_NAME": "merge_group", "GITHUB_REF_NAME": f"gh-readonly-queue/main/pr-9-{OLD}"}
        ci = read_ci(env, f'{{"merge_group": {{"base_sha": "{OLD}", "base_ref": "refs/heads/main"}}}}')
        assert (ci.commit_before, ci.branch, ci.untrusted) == (OLD, "gh-readonly-queue/main", False)

    @pytest.mark.parametrize(
        ("payload", "before"),
        [
            (f'{{"action": "checks_requested", "merge_group": {{"base_sha": "{OLD}", "head_sha": "{SHA}"}}}}', OLD),
            (f'{{"merge_group": {{"base_sha": "{OLD.upper()}"}}}}', OLD),
            (f'{{"merge_group": {{"base_sha": "{OLD}"}}, "before": "{"9" * 40}"}}', OLD),
            (f'{{"merge_group": {{"base_sha": "{SHA}"}}}}', ""),  # the commit itself
            (f'{{"merge_group": {{"base_sha": "{ZEROS}"}}}}', ""),
            (f'{{"merge_group": {{"head_sha": "{OLD}"}}}}', ""),
        ],
    )
    def test_the_base_of_a_merge_queue_is_that_of_its_group(self, payload: str, before: str) -> None:
        """Case 13: of several pull requests at once, too; never the head or a push."""
        assert read_ci(GITHUB | {"GITHUB_EVENT_NAME": "merge_group"}, payload).commit_before == before

    @pytest.mark.parametrize("payload", ['{"merge_group": []}', '{"merge_group": {"base_sha": 5}}', "{}"])
    def test_a_merge_queue_without_a_base_has_none(self, payload: str) -> None:
        """A payload of another shape is no base."""
        assert read_ci(GITHUB | {"GITHUB_EVENT_NAME": "merge_group"}, payload).commit_before == ""

    def test_the_commit_itself_is_no_commit_before(self) -> None:
        """Bamboo repeats the revision where nothing was pushed since."""
        assert read_ci(BAMBOO | {"bamboo_planRepository_previousRevision": SHA}).commit_before == ""

    def test_every_row_of_the_table_is_tested(self) -> None:
        """The samples have every system, and each names how to get a deeper clone."""
        names = {vendor.name for vendor in VENDORS} - {"generic"}
        assert names == {*PULL_REQUESTS, "teamcity", "tekton"}, "CONTRIBUTING.md says which samples a row needs"

    def test_the_page_on_other_systems_has_every_row(self) -> None:
        """The first table of docs/how-to/any-ci.md has a row for each system."""
        page = (Path(__file__).parents[3] / "docs/how-to/any-ci.md").read_text(encoding="utf-8")
        table = page.partition("| system |")[2].partition("\n\n")[0].splitlines()[2:]
        assert len(table) == len({vendor.name for vendor in VENDORS} - {"generic"})


class TestTrust:
    @pytest.mark.parametrize(
        "env",
        [
            GITLAB_MR | {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2"},
            GITLAB_MR | {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_PROJECT_ID": "2"},
            JENKINS_PR | {"CHANGE_FORK": "stranger"},
            CIRCLE | {"CIRCLE_PR_REPONAME": "shop", "CIRCLE_PR_USERNAME": "stranger"},
            BUILDKITE | {"BUILDKITE_PULL_REQUEST_REPO": "https://host/stranger/shop.git"},
            AZURE | {"SYSTEM_PULLREQUEST_ISFORK": "True"},
            TRAVIS | {"TRAVIS_PULL_REQUEST_SLUG": "stranger/shop", "TRAVIS_REPO_SLUG": "owner/shop"},
            WOODPECKER | {"CI_COMMIT_PULL_REQUEST": "3"},
            DRONE | {"DRONE_PULL_REQUEST": "3"},
            JENKINS | {"GERRIT_EVENT_TYPE": "patchset-created", "GERRIT_CHANGE_NUMBER": "7"},
            JENKINS | {"GERRIT_EVENT_TYPE": "comment-added", "GERRIT_CHANGE_NUMBER": "7"},
            GITHUB | {"GITHUB_EVENT_NAME": "issue_comment"},
            GITHUB | {"GITHUB_ACTOR": "dependabot[bot]"},
            GITHUB | {"GITHUB_TRIGGERING_ACTOR": "dependabot[bot]"},
        ],
    )
    def test_forks_and_dependabot_are_untrusted(self, env: dict[str, str]) -> None:
        assert read_ci(env).untrusted

    @pytest.mark.parametrize(
        ("source", "target", "untrusted"),
        [
            ("https://github.com/stranger/shop.git", "owner/shop", True),
            ("git@github.com:stranger/shop.git", "owner/shop", True),
            ("https://github.com/Owner/shop.git", "owner/shop", False),
            ("", "owner/shop", False),
        ],
    )
    def test_fork_is_known_by_the_variables_of_jenkins_plugins(self, source: str, target: str, untrusted: bool) -> None:
        """Those of the plugins for pull requests of GitHub and merge requests of GitLab, which set no CHANGE_FORK."""
        github = {"ghprbAuthorRepoGitUrl": source, "ghprbGhRepository": target}
        gitlab = {"gitlabSourceRepoHttpUrl": source, "gitlabTargetRepoHttpUrl": f"https://gitlab.example.org/{target}"}
        for plugin in (github, gitlab):
            assert read_ci(JENKINS | plugin).untrusted == untrusted

    def test_what_gerrit_has_merged_is_trusted(self) -> None:
        for event in ("change-merged", "ref-updated"):
            ci = read_ci(JENKINS | {"GERRIT_EVENT_TYPE": event, "GERRIT_CHANGE_NUMBER": "7"})
            assert (ci.event, ci.untrusted) == ("push", False)

    @pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
    def test_a_fork_on_github_is_known_by_the_event_file(self, event: str) -> None:
        env = GITHUB_PR | {"GITHUB_EVENT_NAME": event}
        assert read_ci(env, FORK_PAYLOAD).untrusted
        assert read_ci(env, OWN_PAYLOAD).untrusted == (event == "pull_request_target")
        assert read_ci(env, OWN_PAYLOAD.replace('"stranger"', '"dependabot[bot]"')).untrusted

    def test_a_workflow_run_is_as_trusted_as_the_run_it_follows(self) -> None:
        env = GITHUB | {"GITHUB_EVENT_NAME": "workflow_run"}
        payload = (
            '{"workflow_run": {"head_repository": {"full_name": "%s/shop"}}, "repository": {"full_name": "owner/shop"}}'
        )
        assert read_ci(env, payload % "stranger").untrusted
        assert not read_ci(env, payload % "owner").untrusted

    @pytest.mark.parametrize(
        "payload",
        [
            "",
            "{",
            "[]",
            "null",
            "1" * 5000,
            "[" * 100_000,
            '{"pull_request": []}',
            '{"pull_request": {"head": {"repo": null}, "base": {"repo": {"full_name": "owner/shop"}}}}',
            '{"pull_request": {"head": {"repo": {"full_name": {}}}, "base": {"sha": 5, "repo": 3}}, "before": []}',
            '{"repository": {"full_name": 7}, "pull_request": {"user": "x", "head": "y"}}',
        ],
    )
    def test_unnamed_author_is_not_trusted(self, payload: str) -> None:
        """Whoever cannot be named is not trusted."""
        ci = read_ci(GITHUB_PR, payload)
        assert ci.untrusted
        assert ci.commit_before == ""
