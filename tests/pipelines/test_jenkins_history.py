"""Where the history lives between builds: archived artifacts, a ref of the repository."""

import json
import shutil
import subprocess
import tarfile

import pytest

from tests.helpers.jenkins import controller, predict, recording, talk, train


@pytest.fixture
def jenkins(repository, tmp_path):
    return controller(tmp_path, repository)


@pytest.fixture
def recorder(tmp_path):
    return recording(tmp_path)


def builds(folder):
    return {path.name for path in (folder / ".fedstep" / "builds").iterdir()}


def archived(folder, build, name="history.tgz"):
    with tarfile.open(folder / "archives" / str(build) / "fedstep-archive" / name) as archive:
        return {path.rpartition("/")[2] for path in archive.getnames() if "/builds/" in path}


class TestArchive:
    def test_artifacts_carry_the_history_from_agent_to_agent(self, jenkins, fedstep, repository, tmp_path):
        """Archived artifacts carry the history from agent to agent."""
        other = tmp_path / "elsewhere"
        shutil.copytree(repository, other)
        given = {"command": fedstep, "junit": "report.xml", "history": "archive", "describe": False}
        first, predicted, second, third = jenkins(
            train(**given),
            predict(command=fedstep, history="archive") | {"workspace": str(other)},
            train(**given) | {"workspace": str(other)},
            train(**given),
        )
        for result in (first, second, third):
            assert result["returned"]["status"] == "local", talk(result)
            assert "WARNING" not in talk(result)
        assert "1 build and 3 tests known" in talk(predicted)
        assert [len(archived(tmp_path, build)) for build in (1, 3, 4)] == [1, 2, 3]
        assert builds(repository) == archived(tmp_path, 4), "the agent that was away has caught up"
        assert (repository / ".fedstep/key").read_text() == (other / ".fedstep/key").read_text()
        assert "1 builds added" in talk(third)
        for place in (repository, other):
            assert not (place / "fedstep-archive").exists(), "nothing is left in the workspace"

    def test_archive_of_the_checkout_is_not_taken(self, jenkins, recorder, repository):
        """A change that commits one could plant updates, which would be sent: git tracks no file of theirs."""
        planted = repository / "planted"
        (planted / "outbox").mkdir(parents=True)
        (planted / "outbox" / "evil").write_text("an update")
        (repository / "fedstep-archive").mkdir()
        with tarfile.open(repository / "fedstep-archive" / "history.tgz", "w:gz") as archive:
            archive.add(planted, ".")
        jenkins(predict(command=recorder, history="archive"), train(command=recorder, history="archive"))
        assert not (repository / ".fedstep").exists()

    def test_builds_without_an_archive_are_passed_over(self, jenkins, recorder, tmp_path):
        """Builds without an archive are passed over, and the first build needs none."""
        filled = {"environment": {"DO": "mkdir -p .fedstep && echo secret >.fedstep/key"}}
        first, _aborted, third = jenkins(
            train(command=recorder, history="archive") | filled,
            train(command=recorder, history="archive") | {"result": "ABORTED"},
            predict(command=recorder, history="archive"),
        )
        assert first["returned"]["status"] == third["returned"]["status"] == "ok"
        assert not [said for said in first["told"] if "copied" in said]
        assert [said["copied"]["selector"] for said in third["told"] if "copied" in said] == ["2", "1"]
        assert {said["copied"]["projectName"] for said in third["told"] if "copied" in said} == {"/shop/main"}
        assert not (tmp_path / "archives" / "2").exists()

    def test_each_cell_has_an_archive_of_its_own(self, jenkins, recorder, tmp_path):
        filled = {"environment": {"DO": "mkdir -p .fedstep && echo secret >.fedstep/key"}}
        jenkins(train(command=recorder, history="archive", cell="../jdk 21|$x") | filled)
        assert [path.name for path in (tmp_path / "archives/1/fedstep-archive").iterdir()] == [
            "history-..-jdk-21-x.tgz"
        ]

    @pytest.mark.parametrize(
        ("lacks", "said"),
        [
            ({"plugins": ["git"]}, "needs the Copy Artifact plugin"),
            ({"mayNotCopy": True}, "Unable to find project for artifact copy: /shop/main"),
        ],
    )
    def test_unreadable_archive_fails_only_the_strict(self, jenkins, recorder, lacks, said):
        """An archive that cannot be copied costs a message and fails only the strict."""
        later = {"environment": {"BUILD_NUMBER": "7"}}
        polite, strict = jenkins(
            predict(command=recorder, history="archive") | lacks | later,
            predict(command=recorder, history="archive", strict=True) | lacks | later,
        )
        assert polite["returned"]["status"] == "ok", "the history of the workspace serves"
        assert polite["result"] == "SUCCESS"
        assert said in talk(polite)
        assert said in strict["error"]["message"]

    @pytest.mark.full
    def test_a_broken_archive_is_left_out_and_replaced(self, jenkins, fedstep, repository, tmp_path):
        place = tmp_path / "archives" / "6" / "fedstep-archive"
        place.mkdir(parents=True)
        (place / "history.tgz").write_bytes(b"\x1f\x8b no archive")
        (result,) = jenkins(
            train(command=fedstep, junit="report.xml", history="archive") | {"environment": {"BUILD_NUMBER": "7"}}
        )
        assert result["returned"]["status"] == "local"
        assert "WARNING: the archived history was left out" in talk(result)
        assert archived(tmp_path, 7) == builds(repository)


class TestGit:
    def test_git_credentials_reach_the_script(self, jenkins, recorder, tmp_path):
        """Git credentials reach the script as Jenkins hands them over."""
        (result,) = jenkins(
            predict(command=recorder, history="git", gitCredentialsId="bot") | {"credentials": {"bot": "/the/askpass"}}
        )
        assert result["returned"]["status"] == "ok"
        environment = (tmp_path / "environment").read_text().splitlines()
        assert "GIT_ASKPASS=/the/askpass" in environment
        assert "FEDSTEP_HISTORY=git" in environment

    @pytest.mark.full
    def test_history_in_git_is_shared_by_separate_workspaces(self, jenkins, fedstep, repository, tmp_path):
        """A history in Git is shared by workspaces that know nothing of each other."""

        def git(*words, cwd=tmp_path):
            subprocess.run(["git", "-c", "protocol.file.allow=always", *words], cwd=cwd, check=True, timeout=60)

        git("clone", "-q", "--bare", str(repository), "origin.git")
        git("remote", "set-url", "origin", str(tmp_path / "origin.git"), cwd=repository)
        git("clone", "-q", "origin.git", "other")
        first, predicted = jenkins(
            train(command=fedstep, junit="report.xml", history="git"),
            predict(command=fedstep, history="git") | {"workspace": str(tmp_path / "other")},
        )
        assert first["returned"]["status"] == predicted["returned"]["status"] == "local", talk(first)
        assert "1 build and 3 tests known" in talk(predicted)
        assert json.loads(predicted["returned"]["flaky-tests"]) is not None
        assert not (tmp_path / "other" / ".fedstep").exists()
