"""What the steps tell a pipeline and a person: verdicts, the build's description, a badge."""

import json
import re
import subprocess
import time

import pytest

from tests.helpers.jenkins import controller, predict, recording, talk, train, triage

FLAKY = {"test": "a#waits", "verdict": "flaky", "flaky_probability": 0.9, "reasons": [{"says": "it ran out of time"}]}
REAL = {"test": "b#adds", "verdict": "regression", "flaky_probability": 0.1, "reasons": []}
UNSURE = {"test": "c#x", "verdict": "unsure", "flaky_probability": 0.5, "reasons": []}


@pytest.fixture
def jenkins(repository, tmp_path):
    return controller(tmp_path, repository)


@pytest.fixture
def judge(jenkins, tmp_path):
    """A function from findings, as fedstep writes them, to what the builds came to that triaged them."""
    command = recording(tmp_path)

    def judged(*findings, options=(), **more):
        scenarios = []
        for number, text in enumerate(findings):
            given = options[number] if number < len(options) else {}
            path = tmp_path / f"finding-{number}"
            path.write_text(text)
            does = {"environment": {"DO": f'cat "{path}" >"$FEDSTEP_FINDINGS"'}}
            scenarios.append(triage(command=command, **given) | more | does)
        return jenkins(*scenarios)

    return judged


def finding(*failures, **more):
    places = {"failure_type": "", "file": "", "line": 0}
    return json.dumps({"failures": [places | failure for failure in failures], **more}, indent=2) + "\n"


class TestVerdicts:
    def test_verdicts_begin_with_the_most_real_failure(self, jenkins, fedstep):
        """A triage returns verdicts with the most real failure first."""
        (result,) = jenkins(triage(command=fedstep, junit="report.xml"))
        judged = result["returned"]
        assert judged["status"] == "local", "no build is known yet, and yet it is judged"
        assert judged["failuresFlaky"] + judged["failuresReal"] + judged["failuresUnsure"] == 1
        (test,) = judged["tests"]
        assert test["name"] == "tests.test_cart#test_sleeps"
        assert 0 < test["flakyProbability"] < 1
        assert test["reasons"]
        assert all(isinstance(reason, str) for reason in test["reasons"])
        assert result["description"].startswith("fedstep: 1 failed: ")
        assert result["result"] == "SUCCESS", "judging alone changes nothing"

    def test_only_flaky_is_true_where_every_failure_is_flaky(self, judge):
        """`onlyFlaky` is true where every failure is flaky, and nowhere else."""
        judged = judge(
            finding(FLAKY, FLAKY),
            finding(FLAKY, REAL),
            finding(FLAKY, UNSURE),
            finding(FLAKY, incident=True),
            finding(),
            "",
            '{\n  "failures": [\n',
            finding(FLAKY, reports={"dropped": [{"source": "b.xml", "reason": "broken", "kept": False}]}),
            finding(FLAKY, muted=[REAL]),
            finding(muted=[REAL]),
            finding(FLAKY, reports={"dropped": [{"source": "b.xml", "reason": "repaired", "kept": True}]}),
        )
        assert [result["returned"]["onlyFlaky"] for result in judged] == [True, *[False] * 7, True, True, True]
        mixed = judged[1]["returned"]
        assert [test["name"] for test in mixed["tests"]] == ["b#adds", "a#waits"]
        assert (mixed["failuresFlaky"], mixed["failuresReal"]) == (1, 1)
        assert mixed["tests"][1]["reasons"] == ["it ran out of time"]
        assert judged[8]["returned"]["failuresMuted"] == 1

    def test_invalid_json_fails_the_step_and_not_the_build(self, judge):
        """A finding that is no JSON is an error of the step and not of the build."""
        (result,) = judge("{\n  nonsense\n}\n")
        assert result["returned"]["status"] == "degraded"
        assert result["returned"]["onlyFlaky"] is False
        assert result["result"] == "SUCCESS"
        assert talk(result).count("ERROR: fedstep triage did not run; the build goes on") == 1

    def test_of_six_hundred_failures_five_hundred_are_listed(self, judge):
        """Six hundred failures are counted, and five hundred of them listed."""
        (result,) = judge(finding(*[FLAKY] * 599, REAL))
        assert result["returned"]["failuresFlaky"] == 599
        assert len(result["returned"]["tests"]) == 500
        assert result["returned"]["tests"][0]["name"] == "b#adds"


class TestGate:
    def test_fail_on_fails_by_the_verdict_of_fedstep(self, jenkins, fedstep, repository):
        """One failure of the report, as it is, flaky enough to be forgiven, and quarantined."""
        gated = {"command": fedstep, "junit": "report.xml", "failOn": "regressions"}
        (failed, forgiven) = jenkins(triage(**gated), triage(**gated, forgiveAbove=0.01))
        assert failed["error"]["message"] == "fedstep: not every failure is forgiven"
        assert "1 failure not forgiven" in talk(failed)
        assert (forgiven["returned"]["verdict"], forgiven["returned"]["failuresForgiven"]) == ("passed", 1)
        add = [fedstep, "quarantine", "add", "tests.test_cart#test_sleeps", "--owner", "ada", "--reason", "#123"]
        subprocess.run(add, cwd=repository, check=True, timeout=60)
        (passed, plain) = jenkins(triage(**gated), triage(command=fedstep, junit="report.xml"))
        assert (passed["returned"]["verdict"], passed["returned"]["failuresMuted"]) == ("passed", 1)
        assert plain["returned"]["verdict"] == "", "without failOn there is none"

    def test_fail_on_without_a_verdict_fails_the_build(self, jenkins, fedstep, tmp_path):
        """A gate that could not decide is closed, whatever the reason."""
        given = {"junit": "report.xml", "failOn": "regressions"}
        results = jenkins(
            triage(**given | {"command": "/no/such/fedstep"}),
            triage(**given | {"command": fedstep, "failOn": "regression"}),
            triage(**given | {"command": recording(tmp_path)}) | {"environment": {"DO": "exit 1"}},
            triage(**given | {"python": "/no/such/python"}),
        )
        assert {result["error"]["message"] for result in results} == {"fedstep: no verdict, for the reason above"}


class TestDescription:
    def test_description_keeps_other_text_and_has_one_line(self, judge):
        """The description keeps what others wrote and has one line of ours."""
        before = "Release 1.2\nfedstep: expected 4 min\nfedstep (jdk 17): no test failed"
        one, cell, silent = judge(
            finding(headline="took 5 min"),
            finding(headline="took 5 min"),
            finding(headline="took 5 min"),
            description=before,
            options=({}, {"cell": "jdk 17"}, {"describe": False}),
        )
        assert one["description"] == "Release 1.2\nfedstep (jdk 17): no test failed\nfedstep: took 5 min"
        assert cell["description"] == "Release 1.2\nfedstep: expected 4 min\nfedstep (jdk 17): took 5 min"
        assert silent["description"] == before

    @pytest.mark.parametrize(
        ("plugin", "shown"), [("badge-1", "shortText"), ("badge-3", "badge"), ("credentials-binding", None)]
    )
    def test_failures_are_a_badge_where_the_plugin_is_there(self, jenkins, tmp_path, plugin, shown):
        """Failures are a badge where a version of the plugin is there."""
        does = (
            'echo "FEDSTEP_FAILURES_FLAKY=2\nFEDSTEP_FAILURES_REAL=0\nFEDSTEP_FAILURES_UNSURE=1" >>"$FEDSTEP_DOTENV"; '
            'printf "{\n  \\"headline\\": \\"2 failed\\"\n}\n" >"$FEDSTEP_FINDINGS"'
        )
        (result,) = jenkins(
            train(command=recording(tmp_path), cell="jdk 21", strict=True)
            | {"environment": {"DO": does}, "plugins": [plugin]}
        )
        assert result["returned"]["status"] == "ok"
        assert result["description"] == "fedstep (jdk 21): 2 failed"
        assert "ERROR" not in talk(result), "the plugin's absence is no error"
        badges = [said for said in result["told"] if "shortText" in said or "badge" in said]
        assert badges == ([{shown: {"text": "jdk 21: 2 flaky, 1 unsure"}}] if shown else [])

    @pytest.mark.full
    def test_jenkins_own_estimate_stands_beside_ours(self, jenkins, fedstep, repository):
        passed = train(command=fedstep, junit="report.xml", outcome="passed")
        jenkins(passed, passed, passed)
        now = {"started": int(time.time() * 1000)}
        (repository / "report.xml").touch()  # an older one would be no evidence of this build
        later = {"environment": {"BUILD_NUMBER": "4"}}
        predicted, trained = jenkins(predict(command=fedstep) | now | later, passed | now | later)
        assert re.search(r"Build time +\d.*90 % between .*\(Jenkins estimate: ", talk(predicted)), talk(predicted)
        assert re.fullmatch(r"fedstep: expected .* \(.* – .*; Jenkins estimate: .*\).*", predicted["description"])
        assert re.search(r"Build +passed; .* the expected .*\(Jenkins estimate: ", " ".join(talk(trained).split()))
        assert re.fullmatch(r"fedstep: took .*; Jenkins estimate: .*\), 1 failed: .*", trained["description"])
