"""`fedstepPlan`: branches for `parallel`, run by the Groovy that Jenkins embeds."""

import pytest

from tests.helpers.jenkins import controller, recording, talk, train

QUOTE = "'"
PIPELINE = """
parallel fedstepPlan(%s) { index ->
    sh "fedstep shard --index $index --total 3 --names tests.txt >mine-${index}.txt"
}
"""


@pytest.fixture
def jenkins(repository, tmp_path):
    return controller(tmp_path, repository)


@pytest.fixture
def plan(tmp_path):
    """A function that returns the scenario of a pipeline with this call of `fedstepPlan`."""

    def scenario(options):
        file = tmp_path / f"Jenkinsfile{len(options)}"
        file.write_text(PIPELINE % options)
        return {"jenkinsfile": str(file)}

    return scenario


def branches(result):
    return next(said["branches"] for said in result["told"] if "branches" in said)


def report(repository, name, tests):
    cases = (f'<testcase classname="tests.test_{test[0]}" name="{test}" time="1"/>' for test in tests)
    (repository / name).write_text(f"<testsuite>{''.join(cases)}</testsuite>")


class TestBranches:
    def test_branches_divide_the_tests_and_train_knows_the_rest(self, jenkins, plan, fedstep, repository):
        """Three branches run a third of the tests between them; the training step after them counts what they saved."""
        tests = [f"{letter}{number}" for letter in "abcdef" for number in range(4)]
        (repository / "tests.txt").write_text("".join(f"tests.test_{test[0]}#{test}\n" for test in tests))
        report(repository, "first.xml", tests)
        _, planned = jenkins(
            train(command=fedstep, junit="first.xml"),
            plan(f"command: '{fedstep}', shards: 3, share: 0.3"),
        )
        assert branches(planned) == ["shard 1", "shard 2", "shard 3"], talk(planned)
        shards = [(repository / f"mine-{number}.txt").read_text().splitlines() for number in (1, 2, 3)]
        ran = [name for shard in shards for name in shard]
        assert len(ran) == len(set(ran))
        assert 0 < len(ran) < len(tests)
        assert planned["description"].startswith(f"fedstep: {len(ran)} of 24 tests run")

        report(repository, "second.xml", [name.partition("#")[2] for name in ran])
        (learned,) = jenkins(train(command=fedstep, junit="second.xml") | {"environment": {"BUILD_NUMBER": "2"}})
        assert f"the selection left out {24 - len(ran)} tests" in " ".join(talk(learned).split())

    def test_failing_plan_leaves_branches_that_run_all_tests(self, jenkins, plan, tmp_path, repository):
        """Where fedstep fails the names of the tests divide them."""
        tests = [f"tests.test_{letter}#x" for letter in "abcdef"]
        (repository / "tests.txt").write_text("".join(f"{test}\n" for test in tests))
        options = f"command: '{recording(tmp_path)}', shards: 3"
        failing, strict = jenkins(
            plan(options) | {"environment": {"DO": "exit 3"}},
            plan(f"{options}, strict: true") | {"environment": {"DO": "exit 3"}},
        )
        assert failing["result"] == "SUCCESS"
        ran = [name for number in (1, 2, 3) for name in (repository / f"mine-{number}.txt").read_text().splitlines()]
        assert sorted(ran) == tests
        assert strict["error"]["message"] == "script returned exit code 3"

    @pytest.mark.parametrize("shards", ["0", "-1", "'many'", "1000"])
    def test_a_number_of_shards_that_is_none_is_refused(self, jenkins, plan, fedstep, shards):
        (result,) = jenkins(plan(f"command: '{fedstep}', shards: {shards}"))
        assert result["error"]["message"] == f"fedstepPlan: shards is a number from 1 to 999, not {shards.strip(QUOTE)}"
