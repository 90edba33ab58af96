"""The Jenkins shared library, in the Groovy that Jenkins embeds; its shell steps run for real."""

import re
import zipfile

import pytest

from fedstep import __version__
from fedstep.report.ci_outputs import KEYS
from tests.helpers.jenkins import DEAD, LIBRARY, controller, predict, recording, talk, train, triage

VERDICTS = (
    *("status", "failuresFlaky", "failuresReal", "failuresUnsure", "failuresMuted", "onlyFlaky", "incident"),
    *("verdict", "failuresForgiven", "cause", "tests"),
    *("name", "flakyProbability", "reasons", "type", "file", "line"),
)


@pytest.fixture
def jenkins(repository, tmp_path):
    return controller(tmp_path, repository)


@pytest.fixture
def recorder(tmp_path):
    return recording(tmp_path)


class TestBuilds:
    def test_one_build_after_another(self, jenkins, aggregator, fedstep, repository):
        before, first, after = jenkins(
            predict(command=fedstep),
            train(command=fedstep, junit="report.xml", aggregator=aggregator) | {"result": "UNSTABLE"},
            predict(command=fedstep),
        )
        assert before["returned"]["model-version"] == "0", talk(before)
        assert first["returned"]["status"] == "ok", talk(first)
        assert "Build         unstable" in talk(first)
        assert after["returned"]["status"] == "ok", talk(after)
        for result in (before, first, after):
            assert set(result["returned"]) == set(KEYS)
            assert all(isinstance(value, str) for value in result["returned"].values())
        assert first["returned"]["flaky-count"].isdigit()
        assert len(list((repository / ".fedstep" / "builds").iterdir())) == 1

    def test_strict_ends_with_the_exit_code_of_fedstep(self, jenkins, fedstep):
        quick = {"environment": {"FEDSTEP_TIMEOUT": "1"}}
        (result,) = jenkins(train(command=fedstep, junit=["report.xml"], aggregator=DEAD, strict=True) | quick)
        assert result["error"]["message"] == "script returned exit code 5"
        assert "127.0.0.1:9" in talk(result)

    def test_options_arrive_as_they_were_written(self, jenkins, recorder, tmp_path, repository):
        globs = ["a b/**/*.xml", '"$(touch pwned)`touch pwned`"; touch pwned #']
        given = {"command": recorder, "junit": globs, "aggregator": "$(touch pwned)", "cell": "jdk 21", "python": None}
        (result,) = jenkins(
            train(**given, credentialsId="ours") | {"credentials": {"ours": "s3 $cret"}, "started": 1767323045678}
        )
        assert result["returned"] == dict.fromkeys(KEYS, "") | {"status": "ok", "eta-seconds": "12.5"}
        assert (tmp_path / "arguments").read_text().splitlines() == ["train", "--junit", globs[0], "--junit", globs[1]]
        environment = (tmp_path / "environment").read_text().splitlines()
        for line in (
            "FEDSTEP_AGGREGATOR=$(touch pwned)",
            "FEDSTEP_CI_CELL=jdk 21",
            "FEDSTEP_CI_STARTED_AT=1767323045678",
            "FEDSTEP_HISTORY=.fedstep",
            "FEDSTEP_TOKEN=s3 $cret",
        ):
            assert line in environment
        assert not (repository / "pwned").exists()
        assert "s3" not in talk(result)
        assert not list((tmp_path / "shop@tmp").glob("fedstep.*")), "the file of the outputs is gone"

    def test_whatever_goes_wrong_the_build_goes_on_unless_strict(self, jenkins, recorder):
        def failing(**options):
            return [train(**options), train(**options, strict=True)]

        crash, no_crash, absent, no_absent, nothing, no_nothing, secret, no_secret, slow, no_slow, abort = jenkins(
            *(case | {"environment": {"DO": "exit 3"}} for case in failing(command=recorder)),
            *failing(python="/no/such/python"),
            *failing(command="/no/such/fedstep"),
            *failing(command=recorder, credentialsId="nobody's"),
            *(case | {"environment": {"DO": "exec sleep 2"}} for case in failing(command=recorder, minutes=0.01)),
            train(command=recorder) | {"abort": True},
        )
        for polite, strict, reason in (
            (crash, no_crash, "did not finish"),
            (absent, no_absent, "could not be installed"),
            (nothing, no_nothing, "fedstep train did not finish"),
            (secret, no_secret, "Could not find credentials"),
            (slow, no_slow, "took more than 0.01 minutes"),
        ):
            assert polite["returned"]["status"] == "degraded", polite
            assert len(re.findall("^(?:WARNING|ERROR)", talk(polite), re.MULTILINE)) == 1
            assert polite["result"] == "SUCCESS"
            assert reason in talk(polite)
            assert "error" in strict, strict
        assert no_crash["error"]["message"] == "script returned exit code 3"
        assert no_absent["error"]["message"] == "script returned exit code 6"
        assert crash["returned"]["eta-seconds"] == "12.5", "what was known is told"
        assert abort["error"]["type"] == "FlowInterruptedException", "a person's abort is not swallowed"

    def test_an_unknown_option_is_refused_by_name(self, jenkins):
        one, other, third = jenkins(train(jnuit="x"), predict(aggregator=DEAD), triage(junit="x", agregator="y", z=1))
        assert one["error"]["type"] == "AbortException"
        assert one["error"]["message"].startswith("fedstepTrain: jnuit is no option of it. The options are: junit, ")
        assert other["error"]["message"].startswith("fedstepPredict: aggregator is no option of it. ")
        assert third["error"]["message"].startswith("fedstepTriage: agregator, z is no option of it. ")

    def test_a_build_without_an_end_teaches_nothing(self, jenkins, recorder, tmp_path):
        aborted, failed = jenkins(*(train(command=recorder) | {"result": result} for result in ("ABORTED", "FAILURE")))
        assert aborted["returned"]["status"] == "skipped"
        assert aborted["told"] == [{"echo": "fedstep: the build is ABORTED: nothing is learned from it"}]
        assert failed["returned"]["status"] == "ok"
        assert "FEDSTEP_OUTCOME=failed\n" in (tmp_path / "environment").read_text()


class TestAgents:
    def test_windows_agent_gets_the_batch_file_and_variables(self, jenkins):
        """A Windows agent gets the batch file and the same variables."""
        glob = 'a b\\**\\*.xml" & echo pwned %PATH%'
        told = "FEDSTEP_STATUS=local\r\nFEDSTEP_ETA_LOW=3.0\r\n"
        (result,) = jenkins(train(junit=[glob]) | {"unix": False, "stdout": told})
        assert result["returned"]["status"] == "local"
        assert result["returned"]["eta-low"] == "3.0"
        (said,) = result["told"]
        text = said["bat"]["script"]
        assert said["environment"]["WITH_JUNIT_0"] == glob
        assert "pwned" not in text
        assert re.findall(r"(?<!%)%(?!RANDOM%|1!)\w+", text) == [], "only !NAME! is safe from what a value says"
        assert text.count("\n") == text.count("\r\n")

    @pytest.mark.full
    def test_the_step_installs_fedstep_beside_the_workspace(self, jenkins, wheels, repository):
        for name in ("click.py", "fedstep.py"):
            (repository / name).write_text("raise SystemExit('the project stands in for our modules')\n")
        scenario = predict(package="fedstep==0.1.0") | {"environment": wheels | {"PYTHONPATH": "."}}
        first, second = jenkins(scenario, scenario)
        for result in (first, second):
            assert result["returned"]["flaky-count"] == "0", talk(result)
            assert "the project stands in" not in talk(result)
        assert "Installing fedstep==0.1.0\n" in talk(first)
        assert "Installing fedstep==0.1.0\n" not in talk(second), "the agent keeps it"

    @pytest.mark.full
    def test_old_python_is_told_which_version_is_needed(self, jenkins, tmp_path):
        """On a Python that is too old the step says which it needs."""
        wheel = tmp_path / "fedstep-0.1.0-py3-none-any.whl"
        about = "Metadata-Version: 2.1\nName: fedstep\nVersion: 0.1.0\nRequires-Python: >=3.99\n"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("fedstep-0.1.0.dist-info/METADATA", about)
            archive.writestr(
                "fedstep-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("fedstep-0.1.0.dist-info/RECORD", "")
        nowhere = {"environment": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}}
        (result,) = jenkins(predict(package="fedstep==0.1.0") | nowhere)
        assert result["returned"]["status"] == "degraded"
        assert ">=3.99" in talk(result)
        assert "It needs Python 3.11 or newer" in talk(result)


class TestHelp:
    def test_the_help_names_every_option_and_output(self):
        for name in ("fedstepTrain", "fedstepPredict", "fedstepTriage"):
            code = (LIBRARY / "vars" / f"{name}.groovy").read_text()
            options = re.findall(r"^        (\w+) *: .*// ", code, re.MULTILINE)
            text = (LIBRARY / "vars" / f"{name}.txt").read_text()
            assert re.findall(r"<tr><td>(\w+)</td>", text) == options
            assert f"=={__version__}'" in code
            returned = VERDICTS if name == "fedstepTriage" else KEYS
            assert [key for key in returned if f"<code>{key}</code>" not in text] == []
