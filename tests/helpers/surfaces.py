"""Every surface of fedstep as one call on a job."""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.helpers.cli import SYSTEM_PATH, Checkout, forty_tests
from tests.helpers.gitlab import SHELLS, gitlab_variables, pipeline, run_job

ROOT = Path(__file__).parents[2]

BIN = Path(sys.executable).parent
PATIENCE = 240.0  # seconds until a surface counts as hanging, on a machine that does much else
RECIPE = (ROOT / "tests/pipelines/examples/any-ci.sh").read_text()
GITLAB = (ROOT / "tests/pipelines/examples/gitlab.yml").read_text()
TESTS = "def test_3():\n    assert False\n\n\ndef test_4():\n    pass\n"
GENERIC = {"CI": "true", "FEDSTEP_CI_RUN": "42", "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": "main"}


@dataclass(frozen=True)
class Job:
    """A checkout in which something is about to run, the words before every command, and a folder outside of it."""

    place: Checkout
    outside: Path
    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    damaged: str = ""  # the record that cannot be read

    def run(self, *words: str | Path, **more: str) -> "Ended":
        """A command from start to end. That it ends by itself is what the time limit asserts."""
        env = {**self.place.env, "PATH": f"{BIN}:{SYSTEM_PATH}", "PYTHONDONTWRITEBYTECODE": "1", **self.env, **more}
        done = subprocess.run(
            [*self.prefix, *words], cwd=self.place.root, env=env, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=PATIENCE,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)


class Ended(NamedTuple):
    """How a surface ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def warnings(self) -> list[str]:
        """Lines of talk of fedstep, of the steps around it, and of the plugin; annotations of failures are none."""
        marks = ("fedstep: ", "WARNING: ", "::warning title=fedstep::")
        lines = (self.out + self.err).splitlines()
        found = [line for line in lines if line.startswith(marks) or "the record was not written" in line]
        # GitHub shows a line of the log also as an annotation: the same warning, escaped.
        logged = {line.removeprefix("fedstep: ") for line in found}
        return [
            line
            for line in found
            if not line.startswith(marks[2]) or line.removeprefix(marks[2]).replace("%25", "%") not in logged
        ]


def prepared(place: Checkout, outside: Path, url: str, surface: str) -> Job:
    """A job in a repository with a report and two tests; its aggregator, at this URL, is a good one."""
    outside.mkdir(exist_ok=True)
    (place.root / "test_shop.py").write_text(TESTS)
    (place.root / ".gitignore").write_text("report.xml\nr.xml\nfedstep*\n")
    place.git("add", ".")
    place.git("commit", "-q", "-m", "Test the shop")
    place.report(forty_tests(12))
    if surface == "hook":
        place.git("init", "-q", "--bare", str(outside / "remote.git"))
        place.git("remote", "add", "origin", str(outside / "remote.git"))
        assert place.run("hook", "install").code == 0
    return Job(place, outside, env={"FEDSTEP_AGGREGATOR": url})


def command(*words: str) -> Callable[[Job], Ended]:
    return lambda job: job.run(BIN / "fedstep", *words, **GENERIC)


def hook(job: Job) -> Ended:
    """`git push` with our hook. The push itself has to happen."""
    ended = job.run("git", "push", "-q", "origin", "main")
    assert job.place.git("ls-remote", "origin", "refs/heads/main"), ended.err
    return ended


def plugin(job: Job) -> Ended:
    """pytest with our options: its own exit code says that a test failed, and so it counts."""
    options = (
        "-p",
        "fedstep.pytest_plugin.plugin",
        "-p",
        "no:cacheprovider",
        "--fedstep-rerun",
        "--fedstep-record",
        "r.xml",
    )
    ended = job.run(BIN / "pytest", *options, "test_shop.py", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "1 failed, 1 passed" in ended.out, ended.out + ended.err
    return ended._replace(code=ended.code - 1)


def action(name: str) -> Callable[[Job], Ended]:
    """The step of a GitHub action that runs fedstep, with the variables that its action.yml gives it."""

    def run(job: Job) -> Ended:
        folder = ROOT / "actions" / name
        about = yaml.safe_load((folder / "action.yml").read_text())
        step = next(step for step in about["runs"]["steps"] if step.get("id") == name)
        inputs = {key: str(value.get("default", "")) for key, value in about["inputs"].items()}
        inputs |= {
            "command": str(BIN / "fedstep"),
            "junit": "report.xml",
            "outcome": "success",
            "cell": "",
            "token": "",
        }
        inputs["aggregator"] = job.env.get("FEDSTEP_AGGREGATOR", "")
        given = {key: resolved(str(value), inputs) for key, value in step["env"].items()}
        (job.outside / "runner").mkdir(exist_ok=True)
        files = {key: str(job.outside / key) for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        said = (
            "CI=true GITHUB_ACTIONS=true GITHUB_RUN_ID=42 GITHUB_RUN_ATTEMPT=1 GITHUB_JOB=test GITHUB_REF_NAME=main "
            "GITHUB_EVENT_NAME=push GITHUB_WORKFLOW=ci"
        )
        github = dict(word.split("=") for word in said.split())
        github |= {"RUNNER_TEMP": str(job.outside / "runner"), "GITHUB_ACTION_PATH": str(folder)}
        return job.run("bash", "-e", "-c", step["run"], **github, **files, **given)

    return run


def resolved(text: str, inputs: Mapping[str, str]) -> str:
    """A value of action.yml as the runner resolves it, where it is an input or nothing that a test has."""
    found = re.fullmatch(r"\$\{\{ inputs\.([\w-]+).*\}\}", text)
    return inputs[found[1]] if found else "" if text.startswith("${{") else text


def jenkins(name: str) -> Callable[[Job], Ended]:
    """The shell step of the Jenkins library, as fedstepRun.groovy calls it."""

    def run(job: Job) -> Ended:
        script = ROOT / "jenkins/resources/org/fedstep/step.sh"
        asked = dict.fromkeys(re.findall(r"\$\{?((?:WITH|FEDSTEP)_[A-Z_]+)", script.read_text()), "")
        given = {**asked, "WITH_COMMAND": str(BIN / "fedstep"), "WITH_SUBCOMMAND": name, "FEDSTEP_STRICT": "false"}
        given |= {"WITH_JUNIT": "" if name == "predict" else "report.xml", "FEDSTEP_HISTORY": ".fedstep", **job.env}
        agent = {"JENKINS_URL": "http://127.0.0.1/", "JOB_NAME": "shop", "BUILD_NUMBER": "42", "BRANCH_NAME": "main"}
        where = {"WORKSPACE": str(job.place.root), "WORKSPACE_TMP": str(job.outside / "workspace-tmp")}
        return job.run("sh", "-xe", script, **agent, **where, **given)

    return run


def gitlab(job: Job) -> Ended:
    """A job with the component, of which the end is judged: there it learns."""
    began = datetime.now(UTC).isoformat()
    given = {**job.place.env, **job.env, "FEDSTEP_WITH_COMMAND": str(BIN / "fedstep"), "PATH": f"{BIN}:{SYSTEM_PATH}"}
    env = gitlab_variables(job.place.root, 42, began, **given)
    ran = run_job(
        pipeline(GITLAB.replace("pytest --junit-xml=report.xml", "echo the tests")) ["test"],
        job.place.root, env, (*job.prefix, *SHELLS["dash"]),
    )  # fmt: skip
    assert "the tests\n" in ran.log, ran.log
    return Ended(ran.code, ran.after, "")


def any_ci(job: Job) -> Ended:
    """The recipe for any CI, its tests an echo: they are run, and their exit code is that of the job."""
    script = RECIPE.replace("pytest --junit-xml=report.xml", "echo the tests")
    ended = job.run("dash", "-c", script, BUILD_NUMBER="42", BRANCH="main")
    assert "the tests\n" in ended.out
    return ended


SURFACES: dict[str, Callable[[Job], Ended]] = {
    "train": command("train", "--junit", "report.xml"),
    "predict": command("predict"),
    "triage": command("triage", "--junit", "report.xml"),
    "push": command("push"),
    "pull": command("pull"),
    "hook": hook,
    "plugin": plugin,
    "action train": action("train"),
    "action predict": action("predict"),
    "action triage": action("triage"),
    "jenkins train": jenkins("train"),
    "jenkins predict": jenkins("predict"),
    "gitlab": gitlab,
    "any CI": any_ci,
}
