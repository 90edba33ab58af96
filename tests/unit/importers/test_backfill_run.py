"""Facts about learning from the past: in the order of the ends, once, the same whether or not it was interrupted."""

import io
import json
import random
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.federation.messages import Model, pack_model
from fedstep.federation.model_cache import load_model, save_model
from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import load_summary
from fedstep.importers.backfill_run import backfill
from fedstep.importers.base import BuildFilter, ImportItem, ImportSource, ProgressBar, order_by_end
from fedstep.model.linear import zeros
from fedstep.model.predictor import load_predictor
from fedstep.model.training import load_state
from fedstep.pipeline.predict import load_prediction
from fedstep.pipeline.train import evaluate_build, learn, record_build
from fedstep.schema.schema import schema
from fedstep.types import (
    NO_SECONDS,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Dropped,
    Duration,
    FileChange,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
)

START, HOUR = 1_700_000_000.0, 3600.0


def build(number: int, vendor: str = "recorded", job: str = "test", digest: str = "") -> FinishedBuild:
    """A build of thirty tests, one of which flakes often."""
    draw = random.Random(number)
    runs = tuple(
        TestRun(
            f"org.acme.C{n % 5}Test#t{n}", Outcome.FAILED if n == 3 and draw.random() < 0.4 else Outcome.PASSED, n / 8
        )
        for n in range(30)
    )
    failed = any(run.outcome == Outcome.FAILED for run in runs)
    ci = CiRun(vendor=vendor, run=f"r{number}", job=job, branch="main", event="push")
    change = Change(f"{number // 2:040x}", "", "ada@example.org", (FileChange("src/Main.java", number % 7, 1),))
    started = START + number * HOUR
    return FinishedBuild(
        BuildContext(ci, change, started),
        started + 300 + number,
        Duration(300.0 + number, vendor),
        BuildOutcome.FAILED if failed else BuildOutcome.PASSED,
        Reports(runs, 1, (), digest),
    )


def past(*builds: FinishedBuild | Dropped) -> ImportSource:
    pending = [
        ImportItem(one.finished_at if isinstance(one, FinishedBuild) else 0.0, partial(tuple, (one,))) for one in builds
    ]
    return ImportSource(len(pending), sorted(pending, key=lambda one: one.after))


def new_home(folder: Path) -> ProjectStore:
    """A history with a key that is always the same: names, and what is due when, depend on it."""
    home = ProjectStore(str(folder))
    home.prepare()
    home.write("key", b"11" * 32)
    return home


def caches(home: ProjectStore) -> dict[str, object]:
    """What is made from the log, as it stands on the disk."""
    names = ("summary.json", "correction.json", "backlog.json")
    return {name: json.loads(home.read(name)) for name in names}


def trained_live(folder: Path, builds: list[FinishedBuild]) -> ProjectStore:
    """The same builds, one `train` after the other."""
    home = new_home(folder)
    for one in builds:
        kept = load_model(home)
        record_build(home, evaluate_build(home, one, kept), lambda _runs: {})
        learn(home, kept)
    return home


class Stops(Exception):
    pass


def _stop_at(stop: int, done: int, _results: int) -> None:
    if done >= stop:
        raise Stops


class TestOrder:
    def test_a_backfill_learns_what_training_live_would_have_learned(self, tmp_path: Path) -> None:
        builds = [build(number) for number in range(30)]
        live = trained_live(tmp_path / "live", builds)
        home = new_home(tmp_path / "past")
        done = backfill(home, past(*random.Random(1).sample(builds, 30)))
        assert (done.recorded, done.known, done.tests) == (30, 0, 900)
        assert caches(home) == caches(live)
        assert home.log.files() == live.log.files()

    @pytest.mark.slow
    @settings(max_examples=4, deadline=None)
    @given(st.lists(st.integers(1, 24), min_size=1, max_size=3), st.sampled_from([0.0, 10.0]))
    def test_stopped_and_repeated_import_gives_the_same_history(
        self, tmp_path_factory: pytest.TempPathFactory, stops: list[int], tick: float
    ) -> None:
        """An import that is stopped and run again gives the same history."""
        builds = [build(number) for number in range(25)]
        folder = tmp_path_factory.mktemp("stopped")
        whole, home = new_home(folder / "whole"), new_home(folder / "home")
        backfill(whole, past(*builds))
        clock = count(0.0, tick)
        for stop in stops:
            with pytest.raises(Stops):
                backfill(home, past(*builds), progress=partial(_stop_at, stop), clock=partial(next, clock))
        done = backfill(home, past(*builds))
        assert done.recorded + done.known == 25
        assert caches(home) == caches(whole)

    def test_a_kill_between_two_stores_loses_nothing(self, tmp_path: Path) -> None:
        builds = [build(number) for number in range(25)]
        whole, home = new_home(tmp_path / "whole"), new_home(tmp_path / "home")
        backfill(whole, past(*builds))
        backfill(home, past(*builds[:10]))
        kept = {name: home.read(name) for name in ("summary.json", "correction.json", "backlog.json")}
        backfill(home, past(*builds[:17]))
        for name, content in kept.items():  # as if the seven builds since had never been stored
            home.write(name, content)
        assert backfill(home, past(*builds)).recorded == 8
        assert caches(home) == caches(whole)

    def test_builds_older_than_what_is_known_are_learned_before_it(self, tmp_path: Path) -> None:
        builds = [build(number) for number in range(30)]
        whole, home = new_home(tmp_path / "whole"), new_home(tmp_path / "home")
        backfill(whole, past(*builds))
        backfill(home, past(*builds[20:]))
        backfill(home, past(*builds[:20]))
        ours, theirs = load_summary(home).summary, load_summary(whole).summary
        recorded = [build._replace(missed=NO_SECONDS) for build in theirs.builds]  # estimated when it was recorded
        assert [build._replace(missed=NO_SECONDS) for build in ours.builds] == recorded
        assert ours.tests == theirs.tests
        assert load_state(home).summary.count == 30

    def test_a_build_counts_once_also_after_its_record_was_pruned(self, tmp_path: Path) -> None:
        home, builds = new_home(tmp_path), [build(number) for number in range(30)]
        first = backfill(home, past(*builds), keep=5)
        assert (first.recorded, len(home.log.files()), load_summary(home).summary.count) == (30, 5, 30)
        before = load_summary(home).summary
        again = backfill(home, past(*builds), keep=5)
        assert (again.recorded, again.known, again.rows) == (0, 30, 0)
        after = load_summary(home).summary
        assert (after.count, after.tests, after.builds) == (30, before.tests, before.builds)


class TestReading:
    def test_a_damaged_list_of_imports_is_no_reason_to_fail(self, tmp_path: Path) -> None:
        home, builds = new_home(tmp_path), [build(number) for number in range(4)]
        backfill(home, past(*builds), keep=1)
        home.write("imported", home.read("imported")[:-5] + b"\xff\xfe")
        again = backfill(home, past(*builds), keep=2)
        assert (again.recorded, again.known) == (0, 4)
        assert backfill(home, past(*builds), keep=2).known == 4

    def test_what_is_read_from_the_outlook_is_what_the_history_says(self, tmp_path: Path) -> None:
        home = new_home(tmp_path)
        backfill(home, past(*(build(number) for number in range(30))))
        kept = load_model(home)
        known = load_prediction(home, kept, load_predictor(home, kept.model.production))
        assert known.summary.tests == {}, "it came from the cache"
        assert known.tests_known == 30
        assert known.flakiest[0].test == "org.acme.C3Test#t3"

    def test_bad_builds_are_named_and_counted_and_the_others_learned(self, tmp_path: Path) -> None:
        home = new_home(tmp_path)
        bad = [Dropped(f"b{number}", "cannot be read") for number in range(30)]
        done = backfill(home, past(build(1), *bad, build(2)))
        assert (done.recorded, done.dropped) == (2, 30)
        assert done.warnings[0] == "b0 cannot be read"
        assert done.warnings[-1] == "10 more like these are not shown"

    def test_unusable_reports_are_named_and_the_tests_learned(self, tmp_path: Path) -> None:
        """Unusable reports of a build are named and its tests learned."""
        one = build(1)
        lost = (Dropped("a.xml", "not XML"), Dropped("b.xml", "not XML"), Dropped("c.xml", "mended", True))
        done = backfill(new_home(tmp_path), past(one._replace(reports=one.reports._replace(dropped=lost))))
        assert (done.recorded, done.dropped) == (1, 0)
        assert done.warnings == ("r1: a.xml not XML (1 more in this build)",)

    def test_only_wanted_builds_are_learned(self, tmp_path: Path) -> None:
        builds = past(*(build(number, job=f"job-{number % 2}") for number in range(10)))
        home = new_home(tmp_path)
        done = backfill(home, builds, BuildFilter(since=START + 4 * HOUR, job="*-1"))
        assert (done.recorded, done.known, done.tests) == (3, 0, 90)
        assert {one.stream for one in load_summary(home).summary.builds} == {"job-1||recorded"}

    @pytest.mark.parametrize(
        ("job", "minutes", "same"), [("test", 0, True), ("lint", 0, False), ("test", 20, False)], ids=str
    )
    def test_build_that_train_recorded_is_not_learned_again(
        self, tmp_path: Path, job: str, minutes: int, same: bool
    ) -> None:
        """A build that `train` recorded is not learned again from its server."""
        home = new_home(tmp_path)
        live = build(5, "github", digest="of the files")
        record_build(home, evaluate_build(home, live, load_model(home)), lambda _runs: {})
        told = build(5, "github", job=job)
        later = told._replace(
            situation=told.situation._replace(started_at=told.situation.started_at + 60 * minutes),
            finished_at=told.finished_at + 60 * minutes + 5,
        )
        done = backfill(home, past(later))
        assert (done.recorded, done.known) == ((0, 1) if same else (1, 0))

    @pytest.mark.parametrize(
        ("recorded", "told", "same"), [("", "CI", True), ("CI", "CI", True), ("CI", "Lint", False)]
    )
    def test_a_job_of_another_workflow_was_not_recorded(
        self, tmp_path: Path, recorded: str, told: str, same: bool
    ) -> None:
        """A record of before has no workflow: its job is enough."""
        home, live, later = new_home(tmp_path), build(5, "github", digest="of the files"), build(5, "github")
        live, later = (
            one._replace(situation=one.situation._replace(ci=one.situation.ci._replace(workflow=workflow)))
            for one, workflow in ((live, recorded), (later, told))
        )
        record_build(home, evaluate_build(home, live, load_model(home)), lambda _runs: {})
        assert backfill(home, past(later)).known == same


class TestSources:
    def test_learned_source_is_not_read_again(self, tmp_path: Path) -> None:
        """A thing that was learned is not read again, and its builds count as known."""
        home, read = new_home(tmp_path), []

        def reading() -> tuple[FinishedBuild, ...]:
            read.append("once")
            return build(1), build(2)

        source = ImportSource(1, (ImportItem(START, reading, ("github", "acme/shop", "1")),))
        assert backfill(home, source).recorded == 2
        again = backfill(home, source)
        assert (again.recorded, again.known, read) == (0, 2, ["once"])

    def test_a_thing_with_a_part_that_cannot_be_read_is_read_again(self, tmp_path: Path) -> None:
        home, read = new_home(tmp_path), []

        def reading() -> tuple[FinishedBuild | Dropped, ...]:
            read.append("again")
            return build(1), Dropped("artifact x", "has expired")

        source = ImportSource(1, (ImportItem(START, reading, ("github", "acme/shop", "1")),))
        backfill(home, source)
        again = backfill(home, source)
        assert (again.known, again.dropped, read) == (1, 1, ["again", "again"])

    @given(st.lists(st.tuples(st.floats(0, 1e6), st.lists(st.floats(0, 1e5), max_size=3)), max_size=20))
    def test_builds_of_overlapping_sources_come_in_order(self, things: list[tuple[float, list[float]]]) -> None:
        """Builds of things that overlap come in the order of their ends."""

        def reads() -> Iterator[tuple[ImportItem, tuple[FinishedBuild, ...]]]:
            for after, lasting in sorted(things):
                found = tuple(build(1)._replace(finished_at=after + one) for one in lasting)
                yield ImportItem(after, tuple), found

        ends = [one.result.finished_at for one in order_by_end(reads()) if isinstance(one.result, FinishedBuild)]
        assert ends == sorted(after + one for after, lasting in things for one in lasting)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_the_bar_says_what_is_done_and_goes(self) -> None:
        screen, clock = Screen(), count(0.0, 1.0)
        bar = ProgressBar(screen, 40, partial(next, clock))
        bar(10, 5000)
        bar.close()
        assert (
            screen.getvalue()
            == "\r[######..................] 10 of 40 builds, 5,000 test results, 5,000/s\x1b[K\r\x1b[K"
        )

    def test_without_a_terminal_a_line_now_and_then_is_enough(self) -> None:
        log, clock = io.StringIO(), count(0.0, 10.0)
        bar = ProgressBar(log, 40, partial(next, clock))
        for done in range(1, 7):
            bar(done, 600 * done)
        bar.close()
        assert log.getvalue().splitlines() == [
            "fedstep: 3 of 40 builds, 1,800 test results, 60/s",
            "fedstep: 6 of 40 builds, 3,600 test results, 60/s",
        ]


def waiting_builds(home: ProjectStore) -> list[str]:
    """The builds whose rows wait to be sent."""
    return [ripe.example.subject for ripe in load_state(home).backlog.waiting["build-failure"]]


class TestSentExamples:
    def test_sent_examples_are_not_sent_again(self, tmp_path: Path) -> None:
        """What was sent is not sent again when older builds are learned before it."""
        home = new_home(tmp_path)
        weights = {name: zeros(head.size()) for name, head in schema().tasks.items()}
        model = Model(schema().digest, 1, 1, "2026-01-31T12:00Z", weights, weights)
        save_model(home, pack_model(model), "1", "https://fedstep.example.org", 0.0)
        backfill(home, past(*(build(number) for number in range(10, 19))))
        sent = {path.name: path.read_bytes() for path in (tmp_path / "outbox").iterdir()}
        first = waiting_builds(home)
        assert sent
        assert len(first) == 1, "eight builds are a batch, one waits"
        backfill(home, past(*(build(number) for number in range(3))))
        waiting = waiting_builds(home)
        assert len(waiting) == 4
        assert len(set(waiting)) == 4
        assert set(first) <= set(waiting)
        assert {path.name: path.read_bytes() for path in (tmp_path / "outbox").iterdir()} == sent
