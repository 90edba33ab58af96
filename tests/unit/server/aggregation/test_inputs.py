"""An aggregation of updates as one of the deltas of each task."""

from array import array
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.federation.messages import Update
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules, TaskDelta, aggregate
from fedstep.server.aggregation.inputs import ModelVersion, StoredUpdate
from fedstep.server.aggregation.step import aggregate_updates, to_numpy

SIZES = {"flaky": 5, "build-duration": 3}
RULES = {"flaky": AggregationRules(1.0, together=4.0), "build-duration": AggregationRules(0.2, projects_per_owner=2.0)}
numbers = st.floats(-2.0, 2.0, width=32)
parts = st.fixed_dictionaries(
    {}, optional={name: st.lists(numbers, min_size=n, max_size=n) for name, n in SIZES.items()}
)
sent = st.lists(
    st.tuples(parts.filter(bool), st.sampled_from("abcdefgh"), st.sampled_from(("", "one", "two")), st.integers(0, 9)),
    max_size=16,
)


def stored(place: int, deltas: dict[str, list[float]], project: str, owner: str, base: int) -> StoredUpdate:
    vectors = {name: array("f", values) for name, values in deltas.items()}
    update = Update("", base, f"{place:032x}", project, dict.fromkeys(vectors, 8), vectors)
    return StoredUpdate(b"", owner, known=update)


class TestTasks:
    @given(sent)
    def test_each_task_is_aggregated_independently_of_the_others(self, drawn):
        """Each task is aggregated as if the others were not there.

        Whatever tasks an update has, its weight and its contributor stay with each delta.
        """
        task = ModelVersion(9, 9, 0.0, {name: array("f", [0.5] * size) for name, size in SIZES.items()})
        updates = [stored(place, *one) for place, one in enumerate(drawn)]
        for name, vector in aggregate_updates(task, updates, RULES).items():
            alone = [
                TaskDelta(f"{place:032x}", project, 9 - base, np.array(deltas[name], np.float32), owner)
                for place, (deltas, project, owner, base) in enumerate(drawn)
                if name in deltas
            ]
            assert to_numpy(vector).tolist() == aggregate(to_numpy(task.vectors[name]), alone, RULES[name]).tolist()

    def test_project_of_an_identity_precedes_the_claimed_one(self):
        """The project of an identity stands before the one that an update claims."""
        task = ModelVersion(0, 0, 0.0, {"flaky": zeros(5)})
        rules = {"flaky": AggregationRules(1.0, decay=0.0)}
        claims = [stored(n, {"flaky": [1.0, 0.0, 0.0, 0.0, 0.0]}, f"p{n}", "", 0) for n in range(3)]
        assert aggregate_updates(task, claims, rules)["flaky"][0] == pytest.approx(3.0)
        assert aggregate_updates(task, [replace(one, project="web") for one in claims], rules)["flaky"][
            0
        ] == pytest.approx(1.0)
