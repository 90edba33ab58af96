"""How the actions come to a fedstep: from an index or a folder, with uv or pip, once, then from the cache."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LOOP = HERE / "workflows" / "loop.yml"
EXAMPLE = HERE / "examples" / "github.yml"
PACKAGE = "fedstep==0.1.0"  # without scikit-learn, which takes longer to install than all these tests
DEAD = "http://127.0.0.1:9"
NEITHER = {"PACKAGE": "fedstep==99", "FIND_LINKS": "no such folder"}


@pytest.fixture(scope="session")
def wheelhouse(wheels):
    """A folder with the wheels of this checkout and of all that it needs, as for a runner without internet."""
    folder = wheels["PIP_FIND_LINKS"].split()[0]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--find-links", folder, "--wheel-dir", folder, PACKAGE]
    subprocess.run(command, check=True, timeout=300)
    return folder


def one(act, **given):
    return act(LOOP, "--matrix", "cell:one", REPORTS="report.xml", **given)


def environments(tmp_path):
    return sorted(path.stem for path in (tmp_path / "cache").glob("*/*/fedstep-environment-*.tar"))


def forget_tools(tmp_path):
    """Make the machine a new one, as each job of a hosted runner has it."""
    (tools,) = tmp_path.glob("**/fedstep/environment-*")
    shutil.rmtree(tools)


class TestInstallation:
    @pytest.mark.full
    @pytest.mark.parametrize("without", ["", "uv"], ids=["uv", "pip"])
    def test_installs_once_without_an_index_then_from_the_cache(self, act, wheelhouse, tmp_path, without):
        """It installs once from a folder without an index and then comes from the cache."""
        nowhere = {"PIP_INDEX_URL": DEAD, "UV_DEFAULT_INDEX": DEAD}
        given = {"PACKAGE": PACKAGE, "FIND_LINKS": wheelhouse, "without": without, **nowhere}
        first = one(act, **given, GITHUB_RUN_ID="1")
        assert first.code == 0, first.log
        assert first.log.count("::group::Install") == 1, "train uses what predict installed"
        assert len(environments(tmp_path)) == 1
        forget_tools(tmp_path)
        second = one(act, **given, GITHUB_RUN_ID="2")
        assert second.code == 0, second.log
        assert "::group::Install" not in second.log
        assert second.log.count("restored from key: fedstep-environment-") == 1, "train finds what predict restored"
        assert "; 1 build and " in second.summary(), "the history came from the cache, too"

    def test_the_example_of_the_documentation_installs_and_runs(self, act, repository, wheels, tmp_path):
        """As it stands, but for the package."""
        light = tmp_path / "github.yml"
        text = EXAMPLE.read_text().replace("junit:", f"package: {PACKAGE}\n          junit:")
        light.write_text(text.replace("predict@v1\n", f"predict@v1\n        with:\n          package: {PACKAGE}\n"))
        for name in ("click.py", "fedstep.py"):
            (repository / name).write_text("raise SystemExit('the project stands in for our modules')\n")
        for command in (
            ["add", "-A"],
            ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "Shadow"],
        ):
            subprocess.run(["git", "-C", str(repository), *command], check=True, timeout=20)
        links = {"UV_FIND_LINKS": wheels["PIP_FIND_LINKS"].split()[0]}
        variables = {**wheels, **links, "PYTHONPATH": ".", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = act(light, "--var", f"FEDSTEP_AGGREGATOR={DEAD}", **variables)
        assert run.code == 0, run.log
        assert "pip install 'fedstep[train]'" in run.log
        assert run.log.count("::group::Install") == 1, "train uses what predict installed"
        assert "Based on" in run.log
        assert "the project stands in" not in run.log

    @pytest.mark.full
    def test_fedstep_of_the_runner_is_used_where_none_installs(self, act):
        """Where nothing can be installed, the fedstep of the runner is used and named."""
        run = one(act, **NEITHER)
        assert run.code == 0, run.log
        assert run.outputs("train")["status"] == "local"
        (first, second) = [text for text in run.obeyed("notice") if "could not be installed" in text]
        assert first == second
        assert first.startswith("fedstep==99 could not be installed; fedstep, version")

    def test_failed_installation_fails_the_build_only_if_strict(self, act, tmp_path):
        """An installation that fails is one warning and fails the build only if strict."""
        polite = one(act, **NEITHER, without="fedstep")
        assert polite.code == 0, polite.log
        assert polite.outputs("train")["status"] == polite.outputs("predict")["status"] == "degraded"
        assert len(polite.obeyed("warning")) == 2, "one of predict, one of train"
        assert polite.log.count("::group::Install") == 1, "train does not wait for the same index again"
        assert all("could not be installed" in text for text in polite.obeyed("warning"))
        assert environments(tmp_path) == []
        strict = one(act, **NEITHER, without="fedstep", STRICT="true", PYTHON="/no/such/python")
        assert strict.code == 1
        assert strict.outputs("train")["status"] == "degraded"

    @pytest.mark.full
    def test_changeable_package_is_installed_for_each_job(self, act, wheelhouse, repository, tmp_path):
        """What may change without a new version is installed for each job."""
        shutil.copytree(wheelhouse, repository / "wheels")
        for run_id in ("1", "2"):
            run = one(act, PACKAGE="fedstep", FIND_LINKS="wheels", without="fedstep", GITHUB_RUN_ID=run_id)
            assert run.code == 0, run.log
            assert run.log.count("::group::Install") == 1, run.log
            assert "could not be installed" not in run.log
        assert environments(tmp_path) == []


class TestHashes:
    @pytest.fixture
    def step(self, wheels, tmp_path, repository):
        """A function that runs the predict step with these hashes, by pip; the wheel is of this checkout."""
        action, output = tmp_path / "action", tmp_path / "output"
        shutil.copytree(ROOT / "actions/predict", action)

        def run(locked: str) -> tuple[str, str]:
            (action / "requirements.txt").write_text(locked)
            given = {
                "WITH_PACKAGE": PACKAGE,
                "WITH_FIND_LINKS": "",
                "WITH_COMMAND": "",
                "WITH_PYTHON": sys.executable,
                "WITH_ENVIRONMENT": str(tmp_path / "environment"),
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_OUTPUT": str(output),
                "FEDSTEP_STRICT": "false",
                "FEDSTEP_CI_CELL": "",
                "FEDSTEP_HISTORY": ".fedstep",
                "PATH": "/usr/bin:/bin",
                "HOME": str(tmp_path),
            }
            command = ["bash", str(action / "step.sh"), "predict"]
            done = subprocess.run(
                command, cwd=repository, env={**wheels, **given}, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stderr
            return output.read_text(), done.stdout + done.stderr

        return run

    @pytest.mark.full
    def test_what_the_action_names_is_installed(self, step):
        written, _ = step((ROOT / "actions/predict/requirements.txt").read_text())
        assert "installed=true" in written
        assert "degraded" not in written

    @pytest.mark.parametrize("replaced", [pytest.param("click", marks=pytest.mark.full), "fedstep"])
    def test_file_with_another_hash_is_refused(self, step, replaced: str):
        """An index that has another file under the same version, of a dependency or of fedstep itself."""
        locked = (ROOT / "actions/predict/requirements.txt").read_text() + f"{PACKAGE} "
        other = rf"\1 \\\n    --hash=sha256:{'0' * 64}\n"
        locked = re.sub(rf"(?s)(\n{replaced}==\S+) .*?(?=\n\w|$)", other, locked)
        written, log = step(locked)
        assert "status=degraded" in written
        assert "DO NOT MATCH THE HASHES" in log
        assert "could not be installed" in log
