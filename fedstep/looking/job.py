"""What a doctor sees of this job: the CI, its start, the change that git tells, the reports."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fedstep.build.git import read_change, read_outgoing
from fedstep.build.gitrun import Ran, Run, is_shallow, repository_root, run_git
from fedstep.build.patterns import matcher
from fedstep.build.record import Absent, CiRun, Dropped
from fedstep.ingest.junit import expand, read_reports
from fedstep.report.diagnosis import OK, PROBLEM, WARNING, Check
from fedstep.report.units import count, size

__all__ = ["check_ci", "check_git", "check_reports", "check_start"]

MOST_REPORTS = 20_000_000  # bytes of reports that are read; of more only the files are counted
GIT_SECONDS = 1.0
DEEPER = {
    "github": "Set fetch-depth: 0 on actions/checkout",
    "gitlab": "Set the variable GIT_DEPTH: 0",
    "jenkins": 'Turn off "Shallow clone" in the "Advanced clone behaviours" of the git plugin',
}


def check_ci(ci: CiRun) -> Check:
    """Which CI this is and what it tells of the job."""
    if ci.vendor == "local":
        return Check("CI", OK, "none: a developer's machine")
    facts = (("run", ci.run), ("job", ci.job), ("branch", ci.branch), ("event", ci.event))
    told = ", ".join(f"{name} {value}" for name, value in facts if value)
    if ci.untrusted:
        return Check("CI", WARNING, f"{ci.vendor}, {told}: from a fork or Dependabot, nothing is learned or sent")
    if not ci.run:
        fix = "export FEDSTEP_CI_RUN=<a number of this run>, FEDSTEP_CI_JOB and FEDSTEP_CI_BRANCH"
        return Check("CI", WARNING, f"{ci.vendor}: it does not tell which run this is", fix)
    return Check("CI", OK, f"{ci.vendor}, {told}")


def check_start(ci: CiRun, mark: float | None, now: float) -> Check:
    """Where the duration of the build will come from."""
    if isinstance(ci.started_at, float):
        return _since("the CI tells", ci.started_at, now)
    if mark is not None:
        return _since("fedstep predict marked", mark, now)
    if ci.vendor == "local":
        return Check("Job start", OK, "not told: a build by hand is timed by its tests")
    says = f"{ci.started_at.reason}: builds are timed by their tests alone"
    fix = "Run fedstep predict as the first step of the job"
    return Check("Job start", WARNING, says, fix if ci.run else f"{fix}, with FEDSTEP_CI_RUN set for all steps")


def _since(who: str, started: float, now: float) -> Check:
    seconds = now - started
    if seconds < 0:
        return Check("Job start", PROBLEM, f"{who} a start {-seconds:.0f} s in the future", "Set the clock right")
    return Check("Job start", OK, f"{who} it: {seconds:.0f} s ago")


def check_git(root: str, ci: CiRun, globs: Sequence[str], run: Run = run_git) -> Check:
    """The change that git tells, and whether its history reaches far enough; reports that `globs` name are none."""
    if not repository_root(root):
        return Check("Git", WARNING, "this folder is not in a git work tree: no change is known", "cd into a checkout")

    def hurried(folder: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], Ran]:
        return run(folder, arguments, stdin, min(seconds, GIT_SECONDS))

    if ci.vendor == "local":
        change = read_outgoing(root, hurried, matcher(globs, os.getcwd(), root))
    else:
        change = read_change(root, ci, hurried)
    if isinstance(change, Absent):
        told, _, command = change.reason.partition("; run: ")
        return Check("Git", WARNING, told, command)
    against = f"against {change.base}" if change.base else "against nothing: no base is known"
    says = f"{count(len(change.files), 'changed file')} {against}"
    if is_shallow(root):
        fix = DEEPER.get(ci.vendor, "git fetch --unshallow")
        return Check("Git", WARNING, f"{says}; the clone is shallow, its history is cut off", fix)
    return Check("Git", OK if change.base else WARNING, "; ".join(filter(None, (says, change.notice))))


def check_reports(globs: Sequence[str], root: str) -> Check:
    """The reports that --junit matches, and what they hold."""
    if not globs:
        fix = "Name them, here and for train: fedstep doctor --junit 'build/**/TEST-*.xml'"
        return Check("Reports", WARNING, "no --junit is given", fix)
    found = expand(globs, Path.cwd())
    misses = [one.source for one in found if isinstance(one, Dropped)]
    if misses:
        says = f"{', '.join(misses)} matches no file below {Path.cwd()}"
        return Check("Reports", PROBLEM, says, "Run it after the tests, and check --junit")
    bytes_ = sum(_length(Path.cwd() / one[0]) for one in found)
    if bytes_ > MOST_REPORTS:
        return Check("Reports", OK, f"{count(len(found), 'file')} of {size(bytes_)} (too much to read here)")
    reports = read_reports(found, root)
    lost = [drop for drop in reports.dropped if not drop.kept]
    says = f"{count(reports.files, 'file')}, {count(len(reports.tests), 'test')}"
    if lost or not reports.tests:
        why = f"; {lost[0].source}: {lost[0].reason}" if lost else "; no test in them"
        return Check("Reports", PROBLEM, says + why, "Check --junit and what writes the reports")
    return Check("Reports", OK, says)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will tell why
