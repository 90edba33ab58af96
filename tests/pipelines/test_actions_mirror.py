"""The script with which a workflow mirrors an action, against real bare repositories."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from fedstep import __version__

ROOT = Path(__file__).parent.parent.parent
SHA256 = "5e" * 32


@pytest.fixture
def remote(tmp_path):
    return bare(tmp_path / "train.git")


def bare(folder):
    git("init", "-q", "--bare", "-b", "main", folder)
    return folder


def git(*words):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def mirrored(remote, tag, folder="actions/train"):
    command = ["bash", ".github/mirror.sh", folder, remote.as_uri(), tag, "v1"]
    env = {**os.environ, "SHA256": SHA256}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def files(remote, ref):
    return git("-C", remote, "ls-tree", "-r", "--name-only", ref).split()


class TestMirror:
    def test_the_mirror_has_the_action_at_its_root_and_v1_moves(self, remote):
        first = mirrored(remote, "v1.0.0")
        assert first.returncode == 0, first.stderr
        assert files(remote, "v1") == ["LICENSE", "action.yml", "requirements.txt", "step.sh"]
        assert git("-C", remote, "show", "v1:step.sh") == (ROOT / "actions/train/step.sh").read_text()
        before = git("-C", remote, "rev-parse", "v1")
        second = mirrored(remote, "v1.0.1", "actions/predict")
        assert second.returncode == 0, second.stderr
        assert git("-C", remote, "show", "v1:action.yml") == (ROOT / "actions/predict/action.yml").read_text()
        assert git("-C", remote, "rev-parse", "v1.0.0") == before, "a version stays what it was"
        assert git("-C", remote, "rev-list", "--count", "main").strip() == "2"

    def test_the_mirror_has_the_hash_of_the_wheel(self, remote):
        """The hash is known once the version is built; that of each dependency is in the repository."""
        assert mirrored(remote, "v1.0.0").returncode == 0
        ours = (ROOT / "actions/train/requirements.txt").read_text()
        expected = f"fedstep[train]=={__version__} \\\n    --hash=sha256:{SHA256}\n"
        assert git("-C", remote, "show", "v1:requirements.txt") == ours + expected

    def test_the_token_is_of_an_hour_and_of_one_repository(self):
        """The one secret is the key of an app, which no command gets."""
        text = (ROOT / ".github/workflows/mirror.yml").read_text()
        steps = yaml.safe_load(text)["jobs"]["mirror"]["steps"]
        (token,) = [step for step in steps if "create-github-app-token@" in step.get("uses", "")]
        assert token["with"]["repositories"] == "${{ matrix.action }}"
        assert [name for name in token["with"] if name.startswith("permission-")] == ["permission-contents"]
        assert re.findall(r"secrets\.(\w+)", text) == ["MIRROR_KEY"]
        assert steps[-1]["env"]["TOKEN"] == "${{ steps.app.outputs.token }}"

    def test_what_an_action_has_no_more_leaves_the_mirror(self, remote, tmp_path):
        old = tmp_path / "old"
        old.mkdir()
        (old / "gone.sh").write_text("exit\n")
        assert mirrored(remote, "v1.0.0", str(old)).returncode == 0
        assert mirrored(remote, "v1.0.1").returncode == 0
        assert "gone.sh" not in files(remote, "main")

    def test_a_version_is_published_once(self, remote):
        assert mirrored(remote, "v1.0.0").returncode == 0
        before = git("-C", remote, "for-each-ref")
        again = mirrored(remote, "v1.0.0", "actions/predict")
        assert again.returncode != 0
        assert "already exists" in again.stderr
        assert git("-C", remote, "for-each-ref") == before

    def test_action_is_mirrored_when_its_packages_are_of_the_tag(self):
        """Every folder of actions is mirrored when its packages are of the tag."""
        workflow = yaml.safe_load((ROOT / ".github/workflows/mirror.yml").read_text())["jobs"]["mirror"]
        assert sorted(workflow["strategy"]["matrix"]["action"]) == sorted(
            path.name for path in (ROOT / "actions").iterdir() if path.name != "common"
        )
        (check,) = [step["run"] for step in workflow["steps"] if "grep" in step.get("run", "")]
        for folder in (path for path in (ROOT / "actions").iterdir() if path.name != "common"):
            for tag, code in ((f"v{__version__}", 0), ("v99.0.0", 1)):
                env = {"PATH": os.environ["PATH"], "ACTION": folder.name, "TAG": tag}
                assert subprocess.run(["bash", "-ec", check], cwd=ROOT, env=env, capture_output=True).returncode == code


class TestGitLabComponent:
    def test_component_has_the_commands_of_the_documentation(self, tmp_path):
        """A GitLab gets the component with the commands of the documentation."""
        github, ours = bare(tmp_path / "gitlab.git"), bare(tmp_path / "ours.git")
        (commands,) = re.findall(
            r"^```sh\n(git clone .*?)^```", (ROOT / "docs/how-to/gitlab.md").read_text(), re.M | re.S
        )
        for address, folder in (("https://github.com", github), ("https://gitlab.example.org", ours)):
            commands = commands.replace(f"{address}/fedstep/gitlab.git", folder.as_uri())
        for version in ("v1.0.0", "v1.1.0"):
            assert mirrored(github, version, "actions/gitlab").returncode == 0
            work = tmp_path / version
            work.mkdir()
            subprocess.run(["sh", "-ec", commands], cwd=work, check=True, capture_output=True, timeout=60)
            assert version in git("-C", ours, "tag", "--points-at", "v1").split(), "v1 moves with each version"
        assert (
            git("-C", ours, "show", "v1:templates/train.yml")
            == (ROOT / "actions/gitlab/templates/train.yml").read_text()
        )
