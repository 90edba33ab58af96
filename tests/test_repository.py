"""The files around the code: lock file, forms, hooks for contributors, changelog."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedstep import __version__

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


class TestLockFile:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")

    def test_names_no_host_but_pypi(self) -> None:
        """A mirror of the machine that made it would not be reachable for anyone else."""
        assert set(re.findall(r"\w+://([^/\"]+)", self.lock)) == {"pypi.org", "files.pythonhosted.org"}

    def test_knows_every_dependency_of_the_project(self) -> None:
        """`uv lock --check` says more, but needs a network; it runs in the test workflow."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        (locked,) = [package for package in tomllib.loads(self.lock)["package"] if package["name"] == "fedstep"]
        declared = {
            re.split(r"[\[<>=, ]", requirement)[0].lower()
            for requirements in (project["dependencies"], *project["optional-dependencies"].values())
            for requirement in requirements
        }
        assert declared == {one["name"] for one in locked["metadata"]["requires-dist"]} | {"fedstep"}


class TestNames:
    def test_each_test_is_in_a_class_and_has_a_short_name(self) -> None:
        """The class names the subject, and the function states the fact in at most 60 characters."""
        wrong = []
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            if not path.is_relative_to(ROOT / "tests/data"):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
                tests = [node for node in functions if node.name.startswith("test_")]
                wrong += [f"{path.name}: {node.name}" for node in tests if len(node.name) > 60 or node in tree.body]
        assert wrong == []


class TestForms:
    @pytest.mark.parametrize(
        ("schema", "files"),
        [
            ("vendor.github-issue-forms", FORMS),
            ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
            ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ],
    )
    def test_match_the_schemas_of_github(self, schema: str, files: list[Path]) -> None:
        command = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", schema, *map(str, files)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert checked.returncode == 0, checked.stdout

    def test_a_misread_report_comes_with_the_file(self) -> None:
        """Without the anonymised file such an issue can hardly be reproduced."""
        fields = {
            field["id"]: field for field in read_yaml(GITHUB / "ISSUE_TEMPLATE" / "misread-report.yml")["body"][1:]
        }
        assert fields["file"]["validations"]["required"]
        assert (
            "anonymise" in read_yaml(GITHUB / "ISSUE_TEMPLATE" / "misread-report.yml")["body"][0]["attributes"]["value"]
        )


class TestPreCommit:
    def test_hooks_of_others_are_pinned_to_commits(self) -> None:
        """A tag can be moved to other code; a commit cannot."""
        repositories = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
        revisions = [repository["rev"] for repository in repositories if repository["repo"] != "local"]
        assert [revision for revision in revisions if not re.fullmatch(r"[0-9a-f]{40}", revision)] == []


class TestWorkflow:
    def test_runs_every_supported_version_of_python(self) -> None:
        """The classifiers promise what the unit tests run on; the whole suite runs on the oldest and the newest."""
        jobs = read_yaml(GITHUB / "workflows" / "test.yml")["jobs"]
        classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
        promised = [name.removeprefix("Programming Language :: Python :: ") for name in classifiers if ":: 3." in name]
        assert jobs["unit"]["strategy"]["matrix"]["python"] == promised
        assert jobs["test"]["strategy"]["matrix"]["python"] == [promised[0], promised[-1]]


class TestCodeOwners:
    GUARDED = (
        *(".github/CODEOWNERS", ".github/workflows/*.yml", ".github/*requirements.txt", "uv.lock", "pyproject.toml"),
        *("actions/*/action.yml", "actions/*/step.sh", "actions/*/requirements.txt", "jenkins/vars/*.groovy"),
        *(
            "docs/deploy/*requirements.txt",
            "docs/deploy/Dockerfile",
            "fedstep/server/auth.py",
            "fedstep/server/oidc.py",
        ),
        *("fedstep/server/identity.py", "fedstep/federation/trust.py", "fedstep/federation/ci_token.py"),
    )

    def rules(self) -> dict[str, list[str]]:
        """Return the owners by path, without the rule for everything, which may be loosened."""
        lines = (GITHUB / "CODEOWNERS").read_text(encoding="utf-8").splitlines()
        words = [line.split() for line in lines if line and not line.startswith("#")]
        return {path: owners for path, *owners in words if path != "*"}

    def test_each_rule_names_what_exists_and_an_owner(self) -> None:
        """GitHub ignores a rule for a path that was renamed, and one without an owner takes the review away."""
        for path, owners in self.rules().items():
            named = ROOT / path.removeprefix("/")
            assert path.startswith("/"), f"{path} matches at any depth"
            assert named.is_dir() if path.endswith("/") else named.is_file(), path
            assert owners, path

    @pytest.mark.parametrize("glob", GUARDED)
    def test_what_installs_publishes_or_authenticates_is_there(self, glob: str) -> None:
        """Workflows, lock files with hashes, the actions, and what decides about tokens, each by a rule of its own."""
        names = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob(glob)]
        folders = tuple(path for path in self.rules() if path.endswith("/"))
        assert names
        assert [name for name in names if name not in self.rules() and not name.startswith(folders)] == []


class TestLinks:
    @pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
    def test_lead_to_files_that_exist(self, page: str) -> None:
        """The pages of docs/ are checked by the site's strict build."""
        targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
        assert [target for target in targets if not (ROOT / target).exists()] == []


class TestChangelog:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_has_a_section_for_this_version_below_the_unreleased_one(self) -> None:
        assert re.findall(r"^## \[(.+?)\]", self.text, re.M)[:2] == ["Unreleased", __version__]

    def test_sections_have_the_names_of_keep_a_changelog(self) -> None:
        known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        assert set(re.findall(r"^### (.+)$", self.text, re.M)) <= known

    def test_every_version_links_to_its_changes(self) -> None:
        for version in re.findall(r"^## \[(.+?)\]", self.text, re.M):
            assert f"\n[{version}]: https://" in self.text
