"""What selections leave out: noted for the train step, and counted once it is recorded."""

import pytest

from fedstep.history.project_store import ProjectStore, list_folder
from fedstep.history.records import BuildRecord, Forecast, decode_record, encode_record
from fedstep.history.summary import Summary, apply_record, decode_summary, encode_summary
from fedstep.types import BuildOutcome, LeftOut, Outcome, SelectionTally, TestRun

CART, ORDER, PAY = "shop.test_cart#test_sum", "shop.test_order#test_sum", "shop.test_pay#test_pay"
ALL = {CART: "p", ORDER: "p", PAY: "p"}


def build(number, outcomes, left_out=None, began=()):
    """A record in which these tests ran."""
    runs = tuple(TestRun(test, Outcome(letter), 1.0) for test, letter in outcomes.items())
    made = BuildRecord(f"{number:032x}", 60.0 * number, 60.0 * number + 30, 30.0, "unit||mark", BuildOutcome.PASSED)
    return made._replace(tests=runs, left_out=left_out, forecast=Forecast(began=tuple(began)))


def replay(*records):
    summary = Summary()
    for number, one in enumerate(records):
        summary = apply_record(summary, f"{number}", one)
    return summary


class TestTally:
    def test_failure_of_a_test_left_out_before_has_escaped(self) -> None:
        """It is counted in the build in which the test runs again and fails."""
        part = build(1, {CART: "p"}, LeftOut((ORDER, PAY), 30.0))
        tally = replay(build(0, ALL), part, build(2, ALL | {PAY: "f"}, began=[PAY])).selections
        assert tally == SelectionTally(builds=1, saved_seconds=30.0, escaped=1)
        assert tally.escape_rate == 1.0

    def test_failure_of_the_part_that_ran_is_caught(self) -> None:
        """A test that passed in a full build since it was left out has not escaped when it fails later."""
        part = build(1, {CART: "f"}, LeftOut((ORDER, PAY), 30.0), began=[CART])
        tally = replay(build(0, ALL), part, build(2, ALL), build(3, ALL | {PAY: "f"}, began=[PAY])).selections
        assert (tally.caught, tally.escaped, tally.left_out) == (1, 0, ())
        assert tally.escape_rate == 0.0

    def test_red_shadow_build_without_chosen_failures_is_green(self) -> None:
        """Of two red builds in shadow mode one would have looked green."""
        shadow = LeftOut((PAY,), 10.0, shadow=True)
        tally = replay(
            build(0, ALL),
            build(1, ALL | {PAY: "f"}, shadow, began=[PAY]),
            build(2, ALL | {PAY: "f", CART: "f"}, shadow, began=[PAY, CART]),
            build(3, ALL, shadow),
        ).selections
        assert (tally.shadow_builds, tally.shadow_red, tally.shadow_green) == (3, 2, 1)
        assert tally.false_green_rate == 0.5
        assert tally.builds == 0

    def test_tests_left_out_are_neither_forgotten_nor_renamed(self) -> None:
        """A new test of the same class is no new name of one that did not run, however long that one is left out."""
        other = "shop.test_pay#test_pays"
        part = LeftOut((PAY,), 1.0)
        builds = (build(number, {CART: "p", other: "p"}, part) for number in range(1, 520))
        summary = replay(build(0, {CART: "p", PAY: "p"}), *builds)
        assert summary.tests[PAY].runs == 1
        assert summary.tests[other].former == ""

    def test_nothing_is_counted_without_selections(self) -> None:
        assert replay(build(0, ALL), build(1, ALL | {PAY: "f"}, began=[PAY])).selections == SelectionTally()

    def test_the_summary_keeps_the_tally(self) -> None:
        summary = replay(build(0, ALL), build(1, {CART: "p"}, LeftOut((PAY,), 2.5)))
        assert decode_summary(encode_summary(summary)).selections == summary.selections
        assert summary.selections.left_out == (PAY,)


class TestRecord:
    def test_a_record_keeps_what_was_left_out(self) -> None:
        made = build(1, {CART: "p"}, LeftOut((PAY,), 2.5), began=[CART])
        again = decode_record(encode_record(made))
        assert again.left_out == LeftOut((PAY,), 2.5, shadow=False)
        assert again.forecast == made.forecast
        assert decode_record(encode_record(build(1, {CART: "p"}))).left_out is None


class TestNote:
    @pytest.fixture
    def store(self, tmp_path):
        return ProjectStore(str(tmp_path / "history"))

    def test_a_job_reads_its_own_note(self, store: ProjectStore) -> None:
        store.note_left_out("one", LeftOut((CART,)), now=1000.0)
        store.note_left_out("two", LeftOut((PAY,), shadow=True), now=1000.0)
        assert store.read_left_out("one") == LeftOut((CART,))
        assert store.read_left_out("two") == LeftOut((PAY,), shadow=True)
        store.forget_left_out("one")
        assert store.read_left_out("one") is None

    def test_a_note_that_another_job_is_writing_stays(self, store: ProjectStore) -> None:
        """Its temporary file is empty at first; deleted as damaged, it would make the other job's note fail."""
        store.write("selections/.one.0f1e2d3c.tmp", b"")
        store.note_left_out("two", LeftOut((PAY,)), now=1000.0)
        assert list_folder(store.path("selections")) == [".one.0f1e2d3c.tmp", "two"]

    def test_old_and_damaged_notes_are_deleted(self, store: ProjectStore) -> None:
        """After a week, as marks of the start of a job are."""
        store.note_left_out("old", LeftOut((CART,)), now=1000.0)
        store.write("selections/damaged", b"x")
        assert store.read_left_out("damaged") is None
        store.note_left_out("new", LeftOut((CART,)), now=1000.0 + 8 * 86_400)
        assert store.read_left_out("old") is None
        assert store.read("selections/damaged") == b""
