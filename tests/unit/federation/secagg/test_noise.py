"""Noise inside shares: how it is drawn, how far it reaches, and that an update goes out again with the same."""

from array import array
from math import erf, exp, sqrt
from statistics import NormalDist, fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.diagnostics.inspect import ChosenUpdate, next_update
from fedstep.errors import WireError
from fedstep.federation.messages import (
    MOST_NOISE,
    NOISE,
    TrialScore,
    Update,
    loudness,
    pack_model,
    pack_update,
    unpack_model,
)
from fedstep.federation.model_cache import load_starter_model, save_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.secagg.share_client import flush_shares
from fedstep.federation.secagg.shares import (
    CHANCE,
    LEVELS,
    MAX_DEVIATION,
    MAX_DRAW,
    MAX_QUANTISED,
    MAX_SUMMED,
    MAX_WEIGHT,
    MODULUS,
    NO_NOISE,
    MaskedShare,
    SeedShare,
    ShareNoise,
    derive_pad,
    derive_task_seeds,
    draw_gaussian,
    noise_deviation,
    quantise,
    scale_deviations,
    split_update,
    unpack_masked_share,
    unpack_seed_share,
)
from fedstep.federation.sync import AggregatorLink, _served_model, push_pending
from fedstep.federation.transport import Endpoint, HttpResponse, RetryPolicy
from fedstep.history.project_store import ProjectStore
from fedstep.schema.schema import schema
from tests.helpers.narrow import expect
from tests.helpers.share_listener import Listener

SEED, SECRET = bytes(range(32)), bytes(range(32, 64))
USUAL = noise_deviation(NOISE, 5)
ONCE = RetryPolicy(timeout=1.0, waits=())
TASK = "build-failure"
CLIP, SIZE = schema().tasks[TASK].clip, schema().tasks[TASK].size()
NOISY = ShareNoise(scale_deviations(USUAL, schema()), SECRET)
ENDS = -(1 << 63), (1 << 63) - 1  # the least and the largest that 64 bits can be


def real(number: int = 1, score: float = 0.0) -> Update:
    """An update in the real schema, half as long as it may be."""
    delta = array("f", [0.5 * CLIP * SIZE**-0.5] * SIZE)
    scores = {TASK: TrialScore(1, score)} if score else {}
    return Update(schema().digest, 0, f"{number:032x}", "c" * 32, {TASK: 8}, {TASK: delta}, scores)


def opened(masked: MaskedShare, seeded: SeedShare) -> list[int]:
    """The signed steps of the grid that both shares hide."""
    vector = masked.vectors[TASK]
    pads = array("Q", derive_pad(derive_task_seeds(seeded)[TASK], len(vector)))
    sums = [(number + pad) % MODULUS for number, pad in zip(vector, pads, strict=True)]
    return [number - MODULUS if number >= MODULUS // 2 else number for number in sums]


class TestDraws:
    def test_drawn_noise_has_the_deviation_within_chance(self):
        """The drawn noise has the deviation asked for, with no more than chance beside it."""
        drawn = draw_gaussian(USUAL, SECRET, "a test", 20_000)
        assert abs(fmean(drawn)) < 4 * USUAL / 20_000**0.5
        assert pstdev(drawn) == pytest.approx(USUAL, rel=0.02)
        ranks = sorted(NormalDist(0, USUAL).cdf(one) for one in drawn)
        assert (
            max(abs(rank - place / 20_000) for place, rank in enumerate(ranks)) < 1.95 / 20_000**0.5
        )  # Kolmogorov, 0.1 %

    @pytest.mark.parametrize("deviation", [3, 10, 40])
    def test_rounded_noise_is_the_discrete_gaussian_as_stated(self, deviation):
        """Rounded, the noise is the discrete Gaussian within the stated difference."""
        steps = range(-10 * deviation, 10 * deviation + 1)
        exact = [exp(-(step**2) / (2 * deviation**2)) for step in steps]

        def below(value: float) -> float:
            return 0.5 * (1 + erf(value / deviation / sqrt(2)))

        ours = [below(step + 0.5) - below(step - 0.5) for step in steps]
        apart = sum(abs(one - other / sum(exact)) for one, other in zip(ours, exact, strict=True)) / 2
        assert 0.003 / deviation**2 < apart < 0.03 / deviation**2 + 1e-10

    def test_no_draw_exceeds_the_stated_reach_whatever_the_bytes(self):
        """No draw is farther out than stated, whatever the bytes are."""
        least, largest = (NormalDist().inv_cdf(word * CHANCE + 0.5) for word in ENDS)
        assert least == -largest
        assert MAX_DRAW - 0.2 < largest < MAX_DRAW

    def test_largest_noised_weighted_sum_fits_with_its_sign(self):
        """The largest sum with the most noise fits with its sign, also when weighted."""
        utmost = NormalDist(0, MAX_DEVIATION * loudness(1)).inv_cdf(ENDS[1] * CHANCE + 0.5)
        (number,) = quantise([CLIP], CLIP, [utmost])
        assert LEVELS < number <= MAX_QUANTISED
        assert MAX_QUANTISED * MAX_SUMMED * MAX_WEIGHT < MODULUS // 2
        assert noise_deviation(MOST_NOISE, 1) == MAX_DEVIATION

    @given(st.integers(2, 5))
    def test_a_full_sum_of_updates_has_the_requested_noise(self, fewest):
        """As many updates as a sum needs have the noise that is asked for."""
        total = noise_deviation(NOISE, fewest) * fewest**0.5 / LEVELS
        assert NOISE <= total < NOISE * 1.01

    @given(st.integers(5, 10**6))
    def test_naming_more_projects_does_not_reduce_the_noise(self, fewest):
        """A leader that names more projects gets no less noise from each."""
        assert noise_deviation(NOISE, fewest) == noise_deviation(NOISE, 5)

    def test_secret_gives_the_same_noise_for_one_purpose_only(self):
        """The same secret draws the same noise for one purpose and other noise for every other."""
        drawn = draw_gaussian(USUAL, SECRET, "one", 5)
        assert drawn == draw_gaussian(USUAL, SECRET, "one", 5)
        assert not {*drawn} & {*draw_gaussian(USUAL, SECRET, "two", 5)}
        assert not {*drawn} & {*draw_gaussian(USUAL, SEED, "one", 5)}


class TestShares:
    def test_tasks_with_small_batches_have_more_noise(self):
        """Tasks with a batch of few examples have more noise, and no task has less."""
        found = scale_deviations(USUAL, schema())
        rows = {name: task.minimum_rows for name, task in schema().tasks.items()}
        assert {name for name in rows if found[name] == USUAL} == {name for name in rows if rows[name] == 50}
        assert all(found[name] == pytest.approx(USUAL * (50 / rows[name]) ** 0.5, abs=1) for name in rows)

    def test_shares_add_up_to_the_update_and_its_noise(self):
        """The shares of a noised update add up to it and its noise, and the score has none."""
        plain, noised = (opened(*split_update(real(score=0.1), {TASK: CLIP}, SEED, one)) for one in (NO_NOISE, NOISY))
        apart = [one - other for one, other in zip(noised[:-1], plain[:-1], strict=True)]
        expected = draw_gaussian(NOISY.deviations[TASK], SECRET, f"{real().id} {TASK}", SIZE)
        assert all(abs(one - other) <= 1 for one, other in zip(apart, expected, strict=True))
        assert noised[-1] == plain[-1] == LEVELS // 2

    def test_the_helpers_half_says_nothing_of_the_noise(self):
        (first, seeded), (second, same) = (
            split_update(real(), {TASK: CLIP}, SEED, NOISY._replace(secret=secret)) for secret in (SECRET, bytes(32))
        )
        assert seeded == same
        assert not {*first.vectors[TASK][:-1]} & {*second.vectors[TASK][:-1]}

    @pytest.mark.parametrize("later", [0, 7, USUAL])
    def test_resent_update_keeps_the_noise_of_its_first_split(self, tmp_path, later):
        """An update is sent again with the noise of its first split, whatever the leader asks for by then."""
        outbox, leader, helper = Outbox(tmp_path / "outbox"), Listener(0, 202), Listener(202)
        outbox.add(pack_update(real()))
        assert flush_shares(outbox, leader.peer, helper.peer, ONCE, USUAL).waiting == 1
        assert len(flush_shares(outbox, leader.peer, helper.peer, ONCE, later).sent) == 1
        assert (len(leader.bodies), len(set(leader.bodies)), len(set(helper.bodies))) == (2, 1, 1)

    def test_every_update_has_noise_of_its_own(self, tmp_path):
        outbox, leader, helper = Outbox(tmp_path / "outbox"), Listener(202), Listener(202)
        for number in (1, 2):
            outbox.add(pack_update(real(number)))
        flush_shares(outbox, leader.peer, helper.peer, ONCE, USUAL)
        halves = zip(map(unpack_masked_share, leader.bodies), map(unpack_seed_share, helper.bodies), strict=True)
        first, second = (opened(*both) for both in halves)
        assert sum(one == other for one, other in zip(first[:-1], second[:-1], strict=True)) < 3


class TestModels:
    @pytest.mark.parametrize("known", [True, False])
    def test_noise_is_that_of_the_leaders_model_even_without_a_pull(self, tmp_path, known):
        """The noise is what the leader's model asks for, also where no model was pulled."""
        home = ProjectStore(str(tmp_path))
        body = pack_model(load_starter_model()._replace(shares=5, noise=0.5))
        leader, helper = Listener(202, served=body), Listener(202)
        Outbox(tmp_path / "outbox").add(pack_update(real()))
        if known:
            save_model(home, body, "", leader.peer.url, 0.0)
        push_pending(
            home,
            AggregatorLink(leader.peer.url, leader.peer.send, ONCE, Endpoint("https://two.example", helper.peer.send)),
        )
        *steps, _score = opened(unpack_masked_share(*leader.bodies), unpack_seed_share(*helper.bodies))
        assert pstdev(steps) == pytest.approx(scale_deviations(noise_deviation(0.5, 5), schema())[TASK], rel=0.3)
        assert leader.asked == (not known)

    def test_a_model_says_how_much_noise_it_asks_for(self):
        for noise in (0.0, 1e-5, NOISE, MOST_NOISE):
            model = load_starter_model()._replace(shares=5, noise=noise)
            assert unpack_model(pack_model(model)).noise == noise

    @pytest.mark.parametrize("changes", [{"noise": 1.01}, {"noise": float("nan")}, {"noise": -0.1}, {"shares": 0}])
    def test_a_model_that_asks_for_absurd_noise_is_none(self, changes):
        with pytest.raises(WireError):
            pack_model(load_starter_model()._replace(**{"shares": 5, "noise": 0.04, **changes}))

    def test_preview_of_the_next_update_states_its_noise(self, tmp_path):
        """A preview of the next update states the noise that it will get."""
        home = ProjectStore(str(tmp_path))
        Outbox(tmp_path / "outbox").add(pack_update(real()))
        assert "noise" not in expect(ChosenUpdate, next_update(home)).note
        save_model(
            home, pack_model(load_starter_model()._replace(shares=5, noise=0.04)), "", "https://one.example", 0.0
        )
        assert (
            "as it is split it gets noise: 0.04 of a task's bound in a sum of 5"
            in expect(ChosenUpdate, next_update(home)).note
        )

    def test_update_of_another_job_is_not_split_without_its_noise(self, tmp_path, monkeypatch):
        """An update that another job stores while nothing was pending is not split without its noise."""
        home, asked = ProjectStore(str(tmp_path)), []

        def served(*words):
            found = _served_model(*words)
            Outbox(tmp_path / "outbox").add(pack_update(real()))
            return found

        def send(_method: str, path: str, *_rest: object) -> HttpResponse:
            asked.append(path)
            return HttpResponse(202, {}, b"{}")

        monkeypatch.setattr("fedstep.federation.sync._served_model", served)
        flushed = push_pending(
            home, AggregatorLink("https://one.example", send, ONCE, Endpoint("https://two.example", send))
        )
        assert (flushed.sent, asked) == ((), [])
        assert len(Outbox(tmp_path / "outbox").waiting().updates) == 1
