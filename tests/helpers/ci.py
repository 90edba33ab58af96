"""The variables that each CI sets, one example a vendor."""

from pathlib import Path

FORK_PAYLOAD = (Path(__file__).parents[1] / "data" / "ci" / "pull_request_fork.json").read_text()
OWN_PAYLOAD = FORK_PAYLOAD.replace("stranger/shop", "owner/shop")
SHA, OLD = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"
ZEROS = "0" * 40

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
