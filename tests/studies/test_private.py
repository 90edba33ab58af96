"""The study of what differential privacy costs, on a few projects that are made here."""

import csv
import json
from math import inf
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from fedstep.errors import InputError
from fedstep.server.aggregation.step import next_version
from tests.studies.private import PrivatePlan, private, run_private


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five projects of 80 tests; tests that sleep flake, and every project has other classes."""
    folder, dice = tmp_path_factory.mktemp("corpus"), Random(1)
    for project in range(5):
        path = folder / f"project{project}" / "tests.csv"
        path.parent.mkdir()
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["test", "seconds", "flaky", "failing_runs", "passing_runs", "tokens"])
            for number in range(80):
                flaky = number % 8 == 0
                words = "thread sleep wait" if flaky else dice.choice(("assert list equals", "string format parse"))
                rows.writerow(
                    [f"p{project}.Case{number // 4}#test{number}", 0.1, int(flaky), int(flaky), 99, f"{words} new get"]
                )
    return folder


def aucs(corpus: Path, *plans: PrivatePlan) -> list[float]:
    return [study.auc for study in run_private([corpus], plans)]


class TestStudy:
    def test_tiny_epsilon_loses_the_ranking_of_others_words(self, corpus):
        """Without noise, the words of others rank the tests of a project, and a tiny epsilon loses them."""
        plain, bounded, drowned = aucs(corpus, PrivatePlan(0.0, 8, 2), PrivatePlan(inf, 8, 2), PrivatePlan(0.01, 8, 2))
        assert plain > 0.95
        assert bounded > 0.95
        assert drowned < 0.9

    def test_study_is_repeatable_and_another_seed_draws_other_noise(self, corpus):
        """With so much noise no study has an AUC of 1, so that two of different noise differ."""
        same, again, other = aucs(
            corpus, PrivatePlan(0.1, 4, 1), PrivatePlan(0.1, 4, 1), PrivatePlan(0.1, 4, 1, seed=2)
        )
        assert same == again != other

    def test_every_project_with_three_flaky_tests_is_held_out_once(self, corpus):
        (study,) = run_private([corpus], [PrivatePlan(0.0, 4, 1)])
        assert set(study.projects) == {f"project{number}" for number in range(5)}

    def test_without_privacy_all_ten_projects_are_aggregated(self, corpus, monkeypatch):
        """Without privacy, ten projects are one aggregation, and all of them are aggregated."""
        folds = []

        def watched(moment, **given):
            folds.append([stored.project for stored in moment.buffered])
            return next_version(moment, **given)

        monkeypatch.setattr("tests.studies.private.next_version", watched)
        aucs(corpus, PrivatePlan(0.0, 12, 2))
        ten, two = [str(number) for number in range(10)], ["10", "11"]
        assert folds == [ten, two, ten, two] * 4  # two periods for each group that is held out

    def test_projects_that_cannot_be_ranked_are_an_error(self, tmp_path):
        """Projects that cannot be ranked are an error that says why."""
        (tmp_path / "tests.csv").write_text("test,seconds,flaky,failing_runs,passing_runs,tokens\nA#a,1,0,0,9,x\n")
        with pytest.raises(InputError, match="no project could be ranked"):
            list(run_private([tmp_path], [PrivatePlan(0.0, 4, 1)]))


class TestCommand:
    def test_the_command_prints_the_three_ways_and_the_loss(self, corpus, tmp_path):
        options = ["--epsilon", "8", "--participants", "4", "--releases", "1"]
        ran = CliRunner().invoke(private, [*options, "--figures", str(tmp_path / "a.json"), str(corpus)])
        assert ran.exit_code == 0, ran.output
        assert "without differential privacy" in ran.output
        assert "epsilon 8, delta 1e-06" in ran.output
        assert "loss of auc" in ran.output
        plain, bounded, noised = json.loads((tmp_path / "a.json").read_text())
        assert (plain["epsilon"], noised["epsilon"], "epsilon" in bounded) == (0.0, 8.0, False)
        assert noised["noise"] > 0.5
