"""Facts about tests that get another name: what is followed, what is not, and that nothing doubles."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.history.records import BuildRecord
from fedstep.history.renames import match_renames
from fedstep.history.summary import Summary, apply_record, decode_summary, encode_summary
from fedstep.history.test_table import TestTable, index_tests, name_words, with_tests
from fedstep.types import BuildOutcome, FileChange, Outcome, TestRun

CART = ("org.shop.CartTest#adds", "org.shop.CartTest#rounds", "org.shop.CartTest$Empty#has")
OTHER = "org.shop.StockTest#counts"


def moved(source: str, target: str) -> FileChange:
    return FileChange(target, 1, 1, source)


def followed(old: Sequence[str], new: Sequence[str], *files: FileChange, staying: Sequence[str] = ()) -> dict[str, str]:
    """What is renamed where `old` went, `new` came and `staying` ran before and after."""
    return match_renames([*old, *staying], [*new, *staying], old, files)


class TestClasses:
    @pytest.mark.parametrize(
        ("old", "new", "source", "target"),
        [
            ("org.a.CartTest#adds", "org.b.BasketTest#adds", "src/org/a/CartTest.java", "src/org/b/BasketTest.java"),
            ("org.a.CartTest$In#adds", "org.a.Basket$In#adds", "x/org/a/CartTest.kt", "x/org/a/Basket.kt"),
            ("tests.test_a.TestX#t", "tests.unit.test_b.TestX#t", "tests/test_a.py", "tests/unit/test_b.py"),
            ("src/cart.test.js#cart > adds", "src/cart.test.ts#cart > adds", "src/cart.test.js", "src/cart.test.ts"),
            ("cart.spec.js#adds", "shop/basket.spec.js#adds", "e2e/cart.spec.js", "e2e/shop/basket.spec.js"),
            ("spec/cart_spec.rb/cart#adds", "spec/a/b_spec.rb/cart#adds", "spec/cart_spec.rb", "spec/a/b_spec.rb"),
        ],
    )
    def test_tests_of_a_file_that_git_renamed_keep_their_history(self, old, new, source, target):
        assert followed([old], [new], moved(source, target)) == {old: new}

    def test_renamed_class_with_two_tests_is_new_without_git(self):
        """Without a renamed file, a class with another name and two tests is a new one."""
        assert followed(["a.CartTest#x", "a.CartTest#y"], ["a.BasketTest#x", "a.BasketTest#y"]) == {}

    def test_class_moved_to_another_package_is_followed(self):
        """A class that moved to another package is followed without git."""
        new = [test.replace("org.shop", "org.shop.cart") for test in CART]
        assert followed(CART, new, staying=[OTHER]) == dict(zip(CART, new, strict=True))

    def test_three_tests_of_the_same_names_identify_a_class(self):
        """Three tests of the same names in a class of another name are the same."""
        old, new = ([f"org.{group}#{n}" for n in "abc"] for group in ("OldTest", "NewTest"))
        assert followed(old, new) == dict(zip(old, new, strict=True))
        assert followed(old, [*new, "org.NewTest#d"]) == {}

    def test_existing_class_is_not_taken_for_another(self):
        """A class that is still there, or was there before, is not taken for another."""
        new = ["org.b.CartTest#adds"]
        assert followed(["org.a.CartTest#adds"], new, staying=["org.a.CartTest#rounds"]) == {}
        assert followed(["org.a.CartTest#adds"], new, staying=["org.b.CartTest#rounds"]) == {}

    def test_two_classes_of_one_name_are_ambiguous(self):
        assert followed(["a.T#x"], ["b.T#x", "c.T#x"]) == {}
        assert followed(["a.T#x", "d.T#x"], ["b.T#x"], staying=["s#1", "s#2"]) == {}

    def test_a_class_with_less_than_half_of_the_tests_is_another(self):
        old = [f"a.T#{n}" for n in "abcde"]
        assert followed(old, ["b.T#a", "b.T#b", "b.T#z", "b.T#y", "b.T#x"]) == {}


class TestParameters:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (["test_x[1]"], ["test_x[2]"]),
            (["adds(int)"], ["adds(long)"]),
            (['testPrice with data set "one"'], ['testPrice with data set "eins"']),
            (["test_x[1]", "test_x[2]"], ["test_x[1-True]", "test_x[2-True]"]),
            (["test_x[1]", "test_x[2]"], ["test_x[slow-1]", "test_x[slow-2]"]),
        ],
    )
    def test_a_changed_parameter_inherits_the_history(self, old, new):
        before, after = ([f"tests.test_x#{name}" for name in names] for names in (old, new))
        assert followed(before, after) == dict(zip(before, after, strict=True))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (["test_x[1]", "test_x[2]"], ["test_x[3]", "test_x[4]"]),
            (["test_x[1]"], ["test_x[2]", "test_x[3]"]),
            (["test_x[1]", "test_x[2]", "test_x[3]"], ["test_x[1-2]"]),
            (["test_x[1]"], ["test_y[1]"]),
            (["[a] adds"], ["[b] adds"]),
            (["test_x"], ["test_y"]),
        ],
    )
    def test_parameters_that_could_be_any_of_several_start_anew(self, old, new):
        assert followed([f"t#{name}" for name in old], [f"t#{name}" for name in new], staying=["t#1", "t#2"]) == {}


ids = st.builds(
    "{}.{}{}#{}{}".format,
    st.sampled_from(["a", "b", "a.b"]),
    st.sampled_from(["T", "UTest", "test_v"]),
    st.sampled_from(["", "$In"]),
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from(["", "[1]", "[2]", "[1-2]", "(int)"]),
)
paths = st.sampled_from(["a/T.java", "b/T.java", "a/b/T.java", "a/UTest.java", "b/test_v.py", "src/a/T.java", "", "/"])
sets = st.sets(ids, max_size=12)


class TestRenaming:
    def test_a_run_that_was_cut_short_has_moved_nothing(self):
        gone = [*CART, *(f"org.x.T#{n}" for n in range(9))]
        new = "org.shop.cart.CartTest#adds"
        assert match_renames(gone, [new], gone) == {}
        files = [moved("src/org/shop/CartTest.java", "src/org/shop/cart/CartTest.java")]
        assert match_renames(gone, [new], gone, files) == {"org.shop.CartTest#adds": new}

    @settings(deadline=None)
    @given(sets, sets, st.lists(st.builds(FileChange, paths, renamed_from=paths), max_size=3), st.data())
    def test_a_renaming_is_one_to_one_from_what_went_to_what_came(self, known, ran, files, data):
        gone = data.draw(st.sets(st.sampled_from(sorted(known - ran)))) if known - ran else set()
        pairs = match_renames(known, ran, gone, files)
        assert set(pairs) <= gone
        assert set(pairs.values()) <= ran - known
        assert len(set(pairs.values())) == len(pairs)
        assert pairs == match_renames(sorted(known, reverse=True), sorted(ran), sorted(gone), files)

    @given(sets)
    def test_nothing_is_renamed_where_nothing_came_or_nothing_went(self, known):
        assert match_renames(known, known, []) == {}
        assert match_renames(known, set(), known) == {}
        assert match_renames([], known, []) == {}


def entry(
    number: int, tests: Sequence[str], *files: FileChange, outcome: str = "p", stream: str = "unit"
) -> BuildRecord:
    at = 1_700_000_000.0 + 600 * number
    made = BuildRecord(f"{number:032x}", at, at + 60, 60.0, stream, BuildOutcome.PASSED, commit=f"{number:040x}")
    runs = tuple(TestRun(test, Outcome(outcome), 0.1) for test in tests)
    return made._replace(tests=runs, change_known=True, files=files)


def after(*entries: BuildRecord) -> TestTable:
    summary = Summary()
    for one in entries:
        summary = decode_summary(encode_summary(apply_record(summary, one.name, one)))
    return summary.tests


def recent(table: TestTable) -> dict[str, str]:
    return {test: stats.recent for test, stats in table.items()}


NEW = tuple(test.replace("org.shop", "org.cart") for test in CART)


class TestEarlierIds:
    """Histories that were written before suites and variants were a part of ids keep their meaning."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("cart adds#cart adds", "src/cart.test.ts#cart adds"), ("adds#cart adds", "test/cart.js#cart adds"),
            ("Form#renders", "src/form.test.ts::Form#renders"), ("cart#adds", "cart#[chrome] adds"),
            ("cart#adds", "web::cart#adds"), ("cart#TestAdds", "x.org/a/cart#TestAdds"),
        ],
    )  # fmt: skip
    def test_the_first_build_with_a_new_id_takes_the_history(self, old: str, new: str) -> None:
        table = after(entry(0, [old, OTHER], outcome="f"), entry(1, [old, OTHER]), entry(2, [new, OTHER]))
        assert recent(table) == {new: "fpp", OTHER: "fpp"}
        assert index_tests(table)[old] is table[new]

    def test_an_id_that_two_tests_shared_stays_behind(self) -> None:
        table = after(entry(0, ["cart#adds"], outcome="f"), entry(1, ["web::cart#adds", "api::cart#adds"]))
        assert recent(table) == {"cart#adds": "f", "web::cart#adds": "p", "api::cart#adds": "p"}

    def test_a_failure_is_judged_by_the_earlier_history(self) -> None:
        """Before the first build with the new id is recorded, too."""
        table = after(entry(0, ["cart#adds"], outcome="f"), entry(1, ["cart#adds"]))
        assert with_tests(table, ["cart#[chrome] adds"], ["cart#[chrome] adds"])["cart#[chrome] adds"].recent == "fp"
        both = ["cart#[chrome] adds", "cart#[firefox] adds"]
        assert with_tests(table, both, both)["cart#[chrome] adds"].recent == ""


class TestRows:
    def test_renamed_test_has_one_row_with_its_whole_history(self):
        """A renamed test has one row with its whole history under its new name."""
        table = after(entry(0, [*CART, OTHER], outcome="f"), entry(1, [*CART, OTHER]), entry(2, [*NEW, OTHER]))
        assert recent(table) == dict.fromkeys((*NEW, OTHER), "fpp")
        assert [stats.name_words for stats in table.values()] == [name_words(test) for test in table]
        assert list(table) == [*NEW, OTHER], "in the place of the old ones"
        assert index_tests(table)[CART[0]] is table[NEW[0]]

    def test_branch_with_the_old_name_uses_the_same_row(self):
        """A branch that has the old name still goes on in the same row."""
        table = after(
            entry(0, [*CART, OTHER]), entry(1, [*NEW, OTHER]), entry(2, [*CART, OTHER]), entry(3, [*NEW, OTHER])
        )
        assert recent(table) == dict.fromkeys((*NEW, OTHER), "pppp")

    def test_a_renaming_that_git_takes_back_is_followed_back(self):
        there = ("src/org/shop/CartTest.java", "src/org/cart/CartTest.java")
        forth = entry(1, NEW, moved(*there))
        table = after(entry(0, CART), forth, entry(2, CART, moved(*reversed(there))))
        assert recent(table) == dict.fromkeys(CART, "ppp")

    def test_an_old_name_beside_the_new_one_is_a_test_of_its_own(self):
        table = after(entry(0, [*CART, OTHER]), entry(1, [*NEW, OTHER]), entry(2, [*CART, *NEW]))
        assert recent(table) == dict.fromkeys(NEW, "ppp") | dict.fromkeys(CART, "p") | {OTHER: "pp"}

    def test_returning_name_is_not_taken_for_a_third_test(self):
        """A name that comes back is not taken for a third test that went."""
        went = ["b.T#x", "c.T#x"]
        assert match_renames([*went, OTHER], ["a.T#x", OTHER], went, (), {"a.T#x": "b.T#x"}) == {}

    def test_a_renamed_test_has_the_words_of_its_new_name(self):
        old, new = "org.TimeoutTest#waits", "org.ServerTest#waits"
        table = after(entry(0, [old]), entry(1, [new], moved("org/TimeoutTest.java", "org/ServerTest.java")))
        assert list(table) == [new]
        assert table[new].name_words == name_words(new) != name_words(old)

    def test_a_test_that_only_another_job_runs_has_not_moved(self):
        e2e = entry(1, ["e2e.CartTest#adds"], stream="e2e")
        table = after(entry(0, [OTHER]), e2e, entry(2, [OTHER, "unit.CartTest#adds"]))
        assert set(recent(table)) == {OTHER, "e2e.CartTest#adds", "unit.CartTest#adds"}

    def test_every_cell_of_a_matrix_follows_the_same_renaming(self):
        cells = ("linux", "windows")
        before = [entry(n, [*CART, OTHER], stream=cell) for n, cell in enumerate(cells)]
        behind = [entry(n + 2, [*NEW, OTHER], stream=cell) for n, cell in enumerate(cells)]
        assert recent(after(*before, *behind)) == dict.fromkeys((*NEW, OTHER), "pppp")

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.sets(ids, max_size=8), max_size=6))
    def test_no_id_has_two_rows_and_every_run_counts_once(self, builds):
        """Whatever comes and goes, no id has two rows and every run counts once."""
        table = after(*(entry(number, sorted(tests)) for number, tests in enumerate(builds)))
        assert [stats.test for stats in table.values()] == list(table)
        assert sum(stats.runs for stats in table.values()) == sum(map(len, builds))
        assert not builds or builds[-1] <= index_tests(table).keys()
