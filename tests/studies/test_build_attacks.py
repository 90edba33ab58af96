"""The attacker who asks whether a build is in an update, on a few projects that are made here."""

import csv
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from fedstep.errors import InputError
from fedstep.federation.messages import unpack_update
from fedstep.schema.schema import schema
from tests.studies.attacks.__main__ import attacks
from tests.studies.attacks.build_membership import WAYS, Way, build_finding
from tests.studies.attacks.build_scene import HEADS, BuildScene, make_build_scene
from tests.studies.attacks.study import ATTACKS, BUILD_ATTACKS, attacks_on

PROJECTS, BUILDS = 8, 60


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects of 60 builds on a few branches, which fail and take their time as it happens."""
    folder = tmp_path_factory.mktemp("recorded")
    for project in range(PROJECTS):
        dice, path = Random(project), folder / f"project{project}" / "builds.csv"
        path.parent.mkdir()
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["seconds", "outcome", "branch", "seconds_since_previous", "lines_added", "files_changed"])
            for _ in range(BUILDS):
                outcome = dice.choice(["passed", "passed", "failed"])
                change = dice.randrange(500), dice.randrange(30)
                rows.writerow(
                    [dice.lognormvariate(6, 0.5), outcome, f"b{dice.randrange(5)}", dice.expovariate(1 / 9000), *change]
                )
    return folder


@pytest.fixture(scope="module")
def scene(recorded: Path) -> BuildScene:
    return make_build_scene([recorded], seed=1, views=12)


def way(name: str) -> Way:
    return next(one for one in WAYS if one.name == name)


class TestMembership:
    def test_batch_is_what_production_sends_without_the_other_builds(self, scene):
        """A batch of builds is what production sends, and the others of those days are not in it."""
        size = schema().tasks[HEADS[0]].minimum_rows
        for one in (*scene.own, *scene.attacked):
            assert unpack_update(one.body).deltas.keys() == {*HEADS}
            sent, kept = ({lesson.rows[HEADS[0]].example.subject for lesson in part} for part in (one.sent, one.rest))
            assert (len(sent), len(kept)) == (size, size)
            assert sent.isdisjoint(kept)

    def test_no_project_is_the_attackers_and_attacked(self, scene):
        assert {one.project for one in scene.own}.isdisjoint(one.project for one in scene.attacked)

    def test_a_build_that_is_sent_alone_is_found_and_noise_hides_it(self, scene):
        alone, batch, noised = (build_finding(way(name), scene).reached for name in ("off", "default", "epsilon 8"))
        assert alone > 0.95
        assert batch > 0.65
        assert noised < 0.62

    def test_a_sum_of_builders_tells_less_than_the_batch_of_one(self, scene):
        alone, many = (build_finding(way(name), scene).reached for name in ("default", "shares of 10"))
        assert many < alone

    def test_the_same_seed_finds_the_same(self, recorded, scene):
        again = make_build_scene([recorded], seed=1, views=12)
        assert build_finding(way("shares of 5"), again) == build_finding(way("shares of 5"), scene)


class TestCorpus:
    def test_all_attacks_are_those_that_something_is_recorded_for(self, recorded, tmp_path):
        assert attacks_on([recorded]) == (*BUILD_ATTACKS,)
        assert attacks_on([tmp_path]) == (*ATTACKS,)
        (tmp_path / "tests.csv").touch()
        assert attacks_on([tmp_path, recorded]) == (*ATTACKS, *BUILD_ATTACKS)

    def test_too_few_builds_are_an_error_that_says_what_is_needed(self, tmp_path):
        (tmp_path / "builds.csv").write_text("seconds,outcome\n60,passed\n")
        with pytest.raises(InputError, match="too few recorded builds"):
            make_build_scene([tmp_path], seed=1)

    def test_tests_alone_are_no_builds_to_attack(self, tmp_path):
        (tmp_path / "tests.csv").write_text("test,seconds,flaky,failing_runs,passing_runs,tokens\n")
        ran = CliRunner().invoke(attacks, ["--attack", "build-membership", str(tmp_path)])
        assert isinstance(ran.exception, InputError)
        assert "builds.csv" in str(ran.exception)
