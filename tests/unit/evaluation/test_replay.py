"""Nothing of a replay knows what it could not have known: the facts that every figure of a study stands on."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.evaluation.corpus import BuildStep, Case, KnownLabel, read_steps, write_steps
from fedstep.evaluation.replay import Extracted, build_steps, interleave, with_own_commits
from fedstep.evaluation.replay_tests import NO_WORDS, Truth, test_steps
from fedstep.evaluation.simulated_federation import (
    LocalOnly,
    ReadOnlyLearner,
    SharedLearner,
    SimulatedFederation,
    SimulatedProject,
)
from fedstep.history.summary import PastBuild
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
)

HOUR = 3600.0
TESTS = ("a.NetTest#waits", "a.NetTest#reads", "b.FileTest#opens", "b.FileTest#closes")


def past_builds(draw: random.Random, count: int) -> list[PastBuild]:
    """Builds that overlap: some take longer than the time to the next start."""
    builds, start = [], 1_760_000_000.0
    for _ in range(count):
        start += draw.expovariate(1 / HOUR)
        seconds = draw.lognormvariate(7, 1)
        outcome = draw.choice(("passed", "passed", "failed"))
        branch = draw.choice(("main", "x"))
        builds.append(PastBuild("job||recorded", start, start + seconds, outcome, seconds, branch))
    return builds


def reports(draw: random.Random, count: int) -> list[FinishedBuild]:
    """Builds of four tests, of which one flakes."""
    made = []
    for number in range(count):
        runs = [TestRun(test, Outcome.FAILED if draw.random() < 0.2 else Outcome.PASSED, 0.1) for test in TESTS]
        situation = BuildContext(CiRun(run=str(number)), Change(f"{number:x}", "", ""), 1_760_000_000.0 + HOUR * number)
        finished, outcome = situation.started_at + 60, BuildOutcome.PASSED
        made.append(FinishedBuild(situation, finished, Duration(60.0, "recorded"), outcome, Reports(tuple(runs))))
    return made


def features(steps: Sequence[BuildStep]) -> list[object]:
    """What every case was predicted from."""
    return [
        (case.row.indices, case.row.values, case.row.private, case.estimate) for step in steps for case in step.cases
    ]


def spooled(folder: Path, seed: int, count: int = 60) -> Extracted:
    path = folder / f"{seed}.jsonl"
    steps = write_steps(path, build_steps(past_builds(random.Random(seed), count), "build-failure"))
    return Extracted(str(seed), path, steps)


def said(
    projects: Sequence[Extracted], shared: SharedLearner, name: str, reading: Sequence[str] = ()
) -> dict[int, float]:
    """What was said of one project's builds while all of them lived side by side."""
    participants = {
        one.project: SimulatedProject(
            one.project, "build-failure", ReadOnlyLearner(shared) if one.project in reading else shared
        )
        for one in projects
    }
    predictions = [one for project, step in interleave(projects) for one in participants[project].live(step)]
    return {one.build_index: one.predicted for one in predictions if one.project == name}


class TestKnowledge:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 10_000), place=st.integers(0, 39), task=st.sampled_from(("build-duration", "build-failure"))
    )
    def test_build_does_not_affect_predictions_before_its_end(self, seed: int, place: int, task: str) -> None:
        """A build has no effect on predictions of builds that start before it ends."""
        builds = past_builds(random.Random(seed), 40)
        other = "passed" if builds[place].outcome == "failed" else "failed"
        changed = [*builds]
        changed[place] = builds[place]._replace(seconds=builds[place].seconds * 3, outcome=other)
        ended = builds[place].finished_at
        before = sum(build.started_at < ended for build in builds)
        here, there = (features(list(build_steps(some, task))[:before]) for some in (builds, changed))
        assert here == there
        assert here or place < 10

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10_000), place=st.integers(1, 29), task=st.sampled_from(("flaky", "triage")))
    def test_a_verdict_has_no_effect_on_what_is_said_before_it(self, seed: int, place: int, task: str) -> None:
        builds = reports(random.Random(seed), 30)
        flipped = {Outcome.PASSED: Outcome.FAILED, Outcome.FAILED: Outcome.PASSED}
        runs = tuple(run._replace(outcome=flipped[run.outcome]) for run in builds[place].reports.tests)
        changed = [*builds]
        changed[place] = builds[place]._replace(reports=Reports(runs))
        here, there = (list(test_steps(some, task, Truth(), NO_WORDS)) for some in (builds, changed))
        assert features(here[:place]) == features(there[:place])
        assert [step.known for step in here[: place + 1]] == [step.known for step in there[: place + 1]]

    def test_the_truth_changes_no_row_and_no_label(self) -> None:
        builds = reports(random.Random(3), 60)
        told = {(str(number), test): number % 3 == 0 for number in range(60) for test in TESTS}
        for task in ("flaky", "triage"):
            blind, seeing = (list(test_steps(builds, task, truth, NO_WORDS)) for truth in (Truth(), Truth(told)))
            assert features(blind) == features(seeing)
            labels = [
                [(one.key, one.label, one.weight) for step in steps for one in step.known] for steps in (blind, seeing)
            ]
            assert labels[0] == labels[1] != []

    def test_every_label_becomes_known_after_its_case_and_once(self) -> None:
        for steps in (
            list(build_steps(past_builds(random.Random(1), 80), "build-duration")),
            list(test_steps(reports(random.Random(1), 80), "flaky", Truth(), NO_WORDS)),
            list(test_steps(reports(random.Random(1), 80), "triage", Truth(), NO_WORDS)),
        ):
            asked = {case.key: step.build_index for step in steps for case in step.cases}
            known = [(one.key, step.build_index) for step in steps for one in step.known]
            assert len({key for key, _ in known}) == len(known) > 0
            assert all(asked[key] < number for key, number in known)

    def test_a_flaky_row_waits_for_its_twenty_runs(self) -> None:
        steps = list(test_steps(reports(random.Random(2), 70), "flaky", Truth(), NO_WORDS))
        asked = {case.key: step.build_index for step in steps for case in step.cases}
        assert {step.build_index - asked[one.key] for step in steps for one in step.known} == {20}

    def test_what_is_said_does_not_depend_on_labels_that_come_later(self, tmp_path: Path) -> None:
        one = spooled(tmp_path, 1)
        steps = list(read_steps(one.path))
        changed = [step._replace(known=tuple(k._replace(label=1 - k.label) for k in step.known)) for step in steps]
        for place in (10, 30, 50):
            mixed = [*steps[:place], *changed[place:]]
            path = tmp_path / "mixed.jsonl"
            count = write_steps(path, mixed)
            here = said([one], LocalOnly("build-failure"), "1")
            there = said([replace(one, path=path, steps=count)], LocalOnly("build-failure"), "1")
            assert {n: said for n, said in here.items() if n < place} == {
                n: said for n, said in there.items() if n < place
            }
            assert here != there


class TestFederation:
    def test_alone_nobody_else_matters_and_in_a_federation_others_do(self, tmp_path: Path) -> None:
        one, other = spooled(tmp_path, 1), spooled(tmp_path, 2)
        assert said([one], LocalOnly("build-failure"), "1") == said([one, other], LocalOnly("build-failure"), "1")
        assert said([one], SimulatedFederation("build-failure"), "1") != said(
            [one, other], SimulatedFederation("build-failure"), "1"
        )

    def test_a_project_that_is_held_out_gives_nothing_to_the_others(self, tmp_path: Path) -> None:
        one, other = spooled(tmp_path, 1), spooled(tmp_path, 2)
        without = said([one], SimulatedFederation("build-failure"), "1")
        assert said([one, other], SimulatedFederation("build-failure"), "1", reading=("2",)) == without

    def test_a_revert_does_not_have_the_commit_that_it_states(self) -> None:
        """Else its regressions are proof of flakes; the same build again keeps it, and so does another attempt."""
        build = reports(random.Random(1), 1)[0]
        revert = (FileChange("src/shop.py", 0, 3),)
        change = build.situation.change
        assert isinstance(change, Change)
        reverted = build._replace(situation=build.situation._replace(change=change._replace(files=revert)))
        again = reverted._replace(situation=reverted.situation._replace(ci=CiRun("recorded", "2", attempt=2)))
        found = [one.situation.change for one in with_own_commits([build, build, reverted, reverted, again])]
        assert [getattr(one, "commit", None) for one in found] == ["0", "0", "", "", "0"]

    @pytest.mark.parametrize("seed", [None, 1, 2])
    def test_interleaving_keeps_each_projects_order(self, tmp_path: Path, seed: int | None) -> None:
        """Interleaving keeps each project's order and mixes projects."""
        projects = [spooled(tmp_path, 1, 30), spooled(tmp_path, 2, 90)]
        order = [(name, step.build_index) for name, step in interleave(projects, seed)]
        assert [number for name, number in order if name == "2"] == list(range(91))
        assert [number for name, number in order if name == "1"] == list(range(31))
        middle = [name for name, _ in order[: len(order) // 2]]
        assert 8 <= middle.count("1") <= 24

    def test_steps_survive_their_file(self, tmp_path: Path) -> None:
        for steps in (
            list(build_steps(past_builds(random.Random(5), 30), "build-duration")),
            list(test_steps(reports(random.Random(5), 40), "triage", Truth({("3", TESTS[0]): True}), NO_WORDS)),
        ):
            write_steps(tmp_path / "steps", steps)
            back = list(read_steps(tmp_path / "steps"))
            assert [step.build_index for step in back] == [step.build_index for step in steps]
            assert [[(k.key, k.label, k.weight) for k in step.known] for step in back] == [
                [(k.key, k.label, k.weight) for k in step.known] for step in steps
            ]
            rows = [(case.key, case.stream, case.row.indices, case.row.private) for step in back for case in step.cases]
            assert rows == [
                (case.key, case.stream, case.row.indices, case.row.private) for s in steps for case in s.cases
            ]
            values = zip((c for s in back for c in s.cases), (c for s in steps for c in s.cases), strict=True)
            assert all(one.row.values == pytest.approx(two.row.values, abs=1e-6) for one, two in values)
            assert any(isinstance(case, Case) for step in back for case in step.cases)
            assert any(isinstance(known, KnownLabel) for step in back for known in step.known)
