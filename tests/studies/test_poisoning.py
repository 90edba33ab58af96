"""Poisoned federations through the real store and gate: those that went wrong once."""

from dataclasses import replace

import pytest

from tests.studies.poisoning.__main__ import plans
from tests.studies.poisoning.federation import run


class TestFirstPromotion:
    @pytest.mark.parametrize(
        ("task", "seed", "attack"), [("flaky", 10, "sign flip"), ("build-failure", 5, "inner product")]
    )
    def test_no_first_promotion_is_below_chance(self, task: str, seed: int, attack: str):
        """The version of the first aggregation had a better intercept, a lower loss, and an AUC of 0.483 and 0.385."""
        plan = replace(plans(0.2, from_starter=False)[attack], folds=10)
        trace = run(plan, seed, tasks=(task,))
        assert min(trace.production[task]) >= trace.start[task]
