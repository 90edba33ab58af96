"""Outputs for later steps, read back as GitHub, GitLab, a shell and JSON read them."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.ci_outputs import KEYS, dotenv, github_output, outputs
from fedstep.results import Interval, ModelUsed, Prediction, Risk, TestRisk, TrainReport, TriageReport
from fedstep.types import TimeChange

Findings = tuple[Prediction, TriageReport, TrainReport]
DELIMITER = "ghadelimiter5f1c"


def read_github(text: str) -> dict[str, str]:
    """What the runner makes of the file GITHUB_OUTPUT."""
    values, lines = {}, iter(text.split("\n"))
    for line in lines:
        if line:
            key, _, delimiter = line.partition("<<")
            value = []
            while (line := next(lines)) != delimiter:
                value.append(line)
            values[key] = "\n".join(value)
    return values


def told(name: str) -> str:
    """A name as JSON can carry it: a lone surrogate becomes its escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def assert_read_back(findings: Findings, name: str) -> None:
    for finding in findings:
        values = outputs(finding)
        assert tuple(values) == KEYS
        assert read_github(github_output(values, DELIMITER)) == values
        assert all(value.isascii() and (value.isprintable() or value == "") for value in values.values())
        lines = dotenv(values).splitlines()
        assert dict(line.split("=", 1) for line in lines) == {
            f"FEDSTEP_{key.upper().replace('-', '_')}": value for key, value in values.items() if value
        }
        assert not any(" " in line for line in lines)
        assert len(dotenv(values)) < 5_000
    written = outputs(findings[0])["flaky-tests"]
    assert not set(written) & set("$`'(){}<>;&|*?!~=%@#^ \t")
    listed = json.loads(written)
    assert listed == [told(name), "com.acme.cart.CartTest#totals"] if len(name) < 400 else listed == []


class TestHostileNames:
    def test_a_hostile_name_is_a_value_and_nothing_else(self, named: Callable[[str], Findings], hostile: str) -> None:
        assert_read_back(named(hostile), hostile)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=100))
    def test_any_name_is_a_value_and_nothing_else(self, named: Callable[[str], Findings], name: str) -> None:
        assert_read_back(named(name), name)

    def test_a_delimiter_that_occurs_in_a_value_is_refused(self) -> None:
        with pytest.raises(ValueError, match="delimiter"):
            github_output({"status": "EOF"}, "EOF")
        with pytest.raises(ValueError, match="delimiter"):
            github_output({"status": "ok"}, "a\nb")

    @pytest.mark.parametrize("template", ["{}", '"{}"', "'{}'"])
    def test_a_value_pasted_into_a_shell_script_runs_nothing(
        self, named: Callable[[str], Findings], hostile: str, template: str, tmp_path: Path
    ) -> None:
        value = outputs(named(hostile)[0])["flaky-tests"]
        script = f"set -f\nx={template.format(value)}\necho {template.format(value)}\n"
        run(script, tmp_path)
        assert not Path("/tmp/owned").exists()

    def test_a_shell_that_sources_the_dotenv_runs_nothing(
        self, named: Callable[[str], Findings], hostile: str, tmp_path: Path
    ) -> None:
        (tmp_path / "fedstep.env").write_text(dotenv(outputs(named(hostile)[0])))
        done = run('. ./fedstep.env && echo "$FEDSTEP_STATUS $FEDSTEP_FLAKY_COUNT"', tmp_path)
        assert done == "ok 2\n"
        assert not Path("/tmp/owned").exists()


def run(script: str, folder: Path) -> str:
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, "-c", script], cwd=folder, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    assert done.stderr == ""
    assert [path.name for path in folder.iterdir()] in ([], ["fedstep.env"])
    return done.stdout


class TestValues:
    def test_the_keys_tell_the_essentials(self, ordinary: Findings) -> None:
        prediction, triage, training = outputs(ordinary[0]), outputs(ordinary[1]), outputs(ordinary[2])
        assert prediction["eta-seconds"] == "250.4"
        assert (prediction["eta-low"], prediction["eta-high"]) == ("212.0", "305.0")
        assert (prediction["failure-risk"], prediction["flaky-count"], prediction["model-version"]) == (
            "0.180",
            "2",
            "42",
        )
        assert (triage["failures-flaky"], triage["failures-real"]) == ("1", "1")
        assert (training["failures-flaky"], training["failures-real"], training["eta-seconds"]) == ("1", "1", "250.4")

    def test_changes_of_time_are_told_once_found(self, ordinary: Findings) -> None:
        training = ordinary[2]
        assert (outputs(training)["slower-tests"], outputs(training)["build-time-change"]) == ("[]", "")
        change = TimeChange("test", "a.B#c", 0.5, 1.5, "1" * 40, "2" * 40, 1.0, 2.0, "b")
        faster, job = change._replace(before=3.0), change._replace(kind="job", subject="unit||mark", after=0.92)
        values = outputs(training._replace(changes=(change, faster, job)))
        assert values["slower-tests"] == '["a.B\\u0023c"]'
        assert values["build-time-change"] == "1.84"

    def test_what_is_not_known_is_empty(self, nothing_known: Findings) -> None:
        values = outputs(nothing_known[0])
        assert (values["status"], values["eta-seconds"], values["failure-risk"]) == ("local", "", "")
        assert "ETA" not in dotenv(values)

    def test_nan_is_never_told(self) -> None:
        nan = float("nan")
        finding = Prediction("ok", Interval(nan, nan, nan), Risk(nan), (), ModelUsed())
        assert not any("nan" in value for value in outputs(finding).values())

    def test_a_long_list_is_cut_between_names(self) -> None:
        risks = tuple(TestRisk(f"com.acme.SomeRatherLongTest:method{number}", 0.5) for number in range(1_000))
        finding = Prediction("ok", Interval(1.0, 0.5, 2.0), Risk(0.1), risks, ModelUsed())
        listed = json.loads(outputs(finding)["flaky-tests"])
        assert 50 < len(listed) < 200
        assert listed[-1] == f"com.acme.SomeRatherLongTest:method{len(listed) - 1}"
        assert outputs(finding)["flaky-count"] == "1000"
