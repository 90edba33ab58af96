"""The ready files for other CIs: valid by the schema of each, and their commands run by a shell."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedstep.ingest.ci import read_ci

EXAMPLES = Path(__file__).parent / "examples"
PAGE = Path(__file__).parents[2] / "docs/how-to/ready-files.md"
SCHEMAS = {
    "circleci.yml": "vendor.circle-ci",
    "azure-pipelines.yml": "vendor.azure-pipelines",
    "bitbucket-pipelines.yml": "vendor.bitbucket-pipelines",
    "buildkite.yml": "vendor.buildkite",
    "woodpecker.yml": "vendor.woodpecker-ci",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VARIABLES: Mapping[str, Mapping[str, str]] = {
    "circleci.yml": {
        "CIRCLECI": "true",
        "CIRCLE_WORKFLOW_ID": "w1",
        "CIRCLE_BUILD_NUM": "7",
        "CIRCLE_JOB": "test",
        "CIRCLE_BRANCH": "main",
    },
    "azure-pipelines.yml": {
        "TF_BUILD": "True",
        "SYSTEM_COLLECTIONID": "c",
        "BUILD_BUILDID": "7",
        "SYSTEM_PHASENAME": "test",
        "BUILD_SOURCEBRANCH": "refs/heads/main",
        "BUILD_REASON": "IndividualCI",
    },
    "bitbucket-pipelines.yml": {
        "BITBUCKET_BUILD_NUMBER": "7",
        "BITBUCKET_REPO_FULL_NAME": "acme/shop",
        "BITBUCKET_STEP_UUID": "{s}",
        "BITBUCKET_BRANCH": "main",
    },
    "buildkite.yml": {
        "BUILDKITE": "true",
        "BUILDKITE_BUILD_ID": "b7",
        "BUILDKITE_STEP_KEY": "test",
        "BUILDKITE_BRANCH": "main",
        "BUILDKITE_COMMIT": COMMIT,
    },
    "woodpecker.yml": {
        "CI": "woodpecker",
        "CI_REPO": "acme/shop",
        "CI_PIPELINE_NUMBER": "7",
        "CI_WORKFLOW_NAME": "test",
        "CI_COMMIT_BRANCH": "main",
    },
}


def scripts(name: str) -> list[str]:
    """Return the commands of a file, one text for each shell that its CI starts; the last runs also after a failure."""
    content: Any = yaml.safe_load((EXAMPLES / name).read_text())
    match name:
        case "circleci.yml":
            steps = [step["run"] for step in content["jobs"]["test"]["steps"] if "run" in step]
            return [step["command"] for step in steps]
        case "azure-pipelines.yml":
            return [step["script"] for step in content["jobs"][0]["steps"] if "script" in step]
        case "bitbucket-pipelines.yml":
            step = content["pipelines"]["default"][0]["step"]
            return ["\n".join(step["script"]), "\n".join(step["after-script"])]
        case "buildkite.yml":
            return [content["steps"][0]["command"].replace("$$", "$")]
        case _:
            return ["\n".join(content["steps"][0]["commands"])]


def environment(name: str) -> dict[str, str]:
    """Return the variables that the file itself sets."""
    content: Any = yaml.safe_load((EXAMPLES / name).read_text())
    match name:
        case "azure-pipelines.yml":
            return dict(content["jobs"][0]["variables"])
        case "buildkite.yml":
            return dict(content["steps"][0]["env"])
        case "woodpecker.yml":
            return dict(content["steps"][0]["environment"])
        case _:
            return {}


class TestFiles:
    @pytest.mark.parametrize("name", SCHEMAS)
    def test_each_file_fits_the_schema_of_its_ci(self, name: str, tool: Callable[[str], str]) -> None:
        transform = ("--data-transform", "azure-pipelines", "--regex-variant", "python") if "azure" in name else ()
        command = (tool("check-jsonschema"), "--builtin-schema", SCHEMAS[name], *transform, EXAMPLES / name)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_the_page_has_each_file(self, name: str) -> None:
        assert (EXAMPLES / name).read_text() in PAGE.read_text()

    @pytest.mark.parametrize("name", SCHEMAS)
    def test_the_ci_names_run_and_job(self, name: str) -> None:
        """Without a name of the job all steps would share one stream of times."""
        variables = dict(VARIABLES[name])
        if name == "bitbucket-pipelines.yml":
            assert all("FEDSTEP_CI_JOB=test" in script for script in scripts(name))
            variables["FEDSTEP_CI_JOB"] = "test"
        ci = read_ci(variables, platform="linux")
        assert ci.run
        assert ci.job
        assert ci.branch == "main"


class TestCommands:
    @pytest.mark.parametrize("fails", [pytest.param(False, marks=pytest.mark.full), True])
    @pytest.mark.parametrize("name", SCHEMAS)
    def test_the_commands_predict_test_and_learn(
        self, name: str, fails: bool, repository: Path, tmp_path: Path
    ) -> None:
        """The exit code is that of the tests, and the build is learned, also a failed one."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "pip").write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / "bin" / "pip").chmod(0o755)
        (repository / "test_shop.py").write_text(f"def test_waits():\n    assert {not fails}\n")
        env = {
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            **VARIABLES[name],
            **environment(name),
        }
        codes: list[int] = []
        output, steps = "", scripts(name)
        for number, script in enumerate(steps):
            if any(codes) and number < len(steps) - 1:
                continue
            done = subprocess.run(
                ("bash", "-e", "-c", script), cwd=repository, env=env, capture_output=True, text=True, timeout=120
            )
            codes.append(done.returncode)
            output += done.stdout + done.stderr
        assert any(codes) == fails, output
        assert "Build time" in output
        assert f"Build         {'failed' if fails else 'passed'}" in output
