#!/bin/sh
# What tells this run from all others, in the words of your CI; a run that is repeated needs another name.
export FEDSTEP_CI_RUN="$BUILD_NUMBER"
export FEDSTEP_CI_JOB="unit-tests"
export FEDSTEP_CI_BRANCH="$BRANCH"
export FEDSTEP_CI_COMMIT="$(git rev-parse HEAD)"

learn() {
    code=$?
    trap - EXIT
    FEDSTEP_CI_OUTCOME=$code fedstep train --junit 'report.xml' || true
    exit "$code"
}
trap learn EXIT                     # also when the tests fail
trap 'trap - EXIT; exit 130' INT    # but not when somebody stops the job: that says nothing about the build
trap 'trap - EXIT; exit 143' TERM

fedstep predict || true             # marks the start of the job, and says what to expect

pytest --junit-xml=report.xml       # your tests, as ever
