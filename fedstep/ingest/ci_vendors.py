"""The table of CI systems: one `CiVendor` row each says which environment variable holds what.

CONTRIBUTING.md has the steps to add one.

`read_ci` in `fedstep.ingest.ci` interprets the rows; it needs no change. No other module of `ingest` names a system.
Systems that set no variable of their own are told by the FEDSTEP_CI_* variables; `pipeline.context` knows a step of
Tekton by its folder.

Each row follows the system's public documentation: docs.github.com (variables), docs.gitlab.com (predefined variables),
the Jenkins handbook and the plugins git and branch-api, circleci.com/docs/variables, buildkite.com/docs/pipelines
(environment variables), learn.microsoft.com/azure/devops/pipelines/build/variables, docs.travis-ci.com (environment
variables), support.atlassian.com (Bitbucket Pipelines, variables and secrets), jetbrains.com/help/teamcity (predefined
build parameters), docs.drone.io/pipeline/environment/reference, woodpecker-ci.org/docs/usage/environment,
appveyor.com/docs/environment-variables, confluence.atlassian.com (Bamboo variables), docs.aws.amazon.com/codebuild
(environment variables in build environments), docs.semaphoreci.com (environment variables), cirrus-ci.org (writing
tasks), codefresh.io (variables in pipelines), docs.cloud.google.com/build (substituting variable values).
"""

from typing import NamedTuple

from fedstep.types import BuildOutcome

Names = tuple[str, ...]


class CiVendor(NamedTuple):
    """The names of a CI system's variables, by what they hold; of several names, the first that is set is used.

    A NamedTuple, because a frozen dataclass of this size adds 3 ms to every start.
    """

    name: str  # `CiRun.vendor`
    marks: Names  # the job runs on this system if one of them is set; NAME=value: if it has this value
    run: Names  # identify the job run, joined by "/"
    attempt: Names = ()
    first_attempt: int = 1  # the value of `attempt` in a first attempt
    job: Names = ()
    workflow: Names = ()  # what the job is a part of, joined by "/": jobs of several may have one name
    job_end: str = ""  # the job's name ends before this, where it is set
    branch_folder: str = ""  # if this variable is set, the last folder of `job` is the branch and is removed
    cell: Names = ()  # of a matrix or a parallel job
    branch: Names = ()
    base_branch: Names = ()  # the target of a pull request
    event: Names = ()  # translated by EVENTS
    pull_request: Names = ()  # set, and not "false": the event is a pull request
    schedule: Names = ()  # set, and not "false": the event is a schedule
    tag: Names = ()  # set: the event is a tag
    ref_type: Names = ()  # "tag": the event is a tag
    commit: Names = ()
    commit_before: Names = ()  # the tip of the branch before a push, also as a range "tip...commit"
    base_commit: Names = ()  # a commit of a pull request's target, also as a range
    started_at: Names = ()  # ISO 8601, or seconds or milliseconds since the epoch
    outcome: Names = ()  # translated by OUTCOMES and UNFINISHED; or an exit code
    outcome_so_far: bool = False  # it is "success" until a step has failed
    os: Names = ()
    number: Names = ()  # counts the runs of the workflow or project, one by one; not those of a branch
    fork: Names = ()  # set, and not "false": the build is of a fork
    fork_pairs: tuple[tuple[str, str], ...] = ()  # pairs of repositories; the build is of a fork if they differ
    tells_forks: bool = True  # False: every pull request counts as one of a fork
    has_event_file: bool = False  # EVENT_FILE has the webhook's payload in GitHub's form
    fork_events: Names = ()  # of EVENT_FILE: events that belong to the base repository, although the code may not
    untrusted_events: Names = ()  # nothing is sent
    actors: Names = ()  # who started the run
    untrusted_actors: Names = ()  # of these; nothing is sent
    deeper: str = "clone with full history"  # how a job gets the history that a shallow clone lacks
    deeper_for_merge: str = ""  # the same for the merge commit of a pull request, if less is enough


EVENT_FILE = "GITHUB_EVENT_PATH"
# Variables that a user sets; each takes precedence over the CI system's own.
FEDSTEP_VARIABLES = CiVendor(
    name="generic",
    marks=("FEDSTEP_CI_RUN",),
    run=("FEDSTEP_CI_RUN",),
    attempt=("FEDSTEP_CI_ATTEMPT",),
    job=("FEDSTEP_CI_JOB",),
    workflow=("FEDSTEP_CI_WORKFLOW",),
    cell=("FEDSTEP_CI_CELL",),
    branch=("FEDSTEP_CI_BRANCH",),
    base_branch=("FEDSTEP_CI_BASE_BRANCH",),
    event=("FEDSTEP_CI_EVENT",),
    commit=("FEDSTEP_CI_COMMIT",),
    started_at=("FEDSTEP_CI_STARTED_AT",),
    outcome=("FEDSTEP_CI_OUTCOME",),
    number=("FEDSTEP_CI_NUMBER",),
)

VENDORS = (
    CiVendor(
        name="github",  # forks, Dependabot and the commit before a push are in the event file only
        marks=("GITHUB_ACTIONS",),
        run=("GITHUB_RUN_ID",),
        attempt=("GITHUB_RUN_ATTEMPT",),
        job=("GITHUB_JOB",),
        workflow=("GITHUB_WORKFLOW",),
        branch=("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
        base_branch=("GITHUB_BASE_REF",),
        event=("GITHUB_EVENT_NAME",),
        ref_type=("GITHUB_REF_TYPE",),
        commit=("GITHUB_SHA",),
        os=("RUNNER_OS",),
        number=("GITHUB_RUN_NUMBER",),
        has_event_file=True,
        fork_events=("pull_request", "pull_request_review", "pull_request_review_comment", "workflow_run"),
        # These have the secrets of the target, and often the files of the pull request.
        untrusted_events=("pull_request_target", "issue_comment"),
        actors=("GITHUB_ACTOR", "GITHUB_TRIGGERING_ACTOR"),
        untrusted_actors=("dependabot[bot]",),
        deeper="set fetch-depth: 0 on actions/checkout",
        deeper_for_merge="set fetch-depth: 2 on actions/checkout",
    ),
    CiVendor(
        name="gitlab",
        marks=("GITLAB_CI",),
        run=("CI_PIPELINE_ID", "CI_JOB_ID"),  # a retried job keeps its pipeline and gets a new job id
        job=("CI_JOB_GROUP_NAME", "CI_JOB_NAME"),
        cell=("CI_NODE_INDEX",),
        branch=(
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME",
            "CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME",
            "CI_COMMIT_REF_NAME",
        ),
        base_branch=("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME"),
        event=("CI_PIPELINE_SOURCE",),
        pull_request=("CI_MERGE_REQUEST_IID", "CI_EXTERNAL_PULL_REQUEST_IID"),
        tag=("CI_COMMIT_TAG",),
        commit=("CI_COMMIT_SHA",),
        commit_before=("CI_COMMIT_BEFORE_SHA",),
        base_commit=("CI_MERGE_REQUEST_DIFF_BASE_SHA", "CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_SHA"),
        started_at=("CI_JOB_STARTED_AT",),
        outcome=("CI_JOB_STATUS",),
        os=("CI_RUNNER_EXECUTABLE_ARCH",),
        number=("CI_PIPELINE_IID",),
        fork_pairs=(
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "CI_PROJECT_ID"),
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "CI_MERGE_REQUEST_PROJECT_ID"),
            ("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY", "CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY"),
        ),
        deeper="set the variable GIT_DEPTH: 0",
    ),
    CiVendor(
        name="jenkins",
        marks=("JENKINS_URL", "JENKINS_HOME", "HUDSON_URL"),
        run=("JOB_NAME", "BUILD_NUMBER"),  # BUILD_TAG is the same with "/" made "-": not unique
        job=("JOB_NAME",),
        branch_folder="BRANCH_NAME",
        branch=("CHANGE_BRANCH", "BRANCH_NAME", "GIT_LOCAL_BRANCH", "GIT_BRANCH"),
        base_branch=("CHANGE_TARGET",),
        event=("GERRIT_EVENT_TYPE", "BUILD_CAUSE", "ROOT_BUILD_CAUSE"),
        # of the plugin Gerrit Trigger; whoever has an account may propose a change
        untrusted_events=(
            *("patchset-created", "comment-added", "draft-published", "change-restored", "topic-changed"),
            *("wip-state-changed", "private-state-changed", "vote-deleted", "hashtags-changed"),
        ),
        pull_request=("CHANGE_ID",),
        tag=("TAG_NAME",),
        commit=("GIT_COMMIT",),
        commit_before=("GIT_PREVIOUS_COMMIT",),
        fork=("CHANGE_FORK",),
        deeper='turn off "Shallow clone" in the git plugin\'s "Advanced clone behaviours"',
        # of the plugins for pull requests of GitHub and for merge requests of GitLab
        fork_pairs=(
            ("ghprbAuthorRepoGitUrl", "ghprbGhRepository"),
            ("gitlabSourceRepoHttpUrl", "gitlabTargetRepoHttpUrl"),
        ),
    ),
    CiVendor(
        name="circleci",
        marks=("CIRCLECI",),
        run=("CIRCLE_WORKFLOW_ID", "CIRCLE_BUILD_NUM"),
        job=("CIRCLE_JOB",),
        cell=("CIRCLE_NODE_INDEX",),
        branch=("CIRCLE_BRANCH",),
        pull_request=("CIRCLE_PULL_REQUEST", "CIRCLE_PR_NUMBER"),
        tag=("CIRCLE_TAG",),
        commit=("CIRCLE_SHA1",),
        fork=("CIRCLE_PR_REPONAME", "CIRCLE_PR_USERNAME"),  # set on pull requests from forks only
    ),
    CiVendor(
        name="buildkite",
        marks=("BUILDKITE",),
        run=("BUILDKITE_BUILD_ID",),
        attempt=("BUILDKITE_RETRY_COUNT",),
        first_attempt=0,
        job=("BUILDKITE_STEP_KEY", "BUILDKITE_LABEL"),
        workflow=("BUILDKITE_PIPELINE_SLUG",),
        cell=("BUILDKITE_PARALLEL_JOB",),
        branch=("BUILDKITE_BRANCH",),
        base_branch=("BUILDKITE_PULL_REQUEST_BASE_BRANCH",),
        event=("BUILDKITE_SOURCE",),
        pull_request=("BUILDKITE_PULL_REQUEST",),
        tag=("BUILDKITE_TAG",),
        commit=("BUILDKITE_COMMIT",),
        outcome=("BUILDKITE_COMMAND_EXIT_STATUS",),
        number=("BUILDKITE_BUILD_NUMBER",),
        fork_pairs=(("BUILDKITE_PULL_REQUEST_REPO", "BUILDKITE_REPO"),),
    ),
    CiVendor(
        name="azure",
        marks=("TF_BUILD",),
        run=("SYSTEM_COLLECTIONID", "BUILD_BUILDID"),
        attempt=("SYSTEM_JOBATTEMPT",),
        job=("SYSTEM_PHASENAME", "AGENT_JOBNAME"),
        workflow=("BUILD_DEFINITIONNAME", "SYSTEM_STAGENAME"),
        cell=("SYSTEM_JOBPOSITIONINPHASE",),
        branch=("SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCH"),
        base_branch=("SYSTEM_PULLREQUEST_TARGETBRANCH",),
        event=("BUILD_REASON",),
        pull_request=("SYSTEM_PULLREQUEST_PULLREQUESTID",),
        commit=("BUILD_SOURCEVERSION",),
        outcome=("AGENT_JOBSTATUS",),
        outcome_so_far=True,
        os=("AGENT_OS",),
        fork=("SYSTEM_PULLREQUEST_ISFORK",),
        deeper="set fetchDepth: 0 on the checkout step",
        deeper_for_merge="set fetchDepth: 2 on the checkout step",
    ),
    CiVendor(
        name="travis",
        marks=("TRAVIS",),
        run=("TRAVIS_BUILD_ID", "TRAVIS_JOB_ID"),  # a job that is started again keeps them
        job=("TRAVIS_JOB_NAME",),
        # Of the language of .travis.yml; a matrix of other variables needs FEDSTEP_CI_CELL.
        cell=(
            *("TRAVIS_PYTHON_VERSION", "TRAVIS_NODE_VERSION", "TRAVIS_RUBY_VERSION", "TRAVIS_JDK_VERSION"),
            *("TRAVIS_GO_VERSION", "TRAVIS_PHP_VERSION", "TRAVIS_RUST_VERSION", "TRAVIS_SCALA_VERSION"),
        ),
        branch=("TRAVIS_PULL_REQUEST_BRANCH", "TRAVIS_BRANCH"),
        base_branch=("TRAVIS_BRANCH",),
        event=("TRAVIS_EVENT_TYPE",),
        pull_request=("TRAVIS_PULL_REQUEST",),
        tag=("TRAVIS_TAG",),
        commit=("TRAVIS_COMMIT",),
        commit_before=("TRAVIS_COMMIT_RANGE",),
        base_commit=("TRAVIS_COMMIT_RANGE",),
        outcome=("TRAVIS_TEST_RESULT",),
        number=("TRAVIS_BUILD_NUMBER",),
        os=("TRAVIS_OS_NAME",),
        fork_pairs=(("TRAVIS_PULL_REQUEST_SLUG", "TRAVIS_REPO_SLUG"),),
        deeper="set git: depth: false in .travis.yml",
    ),
    CiVendor(
        name="bitbucket",  # it runs nothing for pull requests from forks
        marks=("BITBUCKET_BUILD_NUMBER",),
        run=("BITBUCKET_REPO_FULL_NAME", "BITBUCKET_BUILD_NUMBER", "BITBUCKET_STEP_UUID"),
        attempt=("BITBUCKET_STEP_RUN_NUMBER",),
        cell=("BITBUCKET_PARALLEL_STEP",),
        branch=("BITBUCKET_BRANCH",),
        base_branch=("BITBUCKET_PR_DESTINATION_BRANCH",),
        pull_request=("BITBUCKET_PR_ID",),
        tag=("BITBUCKET_TAG",),
        commit=("BITBUCKET_COMMIT",),
        base_commit=("BITBUCKET_PR_DESTINATION_COMMIT",),
        outcome=("BITBUCKET_EXIT_CODE",),
        number=("BITBUCKET_BUILD_NUMBER",),
        deeper="set clone: depth: full in bitbucket-pipelines.yml",
    ),
    CiVendor(
        name="teamcity",
        marks=("TEAMCITY_VERSION",),
        run=("TEAMCITY_PROJECT_NAME", "TEAMCITY_BUILDCONF_NAME", "BUILD_NUMBER"),
        job=("TEAMCITY_BUILDCONF_NAME",),
        workflow=("TEAMCITY_PROJECT_NAME",),
        commit=("BUILD_VCS_NUMBER",),
        tells_forks=False,
        deeper="set the parameter teamcity.git.shallowClone=false",
    ),
    CiVendor(
        name="woodpecker",
        marks=("CI=woodpecker",),
        run=("CI_REPO", "CI_PIPELINE_NUMBER"),
        job=("CI_WORKFLOW_NAME",),
        cell=("CI_WORKFLOW_NUMBER",),
        branch=("CI_COMMIT_SOURCE_BRANCH", "CI_COMMIT_BRANCH"),
        base_branch=("CI_COMMIT_TARGET_BRANCH",),
        event=("CI_PIPELINE_EVENT",),
        pull_request=("CI_COMMIT_PULL_REQUEST",),
        tag=("CI_COMMIT_TAG",),
        commit=("CI_COMMIT_SHA",),
        commit_before=("CI_PREV_COMMIT_SHA",),
        started_at=("CI_PIPELINE_STARTED",),  # of the workflow: its agent sets it
        os=("CI_SYSTEM_PLATFORM",),
        number=("CI_PIPELINE_NUMBER",),
        tells_forks=False,
        deeper="set depth: 0 and partial: false in the settings of the clone step",
    ),
    CiVendor(
        name="drone",
        marks=("DRONE",),
        run=("DRONE_REPO", "DRONE_BUILD_NUMBER"),
        job=("DRONE_STAGE_NAME",),
        branch=("DRONE_SOURCE_BRANCH", "DRONE_BRANCH"),
        base_branch=("DRONE_TARGET_BRANCH",),
        event=("DRONE_BUILD_EVENT",),
        pull_request=("DRONE_PULL_REQUEST",),
        tag=("DRONE_TAG",),
        commit=("DRONE_COMMIT_SHA",),
        commit_before=("DRONE_COMMIT_BEFORE",),
        started_at=("DRONE_STAGE_STARTED",),
        outcome=("DRONE_BUILD_STATUS",),
        outcome_so_far=True,
        os=("DRONE_STAGE_OS",),
        number=("DRONE_BUILD_NUMBER",),
        tells_forks=False,
        deeper="remove clone: depth from .drone.yml",
    ),
    CiVendor(
        name="appveyor",
        marks=("APPVEYOR",),
        run=("APPVEYOR_BUILD_ID", "APPVEYOR_JOB_ID"),
        job=("APPVEYOR_PROJECT_SLUG",),
        cell=("APPVEYOR_JOB_NAME",),  # it lists the variables of the matrix
        branch=("APPVEYOR_PULL_REQUEST_HEAD_REPO_BRANCH", "APPVEYOR_REPO_BRANCH"),
        base_branch=("APPVEYOR_REPO_BRANCH",),
        pull_request=("APPVEYOR_PULL_REQUEST_NUMBER",),
        schedule=("APPVEYOR_SCHEDULED_BUILD",),
        tag=("APPVEYOR_REPO_TAG_NAME",),
        commit=("APPVEYOR_REPO_COMMIT",),
        fork_pairs=(("APPVEYOR_PULL_REQUEST_HEAD_REPO_NAME", "APPVEYOR_REPO_NAME"),),
        deeper="remove clone_depth from appveyor.yml",
    ),
    CiVendor(
        name="bamboo",
        marks=("bamboo_buildKey", "bamboo_buildResultKey"),
        run=("bamboo_buildResultKey",),
        job=("bamboo_buildKey",),
        branch=(
            *("bamboo_repository_pr_sourceBranch", "bamboo_planRepository_branchName"),
            "bamboo_planRepository_branch",
        ),
        base_branch=("bamboo_repository_pr_targetBranch",),
        pull_request=("bamboo_repository_pr_key",),
        commit=("bamboo_planRepository_revision",),
        commit_before=("bamboo_planRepository_previousRevision", "bamboo_repository_previous_revision_number"),
        started_at=("bamboo_buildTimeStamp",),
        tells_forks=False,
        deeper='turn off "Use shallow clones" of the repository',
    ),
    CiVendor(
        name="codebuild",
        marks=("CODEBUILD_BUILD_ARN",),
        run=("CODEBUILD_BUILD_ID",),
        job=("CODEBUILD_BUILD_ID",),  # project:uuid
        job_end=":",
        cell=("CODEBUILD_BATCH_BUILD_IDENTIFIER",),
        branch=("CODEBUILD_WEBHOOK_HEAD_REF",),
        base_branch=("CODEBUILD_WEBHOOK_BASE_REF",),
        event=("CODEBUILD_WEBHOOK_EVENT",),
        commit=("CODEBUILD_RESOLVED_SOURCE_VERSION",),
        number=("CODEBUILD_BUILD_NUMBER",),
        commit_before=("CODEBUILD_WEBHOOK_PREV_COMMIT",),
        started_at=("CODEBUILD_START_TIME",),
        tells_forks=False,
        deeper="set the git clone depth of the project to full",
    ),
    CiVendor(
        name="semaphore",
        marks=("SEMAPHORE",),
        run=("SEMAPHORE_WORKFLOW_ID", "SEMAPHORE_JOB_ID"),
        job=("SEMAPHORE_JOB_NAME",),
        workflow=("SEMAPHORE_PIPELINE_NAME", "SEMAPHORE_BLOCK_NAME"),
        cell=("SEMAPHORE_JOB_INDEX",),
        branch=("SEMAPHORE_GIT_PR_BRANCH", "SEMAPHORE_GIT_WORKING_BRANCH", "SEMAPHORE_GIT_BRANCH"),
        base_branch=("SEMAPHORE_GIT_BRANCH",),
        event=("SEMAPHORE_GIT_REF_TYPE",),
        pull_request=("SEMAPHORE_GIT_PR_NUMBER",),
        schedule=("SEMAPHORE_WORKFLOW_TRIGGERED_BY_SCHEDULE",),
        tag=("SEMAPHORE_GIT_TAG_NAME",),
        commit=("SEMAPHORE_GIT_SHA",),
        commit_before=("SEMAPHORE_GIT_COMMIT_RANGE",),
        base_commit=("SEMAPHORE_GIT_COMMIT_RANGE",),
        outcome=("SEMAPHORE_JOB_RESULT",),
        fork_pairs=(("SEMAPHORE_GIT_PR_SLUG", "SEMAPHORE_GIT_REPO_SLUG"),),
        deeper="run checkout with a larger SEMAPHORE_GIT_DEPTH",
    ),
    CiVendor(
        name="cirrus",
        marks=("CIRRUS_CI",),
        run=("CIRRUS_BUILD_ID", "CIRRUS_TASK_ID"),
        job=("CIRRUS_TASK_NAME",),
        cell=("CI_NODE_INDEX",),
        branch=("CIRRUS_BRANCH",),
        base_branch=("CIRRUS_BASE_BRANCH",),
        pull_request=("CIRRUS_PR",),
        schedule=("CIRRUS_CRON",),
        tag=("CIRRUS_TAG",),
        commit=("CIRRUS_CHANGE_IN_REPO",),
        commit_before=("CIRRUS_LAST_GREEN_CHANGE",),
        base_commit=("CIRRUS_BASE_SHA",),
        os=("CIRRUS_OS",),
        tells_forks=False,
        deeper="remove CIRRUS_CLONE_DEPTH",
    ),
    CiVendor(
        name="codefresh",
        marks=("CF_BUILD_ID",),
        run=("CF_BUILD_ID",),
        attempt=("CF_CURRENT_ATTEMPT",),
        job=("CF_PIPELINE_NAME",),
        cell=("CF_STEP_NAME",),
        branch=("CF_BRANCH",),
        base_branch=("CF_PULL_REQUEST_TARGET",),
        event=("CF_BUILD_TRIGGER",),
        pull_request=("CF_PULL_REQUEST_NUMBER", "CF_PULL_REQUEST_ID"),
        tag=("CF_RELEASE_TAG",),
        commit=("CF_REVISION",),
        tells_forks=False,  # CF_PULL_REQUEST_IS_FORK is that of GitHub alone
        deeper="set depth on the git-clone step to more than the branch has commits",
    ),
    CiVendor(
        name="cloudbuild",  # all but the mark are set where automapSubstitutions or `env` maps them
        marks=("BUILDER_OUTPUT",),
        run=("BUILD_ID",),
        job=("TRIGGER_NAME",),
        branch=("_HEAD_BRANCH", "BRANCH_NAME"),
        base_branch=("_BASE_BRANCH",),
        pull_request=("_PR_NUMBER",),
        tag=("TAG_NAME",),
        commit=("COMMIT_SHA", "REVISION_ID"),
        tells_forks=False,
        deeper="add a step that runs git fetch --unshallow",
    ),
    CiVendor(name="tekton", marks=("TEKTON_POD",), run=("TEKTON_POD",)),  # set by pipeline/context.py
    CiVendor(name="generic", marks=("CI",), run=()),  # any other; stays last
)

# What started a build, as the systems name it, and the value of `CiRun.event`; any other word is "other".
EVENTS = {
    word: event
    for event, words in {
        "push": "push branch webhook individualci batchedci scmtrigger change-merged ref-updated",
        "pull_request": "pull_request pull_request_target pull_request_review pullrequest merge_request_event "
        "external_pull_request_event pull_request_metadata pull_request_closed pull-request "
        "pull_request_created pull_request_updated pull_request_reopened pull_request_merged patchset-created "
        "comment-added draft-published",
        "schedule": "schedule scheduled cron timertrigger",
        "manual": "manual workflow_dispatch repository_dispatch web webide ui custom manualtrigger",
        "tag": "tag release",
    }.items()
    for word in words.split()
}
# How the systems' words for a job's result translate.
OUTCOMES = {
    word: outcome
    for outcome, words in {
        BuildOutcome.PASSED: "passed success succeeded ok 0",
        BuildOutcome.UNSTABLE: "unstable succeededwithissues",
        BuildOutcome.FAILED: "failed failure error",
    }.items()
    for word in words.split()
}
# Words for jobs without a result, and why.
UNFINISHED = {
    "cancelled": "the job was cancelled",
    "canceled": "the job was cancelled",
    "aborted": "the job was aborted",
    "not_built": "the job was not built",
    "skipped": "the job was skipped",
    "running": "the job is still running",
    "pending": "the job is still running",
    "null": "the job is still running",  # Jenkins' currentBuild.result before its end
}


def clone_advice(vendor: str, *, is_merge: bool = False) -> str:
    """Return how a job of this system gets the history that a shallow clone lacks.

    `is_merge`: the merge commit of a pull request is checked out, whose first parent is all that is missing.
    """
    row = next((row for row in VENDORS if row.name == vendor), VENDORS[-1])
    return row.deeper_for_merge if is_merge and row.deeper_for_merge else row.deeper
