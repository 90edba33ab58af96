"""The plugin of pytest: without an option nothing; with one, flaky failures run again and every attempt is recorded."""

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fedstep.ingest.junit import expand, read_reports
from fedstep.pytest_plugin.session_plugin import may_run_again
from fedstep.types import Outcome, Reports

pytest_plugins = ["pytester"]

Shop = Callable[..., pytest.RunResult]
BROKEN = "\ndef test_broken():\n    assert 1 == 2\n"
FLAKY_FOR_GOOD = "\ndef test_flaky_too():\n    raise TimeoutError('bank')\n"


def read(pytester: pytest.Pytester, name: str) -> Reports:
    """What `fedstep train --junit NAME` reads."""
    found = read_reports(expand((name,), pytester.path), str(pytester.path))
    assert found.dropped == ()
    return found


def outcomes(pytester: pytest.Pytester, name: str) -> dict[str, Outcome]:
    return {run.test: run.outcome for run in read(pytester, name).tests if "test_fine" not in run.test}


class TestActivation:
    def test_the_entry_point_names_the_plugin(self) -> None:
        project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
        plugin = importlib.import_module(project["entry-points"]["pytest11"]["fedstep"])
        assert callable(plugin.pytest_addoption)

    def test_without_an_option_nothing_of_ours_is_loaded(self, shop: Shop) -> None:
        found = shop(
            "\ndef test_loaded(request):\n"
            "    import sys\n"
            "    assert {m for m in sys.modules if m.startswith('fedstep')}"
            " == {'fedstep', 'fedstep.pytest_plugin', 'fedstep.pytest_plugin.plugin'}\n"
            "    assert not request.config.pluginmanager.has_plugin('fedstep-session')\n",
            "-k",
            "loaded",
        )
        found.assert_outcomes(passed=1, deselected=41)


class TestSession:
    def test_passing_second_attempt_does_not_fail_the_session(self, shop: Shop) -> None:
        """A failure judged flaky that then passes does not fail the session."""
        found = shop("", "--fedstep-rerun")
        assert found.ret == 0
        found.stdout.fnmatch_lines(["1 of 1 failure judged flaky, run again:", "*::test_flaky: * % flaky, passed then"])
        assert found.parseoutcomes() == {"passed": 40, "flaky": 1}
        found.stdout.no_fnmatch_line("FAILED*")

    def test_scikit_learn_is_not_needed(self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Judging failures and running them again needs neither scikit-learn nor numpy."""
        for name in ("sklearn", "numpy"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(f"raise ImportError('not here', name='{name}')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = shop("", "--fedstep-rerun")
        assert found.ret == 0
        assert found.parseoutcomes() == {"passed": 40, "flaky": 1}

    def test_a_session_that_stops_early_ends_as_it_would_without_us(self, shop: Shop) -> None:
        found = shop(BROKEN, "--fedstep-rerun", "-x", "-W", "error", "-k", "broken")
        assert found.ret == 1
        found.assert_outcomes(failed=1, deselected=41)

    def test_triage_configuration_does_not_disturb_the_judging(self, shop: Shop, pytester: pytest.Pytester) -> None:
        """What the project configures for triage does not disturb the judging."""
        (pytester.path / ".fedstep.toml").write_text('rerun-list = "pytest"\n')
        assert shop("", "--fedstep-rerun").parseoutcomes() == {"passed": 40, "flaky": 1}

    def test_other_failures_fail_the_session_and_run_once(self, shop: Shop) -> None:
        """Failures that are not judged flaky fail the session and run once."""
        counting = "\ndef test_broken():\n    assert not first_time('broken'), 'once'\n"
        found = shop(counting, "--fedstep-rerun")
        assert found.ret == 1
        assert found.parseoutcomes() == {"passed": 40, "flaky": 1, "failed": 1}
        found.stdout.fnmatch_lines(["FAILED test_shop.py::test_broken*"])

    def test_repeated_failure_fails_the_session_and_counts_once(self, shop: Shop) -> None:
        """One that fails again fails the session and is counted once."""
        found = shop(FLAKY_FOR_GOOD, "--fedstep-rerun")
        assert found.ret == 1
        assert found.parseoutcomes() == {"passed": 40, "flaky": 1, "failed": 1, "rerun": 1}


class TestRecord:
    def test_both_outcomes_are_a_gold_flake_in_both_reports(self, shop: Shop, pytester: pytest.Pytester) -> None:
        """Both outcomes are a gold flake in our record and in pytest's own report."""
        shop(
            BROKEN + FLAKY_FOR_GOOD, "--fedstep-rerun", "--fedstep-record", "deep/ours.xml", "--junit-xml", "theirs.xml"
        )
        ours, theirs = outcomes(pytester, "deep/ours.xml"), outcomes(pytester, "theirs.xml")
        assert ours == {
            "test_shop#test_flaky": Outcome.FLAKED,
            "test_shop#test_flaky_too": Outcome.CONFIRMED,
            "test_shop#test_broken": Outcome.FAILED,
        }
        # Two failures in a row are one attempt in a report of pytest, so that a confirmed failure is a plain one there.
        assert theirs == {**ours, "test_shop#test_flaky_too": Outcome.FAILED}

    def test_record_has_identities_and_outcomes_of_pytest(self, shop: Shop, pytester: pytest.Pytester) -> None:
        """The record has the identities and outcomes of pytest's own report."""
        many = """
class TestCart:
    class TestInner:
        @pytest.mark.parametrize("value", ["a::b", "x.y", "[", "é", "\\x1b[1m"])
        def test_value(self, value):
            pass

def test_skipped():
    pytest.skip("no bank")

@pytest.mark.xfail
def test_expected():
    assert 0

@pytest.fixture
def nothing():
    raise OSError("no disk \\x00 ]]> <&\\" \\ud800")

def test_error(nothing):
    pass

@pytest.fixture
def late():
    yield
    raise OSError("late")

def test_late(late):
    pass
"""
        shop(many, "--fedstep-record", "ours.xml", "--junit-xml", "theirs.xml")
        ours, theirs = read(pytester, "ours.xml"), read(pytester, "theirs.xml")
        assert {run.test: run.outcome for run in ours.tests} == {run.test: run.outcome for run in theirs.tests}
        assert {run.test: run.failure_type for run in ours.tests}["test_shop#test_error"] == "OSError"
        assert {run.file for run in ours.tests} == {"test_shop.py"}
        lines = (pytester.path / "test_shop.py").read_text().splitlines()
        assert {run.test: run.line for run in ours.tests}["test_shop#test_late"] == lines.index(
            "def test_late(late):"
        ) + 1


class TestOtherPlugins:
    def test_under_xdist_all_workers_are_judged_together(self, shop: Shop, pytester: pytest.Pytester) -> None:
        found = shop(BROKEN, "-p", "xdist", "-n", "2", "--fedstep-rerun", "--fedstep-record", "ours.xml")
        assert found.ret == 1
        assert found.parseoutcomes() == {"passed": 40, "flaky": 1, "failed": 1}
        assert len(read(pytester, "ours.xml").tests) == 42
        assert outcomes(pytester, "ours.xml")["test_shop#test_flaky"] == Outcome.FLAKED

    def test_beside_pytest_rerunfailures_both_may_run_a_test_again(self, shop: Shop, pytester: pytest.Pytester) -> None:
        found = shop(
            BROKEN, "-p", "pytest_rerunfailures", "--reruns", "1", "--fedstep-rerun", "--fedstep-record", "o.xml"
        )
        assert found.ret == 1
        assert found.parseoutcomes() == {"passed": 41, "failed": 1, "rerun": 2}
        assert outcomes(pytester, "o.xml") == {
            "test_shop#test_flaky": Outcome.FLAKED,
            "test_shop#test_broken": Outcome.CONFIRMED,
        }


class TestSecondAttempt:
    def test_fixtures_are_made_anew_for_the_second_attempt(self, shop: Shop) -> None:
        more = """
@pytest.fixture(scope="session")
def bank():
    return [] if first_time("bank") else ["open"]

def test_flaky_too(bank):
    if not bank:
        raise TimeoutError("bank")
"""
        found = shop(more, "--fedstep-rerun")
        assert found.ret == 0
        assert found.parseoutcomes() == {"passed": 40, "flaky": 2}

    def test_a_second_attempt_that_is_skipped_proves_nothing(self, shop: Shop) -> None:
        more = (
            "\ndef test_flaky_too():\n    if not first_time('x'):\n        pytest.skip()\n    raise "
            "TimeoutError('bank')\n"
        )
        found = shop(more, "--fedstep-rerun")
        assert found.ret == 1
        found.stdout.fnmatch_lines(["FAILED test_shop.py::test_flaky_too*"])

    def test_stop_at_first_failure_runs_nothing_again(self, shop: Shop, pytester: pytest.Pytester) -> None:
        """A session that stops at its first failure runs nothing again."""
        found = shop("", "-x", "--fedstep-rerun", "--fedstep-record", "ours.xml")
        assert found.ret != 0
        assert found.parseoutcomes() == {"failed": 1}
        assert outcomes(pytester, "ours.xml") == {"test_shop#test_flaky": Outcome.FAILED}

    @pytest.mark.parametrize("is_new", [False, True])
    def test_a_test_that_the_change_adds_is_not_run_again(self, is_new: bool) -> None:
        """It has to pass at once, however flaky its class is."""
        assert may_run_again({"verdict": "flaky", "is_new": is_new}) != is_new
        assert not may_run_again({"verdict": "unsure", "is_new": is_new})

    def test_in_an_incident_nothing_is_run_again(self, shop: Shop) -> None:
        everything = "\n@pytest.mark.parametrize('n', range(300))\ndef test_down(n):\n    raise TimeoutError('bank')\n"
        found = shop(everything, "--fedstep-rerun", "--tb=no")
        assert found.ret == 1
        found.stdout.fnmatch_lines(["an incident, nothing is run again: 301 of 341 tests failed at once"])

    def test_a_muted_failure_is_not_run_again(self, shop: Shop, pytester: pytest.Pytester) -> None:
        entry = '[[mute]]\ntest = "*#test_flaky"\nowner = "ada"\nreason = "#1"\nuntil = 2999-01-01\n'
        (pytester.path / ".fedstep-mutes.toml").write_text(entry)
        found = shop("", "--fedstep-rerun")
        assert found.ret == 1
        found.stdout.fnmatch_lines(["0 of 1 failure judged flaky"])


class TestFailures:
    def test_what_goes_wrong_with_us_changes_nothing_for_the_session(
        self, shop: Shop, pytester: pytest.Pytester
    ) -> None:
        (pytester.path / ".fedstep.toml").write_text("no = 'option'\n")
        (pytester.path / "full").write_text("a file, no folder")
        found = shop("", "--fedstep-rerun", "--fedstep-record", "full/ours.xml")
        assert found.ret == 1
        assert found.parseoutcomes() == {"passed": 40, "failed": 1}
        found.stdout.fnmatch_lines(["nothing was judged: *", "the record was not written: *"])

    def test_the_judgement_writes_nothing_for_the_ci(
        self, shop: Shop, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            monkeypatch.setenv(name, str(pytester.path / name))
        found = shop("", "--fedstep-rerun")
        assert found.ret == 0
        assert not list(pytester.path.glob("GITHUB_*"))
        found.stdout.no_fnmatch_line("::*")


class TestKilledSession:
    def test_the_record_of_an_earlier_session_is_gone(self, pytester: pytest.Pytester) -> None:
        """The tests of a killed session seemed to have passed: their record was that of the session before."""
        pytester.makepyfile(test_a="import os\ndef test_a(): os.environ.get('KILL') and os._exit(9)")
        pytester.runpytest_subprocess("--fedstep-record", "r.xml")
        assert (pytester.path / "r.xml").exists()
        pytester.makepyfile(test_a="import os\ndef test_a(): os._exit(9)")
        pytester.runpytest_subprocess("--fedstep-record", "r.xml")
        assert not (pytester.path / "r.xml").exists()


class TestCollectionErrors:
    def test_the_record_has_what_could_not_be_collected(self, pytester: pytest.Pytester) -> None:
        """It has the ids of `--junit-xml`, and the build did not pass."""
        pytester.makepyfile(test_ok="def test_fine(): pass", test_broken="import nothing_here")
        pytester.mkpydir("deep").joinpath("test_deep.py").write_text("raise ValueError('no')\n")
        pytester.runpytest_subprocess("--fedstep-record", "r.xml", "--junit-xml", "j.xml")
        assert outcomes(pytester, "r.xml") == outcomes(pytester, "j.xml")
        assert set(outcomes(pytester, "r.xml")) == {"test_broken#<init>", "deep.test_deep#<init>"}

    @pytest.mark.parametrize(
        ("text", "test", "outcome"),
        [
            ("def f(:", "test_x#<init>", Outcome.FAILED),
            ("import pytest\npytest.fail('no')", "test_x#<init>", Outcome.FAILED),
            ("import sys\nsys.exit(3)", "pytest#internal", Outcome.FAILED),
            ("import pytest\npytest.importorskip('nothing_here')", "test_x#<init>", Outcome.SKIPPED),
            ("class TestA:\n  import nothing_here\n  def test_a(self): pass", "test_x#<init>", Outcome.FAILED),
            ("import pytest\n@pytest.mark.parametrize('a,b', [(1,)])\ndef test_a(a, b): pass", "test_x#<init>",
             Outcome.FAILED),
            ("def pytest_generate_tests(metafunc): raise RuntimeError\ndef test_a(): pass", "test_x#<init>",
             Outcome.FAILED),
        ],
    )  # fmt: skip
    def test_whatever_stops_the_collection_is_recorded(
        self, pytester: pytest.Pytester, text: str, test: str, outcome: Outcome
    ) -> None:
        """The record says what `--junit-xml` says, also where the session ends with an internal error."""
        pytester.makepyfile(test_ok="def test_fine(): pass", test_x=text)
        pytester.runpytest_subprocess("--fedstep-record", "r.xml", "--junit-xml", "j.xml")
        assert outcomes(pytester, "r.xml") == outcomes(pytester, "j.xml")
        assert outcomes(pytester, "r.xml")[test] == outcome
