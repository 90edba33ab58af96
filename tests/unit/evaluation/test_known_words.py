"""Facts about the words that a study of triage is told."""

from pathlib import Path

from fedstep.evaluation.corpus import CorpusProject
from fedstep.evaluation.replay_tests import KnownWords, Truth, test_steps
from fedstep.evaluation.study import learn_words
from fedstep.schema.schema import schema
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    CiRun,
    Duration,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

TESTS = tuple(f"org.acme.Part{n}Test#works" for n in range(120))


def table(folder: Path, name: str, word: str) -> CorpusProject:
    """A table of reruns in which the tests with this word in their source are the flaky ones."""
    path = folder / name / "tests.csv"
    path.parent.mkdir()
    rows = (f"{test},0.1,{int(n < 60)},{int(n < 60)},99,{word if n < 60 else 'assert'}" for n, test in enumerate(TESTS))
    path.write_text("test,seconds,flaky,failing_runs,passing_runs,tokens\n" + "\n".join(rows) + "\n")
    return CorpusProject(name, "tests", path)


class TestLearnWords:
    def test_the_words_of_a_project_are_learned_from_the_others(self, tmp_path: Path) -> None:
        """Else a study would tell what reruns of its own tests showed."""
        tables = [table(tmp_path, "shop", "sleep"), table(tmp_path, "bank", "socket")]
        places = [*tables, *(CorpusProject(name, "folders", tmp_path) for name in ("shop", "bank", "other"))]
        learned = learn_words(places, 1, tmp_path / "words.jsonl")
        names = schema().tasks["flaky"].names()
        sleep, socket = names.index("source=sleep"), names.index("source=socket")
        assert learned["shop"][sleep] == 0.0 < learned["shop"][socket]
        assert learned["bank"][socket] == 0.0 < learned["bank"][sleep]
        assert min(learned["other"][sleep], learned["other"][socket]) > 0.0
        assert learn_words(places[2:], 1, tmp_path / "words.jsonl") == {}

    def test_the_source_of_a_test_is_known_from_its_first_build_on(self) -> None:
        runs = tuple(TestRun(test, Outcome("f" if n == 0 else "p"), 0.1) for n, test in enumerate(TESTS))
        at = 1_760_000_000.0
        builds = [
            FinishedBuild(
                BuildContext(CiRun(), Unavailable("not told"), at + 600 * n),
                at + 600 * n + 60,
                Duration(60.0, "recorded"),
                BuildOutcome.FAILED,
                Reports(runs),
            )
            for n in range(2)
        ]
        weights = [9.0 * (name == "source=sleep") for name in schema().tasks["flaky"].names()]
        words = KnownWords(weights, {test: ("sleep" if n == 0 else "assert",) for n, test in enumerate(TESTS)})
        steps = [step for step in test_steps(builds, "triage", Truth(), words) if step.cases]
        told = schema().tasks["triage"].first("evidence-words")
        assert [told in step.cases[0].row.indices for step in steps] == [False, True]
