"""A row leaves once: whatever breaks off, is copied or learned again, no other update carries it too."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedstep.cli import history as commands
from fedstep.errors import HistoryError
from fedstep.federation.model_cache import CachedModel, load_starter_bytes, load_starter_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import AggregatorLink
from fedstep.federation.transport import HttpResponse, RetryPolicy
from fedstep.history.merge import merge_folder
from fedstep.history.project_store import ProjectStore, StoreLocked, exclusive
from fedstep.importers.backfill_run import BackfillTrainer
from fedstep.model.training import load_queue
from fedstep.pipeline.train import learn, train
from fedstep.results import Exchange, TrainReport
from fedstep.types import (
    BuildContext,
    BuildOutcome,
    CiRun,
    Duration,
    FinishedBuild,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)
from tests.helpers.narrow import expect

NOW = 1_790_000_000.0
URL = "https://hub.example"
KEPT = CachedModel(load_starter_model(), url=URL)
BATCH = 8  # builds
NOBODY = Unavailable("no aggregator is configured")


class Cut(ProjectStore):
    """A home in which one file cannot be written any more: the process is killed there."""

    def write(self, name: str, content: bytes) -> None:
        if name == "correction.json":
            raise KeyboardInterrupt
        super().write(name, content)


class Hub:
    """An aggregator that has a model and takes updates, or answers with another status."""

    def __init__(self, status: int = 200) -> None:
        self.status, self.taken = status, 0

    def send(self, method: str, _path: str, headers: Mapping[str, str], _body: bytes, _timeout: float) -> HttpResponse:
        if self.status != 200:
            return HttpResponse(self.status, {}, b"")
        if method == "GET":
            return HttpResponse(200, {"etag": '"1"'}, load_starter_bytes())
        self.taken += 1
        return HttpResponse(202, {}, b'{"receipt": "r-%s", "version": 1}' % headers["Idempotency-Key"].encode())

    @property
    def aggregator(self) -> AggregatorLink:
        return AggregatorLink(URL, self.send, RetryPolicy(waits=()))


@pytest.fixture
def home(tmp_path: Path) -> ProjectStore:
    made = ProjectStore(str(tmp_path / "home"))
    made.prepare()
    return made


def evidence(number: int) -> FinishedBuild:
    ci, at = CiRun(vendor="github", run=str(number), job="test", branch="main", event="push"), NOW + 1000 * number
    reports = Reports((TestRun("shop.Cart#adds", Outcome.PASSED, 0.5),), 1, (), str(number))
    return FinishedBuild(
        BuildContext(ci, Unavailable("no git"), at - 60), at, Duration(60.0, "github"), BuildOutcome.PASSED, reports
    )


def build(
    home: ProjectStore, *numbers: int, aggregator: AggregatorLink | Unavailable = NOBODY, withheld: str = ""
) -> TrainReport:
    """Train on each; what came of the last one."""
    for number in numbers:
        trained = train(home, evidence(number), lambda _runs: {}, aggregator, NOW, 500, withheld)
    return trained


def copy_of(home: ProjectStore, name: str) -> ProjectStore:
    return ProjectStore(shutil.copytree(home.folder, f"{home.folder}-{name}"))


def unsent(home: ProjectStore) -> set[str]:
    """The builds whose rows wait."""
    return {ripe.example.subject for ripe in load_queue(home).waiting.get("build-failure", ())}


def updates(home: ProjectStore) -> list[str]:
    return [number for number, _ in Outbox(Path(home.outbox)).waiting().updates]


def names(home: ProjectStore) -> list[str]:
    return [name[-36:-4] for name in home.log.files()]


class TestTraining:
    def test_copies_that_withhold_rows_leave_them_to_the_original(self, home):
        """Copies of one history that withhold their examples leave them to the original.

        A CI's cache gives such copies to pull requests.
        """
        build(home, *range(1, BATCH))
        copies = [copy_of(home, name) for name in ("one", "other")]
        hub = Hub()
        for number, copy in enumerate(copies, 100):
            exchange = expect(
                Exchange, build(copy, number, aggregator=hub.aggregator, withheld="it is a copy").exchange
            )
            assert (exchange.withheld, exchange.sent, updates(copy)) == ("it is a copy", (), [])
            assert len(unsent(copy)) == BATCH, "the copy has learned its own build"
        assert hub.taken == 0
        build(home, BATCH, aggregator=hub.aggregator)
        assert (hub.taken, unsent(home)) == (1, set())

    def test_killed_train_sends_no_example_twice(self, home):
        """A `train` that is killed while it stores sends no example twice."""
        build(home, *range(1, BATCH + 1))
        learn(home, KEPT)
        assert (len(updates(home)), unsent(home)) == (1, set())
        with pytest.raises(KeyboardInterrupt):
            build(Cut(home.folder), BATCH + 1)
        assert unsent(home) == {names(home)[-1]}
        build(home, *range(BATCH + 2, 2 * BATCH))
        repaired = names(home)[BATCH + 1]
        assert unsent(home) == set(names(home)[BATCH:]) - {repaired}, "but for the build that learned all again"

    def test_an_update_whose_rows_still_wait_is_not_in_the_outbox(self, home):
        build(home, *range(1, BATCH + 1))
        with pytest.raises(KeyboardInterrupt):
            learn(Cut(home.folder), KEPT)
        assert updates(home) == []

    def test_a_rebuild_that_breaks_off_loses_no_cache(self, home, monkeypatch):
        build(home, *range(1, BATCH + 1))
        learn(home, KEPT)
        before = home.read("backlog.json"), home.read("correction.json"), home.read("summary.json")
        with monkeypatch.context() as stopped:
            stopped.setattr("fedstep.model.training.apply_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                commands.rebuild_model(home)
        assert (home.read("backlog.json"), home.read("correction.json"), home.read("summary.json")) == before
        learn(home, KEPT)
        assert len(updates(home)) == 1

    def test_two_never_learn_in_one_home_at_once(self, home):
        build(home, *range(1, BATCH))
        began, ended = threading.Event(), threading.Event()

        def learning() -> None:
            with exclusive(home):
                began.set()
                ended.wait(30)

        other = threading.Thread(target=learning)
        other.start()
        assert began.wait(30)
        try:
            with pytest.raises(StoreLocked, match="another fedstep is learning"), exclusive(home, 0.0):
                pass
            state = home.read("backlog.json")
            threading.Timer(0.3, ended.set).start()
            build(home, BATCH)
            assert ended.is_set(), "it has waited"
            assert home.read("backlog.json") != state
        finally:
            ended.set()
            other.join()

    def test_who_cannot_wait_any_longer_keeps_the_build_for_the_next(self, home, monkeypatch):
        build(home, 1)
        monkeypatch.setattr("fedstep.pipeline.train.exclusive", lambda of: exclusive(of, 0.0))
        with exclusive(home):
            trained = build(home, 2)
        assert not any(isinstance(problem, HistoryError) for problem in trained.problems)
        assert [line for line in trained.warnings if "another fedstep is learning" in line]
        build(home, 3)
        assert unsent(home) == set(names(home))

    def test_failed_pull_makes_no_update_and_keeps_the_examples(self, home):
        """After a pull that failed, no update is made and its examples wait.

        Where the machine is thrown away, its outbox goes with it, and the examples stay in the queue.
        """
        build(home, *range(1, BATCH))
        trained = build(home, BATCH, aggregator=Hub(503).aggregator)
        assert trained.status == "degraded"
        assert (updates(home), len(unsent(home))) == ([], BATCH)
        hub = Hub()
        build(home, BATCH + 1, aggregator=hub.aggregator)
        assert (hub.taken, unsent(home)) == (1, set())

    def test_damaged_update_is_reported_although_nothing_is_sent(self, home):
        """A damaged update is reported although nothing can be sent."""
        Path(home.outbox).mkdir()
        Path(home.outbox, f"{'a' * 32}.safetensors").write_bytes(b"cut")
        for status, said in ((503, "delete it"), (200, "set aside")):
            told = build(home, status, aggregator=Hub(status).aggregator).warnings
            assert [line for line in told if "is no update" in line and said in line]


class TestMerge:
    def test_history_that_knows_less_takes_over_what_the_other_sent(self, home):
        """A history that knows less takes over what the other has learned and sent.

        With two Jenkins agents and an archive, one knows what the other has sent.
        """
        build(home, 1, 2)
        other = copy_of(home, "agent")
        build(home, *range(3, BATCH + 1))
        learn(home, KEPT)
        merged = merge_folder(other, home.folder)
        assert (merged.added, merged.known) == (BATCH - 2, 2)
        build(other, BATCH + 1)
        assert unsent(other) == set(names(other)[BATCH:])

    def test_history_with_own_builds_keeps_what_it_has_learned(self, home):
        """A history with builds of its own keeps what it has learned."""
        build(home, 1, 2)
        other = copy_of(home, "agent")
        build(other, 3)
        own = other.read("correction.json")
        build(home, 4)
        assert merge_folder(other, home.folder).added == 1
        assert other.read("correction.json") == own

    def test_restored_backup_brings_back_no_example_sent_since(self, home):
        """A backup of a history brings back no example that was sent since."""
        build(home, *range(1, BATCH + 1))
        backup = copy_of(home, "backup")
        learn(home, KEPT)
        merge_folder(home, backup.folder)
        assert (len(unsent(backup)), unsent(home)) == (BATCH, set())

    def test_an_empty_history_becomes_the_one_that_is_merged_into_it(self, home, tmp_path):
        build(home, 1, 2)
        empty = ProjectStore(str(tmp_path / "empty"))
        empty.prepare()
        assert merge_folder(empty, home.folder).added == 2
        assert empty.key() == home.key()
        assert empty.read("backlog.json") == home.read("backlog.json")

    @pytest.mark.parametrize("key", [b"", b"../../etc/passwd\n", b"\xff" * 64])
    def test_folder_with_an_invalid_key_gives_its_records_alone(self, home, tmp_path, key):
        """A folder with an invalid key gives its records only."""
        build(home, 1)
        home.write("key", key)
        empty = ProjectStore(str(tmp_path / "empty"))
        empty.prepare()
        ours = empty.key()
        assert merge_folder(empty, home.folder).added == 1
        assert (empty.key(), empty.read("backlog.json")) == (ours, b"")


class TestImport:
    def test_import_sends_nothing_of_a_history_without_its_caches(self, home):
        """An import sends nothing of a history whose caches were lost."""
        build(home, *range(1, BATCH + 1))
        learn(home, KEPT)
        home.write("summary.json", b"damaged")
        trainer = BackfillTrainer(home, KEPT)
        trainer.finish()
        trainer.save(500)
        assert (len(updates(home)), unsent(home)) == (1, set())

    def test_interrupted_import_leaves_no_example_to_send_twice(self, home):
        """An import that is interrupted while it learns again has no example left to send twice."""
        build(home, *range(2, BATCH + 2))
        learn(home, KEPT)
        trainer = BackfillTrainer(home, KEPT)
        assert trainer.learn(evidence(1)), "before all others: they are learned again after it"
        trainer.finish_relearning()
        trainer.save(500)
        learn(home, KEPT)
        assert unsent(home) == {names(home)[0]}

    def test_a_home_that_cannot_be_written_has_no_lock(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(HistoryError, match="cannot write"),
            exclusive(ProjectStore(str(tmp_path / "file" / "home"))),
        ):
            pass
