"""The messages as bytes: what goes in comes out, and nothing else gets in."""

import json
import struct
from array import array
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation import messages
from fedstep.federation.messages import LARGEST_MESSAGE, deflate, inflate, pack, unpack
from fedstep.federation.update_builder import clip_update
from fedstep.schema.schema import schema

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(floats, min_size=1, max_size=40).map(lambda numbers: array("f", numbers))
names = st.from_regex("[a-z][a-z0-9-]{0,31}", fullmatch=True)
tasks = st.dictionaries(names, vectors, min_size=1, max_size=5)
digests, ids = st.from_regex("[0-9a-f]{16}", fullmatch=True), st.from_regex("[0-9a-f]{32}", fullmatch=True)
versions = st.integers(0, 10**15 - 1)
shares = st.floats(-1.0, 1.0, width=32)
header_bytes = st.sampled_from(b' 0123456789[]{},:"F')  # what turns a header into another one that can be read


@st.composite
def updates(draw):
    deltas = draw(tasks)
    rows = {name: 2 ** draw(st.integers(0, 20)) for name in deltas}
    scores = {name: messages.TrialScore(draw(versions), draw(shares)) for name in deltas if draw(st.booleans())}
    return messages.Update(draw(digests), draw(versions), draw(ids), draw(ids), rows, deltas, scores)


@st.composite
def models(draw):
    task = draw(tasks)
    created = messages.hour(draw(st.integers(0, 4_000_000_000)))
    production = {name: array("f", [draw(floats)] * len(vector)) for name, vector in task.items()}
    trial = {name: array("f", [draw(floats)] * len(vector)) for name, vector in task.items() if draw(st.booleans())}
    trials = {name: draw(versions) for name in trial}
    tracks = task, production, trials, trial
    return messages.Model(
        draw(digests), draw(versions), draw(versions), created, *tracks, shares=draw(st.integers(0, 999))
    )


UPDATE = messages.Update("a" * 16, 3, "b" * 32, "c" * 32, {"flaky": 64}, {"flaky": array("f", [0.5, -0.25])})
MODEL = messages.Model("a" * 16, 4, 3, "2026-01-31T12:00Z", {"flaky": array("f", [1.0])}, {"flaky": array("f", [0.0])})


class TestRoundTrip:
    @pytest.mark.slow
    @given(updates())
    def test_an_update_survives_the_wire(self, update):
        assert messages.unpack_update(messages.pack_update(update)) == update

    @given(models())
    def test_a_model_survives_the_wire(self, model):
        assert messages.unpack_model(messages.pack_model(model)) == model

    @given(updates(), st.randoms(use_true_random=False))
    def test_equal_values_are_equal_bytes(self, update, dice):
        def shuffled(mapping):
            return dict(dice.sample(list(mapping.items()), len(mapping)))

        twin = update._replace(examples=shuffled(update.examples), deltas=shuffled(update.deltas))
        assert messages.pack_update(twin) == messages.pack_update(update)
        assert deflate(messages.pack_update(twin)) == deflate(messages.pack_update(update))

    @pytest.mark.slow
    @given(updates())
    def test_safetensors_itself_reads_what_is_written(self, update):
        """The safetensors library reads what is written; a score is the last coordinate of its task's vector."""
        read = {name: array("f", tensor["data"]) for name, tensor in deserialize(messages.pack_update(update))}
        scores = {name: [score.difference] for name, score in update.scores.items()}
        assert read == {name: delta + array("f", scores.get(name, [])) for name, delta in update.deltas.items()}

    @given(st.sampled_from([messages.pack_update(UPDATE), messages.pack_model(MODEL)]), st.data())
    def test_safetensors_itself_reads_the_same_numbers(self, body, data):
        """Whatever is read here, the safetensors library reads to the same numbers."""
        changed = bytearray(body)
        for _ in range(data.draw(st.integers(0, 3))):
            changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(header_bytes | st.integers(0, 255))
        with suppress(WireError):
            ours = unpack(bytes(changed)).vectors
            theirs = {name: tensor["data"] for name, tensor in deserialize(bytes(changed))}
            assert {name: vector.tobytes() for name, vector in ours.items()} == theirs

    def test_vectors_may_lie_in_another_order_than_they_are_named(self):
        entries = (
            '"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
        )
        body = framed("{" + entries + "}  ", struct.pack("<3f", 1.0, 2.0, 3.0))
        assert unpack(body).vectors == {"a": array("f", [1.0, 2.0]), "b": array("f", [3.0])}

    @given(updates())
    def test_header_with_spaces_or_late_metadata_means_the_same(self, update):
        """A header with spaces or with its metadata last means the same."""
        body = messages.pack_update(update)
        start = 8 + int.from_bytes(body[:8], "little")
        header = json.loads(body[8:start])
        last = {**{name: entry for name, entry in header.items() if name != "__metadata__"}, **header}
        for text in (json.dumps(header), json.dumps(last)):
            assert unpack(framed(text, body[start:])) == unpack(body)

    def test_metadata_may_have_braces_and_escapes_and_is_text(self):
        assert unpack(framed('{"__metadata__":{"a":"},\\u00e9"},' + TENSOR + "}", bytes(4))).words == {"a": "},\u00e9"}
        for half in ('{"a":"\\ud800"}', '{"\\ud800":"a"}'):
            with pytest.raises(WireError):
                unpack(framed('{"__metadata__":' + half + "," + TENSOR + "}", bytes(4)))


def refused(body: bytes) -> None:
    for unpacked in (messages.unpack_update, messages.unpack_model):
        with pytest.raises(WireError) as error:
            unpacked(body)
        assert error.value.remedy
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
tensor_headers = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I8", "BOOL", "x"]) | json_values,
        "shape": st.lists(st.integers(-1, 2**70), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 2**70), max_size=3) | json_values,
    }
)


def framed(header: str, numbers: bytes = b"") -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + numbers


TENSOR = '"flaky":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


GOOD = {"format": "fedstep-update-2", "schema": "a" * 16, "base": "3", "id": "b" * 32, "project": "c" * 32}


class TestRefusals:
    @pytest.mark.parametrize("place", range(3))
    @pytest.mark.parametrize("wrong", [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff"])
    def test_number_that_is_not_finite_is_refused_in_any_vector(self, place, wrong):
        """A number that is not finite is refused in whatever vector it is."""
        body = pack({"format": "x"}, {name: array("f", [3e38]) for name in "abc"})
        assert unpack(body).vectors["c"][0] == pytest.approx(3e38)
        numbers = body[: len(body) - 12] + b"".join(wrong if n == place else bytes(4) for n in range(3))
        with pytest.raises(WireError, match=f"'{'abc'[place]}' has a number that is not finite"):
            unpack(numbers)

    def test_metadata_that_comes_again_is_a_repeated_key(self):
        header = '{"__metadata__":{},"flaky":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{}}'
        with pytest.raises(WireError, match="repeated keys"):
            unpack(framed(header, bytes(4)))

    @given(st.binary(max_size=400))
    def test_any_bytes_are_a_wire_error(self, body):
        refused(body)

    @given(st.sampled_from([messages.pack_update(UPDATE), messages.pack_model(MODEL)]), st.data())
    def test_a_message_with_changed_bytes_is_a_value_or_a_wire_error(self, body, data):
        changed = bytearray(body)
        for _ in range(data.draw(st.integers(1, 3))):
            changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        for unpacked in (messages.unpack_update, messages.unpack_model):
            with suppress(WireError):
                unpacked(bytes(changed))

    @pytest.mark.slow
    @given(
        st.dictionaries(
            st.sampled_from(["flaky", "candidate/a", "__metadata__"]) | st.text(max_size=8),
            tensor_headers | json_values,
        ),
        st.binary(max_size=64),
    )
    def test_any_header_is_a_value_or_a_wire_error(self, header, tail):
        text = json.dumps(header).encode()
        with suppress(WireError):
            unpack(struct.pack("<Q", len(text)) + text + tail)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff" * 8,
            struct.pack("<Q", 2**63) + b"{}",
            framed("[" * 16000),
            framed('{"a":' * 3000),
            framed("9" * 10000),
            framed('{"__metadata__":{"format":1},' + TENSOR + "}", bytes(4)),
            framed('{"__metadata__":[],' + TENSOR + "}", bytes(4)),
            framed("{" + TENSOR + "," + TENSOR + "}", bytes(4)),
            framed("{" + TENSOR + "}", b"\x00\x00\xc0\x7f"),
            framed("{" + TENSOR + "}", b"\x00\x00\x80\xff"),
            framed("{" + TENSOR + "}", bytes(8)),
            framed("{" + TENSOR.replace("[1]", "[1,1]") + "}", bytes(4)),
            framed("{" + TENSOR.replace("[1]", "[]") + "}", bytes(4)),
            framed("{" + TENSOR.replace("F32", "I32") + "}", bytes(4)),
            framed('{"a\\u0000\\u001b[2J":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
            framed(
                "{" + ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(99)) + "}"
            ),
            framed("{}" + " " * 20000),
            bytes(LARGEST_MESSAGE + 1),
        ],
    )
    def test_hostile_bytes_are_a_wire_error(self, body):
        refused(body)

    def test_a_repeated_key_is_a_wire_error_wherever_it_is(self):
        for header in ("{" + TENSOR + "," + TENSOR + "}", '{"__metadata__":{"id":"a","id":"b"},' + TENSOR + "}"):
            with pytest.raises(WireError, match="repeated"):
                unpack(framed(header, bytes(4)))

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": "fedstep-update-3"},
            {"schema": "A" * 16},
            {"schema": "a" * 17},
            {"base": "-1"},
            {"base": "03"},
            {"base": "9" * 400},
            {"base": "٣"},
            {"id": "b" * 31},
            {"id": "../" + "b" * 29},
            {"project": "c" * 32 + "\n"},
            {"examples.flaky": "63"},
            {"examples.flaky": "0"},
            {"examples.flaky": "4194304"},
            {"examples.other": "64"},
            {"branch": "secret"},
            {"trial.other": "4"},
            {"trial.flaky": "-4"},
            {"trial.flaky": ""},
        ],
    )
    def test_metadata_is_exactly_what_it_should_be(self, changes):
        words = {**GOOD, "examples.flaky": "64"}
        messages.unpack_update(pack(words, {"flaky": array("f", [1.0])}))
        refused(pack({**words, **changes}, {"flaky": array("f", [1.0])}))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"id": "short"},
            {"base": -1},
            {"examples": {"flaky": 50}},
            {"examples": {}},
            {"deltas": {}},
            {"deltas": {"Secret Name": array("f", [1.0])}, "examples": {"Secret Name": 64}},
            {"deltas": {"flaky": array("f", [float("nan")])}},
            {"deltas": {"flaky": array("f", bytes(4 << 18))}},
            {"scores": {"flaky": messages.TrialScore(4, 1.5)}},
            {"scores": {"flaky": messages.TrialScore(4, float("nan"))}},
            {"scores": {"flaky": messages.TrialScore(-4, 0.5)}},
            {"scores": {"triage": messages.TrialScore(4, 0.5)}},
        ],
    )
    def test_an_update_that_nobody_would_accept_is_not_packed(self, wrong):
        with pytest.raises(WireError):
            messages.pack_update(UPDATE._replace(**wrong))

    def test_both_tracks_of_a_model_have_the_same_tasks(self):
        for production in ({}, {"flaky": array("f", [0.0, 0.0])}, {"other": array("f", [0.0])}):
            with pytest.raises(WireError, match="same tasks"):
                messages.pack_model(MODEL._replace(production=production))
        with pytest.raises(WireError):
            messages.pack_model(MODEL._replace(created="2026-01-31T12:34Z"))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"trials": {"flaky": 4}},
            {"trial": {"flaky": array("f", [0.5])}},
            {"trials": {"flaky": 4}, "trial": {"flaky": array("f", [0.5, 0.5])}},
            {"trials": {"other": 4}, "trial": {"other": array("f", [0.5])}},
            {"trials": {"flaky": 4}, "trial": {"other": array("f", [0.5])}},
        ],
    )
    def test_trial_is_of_a_task_of_the_model_with_its_version(self, wrong):
        """A trial is of a task of the model and has its version."""
        with pytest.raises(WireError):
            messages.pack_model(MODEL._replace(**wrong))

    def test_a_message_must_fit_the_schema_of_this_side(self):
        ours = messages.SchemaShape("a" * 16, {"flaky": 2, "triage": 1})
        messages.check_update(UPDATE, ours)
        with pytest.raises(SchemaMismatch, match=r"aaaa.*ffff"):
            messages.check_update(UPDATE, ours._replace(digest="f" * 16))
        with pytest.raises(WireError, match="flaky has 2 coordinates, the schema says 3"):
            messages.check_update(UPDATE, ours._replace(sizes={"flaky": 3}))
        with pytest.raises(WireError, match="no such task"):
            messages.check_update(UPDATE, ours._replace(sizes={}))
        with pytest.raises(WireError, match="lacks triage"):
            messages.check_model(MODEL, ours._replace(sizes={"flaky": 1, "triage": 1}))


class TestBounds:
    def test_an_update_of_all_tasks_is_at_most_16_kb_on_the_wire(self):
        shape = messages.shape(schema())
        dense = {
            name: clip_update(array("f", (((n * 7919) % 2003 - 1001) / 997 for n in range(size))), 1.0)
            for name, size in shape.sizes.items()
        }
        scores = {name: messages.TrialScore(10**6, 0.123) for name in dense}
        body = messages.pack_update(
            messages.Update(shape.digest, 1, "b" * 32, "c" * 32, dict.fromkeys(dense, 64), dense, scores)
        )
        assert int.from_bytes(body[:8], "little") < 800
        assert min(len(body), len(deflate(body))) <= 16384

    @given(vectors, st.floats(2.0**-20, 2.0**20))
    def test_clip_keeps_the_bound_and_leaves_short_deltas_alone(self, delta, bound):
        """Clipping never exceeds the bound, and it leaves short deltas unchanged."""
        clipped = clip_update(delta, bound)
        assert messages.norm(clipped) <= bound
        assert clipped is delta or messages.norm(delta) > bound

    @given(vectors.filter(lambda delta: messages.norm(delta) > 1.0))
    def test_clip_keeps_the_direction(self, delta):
        clipped, length = clip_update(delta, 1.0), messages.norm(delta)
        assert all(
            short == pytest.approx(long / length, rel=1e-5, abs=1e-30)
            for short, long in zip(clipped, delta, strict=True)
        )

    @given(st.integers(1, 2**30))
    def test_a_bucket_is_the_power_of_two_below_and_has_an_end(self, count):
        bucket = messages.bucket(count)
        assert bucket & (bucket - 1) == 0
        assert bucket <= count < 2 * bucket or bucket == 2**20

    @given(st.binary(max_size=2000))
    def test_gzip_brings_back_the_bytes_within_the_bound(self, body):
        assert inflate(deflate(body), len(body)) == body
        if body:
            with pytest.raises(WireError, match="more than"):
                inflate(deflate(body), len(body) - 1)

    @given(st.binary(max_size=200))
    def test_any_bytes_inflate_or_are_a_wire_error(self, body):
        for sent in (body, deflate(body)[:-1], deflate(body) + b"x", deflate(b"") + body):
            with suppress(WireError):
                assert len(inflate(sent, 100)) <= 100


def version_1(body: bytes) -> bytes:
    """Write a message of format 2 with the words of format 1."""
    words, vectors = unpack(body)
    words = {name.replace("examples.", "rows."): word for name, word in words.items()}
    words = {name if name != "candidate" else "head": word for name, word in words.items()}
    words["format"] = words["format"].removesuffix("2") + "1"
    return pack(words, {name.replace("candidate/", "head/"): vector for name, vector in vectors.items()})


class TestFormat1:
    """Histories, outboxes and stores of earlier versions contain messages of format 1."""

    @given(updates())
    def test_an_update_is_read(self, update: messages.Update) -> None:
        assert messages.unpack_update(version_1(messages.pack_update(update))) == update

    @given(models())
    def test_a_model_is_read(self, model: messages.Model) -> None:
        assert messages.unpack_model(version_1(messages.pack_model(model))) == model

    @pytest.mark.parametrize("word", ["examples.flaky", "candidate"])
    def test_words_of_both_formats_are_refused(self, word: str) -> None:
        words, vectors = unpack(version_1(messages.pack_update(UPDATE)))
        refused(pack({**words, word: "64"}, vectors))
        words, vectors = unpack(version_1(messages.pack_model(MODEL)))
        refused(pack({**words, word: "4"}, vectors))

    def test_tensors_of_both_formats_are_refused(self) -> None:
        words, vectors = unpack(version_1(messages.pack_model(MODEL)))
        refused(pack(words, {**vectors, "candidate/flaky": vectors["head/flaky"]}))

    @pytest.mark.parametrize("body", [messages.pack_update(UPDATE), messages.pack_model(MODEL)])
    def test_format_2_has_no_word_of_format_1(self, body: bytes) -> None:
        words, vectors = unpack(body)
        refused(pack({**words, "head": "4"}, vectors))
        refused(pack({**words, "rows.flaky": "64"}, vectors))
