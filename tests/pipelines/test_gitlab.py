"""The GitLab component: valid, and its scripts run by the shells that GitLab's runners use."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from fedstep import __version__
from fedstep.report.ci_outputs import KEYS
from tests.helpers.gitlab import SHELLS, TEMPLATES, InputRefused, Job, component, gitlab_variables, pipeline, run_job
from tests.helpers.lifetime import bound
from tests.helpers.narrow import present

HERE = Path(__file__).parent
EXAMPLE, PREDICT, VERDICT = (HERE / "examples" / f"gitlab{part}.yml" for part in ("", "-predict", "-verdict"))
SHARDS = HERE / "examples" / "gitlab-shards.yml"
DEAD = "http://127.0.0.1:9"
DASH_FIRST = ("dash", pytest.param("bash", marks=pytest.mark.full))
BASH_FIRST = ("bash", pytest.param("dash", marks=pytest.mark.full))
FAILS = "def test_waits():\n    assert False\n"


@pytest.fixture
def issuer() -> Iterator[tuple[str, Callable[[str], str]]]:
    """The URL of a GitLab that signs ID tokens, and what signs one for an audience."""
    key = rsa.generate_private_key(65537, 2048)
    public = {"kid": "one", "use": "sig", **json.loads(RSAAlgorithm.to_jwk(key.public_key()))}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            about = {"issuer": url, "jwks_uri": f"{url}/keys"}
            body = json.dumps({"keys": [public]} if self.path == "/keys" else about).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def sign(audience: str) -> str:
        now = int(time.time())
        claims = {
            "iss": url,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "sub": "project_path:acme/shop",
        }
        whose = {"project_id": "42", "namespace_id": "7", "project_path": "acme/shop", "user_login": "ada"}
        return jwt.encode({**claims, **whose}, key, "RS256", {"kid": "one"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield url, sign
    server.shutdown()
    server.server_close()


@pytest.fixture
def shop(repository: Path) -> Path:
    """The repository without its reports: the job itself writes them."""
    commit(repository, "rm", "-q", "-r", "*.xml")
    return repository


def commit(folder: Path, *words: str) -> None:
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(folder))
    for command in (words, ("commit", "-q", "-m", "Change")):
        subprocess.run([*git, *command], check=True, timeout=20)


@pytest.fixture
def run(shop: Path, fedstep: str) -> Callable[..., Job]:
    """Runs the job `test` of a file; keyword arguments are variables of the project."""
    numbers = iter(range(1, 100))

    def go(text: str, shell: str = "bash", sign: object = None, job: str = "test", **variables: str) -> Job:
        began = datetime.fromtimestamp(time.time() - 90, UTC).isoformat()
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        given = {"FEDSTEP_WITH_COMMAND": fedstep, "PATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
        env = gitlab_variables(shop, next(numbers), began, **given)
        return run_job(pipeline(text)[job], shop, env, SHELLS[shell], sign)

    return go


@contextmanager
def serving(folder: Path, issuer: str) -> Iterator[str]:
    """The URL of an aggregator, which is the audience of its tokens too, that lets in this GitLab's jobs alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    trust = ("--oidc", f"corp={issuer},like=gitlab", "--allow", "corp:acme/*", "--audience", url, "--private-model")
    command = bound(
        sys.executable, "-P", "-m", "fedstep", "serve", "--port", url.rpartition(":")[2], "--from-zero", *trust
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP")}
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            log = present(process.stderr)
            said = next((line for line in log if "aggregator on " in line), "")
            assert said, "the aggregator did not start"
            threading.Thread(target=log.readlines, daemon=True).start()
            yield url
        finally:
            process.terminate()
            process.wait(20)


def warnings(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith(("fedstep: ", "WARNING: "))]


def dotenv(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "fedstep.env").read_text().splitlines())


class TestJobs:
    @pytest.mark.parametrize("shell", DASH_FIRST)
    def test_the_example_predicts_tests_learns_and_reports(self, run, shop, issuer, tmp_path, shell):
        """The first two with a token of the job, against an aggregator that lets in nobody else."""
        url, sign = issuer
        with serving(tmp_path, url) as aggregator:
            text = EXAMPLE.read_text().replace("junit:", f"aggregator: {aggregator}\n      junit:")
            first = run(text, shell, sign)
            assert (first.code, warnings(first.after)) == (0, []), first.log + first.after
            (shop / "test_shop.py").write_text(FAILS)
            commit(shop, "add", "test_shop.py")
            second = run(text, shell, sign)
        assert second.code != 0, "the job's own failure stands"
        assert "1 failed" in second.log
        assert warnings(second.log) == warnings(second.after) == []
        assert re.search(r"Build +failed", second.after), second.after
        told = dotenv(shop)
        assert told["FEDSTEP_STATUS"] == "ok"
        assert set(told) <= {f"FEDSTEP_{key.upper().replace('-', '_')}" for key in KEYS}
        (entry,) = json.loads((shop / "fedstep-code-quality.json").read_text())
        assert entry["location"]["path"] == "test_shop.py"
        assert "test_waits" in entry["description"]
        assert len(list((shop / ".fedstep" / "builds").iterdir())) == 2
        assert "passed; 1 min" in first.after, "the job is timed from CI_JOB_STARTED_AT"

    @pytest.mark.parametrize("shell", BASH_FIRST)
    def test_dead_aggregator_is_one_warning_and_changes_no_job(self, run, shop, shell):
        """A dead aggregator is one warning, and the job ends as its tests did."""
        job = run(EXAMPLE.read_text(), shell, FEDSTEP_AGGREGATOR=DEAD, FEDSTEP_TIMEOUT="1")
        assert job.code == 0, job.log
        assert "1 passed" in job.log
        (warning,) = warnings(job.after)
        assert DEAD in warning
        assert dotenv(shop)["FEDSTEP_STATUS"] == "degraded"

    def test_nothing_of_the_step_stays_in_the_shell_of_the_script(self, run):
        text = (
            "include: [{component: x/train@1}]\ntest: {extends: .fedstep, script: ['echo $-', 'echo "
            "${end-no}${venv-no}']}"
        )
        job = run(text, "dash", FEDSTEP_WITH_COMMAND="/bin/true")
        assert job.log.splitlines() == ["e", "nono"]

    @pytest.mark.parametrize("shell", DASH_FIRST)
    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"FEDSTEP_WITH_COMMAND": "", "FEDSTEP_WITH_PYTHON": "/no/such/python"}, "could not be installed"),
            ({"FEDSTEP_WITH_COMMAND": "/no/such/fedstep"}, "did not finish"),
            ({"FEDSTEP_WITH_COMMAND": "/bin/sleep", "FEDSTEP_WITH_SECONDS": "1"}, "did not finish"),
            ({"FEDSTEP_KEEP": "many"}, "did not finish"),
        ],
        ids=["no Python", "no fedstep", "no end", "a usage error"],
    )
    def test_failing_step_says_so_and_the_tests_run(self, run, given, reason, shell, shop):
        """A step that fails says so, and the tests run all the same."""
        if given.get("FEDSTEP_WITH_COMMAND") == "/bin/sleep":
            (shop / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
            (shop / "slow").chmod(0o755)
            given = {**given, "FEDSTEP_WITH_COMMAND": str(shop / "slow")}
        job = run(EXAMPLE.read_text(), shell, **given)
        assert job.code == 0, job.log
        assert "1 passed" in job.log
        told = [line for line in job.after.splitlines() if line.startswith("WARNING: ")]
        assert len(told) == 1
        assert reason in told[0]

    @pytest.mark.parametrize("status", ["canceled", pytest.param("timedout", marks=pytest.mark.full)])
    def test_a_job_without_an_end_teaches_nothing(self, run, shop, status):
        job = run(EXAMPLE.read_text(), CI_JOB_STATUS=status)
        assert f"the job is {status}" in job.after
        assert not (shop / ".fedstep" / "builds").exists()

    def test_what_an_earlier_job_left_is_not_reported_again(self, run, shop):
        (shop / "fedstep.env").write_text("FEDSTEP_STATUS=ok\n")
        run(EXAMPLE.read_text(), CI_JOB_STATUS="canceled")
        assert not (shop / "fedstep.env").exists()

    @pytest.mark.full
    def test_the_predicting_job_hands_on_what_to_expect_of_the_other(self, run, shop):
        for _ in range(3):
            run(EXAMPLE.read_text(), FEDSTEP_AGGREGATOR="")
        job = run(PREDICT.read_text(), job="fedstep-predict", CI_JOB_NAME="fedstep-predict")
        assert job.code == 0, job.log
        assert 60 < float(dotenv(shop)["FEDSTEP_ETA_SECONDS"]) < 120, job.log
        estimate = run(PREDICT.read_text(), job="estimate", **dotenv(shop))
        assert re.search(r"about \d+\.\d seconds", estimate.log)


class TestVerdict:
    @pytest.mark.parametrize("shell", DASH_FIRST)
    def test_quarantined_failures_alone_do_not_fail_the_job(self, run, shop, shell, fedstep):
        """The job of the page, whose test fails: not forgiven, then quarantined; and without any report."""
        (shop / "test_shop.py").write_text(FAILS)
        text = VERDICT.read_text()
        failed = run(text, shell)
        assert failed.code == 1
        assert "1 failure not forgiven" in failed.log
        assert "WARNING" not in failed.log, "a verdict is no fault"
        assert (shop / "report.xml").exists(), "the failed tests did not end the script"
        add = [fedstep, "quarantine", "add", "test_shop#test_waits", "--owner", "ada", "--reason", "#123"]
        subprocess.run(add, cwd=shop, check=True, timeout=60)
        passed = run(text, shell)
        assert passed.code == 0, passed.log
        assert re.search(r"Forgiven +test_shop#test_waits", passed.log)
        assert len(list((shop / ".fedstep" / "builds").iterdir())) == 2, "both are learned from"
        (shop / "report.xml").unlink()
        unread = run(text.replace("--junit-xml=report.xml", "--co"), shell)
        assert unread.code == 1
        assert "no test report was read" in unread.log

    @pytest.mark.parametrize(
        "given",
        [
            {"FEDSTEP_WITH_COMMAND": "", "FEDSTEP_WITH_PYTHON": "/no/such/python"},
            {"FEDSTEP_WITH_COMMAND": "/no/such/fedstep"},
            {"FEDSTEP_FORGIVE_ABOVE": "many"},
        ],
    )
    def test_job_without_a_verdict_fails(self, run, given):
        """A gate that could not decide is closed, and says why."""
        job = run(VERDICT.read_text(), **given)
        assert job.code == 1
        assert "1 passed" in job.log
        assert "WARNING: fedstep" in job.log.partition("1 passed")[2]

    def test_forgive_above_is_an_input(self, run, shop):
        (shop / "test_shop.py").write_text(FAILS)
        text = VERDICT.read_text().replace("junit: report.xml", 'junit: report.xml\n      forgive_above: "0.01"')
        job = run(text)
        assert job.code == 0, job.log
        assert re.search(r"Forgiven +test_shop#test_waits", job.log)


class TestInputs:
    def test_values_of_inputs_and_variables_are_never_code(self, run, shop):
        evil = '"$(touch${IFS}pwned)`touch${IFS}pwned`";touch${IFS}pwned;#'
        text = yaml.dump({
            "include": [{"component": "x/train@1", "inputs": {"junit": evil, "aggregator": evil, "package": evil}}],
            "test": {"extends": ".fedstep", "script": ["true"]},
        })  # fmt: skip
        for more in ({}, {"FEDSTEP_WITH_COMMAND": "", "FEDSTEP_WITH_PYTHON": evil}):
            assert run(text, **more).code == 0
        assert not (shop / "pwned").exists()

    @pytest.mark.parametrize(
        "inputs", [{"junit": "a b.xml"}, {"history": "elsewhere"}, {"as": "fedstep"}, {"budget": "30"}, {"jnuit": "x"}]
    )
    def test_unusable_input_is_refused_before_anything_runs(self, inputs):
        """An input that cannot work is refused before anything runs."""
        with pytest.raises(InputRefused):
            component("train", inputs)


def lint(tool: Callable[[str], str], *files: Path) -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


class TestDocuments:
    @pytest.mark.parametrize("name", ["train", "predict"])
    def test_both_documents_of_a_component_are_valid(self, name, tool, tmp_path):
        header, body = (TEMPLATES / f"{name}.yml").read_text().split("\n---\n")
        files = [tmp_path / "header.yml", tmp_path / "body.yml"]
        for file, text in zip(files, (header, body), strict=True):
            file.write_text(text)
        lint(tool, *files)
        (tmp_path / "resolved.yml").write_text(yaml.dump(component(name, {})))
        lint(tool, tmp_path / "resolved.yml")

    def test_the_examples_are_valid(self, tool):
        lint(tool, EXAMPLE, PREDICT, VERDICT, SHARDS)

    def test_both_components_carry_the_same_step_and_version(self):
        """Both components carry the same step and install their own version."""
        texts = [(TEMPLATES / f"{name}.yml").read_text() for name in ("train", "predict")]
        steps = [re.findall(r"      fedstep_step\(\) \(\n.*?\n      \)\n", text, re.DOTALL) for text in texts]
        assert steps[0] == steps[1]
        assert len(steps[0]) == 1
        assert all(f"=={__version__}\n" in text for text in texts)

    def test_every_input_is_described_and_used(self):
        for name in ("train", "predict"):
            body = (TEMPLATES / f"{name}.yml").read_text().split("\n---\n")[1]
            declared = component_inputs(name)
            assert all(about["description"] for about in declared.values())
            assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", body)) == set(declared)

    def test_page_has_examples_and_inputs_with_their_defaults(self):
        """The page has the examples and every input with its default."""
        page = (HERE.parents[1] / "docs/how-to/gitlab.md").read_text()
        assert all(example.read_text() in page for example in (EXAMPLE, PREDICT, VERDICT))
        declared = component_inputs("train")
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
        assert list(rows) == list(declared)
        told = {name: rows[name].strip("`").replace("none", "") for name in rows if "package" not in name}
        assert told == {name: str(declared[name]["default"]) for name in told}
        assert all(
            f"`{name}`" in page.partition("## A prediction before all other jobs")[2]
            for name in component_inputs("predict")
        )


def component_inputs(name: str) -> dict[str, dict[str, object]]:
    header = next(yaml.safe_load_all((TEMPLATES / f"{name}.yml").read_text()))
    inputs: dict[str, dict[str, object]] = header["spec"]["inputs"]
    return inputs


class TestInstallation:
    @pytest.mark.full
    @pytest.mark.parametrize("shell", SHELLS)
    def test_fedstep_is_installed_beside_the_checkout(self, run, wheels, shop, shell):
        """The step installs fedstep beside the checkout and finds it again."""
        for name in ("click.py", "fedstep.py"):
            (shop / name).write_text("raise SystemExit('the project stands in for our modules')\n")
        text = EXAMPLE.read_text().replace("junit:", "package: fedstep==0.1.0\n      junit:")
        job = run(text, shell, FEDSTEP_WITH_COMMAND="", FEDSTEP_AGGREGATOR="", PYTHONPATH=".", **wheels)
        assert job.code == 0, job.log
        assert job.log.count("Installing fedstep==0.1.0") == 1
        assert "Installing fedstep[train]==0.1.0" in job.after
        assert "the project stands in" not in job.log + job.after
        assert "pip install 'fedstep[train]'" not in job.after
        shutil.rmtree(f"{shop}.fedstep")

    @pytest.mark.full
    def test_a_failed_installation_is_not_tried_again(self, run):
        """What did not install before the tests is not waited for again after them; the next job tries anew."""
        dead = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_INDEX": ""}
        for _ in range(2):
            job = run(EXAMPLE.read_text(), FEDSTEP_WITH_COMMAND="", FEDSTEP_AGGREGATOR="", **dead)
            assert job.code == 0
            assert "Installing fedstep==0.1.0" in job.log
            assert "Installing" not in job.after
            assert "fedstep could not be installed" in job.after


class TestShards:
    @pytest.fixture
    def run_all(self, run, shop):
        """A function that runs all jobs of the example with an installed fedstep; returns logs and the tests run."""

        def go(number, **variables):
            text = re.sub(r"pip install --quiet .*", "echo installed", SHARDS.read_text())
            (matrix,) = pipeline(text)["test"]["parallel"]["matrix"]
            given = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "", "CI_PIPELINE_ID": number, **variables}
            jobs = [run(text, job="plan", **given)]
            jobs += [run(text, job="test", INDEX=index, **given) for index in matrix["INDEX"]]
            jobs.append(run(text, job="learn", CI_JOB_NAME="learn", **given))
            reports = [shop / f"report-{index}.xml" for index in matrix["INDEX"]]
            names = [name for file in reports for name in re.findall(r' name="(test_\w+)"', file.read_text())]
            for file in reports:
                file.unlink()
            return jobs, names

        return go

    @pytest.mark.full
    def test_machines_divide_the_tests_and_learn_what_did_not_run(self, run_all, shop):
        """All tests run first; a merge request that chooses runs a part, and the learning job counts the rest."""
        for letter in "abcdef":
            text = "".join(f"def test_{letter}{n}():\n    pass\n" for n in range(4))
            (shop / f"test_{letter}.py").write_text(text)
        (shop / "test_shop.py").unlink()
        every = sorted(f"test_{letter}{n}" for letter in "abcdef" for n in range(4))
        jobs, names = run_all("1")
        assert [job.code for job in jobs] == [0] * 6, [job.log for job in jobs if job.code]
        assert sorted(names) == every

        merge_request = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_EVENT_TYPE": "detached"}
        jobs, names = run_all("2", **merge_request)
        assert "0 builds with a new failure are known, 20 are needed" in " ".join(jobs[0].log.split())
        assert sorted(names) == every

        jobs, names = run_all("3", FEDSTEP_SHARE="0.3")
        assert [job.code for job in jobs] == [0] * 6, "a machine without tests has not failed"
        assert 0 < len(names) == len(set(names)) < 24
        assert f"the selection left out {24 - len(names)} tests" in " ".join(jobs[-1].log.split())
