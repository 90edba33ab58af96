"""Attackers on a few projects that are made here: what each reaches, and what each protection leaves of it."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from statistics import mean

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from fedstep.cli.evaluate import simulate
from fedstep.errors import InputError, UsageError
from fedstep.schema.schema import schema
from tests.studies.attacks.__main__ import attacks
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.halves import attack_as_helper, attack_as_leader
from tests.studies.attacks.identify import identity_finding
from tests.studies.attacks.liar import attack_with_lies
from tests.studies.attacks.membership import membership_finding
from tests.studies.attacks.probe import attack_by_probes
from tests.studies.attacks.reading import Reader, usual_chances
from tests.studies.attacks.reconstruct import row_findings
from tests.studies.attacks.scene import AttackScene, make_scene, presence, words_of
from tests.studies.attacks.study import ATTACKS, BUILD_ATTACKS, attacks_table
from tests.studies.attacks.view import NOISE, OFF, PROTECTIONS, PULLED, SHARES, shares_of, views
from tests.studies.attacks.words import attack_strangers, word_findings

ROOT = Path(__file__).parents[2]
DEFAULT = PROTECTIONS[1]
PROJECTS, TESTS = 8, 200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects of 200 tests. Each uses half of the same listed words, and words of its own; tests that sleep flake."""
    folder, listed = tmp_path_factory.mktemp("corpus"), sorted(schema().words("source").index)[::6]
    for project in range(PROJECTS):
        dice = Random(project)
        own = [*dice.sample(listed, 80), *(f"stranger{letters(project * 100 + number)}" for number in range(20))]
        path = folder / f"project{project}" / "tests.csv"
        path.parent.mkdir()
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["test", "seconds", "flaky", "failing_runs", "passing_runs", "tokens"])
            for number in range(TESTS):
                flaky = number % 10 == 0
                words = [*dice.sample(own, 8), *(("sleep", "thread") if flaky else ("assert", "equals"))]
                rows.writerow([f"p.Case{number // 4}#test{number}", 0.1, int(flaky), int(flaky), 99, " ".join(words)])
    return folder


@pytest.fixture(scope="module")
def scene(corpus: Path) -> AttackScene:
    return make_scene([corpus], seed=1, views=8)


def letters(number: int) -> str:
    """A number as a word."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def by_measure(findings: Iterable[Finding], protection: str) -> Mapping[str, Finding]:
    return {one.measure: one for one in findings if one.protection == protection}


class TestReconstruction:
    def test_the_attackers_own_projects_are_never_the_attacked_ones(self, scene):
        assert {one.project for one in scene.own}.isdisjoint(one.project for one in scene.attacked)

    def test_a_row_that_is_sent_alone_is_recovered_word_for_word(self, scene):
        found = by_measure(row_findings("reconstruct", OFF, scene), "off")
        assert found["whole rows"].reached == 1.0
        assert found["whole rows"].yardstick < 0.1

    def test_batch_reveals_common_words_and_a_sum_hides_whose(self, scene):
        """A batch names its words except rare ones, and a sum of five no longer whose they are."""
        batch, total = (by_measure(word_findings("words", one, scene), one.name) for one in (DEFAULT, SHARES))
        assert batch["precision of words"].reached == 1.0
        assert 0.5 < batch["recall of words"].reached < 0.9
        assert total["precision of words"].reached < 0.7

    def test_no_example_of_a_batch_is_found_whole(self, scene):
        """No example of a batch is found whole, and examples that were not sent are found nearly as well."""
        found = by_measure(row_findings("reconstruct", DEFAULT, scene), "default")
        assert found["whole rows"].reached == found["whole flaky rows"].reached == 0.0
        assert found["F1 of rows"].reached - found["F1 of rows kept home"].reached < 0.05

    def test_noise_alone_hides_which_words_are_in_a_sum(self, scene):
        """A reader learns from a sum which words are there until its noise hides them, and not sooner."""
        usual = usual_chances(scene).rows
        unsure = (usual > 0.01) & (usual < 0.5)

        def told(noise: float) -> float:
            protection, found = shares_of(5, noise), []
            reader = Reader(protection, scene, "a test")
            for view in views(protection, scene.attacked, scene, "a test"):
                lift = reader.chances(view).rows[unsure] / usual[unsure]
                found.append(roc_auc_score(words_of(view.rows)[unsure], lift))
            return float(np.mean(found))

        plain, little, enough = told(0.0), told(0.001), told(0.2)
        assert min(plain, little) > 0.55, "noise that hides nothing must not stop the attacker"
        assert abs(enough - 0.5) < 0.03

    def test_production_noise_reduces_recovery_to_guessing(self, scene):
        """Examples of a sum with the noise of production are at guessing."""
        found = by_measure(row_findings("reconstruct", SHARES, scene), SHARES.name)
        for kind in ("rows", "flaky rows", "rows kept home"):
            assert found[f"F1 of {kind}"].reached < found[f"F1 of {kind}"].yardstick + 0.05
        assert found["whole rows"].reached == found["whole flaky rows"].reached == 0.0

    def test_unlisted_word_changes_updates_only_with_an_open_list(self, scene):
        """No word outside the list changes an update, and with an open list every one does."""
        off, *protected = attack_strangers(scene)
        assert off.reached == 1.0
        assert [one.reached for one in protected] == [0.0, 0.0, 0.0]


class TestMembership:
    def test_membership_is_plain_in_one_row_and_hidden_by_noise(self, scene):
        alone, noised = (membership_finding("membership", one, scene).reached for one in (OFF, NOISE))
        assert alone > 0.9
        assert noised < 0.75

    def test_membership_is_nearly_hidden_in_a_sum_of_five(self, scene):
        """Membership is nearly hidden in a sum of five that rare words are not in."""
        assert membership_finding("membership", SHARES, scene).reached < 0.65

    def test_an_update_is_linked_to_its_project_by_its_words_alone(self, scene):
        found = identity_finding("identify", DEFAULT, scene)
        assert found.reached > 2 * found.yardstick

    @pytest.mark.parametrize("attack", [attack_as_leader, attack_as_helper])
    def test_a_half_alone_gives_nothing_better_than_guessing(self, scene, attack):
        found = {one.measure: one for one in attack(scene)}
        assert found["F1 of rows"].reached <= found["F1 of rows"].yardstick + 0.05
        assert found["precision of words"].reached <= found["precision of words"].yardstick + 0.05
        assert abs(found["AUC"].reached - 0.5) < 0.15
        assert found["whole rows"].reached == 0.0

    def test_a_reader_of_versions_sees_less_than_the_aggregator(self, scene):
        """A client that only pulls sees less of a project in an aggregation of ten than the aggregator in its
        update.
        """
        versions = by_measure(word_findings("difference", PULLED[1], scene), "default")
        update = by_measure(word_findings("words", DEFAULT, scene), "default")
        assert versions["precision of words"].reached < 0.7 < update["precision of words"].reached

    @pytest.mark.full
    def test_evaluation_of_a_word_reveals_its_users_unless_noised(self, corpus):
        """An evaluation of one word reveals who uses it, and a noised one does not, in the mean of four attacks."""
        found: dict[str, list[float]] = {"default": [], "epsilon 8": []}
        for seed in range(1, 5):
            for one in attack_by_probes(make_scene([corpus], seed=seed, views=8)):
                found.setdefault(one.protection, []).append(one.reached)
        assert min(found["default"]) > 0.8
        assert mean(found["epsilon 8"]) < 0.65


class TestPoison:
    def test_one_liar_among_honest_projects_changes_little(self, scene):
        """The geometric median holds a liar even without limits on sizes, who ruined the mean; with limits, too."""
        found = {one.protection: one for one in attack_with_lies(scene)}
        assert found["off"].yardstick > 0.8
        assert found["off"].reached > found["off"].yardstick - 0.05
        assert found["default"].reached > found["default"].yardstick - 0.05

    def test_seed_fixes_the_members_and_another_draws_others(self, corpus, scene):
        """The same seed sees the same members and another one others."""

        def vectors(one: AttackScene) -> Iterator[bytes]:
            return (view.vector.tobytes() for view in views(SHARES, one.attacked, one, "a test"))

        again, other = (make_scene([corpus], seed=seed, views=8) for seed in (1, 2))
        assert list(vectors(scene)) == list(vectors(again)) != list(vectors(other))

    def test_the_words_of_a_row_are_those_that_its_coordinates_say(self, scene):
        rows = scene.own[0].rows
        names = schema().tasks["flaky"].names()
        worded = [sum(names[index].startswith(("name=", "source=")) for index in ripe.example.indices) for ripe in rows]
        assert presence(rows).sum(axis=1).tolist() == worded
        assert np.mean(worded) > 5


class TestCommand:
    def test_too_few_tests_are_an_error_that_says_what_is_needed(self, tmp_path):
        (tmp_path / "tests.csv").write_text("test,seconds,flaky,failing_runs,passing_runs,tokens\nA#a,1,0,0,9,x\n")
        with pytest.raises(InputError, match="too few recorded tests"):
            make_scene([tmp_path], seed=1)

    def test_the_command_knows_every_attack(self):
        (option,) = (parameter for parameter in attacks.params if parameter.name == "attack")
        assert isinstance(option.type, click.Choice)
        assert (*ATTACKS, *BUILD_ATTACKS, "all") == tuple(option.type.choices)

    def test_the_command_writes_what_it_prints(self, corpus, tmp_path):
        path = tmp_path / "found.json"
        ran = CliRunner().invoke(attacks, ["--attack", "strangers", "--figures", str(path), str(corpus)])
        assert ran.exit_code == 0, ran.output
        assert "words outside the list" in ran.output
        findings = json.loads(path.read_text())
        protections = [finding["protection"] for finding in findings]
        assert protections == ["off (open list)", "default", "shares of 5", "epsilon 8"]

    def test_simulate_without_a_task_names_the_tasks(self, corpus):
        """`fedstep simulate` without a task is an error that names the tasks, and it has no attack."""
        ran = CliRunner().invoke(simulate, [str(corpus)])
        assert isinstance(ran.exception, UsageError)
        assert "build-duration" in ran.exception.remedy
        assert {"attack", "privacy"}.isdisjoint(parameter.name for parameter in simulate.params)

    def test_the_page_has_the_figures_of_every_attack(self):
        page = (ROOT / "docs/explanation/attacks.md").read_text(encoding="utf-8")
        task, line = attacks_table([]).splitlines()
        assert f"{task}\n{line}\n" in page
        assert all(f"\n| {name} |" in page for name in (*ATTACKS, *BUILD_ATTACKS))
