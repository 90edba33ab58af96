"""What git and a CI are like in the wild, through the command: shallow, partial, queued, owned by another user."""

import json
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, forty_tests, new_checkout

GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "1", "GITHUB_JOB": "t", "CI": "true"}
# What git does for a folder of another owner; it needs no other owner.
OTHER_OWNER = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}


def _clone(origin: Checkout, root: Path, *options: str) -> Checkout:
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("clone", "-q", *options, f"file://{origin.root}", str(root))
    return Checkout(root, {**origin.env, **GITHUB})


def _event(place: Checkout, name: str, payload: dict[str, object]) -> Checkout:
    path = place.root.parent / "event.json"
    path.write_text(json.dumps(payload))
    return place.with_env(**GITHUB, GITHUB_EVENT_NAME=name, GITHUB_EVENT_PATH=str(path))


class TestChange:
    def test_a_merge_queue_is_compared_with_its_base(self, tmp_path: Path) -> None:
        """Case 13: the base of a merge_group event, not the first parent."""
        place = new_checkout(tmp_path / "repo")
        base = place.git("rev-parse", "HEAD").strip()
        place.commit("b.txt", "1")
        place.commit("c.txt", "1")
        payload: dict[str, object] = {"merge_group": {"base_sha": base, "base_ref": "refs/heads/main"}}
        assert (
            "2 files changed against the CI's base commit" in _event(place, "merge_group", payload).run("predict").out
        )

    @pytest.mark.parametrize(
        ("options", "is_offline", "counts"),
        [
            (["--filter=blob:none"], False, False), (["--filter=blob:none"], True, False),
            (["--filter=blob:none", "--no-checkout"], True, False), (["--filter=blob:limit=1"], True, False),
            (["--filter=blob:limit=1m"], True, True), (["--filter=blob:none", "--depth=2"], True, False),
            (["--filter=blob:none", "--sparse"], True, False),
        ],
    )  # fmt: skip
    def test_a_partial_clone_tells_the_changed_files(
        self, tmp_path: Path, options: list[str], is_offline: bool, counts: bool
    ) -> None:
        """Case 12: which files changed is known without their contents, and nothing is fetched for it."""
        origin = new_checkout(tmp_path / "repo")
        origin.commit("shop/cart.py", "total = 0\n" * 9)
        place = _clone(origin, tmp_path / "clone", *options)
        if is_offline:
            origin.root.rename(tmp_path / "gone")
        ran = place.with_env(GITHUB_EVENT_NAME="push").run("predict")
        assert "1 file changed against first parent" in ran.out
        assert ("partial clone, the changed lines are not counted" in ran.err) == (not counts)

    def test_a_treeless_clone_names_what_it_lacks(self, tmp_path: Path) -> None:
        """Without trees not even the names of files are there."""
        origin = new_checkout(tmp_path / "repo")
        place = _clone(origin, tmp_path / "clone", "--filter=tree:0")
        origin.root.rename(tmp_path / "gone")
        ran = place.with_env(GITHUB_EVENT_NAME="push").run("predict")
        assert (ran.code, "Traceback" in ran.err) == (0, False)
        assert "partial clone" in ran.err

    @pytest.mark.parametrize(
        ("variables", "remedy"),
        [
            (GITHUB | {"GITHUB_EVENT_NAME": "push"}, "set fetch-depth: 0 on actions/checkout"),
            (GITHUB | {"GITHUB_EVENT_NAME": "schedule"}, "set fetch-depth: 0 on actions/checkout"),
            ({"GITLAB_CI": "true", "CI_PIPELINE_ID": "1", "CI_JOB_ID": "2"}, "set the variable GIT_DEPTH: 0"),
            ({"TF_BUILD": "True", "BUILD_BUILDID": "1"}, "set fetchDepth: 0 on the checkout step"),
            ({"TRAVIS": "true", "TRAVIS_BUILD_ID": "1"}, "set git: depth: false in .travis.yml"),
            ({"BITBUCKET_BUILD_NUMBER": "1"}, "set clone: depth: full in bitbucket-pipelines.yml"),
        ],
    )
    def test_a_clone_of_one_commit_names_the_remedy(
        self, tmp_path: Path, variables: dict[str, str], remedy: str
    ) -> None:
        """Case 11: outside of pull requests, in the words of each system."""
        origin = new_checkout(tmp_path / "repo")
        origin.commit("b.txt", "1")
        origin.git("clone", "-q", "--depth=1", f"file://{origin.root}", str(tmp_path / "clone"))
        ran = Checkout(tmp_path / "clone", {**origin.env, **variables}).run("predict")
        assert ran.code == 0
        assert remedy in ran.err

    @pytest.mark.parametrize(("depth", "files"), [(1, False), (2, True)])
    def test_a_shallow_pull_request_needs_two_commits(self, tmp_path: Path, depth: int, files: bool) -> None:
        """Case 11: what the documentation says is what the tool does."""
        origin = new_checkout(tmp_path / "repo")
        base = origin.git("rev-parse", "HEAD").strip()
        origin.git("checkout", "-q", "-b", "topic")
        origin.commit("b.txt", "1")
        origin.git("checkout", "-q", "main")
        origin.git("checkout", "-q", "--detach")
        origin.git("merge", "-q", "--no-ff", "-m", "merge", "topic")
        origin.git("update-ref", "refs/pull/1/merge", "HEAD")
        place = Checkout(tmp_path / "clone", origin.env)
        place.root.mkdir()
        place.git("init", "-q", "-b", "work", ".")
        place.git("fetch", "-q", "--no-tags", f"--depth={depth}", f"file://{origin.root}", "refs/pull/1/merge")
        place.git("checkout", "-q", "--detach", "FETCH_HEAD")
        repository = {"full_name": "o/r"}
        pull = {"number": 1, "base": {"sha": base, "repo": repository}, "head": {"repo": repository}}
        place = _event(place, "pull_request", {"pull_request": pull, "repository": repository})
        ran = place.with_env(GITHUB_BASE_REF="main", GITHUB_HEAD_REF="topic").run("predict")
        assert ("1 file changed" in ran.out) == files
        assert ("set fetch-depth: 2 on actions/checkout" in ran.err) == (not files)
        guide = (Path(__file__).parents[3] / "docs" / "how-to" / "github.md").read_text(encoding="utf-8")
        assert "`fetch-depth: 2`" in guide


class TestRemedies:
    @pytest.mark.parametrize(
        "command", [("train", "--junit", "report.xml"), ("predict",), ("history", "show"), ("doctor",), ("triage",)]
    )
    def test_a_folder_of_another_owner_is_named(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        """Case 16: the cause is the owner, not the clone, and the remedy is a safe directory."""
        place = new_checkout(tmp_path / "repo").with_env(**GITHUB, **OTHER_OWNER)
        place.report(forty_tests(1))
        ran = place.run(*command, "--history", "git")
        said = "".join((ran.out + ran.err).split())  # the doctor breaks lines
        assert "gitrefusesafolderofanotherowner" in said
        assert "gitconfig--global--addsafe.directory" in said
        assert "fsck" not in said

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("gone.xml", None, "this file does not exist"),
            ("*.trx", None, "this glob matches no file"),
            ("folder.xml", "", "this folder has no report"),
            ("r.xml", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            ("r.xml", "<html></html>", "a web page"),
            ("r.xml", "{}", "JSON"),
            ("r.xml", "", "empty"),
        ],
    )
    def test_a_report_that_is_none_is_named_with_its_cause(
        self, tmp_path: Path, name: str, content: str | None, says: str
    ) -> None:
        """Case 16: what is there, and not "no report" for everything."""
        place = new_checkout(tmp_path / "repo").with_env(**GITHUB)
        if name.startswith("folder"):
            (place.root / name).mkdir()
        elif content is not None:
            (place.root / name).write_text(content)
        for command in ("triage", "train"):
            ran = place.run(command, "--junit", name)
            assert ran.code == 0
            assert says in ran.err
            assert "Traceback" not in ran.err

    def test_a_tilde_in_the_history_is_the_home_folder(self, tmp_path: Path) -> None:
        """Nothing expands a variable of a pipeline's YAML."""
        place = new_checkout(tmp_path / "repo").with_env(FEDSTEP_HISTORY="~/fedstep-history")
        place.run("train", "--junit", place.report(forty_tests(1)))
        assert (Path(place.env["HOME"]) / "fedstep-history" / "builds").is_dir()
        assert not (place.root / "~").exists()
