"""Facts about the schema: one order, one digest, one formula for margins."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.features.test_features import failure_kind
from fedstep.history.test_table import RECENT
from fedstep.model.linear import margin
from fedstep.schema.schema import (
    FAILURE_KINDS,
    TASK_NAMES,
    VERSION,
    BagOfWords,
    Categorical,
    Encoder,
    Numeric,
    PiecewiseLinear,
    Schema,
    Task,
    Value,
    schema,
)

TASKS = schema().tasks


def value_of(part: Encoder, draw: Random) -> Value:
    if draw.random() < 0.15:
        return None
    if isinstance(part, BagOfWords):
        return tuple(sorted(draw.sample(range(len(part.index)), draw.randrange(6))))
    if isinstance(part, Categorical):
        return draw.choice([*part.options, "other word"])
    return draw.choice([0.0, 1, draw.uniform(-3, 3), draw.expovariate(0.01)])


class TestCoordinates:
    @pytest.mark.parametrize("name", TASK_NAMES)
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6))
    def test_margins_by_column_are_the_margins_of_the_rows(self, name: str, seed: int) -> None:
        draw, task = Random(seed), TASKS[name]
        weights = [draw.gauss(0, 1) for _ in range(task.size())]
        rows = [{part.name: value_of(part, draw) for part in task.parts} for _ in range(3)]
        columns = {part.name: [row[part.name] for row in rows] for part in task.parts}
        expected = [margin(weights, *task.encode(row)) for row in rows]
        assert task.margins(weights, columns) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("name", TASK_NAMES)
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10**6))
    def test_coordinates_ascend_and_stay_inside(self, name: str, seed: int) -> None:
        draw, task = Random(seed), TASKS[name]
        indices, values = task.encode({part.name: value_of(part, draw) for part in task.parts})
        assert list(indices) == sorted(set(indices))
        assert all(0 <= index < task.size() for index in indices)
        assert len(indices) == len(values)

    @pytest.mark.parametrize("name", TASK_NAMES)
    def test_every_coordinate_has_one_name(self, name: str) -> None:
        names = TASKS[name].names()
        assert len(names) == len(set(names)) == TASKS[name].size()

    def test_the_order_of_named_values_changes_nothing(self) -> None:
        task = TASKS["triage"]
        known: dict[str, Value] = {"bias": 1.0, "runs": 7, "change": "near", "failure-kind": "timeout"}
        raw: dict[str, Value] = {part.name: known.get(part.name) for part in task.parts}
        assert task.encode(dict(reversed(raw.items()))) == task.encode(raw)
        assert "change=near" in {task.names()[index] for index in task.encode(raw).indices}

    def test_a_missing_feature_is_an_error_that_names_it(self) -> None:
        task = TASKS["triage"]
        raw: dict[str, Value] = {part.name: None for part in task.parts if part.name != "change"}
        with pytest.raises(ValueError, match="triage task: missing change; unknown none"):
            task.encode(raw)
        with pytest.raises(ValueError, match="missing change"):
            task.margins(task.start(), {name: [value] for name, value in raw.items()})

    def test_an_unknown_feature_is_an_error_that_names_it(self) -> None:
        task = TASKS["triage"]
        raw: dict[str, Value] = {**dict.fromkeys(part.name for part in task.parts), "chnage": "near"}
        with pytest.raises(ValueError, match="triage task: missing none; unknown chnage"):
            task.encode(raw)
        with pytest.raises(ValueError, match="unknown chnage"):
            task.margins(task.start(), {name: [value] for name, value in raw.items()})


class TestTasks:
    def test_the_tasks_are_these_four_in_order(self) -> None:
        assert tuple(TASKS) == TASK_NAMES
        assert all(name == task.name for name, task in TASKS.items())


BASE = Task(
    "flaky",
    (Numeric("bias"), PiecewiseLinear("runs", (0.0, 1.0)), BagOfWords("name", {"a": 0, "b": 1})),
    1.0,
    50,
    20,
    20,
)
CHANGES = [
    BASE._replace(name="other"),
    BASE._replace(clip=0.5),
    BASE._replace(minimum_rows=49),
    BASE._replace(minimum_groups=19),
    BASE._replace(horizon=10),
    BASE._replace(parts=BASE.parts[:2]),
    BASE._replace(parts=(BASE.parts[1], BASE.parts[0], BASE.parts[2])),
    BASE._replace(parts=(Numeric("bias2"), *BASE.parts[1:])),
    BASE._replace(parts=(Numeric("bias", start=1.0), *BASE.parts[1:])),
    BASE._replace(parts=(BASE.parts[0], PiecewiseLinear("runs", (0.0, 1.0000001)), BASE.parts[2])),
    BASE._replace(parts=(BASE.parts[0], PiecewiseLinear("runs", (0.0, 1.0), logarithmic=True), BASE.parts[2])),
    BASE._replace(parts=(BASE.parts[0], Categorical("runs", ("0", "1", "absent")), BASE.parts[2])),
    BASE._replace(parts=(*BASE.parts[:2], BagOfWords("name", {"a": 0, "c": 1}))),
]


class TestDigest:
    def test_the_digest_of_this_version_is_unchanged(self) -> None:
        """Clients and aggregators of this version name the schema by this digest, whatever its classes are called."""
        assert (VERSION, schema().digest) == (6, "da13aab06e345f3e")

    def test_the_digest_changes_with_every_constant(self) -> None:
        digests = {Schema((task,)).digest for task in (BASE, *CHANGES)}
        assert len(digests) == 1 + len(CHANGES)
        assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)

    def test_the_same_constants_give_the_same_digest(self) -> None:
        again = Task(
            "flaky",
            (Numeric("bias"), PiecewiseLinear("runs", (0.0, 1.0)), BagOfWords("name", {"a": 0, "b": 1})),
            1.0,
            50,
            20,
            20,
        )
        assert Schema((again,)).digest == Schema((BASE,)).digest


class TestLists:
    def test_the_horizon_is_not_longer_than_what_the_table_remembers(self) -> None:
        assert TASKS["flaky"].horizon <= RECENT
        assert TASKS["triage"].horizon + 1 <= RECENT

    def test_the_closed_lists_are_lower_case_words(self) -> None:
        for part in ("name", "source"):
            words = schema().words(part).index
            assert 500 < len(words) < 5000
            assert all(word.isascii() and word.isalpha() and word.islower() for word in words)

    def test_every_failure_kind_is_in_the_schema(self) -> None:
        kinds = (
            "TimeoutException",
            "ConnectException",
            "InterruptedException",
            "MemoryError",
            "AssertionError",
            "NullPointerException",
        )
        known = {failure_kind(kind) for kind in (*kinds, "IOException", "IllegalStateException", "Zebra")}
        assert known == set(FAILURE_KINDS)
