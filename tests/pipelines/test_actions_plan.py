"""The plan action: a matrix from its output, run by act, and what the training step then knows."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE / "examples" / "github-shards.yml"
WORKFLOW = """
on: [push]
jobs:
  plan:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
      - id: plan
        uses: fedstep/plan@v1
        with:
          shards: ${{ env.SHARDS }}
          names: ${{ env.NAMES }}
          share: ${{ env.SHARE }}
          strict: ${{ env.STRICT || 'false' }}
          command: ${{ env.COMMAND }}
      - if: always()
        env: { PLAN: "${{ toJSON(steps.plan.outputs) }}" }
        run: echo "$PLAN" >"$KEPT/plan.json"
"""


@pytest.fixture
def example(tmp_path, fedstep):
    """A function that writes the example with an installed fedstep, two machines and this choice of tests."""

    def write(choice=""):
        text = EXAMPLE.read_text()
        for before, after in (
            ("shards: 4", f"shards: 2\n          command: {fedstep}\n          {choice}"),
            ('"$SHARD/4"', '"$SHARD/2" -p no:randomly'),
            ("junit: report-*.xml", f"junit: report-*.xml\n          command: {fedstep}"),
            ("pip install fedstep==0.1.0 -r requirements.txt", "true"),
        ):
            assert before in text, before
            text = text.replace(before, after)
        lines = [line for line in text.splitlines() if not (choice and "confidence:" in line)]
        path = tmp_path / "github-shards.yml"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def plan(act, tmp_path, fedstep):
    """A function that runs the action alone; keyword arguments are variables."""

    def run(**variables):
        path = tmp_path / "plan.yml"
        path.write_text(WORKFLOW)
        return act(path, **{"COMMAND": fedstep, "SHARDS": "2", **variables})

    return run


def machines(run):
    """The names of the tests that each machine reported."""
    folder = run.kept / "artifacts"
    texts = [path.read_text() for path in sorted(folder.rglob("report-*.xml"))]
    return [{part.split('"')[0] for part in text.split(' name="')[1:] if part.startswith("test_")} for text in texts]


class TestExample:
    @pytest.mark.full
    def test_machines_of_the_matrix_divide_all_tests(self, act, example, repository):
        """Each test runs on one machine, and one record knows all of them."""
        for letter in "abc":
            tests = "".join(f"def test_{letter}{number}():\n    pass\n" for number in range(4))
            (repository / f"test_{letter}.py").write_text(tests)
        first = act(example(), GITHUB_RUN_ID="1")
        assert first.code == 0, first.log
        one, two = machines(first)
        assert one | two == {f"test_{letter}{number}" for letter in "abc" for number in range(4)} | {"test_adds"}
        assert not one & two
        assert "no test is known yet" in first.summary()

        second = act(example("share: 0.3"), GITHUB_RUN_ID="2")
        assert second.code == 0, second.log
        one, two = machines(second)
        ran = len(one | two)
        assert 0 < ran < 13
        assert f"{ran} of 13 tests run" in second.summary()
        assert f"the selection left out {13 - ran} tests" in second.summary(), second.summary()
        assert "1 build ran a part of the tests" in second.summary()


class TestAction:
    def test_first_run_has_a_matrix_and_no_known_test(self, plan):
        run = plan()
        assert run.code == 0, run.log
        outputs = run.outputs("plan")
        assert json.loads(outputs["shards"]) == {"index": [1, 2]}
        assert outputs["status"] == "ok"
        assert outputs["selected"] == "0"
        assert outputs["saved-seconds"] == "0.0"

    @pytest.mark.parametrize(
        ("shards", "matrix"), [("0", [1]), ("many", [1]), ("257", [1]), ("$(touch pwned)", [1]), ("3", [1, 2, 3])]
    )
    def test_failing_plan_breaks_no_build_and_has_a_matrix(self, plan, shards, matrix):
        """Numbers of machines that no workflow can have, and a list of tests that is not there."""
        run = plan(SHARDS=shards, NAMES="nowhere.txt")
        assert run.code == 0, run.log
        outputs = run.outputs("plan")
        assert json.loads(outputs["shards"]) == {"index": matrix}
        assert outputs["status"] == "degraded"
        assert outputs["plan"] == "", "the names alone divide the tests"
        assert "nowhere.txt cannot be read" in run.log

    def test_strict_plan_fails_the_step(self, plan):
        run = plan(NAMES="nowhere.txt", STRICT="true")
        assert run.code == 1
        assert json.loads(run.outputs("plan")["shards"]) == {"index": [1, 2]}
