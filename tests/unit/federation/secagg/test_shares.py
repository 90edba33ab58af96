"""Shares: together the update, alone nothing; and the two messages that carry them."""

import hmac
import json
from array import array
from collections import Counter
from hashlib import shake_128

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import AggregatorError, HistoryError, SchemaMismatch, WireError
from fedstep.federation.messages import SchemaShape, TrialScore, Update, pack_model, pack_update
from fedstep.federation.model_cache import load_starter_model, save_model
from fedstep.federation.outbox import Outbox, read_audit
from fedstep.federation.secagg.share_client import flush_shares, push_shares
from fedstep.federation.secagg.shares import (
    LEVELS,
    MAX_SUMMED,
    MAX_WEIGHT,
    MODULUS,
    SCORE_LIMIT,
    MaskedShare,
    SeedShare,
    check_share,
    derive_pad,
    derive_task_seeds,
    hash_seed,
    pack_share,
    quantise,
    split_update,
    unpack_masked_share,
    unpack_seed_share,
)
from fedstep.federation.sync import AggregatorLink, push_pending
from fedstep.federation.transport import Endpoint, HttpResponse, RetryPolicy
from fedstep.federation.update_builder import clip_update
from fedstep.history.project_store import ProjectStore
from fedstep.schema.schema import schema
from fedstep.server.gate import Gate
from tests.helpers.share_listener import Listener

SEED = bytes(range(32))
BOUNDS = {"flaky": 1.0, "build-duration": 0.1}
DELTAS = {"flaky": array("f", [0.5, -0.25, 0.0]), "build-duration": array("f", [0.1 * (1 - 2**-23), -0.01])}
UPDATE = Update("a" * 16, 7, "b" * 32, "c" * 32, dict.fromkeys(DELTAS, 8), DELTAS, {"flaky": TrialScore(5, -0.1)})
MASKED, SEEDED = split_update(UPDATE, BOUNDS, SEED)
OURS = SchemaShape("a" * 16, {"flaky": 3, "build-duration": 2})
ONCE = RetryPolicy(timeout=1.0, waits=())


def opened(masked: MaskedShare, seeded: SeedShare, task: str) -> list[int]:
    """The signed steps of the grid that both shares of one task hide."""
    vector = masked.vectors[task]
    pads = array("Q", derive_pad(derive_task_seeds(seeded)[task], len(vector)))
    sums = [(number + pad) % MODULUS for number, pad in zip(vector, pads, strict=True)]
    return [number - MODULUS if number >= MODULUS // 2 else number for number in sums]


vectors = st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=20)


class TestSplit:
    @given(
        vectors, st.sampled_from([0.1, 0.2, 1.0]), st.floats(-1.0, 1.0, width=32), st.binary(min_size=32, max_size=32)
    )
    def test_shares_add_up_to_the_update_within_half_a_step(self, numbers, bound, score, seed):
        """The shares add up to any update within its bounds, to half a step."""
        delta = clip_update(array("f", numbers), bound)
        update = UPDATE._replace(deltas={"flaky": delta}, examples={"flaky": 8}, scores={"flaky": TrialScore(1, score)})
        *steps, vote = opened(*split_update(update, {"flaky": bound}, seed), "flaky")
        assert all(abs(step - number * LEVELS / bound) <= 0.5 + 1e-6 for step, number in zip(steps, delta, strict=True))
        assert abs(vote - max(-SCORE_LIMIT, min(SCORE_LIMIT, score)) / SCORE_LIMIT * LEVELS) <= 0.5 + 1e-6

    def test_a_half_alone_is_uniform_whatever_it_hides(self):
        """A share alone is uniform, whatever it hides.

        Chi-square of 64 kB in 256 classes: 99.9 % of uniform bytes are below 330.
        """
        for value in (0.0, 1.0 / 128):
            delta = array("f", [value] * 8192)
            update = UPDATE._replace(deltas={"flaky": delta}, examples={"flaky": 8}, scores={})
            seen = Counter(split_update(update, BOUNDS, SEED)[0].vectors["flaky"].tobytes())
            mean = 8193 * 8 / 256
            assert sum((seen[byte] - mean) ** 2 / mean for byte in range(256)) < 330

    def test_shares_of_equal_numbers_differ_with_anything_else(self):
        """Shares of the same numbers have nothing in common where anything else differs."""
        others = [
            split_update(UPDATE, BOUNDS, bytes(32))[0],
            split_update(UPDATE._replace(id="d" * 32), BOUNDS, SEED)[0],
            split_update(UPDATE._replace(schema="e" * 16), BOUNDS, SEED)[0],
        ]
        for other in others:
            assert not set(other.vectors["flaky"]) & set(MASKED.vectors["flaky"])
        same = UPDATE._replace(deltas=dict.fromkeys(DELTAS, DELTAS["flaky"]), scores={})
        vectors = split_update(same, BOUNDS | {"build-duration": 1.0}, SEED)[0].vectors
        assert not set(vectors["flaky"]) & set(vectors["build-duration"])

    def test_seed_gives_the_same_shares_with_a_pad_per_task(self):
        """The same seed gives the same shares, and the pad is the SHAKE-128 of the task's own seed."""
        assert split_update(UPDATE, BOUNDS, SEED) == (MASKED, SEEDED)
        told = f"fedstep head 1\0{'a' * 16}\0{'b' * 32}\0flaky\0\1".encode()
        secret = hmac.digest(SEED, told, "sha256")
        assert derive_task_seeds(SEEDED)["flaky"] == secret
        assert derive_pad(secret, 2) == shake_128(b"fedstep pad 2\0" + secret).digest(16)

    def test_the_seed_of_one_task_opens_no_other(self):
        seeds = derive_task_seeds(SEEDED)
        assert len({SEED, *seeds.values()}) == 1 + len(DELTAS)
        found = derive_task_seeds(SEEDED._replace(seed=seeds["flaky"])).values()
        assert not {*found} & {*seeds.values()}
        right, wrong = (array("Q", derive_pad(seeds[task], 3)) for task in ("build-duration", "flaky"))
        assert opened(MASKED, SEEDED, "build-duration")[1] == round(-0.01 / 0.1 * LEVELS)
        assert not {*right} & {*wrong}

    def test_the_leaders_half_has_neither_the_seed_nor_a_part_of_it(self):
        body = pack_share(MASKED)
        assert hash_seed(SEED) in body.decode(errors="replace")
        assert SEED not in body
        assert not any(SEED[start : start + 4].hex() in hash_seed(SEED) for start in range(29))

    def test_nothing_over_its_bound_is_shared(self):
        with pytest.raises(WireError, match="over its bound"):
            split_update(UPDATE, BOUNDS | {"flaky": 0.4999}, SEED)
        with pytest.raises(WireError, match="over its bound"):
            quantise([float("inf")], 1.0)

    def test_largest_weighted_sum_fits_with_its_sign(self):
        """The largest weighted sum fits with its sign, and the bound is the worst case."""
        assert quantise([1.0, -1.0], 1.0).tolist() == [LEVELS, -LEVELS]
        assert LEVELS * MAX_WEIGHT * MAX_SUMMED < MODULUS // 2
        assert Gate().reach == SCORE_LIMIT

    def test_two_messages_take_at_most_2_1_times_the_dense_bytes(self):
        """Two messages are at most 2.1 times the bytes of the dense update."""
        tasks = schema().tasks
        deltas = {name: array("f", [task.clip / task.size()] * task.size()) for name, task in tasks.items()}
        scores = dict.fromkeys(tasks, TrialScore(10**6, 0.5))
        update = Update(schema().digest, 10**6, "b" * 32, "c" * 32, dict.fromkeys(tasks, 2048), deltas, scores)
        halves = split_update(update, {name: task.clip for name, task in tasks.items()}, SEED)
        assert sum(len(pack_share(half)) for half in halves) <= 2.1 * 4 * sum(task.size() for task in tasks.values())


def rewritten(half: MaskedShare | SeedShare, **words: object) -> bytes:
    """The bytes of a half with other metadata; a word that is None is gone."""
    body = pack_share(half)
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    header["__metadata__"] = {k: v for k, v in (header["__metadata__"] | words).items() if v is not None}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body[8 + length :]


class TestMessages:
    def test_messages_are_read_as_they_were_written(self):
        assert unpack_masked_share(pack_share(MASKED)) == MASKED
        assert unpack_seed_share(pack_share(SEEDED)) == SEEDED
        assert MASKED.trials == SEEDED.trials == {"flaky": 5, "build-duration": -1}
        check_share(MASKED, OURS)
        check_share(SEEDED, OURS)

    @given(st.integers(0, 10_000), st.integers(0, 255))
    def test_any_changed_byte_is_another_message_or_none(self, place, value):
        for half, unpack in ((MASKED, unpack_masked_share), (SEEDED, unpack_seed_share)):
            body = bytearray(pack_share(half))
            body[place % len(body)] = value
            try:
                found = unpack(bytes(body))
            except WireError:
                continue
            assert pack_share(found) == bytes(body)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_no_half_or_raise_a_wire_error(self, body):
        for unpack in (unpack_masked_share, unpack_seed_share):
            with pytest.raises(WireError):
                unpack(body)

    @pytest.mark.parametrize(
        "words",
        [
            {"pair": None},
            {"pair": "x" * 32},
            {"base": "-1"},
            {"base": "1\n"},
            {"base": 7},
            {"branch": "main"},
            {"trial.Flaky": "1"},
            {"trial.other": "1"},
            {"trial.flaky": None},
            {"trial.flaky": "soon"},
            {"format": "fedstep-update-2"},
            {"id": "b" * 31},
            {"project": ["c"]},
        ],
    )
    def test_metadata_that_is_not_exactly_ours_is_refused(self, words):
        with pytest.raises(WireError):
            unpack_masked_share(rewritten(MASKED, **words))

    def test_trailing_bytes_and_wrong_seed_lengths_are_refused(self):
        """Bytes after the end and seeds of another length are refused."""
        with pytest.raises(WireError):
            unpack_masked_share(pack_share(MASKED) + b"\0" * 8)
        with pytest.raises(WireError, match="31 bytes"):
            unpack_seed_share(pack_share(SEEDED)[:-1])
        with pytest.raises(WireError, match="too large"):
            unpack_masked_share(bytes(2_000_000))

    def test_shares_of_other_tasks_sizes_or_schemas_do_not_fit(self):
        for half in (MASKED, SEEDED):
            with pytest.raises(SchemaMismatch):
                check_share(half, OURS._replace(digest="f" * 16))
            with pytest.raises(WireError, match="build-duration"):
                check_share(half, OURS._replace(sizes={"flaky": 3}))
        with pytest.raises(WireError, match="flaky"):
            check_share(MASKED, OURS._replace(sizes={"flaky": 4, "build-duration": 2}))


def real(number: int = 1, digest: str = "") -> bytes:
    """An update in the real schema."""
    delta = array("f", [0.01] * schema().tasks["build-duration"].size())
    digest = digest or schema().digest
    return pack_update(Update(digest, 0, f"{number:032x}", "c" * 32, {"build-duration": 8}, {"build-duration": delta}))


@pytest.fixture
def outbox(tmp_path) -> Outbox:
    """One update waits in it."""
    outbox = Outbox(tmp_path / "outbox")
    outbox.add(real())
    return outbox


class TestPush:
    def test_update_leaves_the_outbox_with_both_acknowledged(self, outbox):
        """An update leaves the outbox when both shares are acknowledged."""
        leader, helper = Listener(202), Listener(202)
        flushed = flush_shares(outbox, leader.peer, helper.peer, ONCE)
        assert ([receipt.id for receipt in flushed.sent], flushed.waiting) == ([f"{1:032x}"], 0)
        masked, seeded = unpack_masked_share(leader.bodies[0]), unpack_seed_share(helper.bodies[0])
        assert masked.pair == hash_seed(seeded.seed)
        assert (
            opened(masked, seeded, "build-duration")[:-1]
            == [round(0.1 * LEVELS)] * schema().tasks["build-duration"].size()
        )
        assert list(outbox.folder.iterdir()) == []

    @pytest.mark.parametrize(("first", "second"), [((0, 202), (202,)), ((202,), (0, 202)), ((500, 202), (202,))])
    def test_failed_share_keeps_the_update_for_the_same_bytes(self, outbox, first, second):
        """Where one fails, the update waits and is sent again in the same bytes."""
        leader, helper = Listener(*first), Listener(*second)
        failed = flush_shares(outbox, leader.peer, helper.peer, ONCE)
        assert (len(failed.sent), failed.waiting, len(failed.failures)) == (0, 1, 1)
        assert len(flush_shares(outbox, leader.peer, helper.peer, ONCE).sent) == 1
        assert len(set(leader.bodies)) == len(set(helper.bodies)) == 1

    def test_a_half_that_is_refused_takes_the_update_with_it(self, outbox):
        flushed = flush_shares(outbox, Listener(422).peer, Listener(202).peer, ONCE)
        assert (len(flushed.refused), flushed.waiting) == (1, 0)
        assert list(outbox.folder.iterdir()) == []

    def test_every_update_has_a_seed_of_its_own(self, outbox):
        outbox.add(real(2))
        helper = Listener(202)
        flush_shares(outbox, Listener(202).peer, helper.peer, ONCE)
        first, second = (unpack_seed_share(body).seed for body in helper.bodies)
        assert first != second

    def test_an_update_whose_seed_cannot_be_kept_is_not_sent(self, outbox):
        (outbox.folder / f"{1:032x}.seed").mkdir()
        leader = Listener(202)
        flushed = flush_shares(outbox, leader.peer, Listener(202).peer, ONCE)
        assert (flushed.waiting, len(flushed.failures), leader.bodies) == (1, 1, [])

    @pytest.mark.parametrize("damaged", [b"", b"x" * 32, b"x" * 69, b"\xff" * 68])
    def test_update_with_a_damaged_seed_is_dropped_unsent(self, outbox, damaged):
        """An update whose seed is damaged is dropped, and nothing is sent."""
        outbox.load_secret(f"{1:032x}", lambda: damaged)
        leader, helper = Listener(202), Listener(202)
        flushed = flush_shares(outbox, leader.peer, helper.peer, ONCE)
        assert (len(flushed.refused), leader.bodies, helper.bodies) == (1, [], [])

    def test_a_seed_is_chosen_once_however_many_ask(self, outbox):
        assert {outbox.load_secret("1" * 32, lambda number=number: bytes([number])) for number in range(3)} == {b"\0"}
        outbox.remove("1" * 32)
        assert outbox.load_secret("1" * 32, lambda: b"new") == b"new"
        (outbox.folder / f"{'2' * 32}.seed").mkdir()
        with pytest.raises(HistoryError):
            outbox.load_secret("2" * 32, lambda: b"new")

    def test_update_of_another_schema_is_refused_before_sending(self, outbox):
        """An update of another schema is refused before anything is sent."""
        outbox.remove(f"{1:032x}")
        outbox.add(real(3, digest="e" * 16))
        leader, helper = Listener(202), Listener(202)
        flushed = flush_shares(outbox, leader.peer, helper.peer, ONCE)
        assert (len(flushed.refused), leader.bodies, helper.bodies) == (1, [], [])

    def test_with_a_helper_only_shares_leave_and_are_on_record(self, tmp_path):
        """With a helper, shares are sent and nothing else, and both are on record."""
        home, leader, helper = ProjectStore(str(tmp_path)), Listener(202), Listener(202)
        save_model(home, pack_model(load_starter_model()._replace(shares=5)), "", leader.peer.url, 0.0)
        Outbox(tmp_path / "outbox").add(real())
        second = Endpoint("https://two.example", helper.peer.send)
        flushed = push_pending(home, AggregatorLink(leader.peer.url, leader.peer.send, ONCE, second))
        assert len(flushed.sent) == 1
        assert unpack_masked_share(*leader.bodies).id == unpack_seed_share(*helper.bodies).id
        assert [(one.host, one.answer) for one in read_audit(home).sent] == [("two.example", 202), ("one.example", 202)]

    @pytest.mark.parametrize("kept_from", ["https://one.example", "https://another.example", ""])
    def test_without_a_helper_nothing_is_sent_to_a_leader(self, tmp_path, kept_from):
        """Without a helper, nothing is sent to an aggregator of shares."""
        home, asked = ProjectStore(str(tmp_path)), []
        body = pack_model(load_starter_model()._replace(shares=5 if kept_from == "https://one.example" else 0))
        Outbox(tmp_path / "outbox").add(real())
        if kept_from:
            save_model(home, body, "", kept_from, 0.0)

        def leader(method, path, _headers, _body, _timeout) -> HttpResponse:
            asked.append((method, path.partition("?")[0]))
            return HttpResponse(200, {}, pack_model(load_starter_model()._replace(shares=5)))

        flushed = push_pending(home, AggregatorLink("https://one.example", leader, ONCE))
        assert (flushed.sent, flushed.refused, flushed.waiting) == ((), (), 1)
        assert [failure.remedy.partition(";")[0] for failure in flushed.failures] == [
            "Give --helper the URL of its helper"
        ]
        assert asked == ([] if kept_from == "https://one.example" else [("GET", "/v1/model")])
        assert read_audit(home).sent == ()

    def test_aggregator_without_shares_says_so_and_keeps_it_waiting(self):
        """An aggregator without shares says so, and the update waits."""
        with pytest.raises(AggregatorError, match="accepts no shares"):
            push_shares(real(), SEED, Listener(202).peer, Listener(404).peer, ONCE)
