"""The plugin chooses and orders tests as the command line does, and never runs fewer than it says."""

import pytest

pytest_plugins = ["pytester"]
FILES = {
    f"test_{name}": "\n".join(f"def test_{name}_{n}(): pass" for n in range(4)) for name in ("cart", "order", "pay")
}
ALL = {f"{name}.py::{name}_{n}" for name in FILES for n in range(4)}


def ran(result: pytest.RunResult) -> list[str]:
    return [line.split(" ")[0] for line in result.outlines if "::" in line and "PASSED" in line]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Twelve tests in three files, without a history."""
    pytester.makepyfile(**FILES)
    return pytester


class TestShards:
    def test_two_machines_run_every_test_once(self, project: pytest.Pytester) -> None:
        """Without a plan the names decide, and that is said."""
        shards = [project.runpytest_subprocess("-v", "--fedstep-shard", f"{n}/2") for n in (1, 2)]
        assert sorted(name for shard in shards for name in ran(shard)) == sorted(ALL)
        shards[0].stdout.fnmatch_lines(["*no plan: the shards are made by the tests' names alone*"])

    @pytest.mark.parametrize("shard", ["3/2", "0/2", "2", "a/b"])
    def test_a_shard_that_does_not_exist_stops_the_session(self, project: pytest.Pytester, shard: str) -> None:
        """Running nothing with success would hide a machine's tests."""
        assert project.runpytest_subprocess("--fedstep-shard", shard).ret == pytest.ExitCode.USAGE_ERROR

    def test_workers_of_xdist_agree(self, project: pytest.Pytester) -> None:
        """Each worker collects the same tests in the same order."""
        found = project.runpytest_subprocess("-n", "2", "--fedstep-shard", "1/1", "--fedstep-order")
        found.assert_outcomes(passed=12)


class TestSelection:
    def test_without_a_history_all_tests_are_new_and_run(self, project: pytest.Pytester) -> None:
        """A selection always contains what is not known."""
        found = project.runpytest_subprocess("-v", "--fedstep-select", "share=0.1", "--fedstep-order")
        assert set(ran(found)) == ALL

    def test_a_confidence_that_is_not_earned_runs_all(self, project: pytest.Pytester) -> None:
        """The session says why."""
        found = project.runpytest_subprocess("--fedstep-select", "confidence=0.95")
        found.assert_outcomes(passed=12)
        found.stdout.fnmatch_lines(["*all tests run: 0 builds with a new failure are known*"])

    def test_an_unknown_wish_is_a_usage_error(self, project: pytest.Pytester) -> None:
        """It names what can be wished for."""
        found = project.runpytest_subprocess("--fedstep-select", "some")
        assert found.ret == pytest.ExitCode.USAGE_ERROR
        found.stderr.fnmatch_lines(["*give confidence=0.95, share=0.2 or time=10m*"])
