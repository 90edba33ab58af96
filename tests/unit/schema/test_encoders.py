"""Facts about encodings: named, bounded, and silent about what is not listed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.schema.schema import ABSENT, BagOfWords, Categorical, Numeric, PiecewiseLinear

knots = (
    st.lists(st.integers(0, 10**7).map(lambda n: n / 1000), min_size=2, max_size=8, unique=True).map(sorted).map(tuple)
)

WORDS = BagOfWords("word", {"sleep": 0, "thread": 1, "wait": 2})


class TestNumbers:
    @given(knots, st.floats(-1e5, 1e5), st.booleans())
    def test_hats_sum_to_one_on_at_most_two_neighbours(
        self, scale: tuple[float, ...], value: float, logarithmic: bool
    ) -> None:
        pairs = PiecewiseLinear("x", scale, logarithmic).encode(value)
        assert sum(weight for _, weight in pairs) == pytest.approx(1.0)
        assert all(0.0 < weight <= 1.0 for _, weight in pairs)
        assert len(pairs) == 1 or pairs[1][0] == pairs[0][0] + 1
        assert all(offset < len(scale) for offset, _ in pairs)

    @given(knots, st.booleans())
    def test_a_knot_is_its_own_coordinate(self, scale: tuple[float, ...], logarithmic: bool) -> None:
        hats = PiecewiseLinear("x", scale, logarithmic)
        assert [hats.encode(knot) for knot in scale] == [((number, 1.0),) for number in range(len(scale))]

    @given(knots, st.floats(0, 1e4), st.floats(0, 1e4))
    def test_hats_keep_the_order_of_values(self, scale: tuple[float, ...], one: float, other: float) -> None:
        def place(value: float) -> float:
            return sum(offset * weight for offset, weight in PiecewiseLinear("x", scale, True).encode(value))

        low, high = sorted((one, other))
        assert place(low) <= place(high) + 1e-9

    @pytest.mark.parametrize("value", [None, math.nan, math.inf, "text"])
    def test_what_is_no_number_is_absent(self, value: object) -> None:
        hats = PiecewiseLinear("x", (0.0, 1.0))
        assert hats.encode(value) == ((2, 1.0),)
        assert hats.names()[2] == f"x={ABSENT}"

    def test_beyond_the_outer_knots_the_value_is_held(self) -> None:
        hats = PiecewiseLinear("x", (1.0, 2.0))
        assert hats.encode(-5) == hats.encode(1.0)
        assert hats.encode(99) == hats.encode(2.0)

    def test_logarithmic_hats_are_linear_in_the_log(self) -> None:
        hats = PiecewiseLinear("x", (0.0, 1.0, 3.0), logarithmic=True)
        (_, left), (_, right) = hats.encode(math.sqrt(2 * 4) - 1)
        assert left == pytest.approx(right)


class TestLists:
    @given(st.text(max_size=8) | st.none() | st.integers())
    def test_an_answer_outside_the_list_has_no_coordinate(self, value: object) -> None:
        choice = Categorical("event", ("push", "tag"))
        assert bool(choice.encode(value)) == (value in ("push", "tag"))

    def test_a_flag_is_its_value_and_nothing_where_absent(self) -> None:
        assert Numeric("own").encode(-0.5) == ((0, -0.5),)
        assert Numeric("own").encode(0.0) == Numeric("own").encode(None) == ()


class TestWords:
    @given(st.lists(st.text(max_size=8)))
    def test_a_word_outside_the_list_has_no_coordinate(self, words: list[str]) -> None:
        assert {tuple(WORDS.index)[offset] for offset in WORDS.listed(words)} == set(words) & set(WORDS.index)

    @given(st.sets(st.integers(0, 2), min_size=1))
    def test_words_have_unit_length_together(self, offsets: set[int]) -> None:
        pairs = WORDS.encode(tuple(sorted(offsets)))
        assert math.hypot(*(weight for _, weight in pairs)) == pytest.approx(1.0)
        assert {offset for offset, _ in pairs} == offsets
        assert WORDS.encode(()) == WORDS.encode(None) == ()


class TestNames:
    @pytest.mark.parametrize(
        "part", [Numeric("f"), PiecewiseLinear("h", (0.0, 1.0)), Categorical("c", ("a", "b")), WORDS]
    )
    def test_every_coordinate_is_named_after_its_part(
        self, part: Numeric | PiecewiseLinear | Categorical | BagOfWords
    ) -> None:
        assert all(name == part.name or name.startswith(f"{part.name}=") for name in part.names())
        assert len(set(part.names())) == len(part.names())
