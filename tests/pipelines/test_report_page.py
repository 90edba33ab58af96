"""The steps of docs/how-to/report.md that publish the page of a project, run as they stand there."""

import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.gitlab import SHELLS, component, gitlab_variables, run_job
from tests.helpers.jenkins import controller
from tests.helpers.project_history import BUILDS, write_history
from tests.pipelines.conftest import BIN, ROOT, ActRun

PAGE = (ROOT / "docs/how-to/report.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Publish it\n")[2].partition("\n## ")[0]
GITHUB, DEPLOY, GITLAB = re.findall(r"```yaml\n(.*?)```", SECTION, re.S)
[JENKINS] = re.findall(r"```groovy\n(.*?)```", SECTION, re.S)
MADE = {"index.html", "fedstep.css", "fedstep.js"}


@pytest.fixture
def shop(repository: Path) -> Path:
    """The repository with the history that `train` leaves in it."""
    write_history(repository)
    return repository


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder of programs in place of those that install: pip writes down its arguments, `venv` links to this one."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    log = tmp_path / "installed"
    pip = f'#!/bin/sh\necho "$@" >>{log}\n'
    venv = f'#!/bin/sh\nmkdir -p "$3/bin" && ln -s {folder}/pip {BIN}/fedstep "$3/bin/"\n'
    for name, text in {"pip": pip, "python3": venv}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def installed(stubs: Path) -> str:
    return (stubs.parent / "installed").read_text()


def assert_page(index: str) -> None:
    assert f"{BUILDS} builds" in index
    assert "Fix this first" in index
    assert 'href="https://github.com/acme/shop/compare/' in index


class TestGitHub:
    def workflow(self, folder: Path, stubs: Path, history: str = "") -> Path:
        """The steps of the page after those of a job that has the history, and the job that publishes."""
        restored = f'cp -R "{history}" .; echo "{stubs}" >>"$GITHUB_PATH"'  # as train does; stubs in place of pip
        before: list[Any] = [{"uses": "actions/checkout@v7"}, {"run": restored}]
        test = {"runs-on": "ubuntu-latest", "steps": before + yaml.safe_load(GITHUB)}
        path = folder / "page.yml"
        jobs = {"test": test, **yaml.safe_load(DEPLOY)}
        path.write_text(yaml.safe_dump({"name": "page", "on": {"push": {}}, "jobs": jobs}))
        return path

    def test_the_steps_pack_the_page_for_upload(
        self, act: Callable[..., ActRun], shop: Path, stubs: Path, tmp_path: Path
    ) -> None:
        ran = act(self.workflow(tmp_path, stubs, f"{shop}/.fedstep"), "--job", "test")
        assert ran.code == 0, ran.log
        assert installed(stubs) == "install fedstep[report]\n"
        with tarfile.open(ran.kept / "github-pages.tar") as packed:
            names = {name.removeprefix("./") for name in packed.getnames()}
            index = packed.extractfile("./index.html")
            assert index is not None
            assert_page(index.read().decode())
        assert names >= MADE
        assert any(re.fullmatch(r"tests/[0-9a-f]{16}\.html", name) for name in names)

    def test_the_job_that_publishes_fits_the_schema(
        self, stubs: Path, tmp_path: Path, tool: Callable[[str], str]
    ) -> None:
        """It cannot run here: GitHub issues the token and has the site."""
        command = [tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
        subprocess.run([*command, str(self.workflow(tmp_path, stubs))], check=True, timeout=120)
        [job] = yaml.safe_load(DEPLOY).values()
        assert job["permissions"] == {"pages": "write", "id-token": "write"}


class TestGitLab:
    """GitLab takes the folder `public` of the job `pages`."""

    JOB: Mapping[str, Any] = yaml.safe_load(GITLAB)["pages"]

    def test_the_job_makes_the_folder_that_gitlab_publishes(self, shop: Path, stubs: Path) -> None:
        variables = gitlab_variables(shop, 1, "2030-01-01T00:00:00Z")
        variables["PATH"] = f"{stubs}:{BIN}:{variables['PATH']}"
        for shell in SHELLS.values():
            ran = run_job({**self.JOB, "script": [self.JOB["script"]]}, shop, variables, shell)
            assert ran.code == 0, ran.log
        assert "install fedstep[report]" in installed(stubs)
        assert self.JOB["artifacts"]["paths"] == ["public"]
        assert {path.name for path in (shop / "public").iterdir()} >= MADE
        assert_page((shop / "public/index.html").read_text())

    def test_it_reads_the_cache_of_the_job_that_learns(self) -> None:
        kept = next(one for one in component("train", {})[".fedstep"]["cache"] if ".fedstep/" in one["paths"])
        assert self.JOB["cache"]["key"] == kept["key"].replace("$CI_JOB_NAME_SLUG", "test")
        assert self.JOB["cache"]["paths"] == kept["paths"]

    def test_it_fits_the_schema(self, tmp_path: Path, tool: Callable[[str], str]) -> None:
        (tmp_path / "pages.yml").write_text(GITLAB)
        command = [tool("check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci"]
        subprocess.run([*command, str(tmp_path / "pages.yml")], check=True, timeout=120)


class TestJenkins:
    def test_the_steps_publish_the_folder(self, shop: Path, stubs: Path, tmp_path: Path) -> None:
        path = tmp_path / "Jenkinsfile"
        path.write_text(f"node {{\n{JENKINS}}}\n")
        environment = {"PATH": f"{stubs}:{BIN}:/usr/bin:/bin"}
        scenario = {"jenkinsfile": str(path), "environment": environment, "plugins": ["htmlpublisher"]}
        (result,) = controller(tmp_path, shop)(scenario)
        assert "error" not in result, result
        [target] = [told["published"] for told in result["told"] if "published" in told]
        assert installed(stubs) == "install -q fedstep[report]\n"
        folder = shop / target["reportDir"]
        assert {path.name for path in folder.iterdir()} >= MADE
        assert_page((folder / target["reportFiles"]).read_text())
