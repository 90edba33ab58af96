"""The script with which a workflow mirrors an action, against real bare repositories."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def remote(tmp_path):
    folder = tmp_path / "train.git"
    git("init", "-q", "--bare", "-b", "main", folder)
    return folder


def git(*words):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def mirrored(remote, tag, folder="actions/train"):
    command = ["bash", ".github/mirror.sh", folder, remote.as_uri(), tag, "v1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def files(remote, ref):
    return git("-C", remote, "ls-tree", "-r", "--name-only", ref).split()


def test_the_mirror_has_the_action_at_its_root_and_v1_moves(remote):
    first = mirrored(remote, "v1.0.0")
    assert first.returncode == 0, first.stderr
    assert files(remote, "v1") == ["LICENSE", "action.yml", "step.sh"]
    assert git("-C", remote, "show", "v1:step.sh") == (ROOT / "actions/train/step.sh").read_text()
    before = git("-C", remote, "rev-parse", "v1")
    second = mirrored(remote, "v1.0.1", "actions/predict")
    assert second.returncode == 0, second.stderr
    assert git("-C", remote, "show", "v1:action.yml") == (ROOT / "actions/predict/action.yml").read_text()
    assert git("-C", remote, "rev-parse", "v1.0.0") == before, "a version stays what it was"
    assert git("-C", remote, "rev-list", "--count", "main").strip() == "2"


def test_what_an_action_has_no_more_leaves_the_mirror(remote, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "gone.sh").write_text("exit\n")
    assert mirrored(remote, "v1.0.0", str(old)).returncode == 0
    assert mirrored(remote, "v1.0.1").returncode == 0
    assert "gone.sh" not in files(remote, "main")


def test_a_version_is_published_once(remote):
    assert mirrored(remote, "v1.0.0").returncode == 0
    before = git("-C", remote, "for-each-ref")
    again = mirrored(remote, "v1.0.0", "actions/predict")
    assert again.returncode != 0
    assert "already exists" in again.stderr
    assert git("-C", remote, "for-each-ref") == before
