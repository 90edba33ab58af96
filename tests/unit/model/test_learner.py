"""Facts about learning from one record."""

import math

import pytest

from fedstep.history.records import BuildRecord, Example
from fedstep.history.summary import Summary, apply_record
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import LocalWeights
from fedstep.model.state import ExampleQueue, LocalModel
from fedstep.model.training import MOST_WAITING, REPLAYED, learn_local, learn_record
from fedstep.schema.schema import TASK_NAMES, schema
from fedstep.types import BuildOutcome, Outcome, TestRun

TEST = "a.BTest#t"
ZEROS = {task: [0.0] * schema().tasks[task].size() for task in TASK_NAMES}


def ripe(number: int, label: float = 0.0) -> LabelledExample:
    return LabelledExample(Example(f"t{number}", 0, (0, 1 + number % 9), (1.0, 0.5), (f"test=t{number}",)), label)


def entry(number: int) -> BuildRecord:
    at = 1_700_000_000.0 + 600 * number
    tests = (TestRun(TEST, Outcome.FLAKED),)
    return BuildRecord(f"{number:032x}", at, at + 9, 9.0, "unit||mark", BuildOutcome.PASSED, tests=tests)


def folded(builds: int) -> Summary:
    summary = Summary()
    for number in range(builds):
        summary = apply_record(summary, str(number), entry(number))
    return summary


class TestLearning:
    @pytest.mark.parametrize("recent", [0, 5, 20, 30, 45])
    def test_a_new_row_is_learned_with_the_last_thirty(self, recent: int) -> None:
        known = tuple(ripe(number, float(number % 2)) for number in range(recent))
        waiting = Example(TEST, 0, (0, 2), (1.0, 1.0), (f"test={TEST}",), math.nan)
        backlog = ExampleQueue({"flaky": (waiting,)}, {}, {"flaky": known})
        learned = learn_record(LocalModel(), backlog, entry(19), folded(20).tests, ZEROS)
        expected = learn_local("flaky", ZEROS["flaky"], LocalWeights(), [*known[-30:], LabelledExample(waiting, 1.0)])
        assert learned.correction.local["flaky"] == expected
        assert learned.labels_known == 1
        assert learned.backlog.pending["flaky"] == ()
        assert learned.correction.scores["flaky"].observed == 1

    def test_what_waits_and_what_is_replayed_is_bounded(self) -> None:
        many = tuple(ripe(number) for number in range(MOST_WAITING + 5))
        backlog = ExampleQueue({}, {"triage": many}, {"triage": many})
        after = learn_record(LocalModel(), backlog, entry(1), folded(2).tests, ZEROS).backlog
        assert after.waiting["triage"] == many[-MOST_WAITING:]
        assert after.recent["triage"] == many[-REPLAYED["triage"] :]

    def test_rows_of_another_schema_are_not_learned(self) -> None:
        row = Example("b", 0, (0,), (1.0,), (), 1.0)
        for digest, count in ((schema().digest, 1), ("0" * 16, 0)):
            known = entry(1)._replace(schema=digest, rows={"build-failure": (row,)})
            assert learn_record(LocalModel(), ExampleQueue(), known, folded(2).tests, ZEROS).labels_known == count
