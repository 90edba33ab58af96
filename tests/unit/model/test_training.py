"""Facts about learning from the log: step by step, all at once, and again after a cache was lost."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from fedstep.federation.model_cache import load_model, load_starter_model
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord
from fedstep.history.summary import load_summary, save_summary
from fedstep.model.labels import LabelledExample
from fedstep.model.predictor import Predictor
from fedstep.model.state import LocalModel, SentBatch, encode_queue
from fedstep.model.training import LearnedState, learn_new_records, load_state, save_state
from fedstep.pipeline.train import evaluate_build, record_build
from fedstep.schema.schema import schema
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

FLAKY = "org.acme.web.SocketTest#waitsForServer"
BUILDS = 62
STEADY = tuple(f"org.acme.core.Part{n % 6}Test#case{n}" for n in range(23))


def evidence(number: int, draw: random.Random) -> FinishedBuild:
    """A build of 24 tests, one of them flaky at 30 %; a regression now and then."""
    failing = draw.random() < 0.1
    runs = [TestRun(FLAKY, Outcome.FLAKED if draw.random() < 0.3 else Outcome.PASSED, 0.5)]
    for test in STEADY:
        broken = failing and test == STEADY[number % 23]
        runs.append(TestRun(test, Outcome.CONFIRMED if broken else Outcome.PASSED, draw.random() / 10))
    at = 1_760_000_000.0 + 7200 * number
    change = Change(
        f"{number:040x}", "", "ann@example.org", (FileChange(f"src/org/acme/core/File{number}.java", 3, 1),)
    )
    ci = CiRun(vendor="generic", run=str(number), job="unit", branch=draw.choice(["main", "topic"]), event="push")
    seconds = 300 * draw.lognormvariate(0, 0.2)
    outcome = BuildOutcome.FAILED if failing else BuildOutcome.PASSED
    reports = Reports(tuple(runs), 1, (), f"{number:064x}")
    return FinishedBuild(BuildContext(ci, change, at), at + seconds, Duration(seconds, "mark"), outcome, reports)


def live(home: ProjectStore, builds: int, learning: bool = True) -> None:
    home.prepare()
    draw = random.Random(7)
    production = load_starter_model().production
    for number in range(builds):
        record_build(home, evaluate_build(home, evidence(number, draw), load_model(home)), lambda _: {})
        if learning and number % 4 == 1:
            save_state(home, learn_new_records(home, production).state)
        elif not learning:
            save_summary(home, load_summary(home).summary)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> ProjectStore:
    home = ProjectStore(str(tmp_path_factory.mktemp("lived")))
    live(home, BUILDS)
    return home


def copy_of(home: ProjectStore, folder: Path) -> ProjectStore:
    other = ProjectStore(str(folder / "copy"))
    for path in Path(home.folder).rglob("*"):
        if path.is_file():
            other.write(str(path.relative_to(home.folder)), path.read_bytes())
    return other


def numbers(correction: LocalModel) -> dict[str, float]:
    """Every learned number by its place."""
    found: dict[str, float] = {}
    for task, local in correction.local.items():
        found |= {f"{task} {index}": weight for index, weight in local.shared.items()}
        found |= {f"{task} {name}": weight for name, weight in local.private.items()}
    for kind in ("platt", "trackers", "scores"):
        for name, value in getattr(correction, kind).items():
            found |= {f"{kind} {name} {field}": getattr(value, field) for field in value.__slots__}
    return found


def assert_same(one: LearnedState, other: LearnedState) -> None:
    assert one.summary == other.summary
    assert encode_queue(one.backlog, "") == encode_queue(other.backlog, "")
    assert numbers(one.correction) == pytest.approx(numbers(other.correction), abs=1e-9, rel=1e-9)


class TestLostCache:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("lost", "damage"),
        [
            ("summary.json", None),
            ("correction.json", None),
            ("backlog.json", None),
            ("summary.json", b"{}"),
            ("correction.json", b""),
            ("backlog.json", b"\x1f\x8b\x08\x00 garbage"),
        ],
    )
    def test_a_lost_or_damaged_cache_is_learned_again_as_it_was(
        self, lived: ProjectStore, tmp_path: Path, lost: str, damage: bytes | None
    ) -> None:
        before = load_state(lived)
        assert before.summary.count == BUILDS
        assert before.correction.local
        home = copy_of(lived, tmp_path)
        if damage is None:
            (Path(home.folder) / lost).unlink()
        else:
            home.write(lost, damage)
        progress = learn_new_records(home, load_starter_model().production)
        assert progress.records == BUILDS
        after = before if lost != "backlog.json" else replace(before, backlog=before.backlog._replace(waiting={}))
        assert_same(progress.state, after)
        save_state(home, progress.state)
        assert_same(load_state(home), after)

    @pytest.mark.slow
    @pytest.mark.parametrize("lost", [(), ("backlog.json",), ("backlog.json", "correction.json")])
    def test_of_what_is_learned_again_only_rows_that_waited_wait(
        self, lived: ProjectStore, tmp_path: Path, lost: Sequence[str]
    ) -> None:
        """What was sent is not known any more: the backlog tells what was not; without it nothing is sent again."""
        home, state = copy_of(lived, tmp_path), load_state(lived)
        one = state.backlog.waiting["flaky"][-1:]
        save_state(home, replace(state, backlog=state.backlog._replace(waiting={"flaky": one})))
        (Path(home.folder) / "summary.json").unlink()
        for name in lost[:1]:
            (Path(home.folder) / name).unlink()
        for name in lost[1:]:
            home.write(name, b"damaged")
        waiting = learn_new_records(home, load_starter_model().production).state.backlog.waiting
        assert repr(dict(waiting)) == repr({} if lost else {"flaky": one})

    def test_what_was_sent_stays_when_all_is_learned_again(self, lived: ProjectStore, tmp_path: Path):
        """Evaluations are made on it: without it a version on trial is judged by one batch."""
        home, state = copy_of(lived, tmp_path), load_state(lived)
        sent = {"flaky": (SentBatch(state.backlog.waiting["flaky"][-3:], ("a", "b")),)}
        save_state(home, replace(state, backlog=state.backlog._replace(sent=sent)))
        (Path(home.folder) / "summary.json").unlink()
        assert repr(learn_new_records(home, load_starter_model().production).state.backlog.sent) == repr(sent)

    def test_a_log_that_was_never_learned_waits_as_a_whole(self, lived: ProjectStore, tmp_path: Path) -> None:
        home = copy_of(lived, tmp_path)
        for name in ("summary.json", "correction.json", "backlog.json"):
            (Path(home.folder) / name).unlink()
        assert_same(learn_new_records(home, load_starter_model().production).state, load_state(lived))

    def test_nothing_new_teaches_nothing(self, lived: ProjectStore) -> None:
        progress = learn_new_records(lived, load_starter_model().production)
        assert (progress.records, progress.labels_known) == (0, 0)
        assert_same(progress.state, load_state(lived))

    def test_caches_of_different_generations_are_learned_again(self, lived: ProjectStore, tmp_path: Path) -> None:
        home = copy_of(lived, tmp_path)
        save_state(home, LearnedState())
        home.write("summary.json", lived.read("summary.json"))
        home.write("correction.json", lived.read("correction.json"))
        assert load_state(home) == LearnedState()
        before = load_state(lived)
        unsent = replace(before, backlog=before.backlog._replace(waiting={}))
        assert_same(learn_new_records(home, load_starter_model().production).state, unsent)


class TestAnotherSchema:
    def test_examples_that_can_no_longer_be_sent_are_named(self, lived: ProjectStore, tmp_path: Path) -> None:
        """An upgrade that changes features drops what waits to be sent, and the run that does it says so, once."""
        home, production = copy_of(lived, tmp_path), load_starter_model().production
        waiting = sum(map(len, load_state(lived).backlog.waiting.values()))
        assert waiting
        for name in ("backlog.json", "correction.json"):
            home.write(name, home.read(name).replace(schema().digest.encode(), b"0" * 16))
        progress = learn_new_records(home, production)
        assert progress.warnings[0].startswith(f"{waiting} examples waiting to be sent are dropped: another version")
        save_state(home, progress.state)
        assert not learn_new_records(home, production).warnings


class TestRecords:
    def test_rows_are_labelled_after_pruning_as_before(self, lived: ProjectStore, tmp_path: Path) -> None:
        home = copy_of(lived, tmp_path)
        home.log.prune(30)
        for name in ("summary.json", "correction.json", "backlog.json"):
            (Path(home.folder) / name).unlink()
        state = learn_new_records(home, load_starter_model().production).state
        assert state.summary.count == 30
        flaky = state.backlog.recent["flaky"]
        assert flaky
        assert all(row.run < 30 for row in (ripe.example for ripe in flaky))
        assert all(row.run < 30 for row in state.backlog.pending["flaky"])

    def test_damaged_record_is_skipped_once(self, lived: ProjectStore, tmp_path: Path) -> None:
        """A damaged record is skipped once, and the rest is learned."""
        home = copy_of(lived, tmp_path)
        damaged = home.log.files()[30]
        home.write(f"builds/{damaged}", b"half")
        home.write("summary.json", b"")
        progress = learn_new_records(home, load_starter_model().production)
        assert progress.records == BUILDS - 1
        assert [damaged in warning for warning in progress.warnings] == [True]
        save_state(home, progress.state)
        assert learn_new_records(home, load_starter_model().production).warnings == ()


def _learn_one(home: ProjectStore, state: LearnedState, name: str) -> LearnedState:
    from fedstep.history.summary import apply_record
    from fedstep.model.training import learn_record

    entry = home.log.read(name)
    assert isinstance(entry, BuildRecord)
    summary = apply_record(state.summary, name, entry)
    learned = learn_record(state.correction, state.backlog, entry, summary.tests, load_starter_model().production)
    return LearnedState(summary, learned.correction, learned.backlog)


def _new(ripe: Sequence[LabelledExample], known: set[tuple[str, int]]) -> list[LabelledExample]:
    fresh = [one for one in ripe if (one.example.subject, one.example.run) not in known]
    known |= {(one.example.subject, one.example.run) for one in ripe}
    return fresh


class TestRows:
    def test_each_test_gives_one_flaky_row_a_horizon(self, lived: ProjectStore) -> None:
        ripe = [one.example for one in load_state(lived).backlog.waiting["flaky"]]
        waiting = load_state(lived).backlog.pending["flaky"]
        for test in (FLAKY, *STEADY):
            turns = [row.run for row in (*ripe, *waiting) if row.subject == test]
            assert len(turns) in (3, 4)
            assert {later - sooner for sooner, later in pairwise(turns)} == {20}

    def test_positives_ripen_no_sooner_than_negatives(self, tmp_path: Path) -> None:
        home = ProjectStore(str(tmp_path))
        live(home, 45, learning=False)
        state, ages = LearnedState(), set[tuple[str, int]]()
        for name in home.log.files():
            seen = state.summary.count
            (Path(home.folder) / "hidden").mkdir(exist_ok=True)
            state = _learn_one(home, state, name)
            for ripe in _new(state.backlog.recent.get("flaky", ()), ages):
                assert seen + 1 - ripe.example.run == 20
        assert {ripe.label for ripe in state.backlog.recent["flaky"]} == {0.0, 1.0}

    def test_a_flaky_test_is_ranked_first_after_sixty_builds(self, lived: ProjectStore) -> None:
        state = load_state(lived)
        ranked = Predictor(load_starter_model().production, state.correction).flakiest(state.summary, 5, at_least=0.0)
        assert ranked[0].test == FLAKY
        assert ranked[0].probability > 0.5
        assert all(other.probability < 0.5 for other in ranked[1:])
        assert ranked[0].flips == state.summary.tests[FLAKY].flips > 5
        assert ranked[0].last_outcomes.count("k") > 1
        assert any(reason.feature.startswith("flake-rate") for reason in ranked[0].reasons)

    def test_rows_are_kept_only_where_they_are_learned_again(self, lived: ProjectStore) -> None:
        recent = load_state(lived).backlog.recent
        assert {task: len(rows) for task, rows in recent.items() if rows}.keys() <= {"flaky", "triage"}
        assert 0 < len(recent["flaky"]) <= 30

    def test_the_same_build_observed_again_is_not_recorded(self, lived: ProjectStore, tmp_path: Path) -> None:
        home = copy_of(lived, tmp_path)
        again = evaluate_build(home, evidence(0, random.Random(7)), load_model(home))
        assert record_build(home, again, lambda _: {}) is False
        assert len(home.log.files()) == BUILDS

    def test_rows_made_earlier_do_not_change_with_later_builds(self, lived: ProjectStore, tmp_path: Path) -> None:
        shorter = ProjectStore(str(tmp_path))
        shorter.write("key", lived.read("key"))
        live(shorter, 25, learning=False)
        for name in shorter.log.files():
            early, late = shorter.log.read(name), lived.log.read(name)
            assert isinstance(early, BuildRecord)
            assert isinstance(late, BuildRecord)
            # `shorter` was never learned, so that the starter model alone made its forecasts.
            assert repr(early._replace(forecast=late.forecast)) == repr(late)


class TestPrivacy:
    def test_private_names_stay_private(self, lived: ProjectStore) -> None:
        summary = load_summary(lived).summary
        names = {name for task in ("flaky", "triage") for name in _coordinates(task)}
        assert not [name for name in names if "acme" in name.lower() or "part0" in name.lower()]
        kept = load_state(lived).correction.local["flaky"].private
        assert set(kept) <= {f"test={t}" for t in summary.tests} | {f"class={t.split('#')[0]}" for t in summary.tests}
        assert replace(summary, count=0) != summary


def _coordinates(task: str) -> tuple[str, ...]:
    from fedstep.schema.schema import schema

    return schema().tasks[task].names()
