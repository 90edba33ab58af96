"""Evaluations, verdicts and rollbacks, as the store keeps them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fedstep.errors import UsageError
from fedstep.federation.messages import TrialScore
from fedstep.model.linear import zeros
from fedstep.server.aggregation.step import next_version
from fedstep.server.gate import Gate
from fedstep.server.storage.store import Store
from tests.helpers.server_store import RULES, gated, make_version, offer, rows


def scored(update, number: int, base: int, trial: int, difference: float = -0.5, project: int = 7):
    scores = {"flaky": TrialScore(trial, difference)}
    return offer(update(number, base, project=project, scores=scores))


def on_trial(store) -> dict[str, tuple[int, int]]:
    return {trial.task: (trial.version, trial.evaluations) for trial in store.lineage(10).trials}


class TestEvaluations:
    def test_evaluation_is_stored_with_its_update_and_counts_once(self, store, ours, url, update):
        """An evaluation is on disk with the update that carried it and counts once."""
        store.accept([offer(update(1, project=7))], 0, 10, 1.0)
        store.aggregate(gated, 2.0)
        assert on_trial(store) == {"flaky": (1, 0), "build-duration": (1, 0)}
        store.accept([scored(update, 2, 1, 1), scored(update, 2, 1, 1)], 1, 10, 3.0)
        store.close()
        again = Store(url, ours)
        again.accept([scored(update, 2, 1, 1)], 1, 10, 4.0)
        assert on_trial(again)["flaky"] == (1, 1)
        again.close()

    def test_unwritable_evaluation_takes_its_update_with_it(self, store, update, monkeypatch):
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.aggregate(gated, 2.0)

        def full_disk(*_arguments):
            raise OSError("disk is full")

        with monkeypatch.context() as patch:
            patch.setattr("fedstep.server.storage.trial_repository.TrialRepository.add_evaluations", full_disk)
            with pytest.raises(OSError, match="full"):
                store.accept([scored(update, 2, 1, 1)], 1, 10, 3.0)
        assert store.pending().updates == 0
        assert not store.accept([scored(update, 2, 1, 1)], 1, 10, 3.0)[0].repeat

    @pytest.mark.parametrize("trial", [0, 2, 99])
    def test_evaluation_of_a_trial_over_or_to_come_does_not_count(self, store, update, url, trial: int):
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.aggregate(gated, 2.0)
        store.accept([scored(update, 2, 1, trial)], 1, 10, 3.0)
        assert rows(url, "select * from evaluations") == []


class TestTriedVectors:
    def test_mean_on_trial_outlives_a_restart_and_is_promoted(self, store, ours, url, update):
        """It is no candidate of any version; production, and a rollback to it, are what was on trial."""
        candidates = []
        for number, gate in enumerate((Gate(distance=9), Gate(distance=9), Gate(distance=1, first_distance=1))):
            store.accept([offer(update(number, number, project=7))], number, 10, 1.0)
            store.aggregate(partial(next_version, rules=RULES, gate=gate), 2.0)
            candidates.append(np.array(store.current().candidate.vectors["flaky"]))
        tried = store.current().trials["flaky"].vector
        assert tried.tolist() == pytest.approx(np.mean(candidates, axis=0).tolist())
        assert tried != store.current().candidate.vectors["flaky"]
        store.close()
        again = Store(url, ours)
        assert again.current().trials["flaky"].vector == tried
        assert set(again.vectors(3)) == set(again.current().candidate.vectors) == set(ours.sizes)
        again.accept([scored(update, 9, 3, 3)], 3, 10, 3.0)
        again.aggregate(partial(next_version, rules=RULES, gate=Gate(alone=1, distance=9)), 4.0)
        assert again.current().candidate.sources["flaky"] == 3
        assert again.current().production["flaky"] == tried
        assert again.roll_back(4, 5.0).vectors["flaky"] == tried
        again.close()


class TestVerdicts:
    def test_evaluations_promote_one_task_and_keep_every_figure(self, store, update):
        """Evaluations promote one task, and the lineage keeps every figure."""
        store.accept([offer(update(1, project=7))], 0, 10, 1.0)
        store.aggregate(gated, 2.0)
        store.accept([scored(update, number, 1, 1) for number in (2, 3, 4)], 1, 10, 3.0)
        store.aggregate(gated, 4.0)
        current = store.current()
        assert current.candidate.sources == {"flaky": 1, "build-duration": 0}
        assert current.candidate.production == 2
        assert current.production == {"flaky": store.vectors(1)["flaky"], "build-duration": zeros(3)}
        (ended,) = store.lineage(10).verdicts
        assert (ended.task, ended.trial, ended.against, ended.outcome) == ("flaky", 1, 0, "promoted")
        assert (ended.figures["evaluations"], ended.figures["counted"]) == (3, 1), "one project, three evaluations"
        assert ended.figures.keys() >= {
            "evaluations",
            "mean",
            "low",
            "high",
            "allowed",
            "spent",
            "projects",
            "active_projects",
        }
        assert on_trial(store) == {"flaky": (2, 0), "build-duration": (1, 0)}

    def test_verdict_is_logged_once_its_version_is_stored(self, store, update, monkeypatch, caplog):
        """A verdict is in the log once its aggregation is on disk, and not when that fails."""
        store.accept([offer(update(1, project=7))], 0, 10, 1.0)
        store.aggregate(gated, 2.0)
        store.accept([scored(update, number, 1, 1) for number in (2, 3, 4)], 1, 10, 3.0)

        def no_room(*_):
            raise OSError("no space left")

        with caplog.at_level("INFO", "fedstep.server"):
            with monkeypatch.context() as broken:
                broken.setattr("fedstep.server.storage.trial_repository.TrialRepository.close", no_room)
                with pytest.raises(OSError, match="no space left"):
                    store.aggregate(gated, 4.0)
            assert caplog.records == []
            store.aggregate(gated, 5.0)
        assert [line.fields["outcome"] for line in caplog.records] == ["promoted"]

    @pytest.mark.slow
    def test_the_margin_that_is_gone_is_remembered(self, store, update):
        figures = []

        def step(moment):
            figures.append(moment.spent)
            made = next_version(moment, RULES, Gate(distance=1, first_distance=1))
            ended = [replace(one, verdict=replace(one.verdict, spent=0.07)) for one in made.decisions]
            return replace(made, decisions=tuple(ended))

        store.accept([offer(update(1, project=7))], 0, 10, 1.0)
        store.aggregate(step, 2.0)
        store.accept([scored(update, number, 1, 1, 0.0) for number in range(2, 40)], 1, 10, 3.0)
        store.aggregate(step, 4.0)
        store.aggregate(step, 5.0)
        assert figures == [{}, {}, {"flaky": 0.07}]

    def test_tasks_that_were_ever_promoted_are_known(self, store, update):
        """A verdict that promoted nothing is none, and a later one that promotes nothing takes none away."""
        seen = []

        def step(moment):
            seen.append(set(moment.promoted))
            return gated(moment)

        store.accept([offer(update(1, project=7))], 0, 10, 1.0)
        store.aggregate(step, 2.0)
        for turn, score in enumerate((0.1, -0.1, 0.1), start=1):
            trial = store.current().trials["flaky"].version
            evaluations = [scored(update, 40 * turn + number, turn, trial, score) for number in range(30)]
            store.accept(evaluations, turn, 100, turn + 2.0)
            store.aggregate(step, turn + 2.5)
        store.aggregate(step, 9.0)
        assert [one.outcome for one in store.lineage(10).verdicts] == ["rejected", "promoted", "rejected"]
        assert seen == [set(), set(), set(), {"flaky"}, {"flaky"}]


class TestMeans:
    def test_what_is_tried_and_promoted_is_the_stored_mean(self, store, update, url, ours):
        """The candidate is the newest vector; the trial, and production after it, the mean of the newest ones."""
        rules = {name: replace(one, window=1000) for name, one in RULES.items()}
        for number in (1, 2, 3):
            store.accept([offer(update(number, project=7))], number - 1, 10, float(number))
            store.aggregate(lambda moment: next_version(moment, rules, None), number + 0.5)
        store.close()
        again = Store(url, ours)
        current = again.current()
        assert current.candidate.means["flaky"] == current.production["flaky"] == again.vectors(3)["flaky"]
        assert current.candidate.vectors["flaky"] != current.production["flaky"]
        assert (
            again.roll_back(2, 9.0).vectors["flaky"] == again.vectors(2)["flaky"] == again.current().production["flaky"]
        )
        again.close()


class TestRollback:
    def test_rollback_republishes_a_version_and_ends_the_trials(self, store, update):
        """A rollback makes a new version of an old production and ends the trials."""
        store.accept([offer(update(1))], 0, 10, 1.0)
        store.aggregate(make_version, 2.0)
        store.accept([offer(update(2))], 1, 10, 3.0)
        store.aggregate(gated, 4.0)
        assert on_trial(store)
        made = store.roll_back(0, 5.0)
        current = store.current()
        assert (made.version, current.candidate.version, current.candidate.production) == (3, 3, 3)
        assert current.candidate.vectors == current.production == store.vectors(0)
        assert on_trial(store) == {}
        assert {ended.outcome for ended in store.lineage(10).verdicts} == {"rollback"}
        store.aggregate(gated, 6.0)
        assert store.current().production == store.vectors(0), "production stays until something is shown to be better"
        assert store.roll_back(1, 7.0).vectors == store.vectors(1)

    def test_rollback_to_an_unknown_version_is_a_usage_error(self, store):
        """A rollback to a version that does not exist is a usage error."""
        with pytest.raises(UsageError, match="no version 9"):
            store.roll_back(9, 1.0)
        assert store.latest_version() == 0
