"""What each CI's variables say, one example a vendor, and that no variable is ever fatal."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.build.ci import parse_outcome, parse_time, read_ci
from fedstep.build.record import Absent, BuildOutcome, CiRun
from fedstep.build.vendors import OURS, VENDORS

FORK_PAYLOAD = (Path(__file__).parents[1] / "data" / "ci" / "pull_request_fork.json").read_text()
OWN_PAYLOAD = FORK_PAYLOAD.replace("stranger/shop", "owner/shop")
SHA, OLD = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
ZEROS = "0" * 40
NOT_TOLD = CiRun()

GITHUB = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_RUN_ID": "77",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_JOB": "test",
    "GITHUB_REF_NAME": "main",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_SHA": SHA,
    "GITHUB_ACTOR": "ada",
    "RUNNER_OS": "Linux",
    "FEDSTEP_CI_CELL": "os=linux,py=3.12",
}
GITHUB_PR = GITHUB | {
    "GITHUB_EVENT_NAME": "pull_request",
    "GITHUB_HEAD_REF": "topic",
    "GITHUB_BASE_REF": "main",
    "GITHUB_REF_NAME": "12/merge",
}
GITLAB = {
    "CI": "true",
    "GITLAB_CI": "true",
    "CI_PIPELINE_ID": "5",
    "CI_JOB_ID": "9",
    "CI_JOB_NAME": "test 2/3",
    "CI_JOB_GROUP_NAME": "test",
    "CI_NODE_INDEX": "2",
    "CI_JOB_STARTED_AT": "2026-01-02T03:04:05Z",
    "CI_COMMIT_REF_NAME": "main",
    "CI_PIPELINE_SOURCE": "push",
    "CI_COMMIT_SHA": SHA,
    "CI_COMMIT_BEFORE_SHA": OLD,
    "CI_PROJECT_ID": "1",
    "CI_JOB_STATUS": "failed",
    "CI_RUNNER_EXECUTABLE_ARCH": "linux/amd64",
}
GITLAB_MR = GITLAB | {
    "CI_PIPELINE_SOURCE": "merge_request_event",
    "CI_MERGE_REQUEST_IID": "3",
    "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    "CI_MERGE_REQUEST_DIFF_BASE_SHA": OLD,
    "CI_COMMIT_BEFORE_SHA": ZEROS,
    "CI_MERGE_REQUEST_PROJECT_ID": "1",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1",
}
JENKINS = {
    "JENKINS_URL": "https://ci/",
    "BUILD_TAG": "jenkins-shop-main-8",
    "JOB_NAME": "shop/main",
    "BUILD_NUMBER": "8",
    "BRANCH_NAME": "main",
    "GIT_COMMIT": SHA,
    "GIT_PREVIOUS_COMMIT": OLD,
    "FEDSTEP_CI_STARTED_AT": "1767323045000",
    "FEDSTEP_CI_OUTCOME": "UNSTABLE",
}
JENKINS_PR = JENKINS | {
    "JOB_NAME": "shop/PR-4",
    "BRANCH_NAME": "PR-4",
    "CHANGE_ID": "4",
    "CHANGE_BRANCH": "topic",
    "CHANGE_TARGET": "main",
}
CIRCLE = {
    "CI": "true",
    "CIRCLECI": "true",
    "CIRCLE_WORKFLOW_ID": "w",
    "CIRCLE_BUILD_NUM": "6",
    "CIRCLE_JOB": "test",
    "CIRCLE_NODE_INDEX": "1",
    "CIRCLE_BRANCH": "main",
    "CIRCLE_SHA1": SHA,
}
BUILDKITE = {
    "CI": "true",
    "BUILDKITE": "true",
    "BUILDKITE_BUILD_ID": "b",
    "BUILDKITE_RETRY_COUNT": "1",
    "BUILDKITE_LABEL": "test",
    "BUILDKITE_BRANCH": "topic",
    "BUILDKITE_SOURCE": "webhook",
    "BUILDKITE_PULL_REQUEST": "5",
    "BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main",
    "BUILDKITE_PULL_REQUEST_REPO": "git://host/owner/shop.git",
    "BUILDKITE_REPO": "git@host:owner/shop.git",
    "BUILDKITE_COMMIT": "HEAD",
    "BUILDKITE_COMMAND_EXIT_STATUS": "1",
}
AZURE = {
    "TF_BUILD": "True",
    "BUILD_BUILDID": "3",
    "SYSTEM_COLLECTIONID": "c",
    "SYSTEM_JOBATTEMPT": "1",
    "SYSTEM_PHASENAME": "test",
    "SYSTEM_JOBPOSITIONINPHASE": "2",
    "BUILD_SOURCEBRANCH": "refs/heads/main",
    "BUILD_REASON": "IndividualCI",
    "BUILD_SOURCEVERSION": SHA,
    "AGENT_JOBSTATUS": "SucceededWithIssues",
    "AGENT_OS": "Windows_NT",
}
TRAVIS = {
    "CI": "true",
    "TRAVIS": "true",
    "TRAVIS_BUILD_ID": "1",
    "TRAVIS_JOB_ID": "2",
    "TRAVIS_BRANCH": "main",
    "TRAVIS_PULL_REQUEST": "false",
    "TRAVIS_EVENT_TYPE": "cron",
    "TRAVIS_COMMIT": SHA,
    "TRAVIS_TEST_RESULT": "0",
    "TRAVIS_OS_NAME": "osx",
}
BITBUCKET = {
    "CI": "true",
    "BITBUCKET_BUILD_NUMBER": "4",
    "BITBUCKET_REPO_FULL_NAME": "o/s",
    "BITBUCKET_STEP_UUID": "{u}",
    "BITBUCKET_TAG": "v1",
    "BITBUCKET_COMMIT": SHA,
    "BITBUCKET_EXIT_CODE": "0",
}
TEAMCITY = {
    "TEAMCITY_VERSION": "2026.1",
    "TEAMCITY_PROJECT_NAME": "Shop",
    "TEAMCITY_BUILDCONF_NAME": "Test",
    "BUILD_NUMBER": "4",
    "BUILD_VCS_NUMBER": SHA,
}
WOODPECKER = {
    "CI": "woodpecker",
    "CI_REPO": "o/s",
    "CI_PIPELINE_NUMBER": "4",
    "CI_WORKFLOW_NAME": "test",
    "CI_COMMIT_BRANCH": "main",
    "CI_PIPELINE_EVENT": "push",
    "CI_COMMIT_SHA": SHA,
    "CI_SYSTEM_PLATFORM": "linux/arm64",
}
DRONE = {
    "CI": "true",
    "DRONE": "true",
    "DRONE_REPO": "o/s",
    "DRONE_BUILD_NUMBER": "4",
    "DRONE_STAGE_NAME": "test",
    "DRONE_BRANCH": "main",
    "DRONE_BUILD_EVENT": "push",
    "DRONE_COMMIT_SHA": SHA,
    "DRONE_COMMIT_BEFORE": OLD,
    "DRONE_STAGE_STARTED": "1767323045",
    "DRONE_BUILD_STATUS": "success",
    "DRONE_STAGE_OS": "linux",
}
TOLD = {"branch": "main", "event": "push", "commit": SHA}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (GITHUB, CiRun("github", "77", 2, "test", "os=linux,py=3.12", **TOLD, os="linux")),
        (
            GITLAB,
            CiRun(
                "gitlab",
                "5/9",
                1,
                "test",
                "2",
                **TOLD,
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
        (CIRCLE, CiRun("generic", "w/6", 1, "test", "1", branch="main", commit=SHA)),
        (
            BUILDKITE,
            CiRun("generic", "b", 2, "test", "", "topic", "main", "pull_request", outcome=BuildOutcome.FAILED),
        ),
        (AZURE, CiRun("generic", "c/3", 1, "test", "2", **TOLD, outcome=BuildOutcome.UNSTABLE, os="windows")),
        (
            TRAVIS,
            CiRun(
                "generic", "1/2", branch="main", event="schedule", commit=SHA, outcome=BuildOutcome.PASSED, os="macos"
            ),
        ),
        (BITBUCKET, CiRun("generic", "o/s/4/{u}", event="tag", commit=SHA, outcome=BuildOutcome.PASSED)),
        (TEAMCITY, CiRun("generic", "Shop/Test/4", 1, "Test", commit=SHA)),
        (WOODPECKER, CiRun("generic", "o/s/4", 1, "test", **TOLD, os="linux")),
        (
            DRONE,
            CiRun(
                "generic",
                "o/s/4",
                1,
                "test",
                **TOLD,
                commit_before=OLD,
                started_at=1767323045.0,
                outcome=BuildOutcome.PASSED,
                os="linux",
            ),
        ),
        ({"CI": "true"}, CiRun("generic")),
        ({"FEDSTEP_CI_RUN": "r"}, CiRun("generic", "r")),
        ({}, CiRun("local")),
        ({"CI": "false"}, CiRun("local")),
    ],
)
def test_each_vendor_is_read(env: dict[str, str], expected: CiRun) -> None:
    assert read_ci(env) == expected


def test_the_platform_is_the_system_where_the_ci_does_not_tell() -> None:
    assert [read_ci({}, platform=name).os for name in ("linux", "win32", "darwin", "plan9")] == [
        "linux",
        "windows",
        "macos",
        "",
    ]
    assert read_ci(GITHUB | {"RUNNER_OS": "macOS"}, platform="linux").os == "macos"


def test_our_variables_outrank_every_vendors() -> None:
    ours = {name: "7" for row in OURS[2:] if isinstance(row, tuple) for name in row}
    ours |= {
        "FEDSTEP_CI_EVENT": "manual",
        "FEDSTEP_CI_COMMIT": OLD,
        "FEDSTEP_CI_STARTED_AT": "2026-01-02T04:04:05+01:00",
        "FEDSTEP_CI_OUTCOME": "passed",
    }
    for env in (GITHUB, GITLAB, GITLAB_MR, JENKINS_PR, CIRCLE, BUILDKITE, AZURE, DRONE):
        ci = read_ci(env | ours)
        assert (ci.run, ci.attempt, ci.job, ci.cell, ci.branch, ci.base_branch) == ("7", 7, "7", "7", "7", "7")
        assert (ci.event, ci.commit, ci.started_at, ci.outcome) == ("manual", OLD, 1767323045.0, BuildOutcome.PASSED)


def test_a_pull_request_names_its_branch_its_target_and_a_commit_of_it() -> None:
    github = read_ci(GITHUB_PR, OWN_PAYLOAD)
    assert (github.branch, github.base_branch, github.event) == ("topic", "main", "pull_request")
    assert (github.commit, github.commit_before, github.untrusted) == (SHA, "3" * 40, False)
    gitlab = read_ci(GITLAB_MR)
    assert (gitlab.branch, gitlab.base_branch, gitlab.event) == ("topic", "main", "pull_request")
    assert (gitlab.commit_before, gitlab.untrusted) == (OLD, False)
    jenkins = read_ci(JENKINS_PR)
    assert (jenkins.branch, jenkins.base_branch, jenkins.event) == ("topic", "main", "pull_request")
    assert (jenkins.job, jenkins.commit_before, jenkins.untrusted) == ("shop", "", False)


def test_a_push_has_the_tip_before_it_and_a_new_branch_has_none() -> None:
    assert read_ci(GITHUB, f'{{"before": "{OLD}"}}').commit_before == OLD
    assert read_ci(GITHUB, f'{{"before": "{ZEROS}"}}').commit_before == ""
    assert read_ci(GITLAB | {"CI_COMMIT_BEFORE_SHA": ZEROS}).commit_before == ""


def test_tags_are_tags() -> None:
    assert read_ci(GITHUB | {"GITHUB_REF_TYPE": "tag"}).event == "tag"
    assert read_ci(GITLAB | {"CI_COMMIT_TAG": "v1"}).event == "tag"
    assert read_ci(JENKINS | {"TAG_NAME": "v1"}).event == "tag"
    azure = read_ci(AZURE | {"BUILD_SOURCEBRANCH": "refs/tags/v1"})
    assert (azure.event, azure.branch) == ("tag", "v1")


@pytest.mark.parametrize(
    ("word", "event"),
    [("schedule", "schedule"), ("workflow_dispatch", "manual"), ("release", "tag"), ("issues", "other"), ("", "")],
)
def test_events_have_common_words(word: str, event: str) -> None:
    assert read_ci(GITHUB | {"GITHUB_EVENT_NAME": word}).event == event


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
        GITHUB | {"GITHUB_ACTOR": "dependabot[bot]"},
        GITHUB | {"GITHUB_TRIGGERING_ACTOR": "dependabot[bot]"},
    ],
)
def test_forks_and_dependabot_are_untrusted(env: dict[str, str]) -> None:
    assert read_ci(env).untrusted


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target"])
def test_a_fork_on_github_is_known_by_the_event_file(event: str) -> None:
    env = GITHUB_PR | {"GITHUB_EVENT_NAME": event}
    assert read_ci(env, FORK_PAYLOAD).untrusted
    assert not read_ci(env, OWN_PAYLOAD).untrusted
    assert read_ci(env, OWN_PAYLOAD.replace('"stranger"', '"dependabot[bot]"')).untrusted


def test_a_workflow_run_is_as_trusted_as_the_run_it_follows() -> None:
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
def test_who_cannot_be_named_is_not_trusted(payload: str) -> None:
    ci = read_ci(GITHUB_PR, payload)
    assert ci.untrusted
    assert ci.commit_before == ""


@pytest.mark.parametrize("text", ["", "x", "-3", "0", "9" * 5000, "²", "1.5", "0x1"])
def test_an_attempt_that_is_no_number_is_the_first(text: str) -> None:
    assert read_ci(GITHUB | {"GITHUB_RUN_ATTEMPT": text}).attempt == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T03:04:05Z", 1767323045.0),
        ("2026-01-02T05:04:05+02:00", 1767323045.0),
        ("2026-01-02 03:04:05 UTC", 1767323045.0),
        ("2026-01-02T03:04:05", 1767323045.0),
        ("2026-01-02T03:04:05.250Z", 1767323045.25),
        ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
        ("1767323045", 1767323045.0),
        (" 1767323045000 ", 1767323045.0),
        ("1767323045.5", 1767323045.5),
    ],
)
def test_times_are_read_in_three_forms(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "0", "-1", "nan", "inf", "1e400", "12", "0001-01-01T00:00:00+23:59", "9" * 5000, "20:15"]
)
def test_what_is_no_time_is_absent_with_a_reason(text: str) -> None:
    found = parse_time(text)
    assert isinstance(found, Absent)
    assert found.reason.endswith("is no time between 2000 and 2100")
    assert len(found.reason) < 100


@given(st.one_of(st.text(), st.floats().map(str), st.integers().map(str), st.datetimes().map(str)))
def test_no_text_breaks_parse_time(text: str) -> None:
    found = parse_time(text)
    assert isinstance(found, Absent) or 946_684_800 <= found <= 4_102_444_800


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("Success", BuildOutcome.PASSED),
        ("0", BuildOutcome.PASSED),
        ("UNSTABLE", BuildOutcome.UNSTABLE),
        ("failure", BuildOutcome.FAILED),
        ("137", BuildOutcome.FAILED),
        ("-1", BuildOutcome.FAILED),
        ("cancelled", Absent("the job was cancelled")),
        ("running", Absent("the job is still running")),
        ("maybe", Absent("'maybe' is no outcome; passed, unstable or failed is expected")),
    ],
)
def test_outcomes_have_common_words(word: str, outcome: BuildOutcome | Absent) -> None:
    assert parse_outcome(word) == outcome


NAMES = sorted(
    {
        name
        for row in (*VENDORS, OURS)
        for field in row
        if isinstance(field, tuple)
        for name in field
        if isinstance(name, str)
    }
    | {"GITHUB_ACTOR", "GITHUB_REF_TYPE", "CI"}
)
HARD_TEXT = st.one_of(
    st.text(max_size=30), st.sampled_from(["true", "1", SHA, "\ud800", "x" * 100_000, "refs/tags/", "a/b/"])
)


@given(st.dictionaries(st.sampled_from(NAMES), HARD_TEXT), HARD_TEXT, HARD_TEXT)
def test_no_environment_is_fatal(env: dict[str, str], payload: str, platform: str) -> None:
    ci = read_ci(env, payload, platform)
    assert ci.vendor in ("github", "jenkins", "gitlab", "generic", "local")
    assert ci.event in ("push", "pull_request", "schedule", "manual", "tag", "other", "")
    assert ci.attempt >= 1
    for text in (ci.run, ci.job, ci.cell, ci.branch, ci.base_branch, ci.commit, ci.commit_before):
        assert len(text.encode("utf-8")) < 10_000
