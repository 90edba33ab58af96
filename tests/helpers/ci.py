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
    "GITHUB_RUN_NUMBER": "41",
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
APPVEYOR = {
    "CI": "True",
    "APPVEYOR": "True",
    "APPVEYOR_BUILD_ID": "50",
    "APPVEYOR_JOB_ID": "j1",
    "APPVEYOR_JOB_NAME": "Environment: PY=3.12",
    "APPVEYOR_PROJECT_SLUG": "shop",
    "APPVEYOR_REPO_BRANCH": "main",
    "APPVEYOR_REPO_COMMIT": SHA,
    "APPVEYOR_REPO_NAME": "owner/shop",
    "APPVEYOR_REPO_TAG": "false",
    "APPVEYOR_SCHEDULED_BUILD": "True",
}
BAMBOO = {
    "bamboo_buildKey": "SHOP-CI-UNIT",
    "bamboo_buildResultKey": "SHOP-CI-UNIT-12",
    "bamboo_buildNumber": "12",
    "bamboo_buildTimeStamp": "2026-01-02T03:04:05.000Z",
    "bamboo_planRepository_branchName": "main",
    "bamboo_planRepository_revision": SHA,
    "bamboo_planRepository_previousRevision": OLD,
}
CODEBUILD = {
    "CI": "true",
    "CODEBUILD_BUILD_ARN": "arn:aws:codebuild:eu-west-1:1:build/shop:2bf185df",
    "CODEBUILD_BUILD_ID": "shop:2bf185df",
    "CODEBUILD_START_TIME": "1767323045000",
    "CODEBUILD_RESOLVED_SOURCE_VERSION": SHA,
    "CODEBUILD_WEBHOOK_EVENT": "PUSH",
    "CODEBUILD_WEBHOOK_HEAD_REF": "refs/heads/main",
    "CODEBUILD_WEBHOOK_PREV_COMMIT": OLD,
    "CODEBUILD_BATCH_BUILD_IDENTIFIER": "linux",
}
SEMAPHORE = {
    "CI": "true",
    "SEMAPHORE": "true",
    "SEMAPHORE_WORKFLOW_ID": "w1",
    "SEMAPHORE_JOB_ID": "j1",
    "SEMAPHORE_JOB_NAME": "Unit tests",
    "SEMAPHORE_JOB_INDEX": "2",
    "SEMAPHORE_JOB_RESULT": "failed",
    "SEMAPHORE_GIT_BRANCH": "main",
    "SEMAPHORE_GIT_WORKING_BRANCH": "main",
    "SEMAPHORE_GIT_REF_TYPE": "branch",
    "SEMAPHORE_GIT_SHA": SHA,
    "SEMAPHORE_GIT_REPO_SLUG": "owner/shop",
    "SEMAPHORE_GIT_COMMIT_RANGE": f"{OLD}...{SHA}",
}
CIRRUS = {
    "CI": "true",
    "CIRRUS_CI": "true",
    "CIRRUS_BUILD_ID": "7",
    "CIRRUS_TASK_ID": "8",
    "CIRRUS_TASK_NAME": "test",
    "CIRRUS_BRANCH": "main",
    "CIRRUS_CHANGE_IN_REPO": SHA,
    "CIRRUS_CRON": "nightly",
    "CIRRUS_OS": "darwin",
}
CODEFRESH = {
    "CF_BUILD_ID": "65a1",
    "CF_CURRENT_ATTEMPT": "1",
    "CF_PIPELINE_NAME": "shop/test",
    "CF_STEP_NAME": "unit",
    "CF_BRANCH": "main",
    "CF_BUILD_TRIGGER": "webhook",
    "CF_REVISION": SHA,
}
CLOUD_BUILD = {
    "BUILDER_OUTPUT": "/builder/outputs",
    "BUILD_ID": "b1",
    "TRIGGER_NAME": "test",
    "BRANCH_NAME": "main",
    "COMMIT_SHA": SHA,
}
# What each system sets for a pull request from topic into main of the same repository.
PULL_REQUESTS = {
    "github": GITHUB_PR,
    "gitlab": GITLAB_MR,
    "jenkins": JENKINS_PR,
    "buildkite": BUILDKITE,
    "circleci": CIRCLE | {"CIRCLE_BRANCH": "topic", "CIRCLE_PULL_REQUEST": "https://github.com/owner/shop/pull/5"},
    "azure": AZURE
    | {
        "BUILD_REASON": "PullRequest",
        "BUILD_SOURCEBRANCH": "refs/pull/5/merge",
        "SYSTEM_PULLREQUEST_PULLREQUESTID": "5",
        "SYSTEM_PULLREQUEST_SOURCEBRANCH": "refs/heads/topic",
        "SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/main",
        "SYSTEM_PULLREQUEST_ISFORK": "False",
    },
    "travis": TRAVIS
    | {
        "TRAVIS_EVENT_TYPE": "pull_request",
        "TRAVIS_PULL_REQUEST": "5",
        "TRAVIS_PULL_REQUEST_BRANCH": "topic",
        "TRAVIS_PULL_REQUEST_SLUG": "owner/shop",
        "TRAVIS_REPO_SLUG": "owner/shop",
        "TRAVIS_COMMIT_RANGE": f"{OLD}...{SHA}",
    },
    "bitbucket": {key: value for key, value in BITBUCKET.items() if key != "BITBUCKET_TAG"}
    | {
        "BITBUCKET_BRANCH": "topic",
        "BITBUCKET_PR_ID": "5",
        "BITBUCKET_PR_DESTINATION_BRANCH": "main",
        "BITBUCKET_PR_DESTINATION_COMMIT": OLD[:12],
    },
    "drone": DRONE
    | {
        "DRONE_BUILD_EVENT": "pull_request",
        "DRONE_PULL_REQUEST": "5",
        "DRONE_SOURCE_BRANCH": "topic",
        "DRONE_TARGET_BRANCH": "main",
    },
    "woodpecker": WOODPECKER
    | {
        "CI_PIPELINE_EVENT": "pull_request",
        "CI_COMMIT_PULL_REQUEST": "5",
        "CI_COMMIT_SOURCE_BRANCH": "topic",
        "CI_COMMIT_TARGET_BRANCH": "main",
    },
    "appveyor": {key: value for key, value in APPVEYOR.items() if key != "APPVEYOR_SCHEDULED_BUILD"}
    | {
        "APPVEYOR_PULL_REQUEST_NUMBER": "5",
        "APPVEYOR_PULL_REQUEST_HEAD_REPO_BRANCH": "topic",
        "APPVEYOR_PULL_REQUEST_HEAD_REPO_NAME": "owner/shop",
    },
    "bamboo": BAMBOO
    | {
        "bamboo_repository_pr_key": "5",
        "bamboo_repository_pr_sourceBranch": "topic",
        "bamboo_repository_pr_targetBranch": "main",
    },
    "codebuild": CODEBUILD
    | {
        "CODEBUILD_WEBHOOK_EVENT": "PULL_REQUEST_UPDATED",
        "CODEBUILD_WEBHOOK_HEAD_REF": "refs/heads/topic",
        "CODEBUILD_WEBHOOK_BASE_REF": "refs/heads/main",
    },
    "semaphore": SEMAPHORE
    | {
        "SEMAPHORE_GIT_REF_TYPE": "pull-request",
        "SEMAPHORE_GIT_WORKING_BRANCH": "topic",
        "SEMAPHORE_GIT_PR_NUMBER": "5",
        "SEMAPHORE_GIT_PR_SLUG": "owner/shop",
    },
    "cirrus": CIRRUS
    | {"CIRRUS_CRON": "", "CIRRUS_BRANCH": "pull/5", "CIRRUS_PR": "5", "CIRRUS_BASE_BRANCH": "main"}
    | {"CIRRUS_BASE_SHA": OLD},
    "codefresh": CODEFRESH | {"CF_BRANCH": "topic", "CF_PULL_REQUEST_NUMBER": "5", "CF_PULL_REQUEST_TARGET": "main"},
    "cloudbuild": CLOUD_BUILD
    | {"BRANCH_NAME": "main", "_HEAD_BRANCH": "topic", "_BASE_BRANCH": "main", "_PR_NUMBER": "5"},
}
