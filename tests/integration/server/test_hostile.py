"""Hostile bodies get the refusal that is due, a problem document, and none of the memory that they ask for."""

import json
import logging
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedstep.errors import WireError
from fedstep.federation.messages import LARGEST_MESSAGE, deflate, inflate, unpack_model, unpack_update
from fedstep.server.mode import BufferPolicy
from tests.helpers.server_hostile import FIXED, FOLDER, KEY, bodies, body, good, one, tensors, words

FILES = sorted(FOLDER.iterdir())
MOST_BYTES = 8 * LARGEST_MESSAGE  # in memory at once for one body: itself, inflated, its header and what the log says
ROOM = 200_000  # bytes of memory for a small message, whatever it claims to be
relaxed = hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def house(open_aggregator, settings):
    """One aggregator for all bodies of a test, as each leaves it as it was."""
    with open_aggregator(replace(settings, buffer=BufferPolicy(updates=1000, seconds=3600.0)), FIXED) as opened:
        yield opened


def post(house, content: bytes, zipped: bool):
    headers = {"Idempotency-Key": KEY, "Content-Encoding": "gzip" if zipped else "identity"}
    return house.send("POST", "/v1/updates", headers, content, 10.0)


def waiting(house) -> int:
    text = house.send("GET", "/metrics", {}, b"", 5.0).body.decode()
    return int(float(text.partition("\nfedstep_buffer_updates ")[2].split()[0]))


class TestHostileFiles:
    def test_the_files_are_those_that_the_workshop_makes(self) -> None:
        """Compressed ones by name alone: another zlib writes other bytes."""
        made = bodies()
        assert [path.name for path in FILES] == sorted(made), "run python tests/helpers/server_hostile.py"
        wrong = [path.name for path in FILES if path.suffix != ".gz" and path.read_bytes() != made[path.name]]
        assert wrong == []
        assert len(FILES) >= 100

    def test_every_hostile_body_gets_the_refusal_that_is_due(self, house) -> None:
        wrong = {}
        for path in FILES:
            answer = post(house, path.read_bytes(), path.suffix == ".gz")
            problem = json.loads(answer.body)
            due = answer.status == problem["status"] == int(path.name[:3])
            if not due or answer.headers["content-type"] != "application/problem+json" or len(answer.body) > 1000:
                wrong[path.name] = (answer.status, answer.body[:200])
        assert wrong == {}
        assert waiting(house) == 0
        assert post(house, good(), False).status == 202
        assert waiting(house) == 1

    def test_no_hostile_body_takes_the_memory_that_it_asks_for(self, house) -> None:
        peaks = {}
        tracemalloc.start()
        try:
            for path in FILES:
                content = path.read_bytes()
                tracemalloc.reset_peak()
                post(house, content, path.suffix == ".gz")
                peaks[path.name] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert {name: peak for name, peak in peaks.items() if peak > MOST_BYTES} == {}

    def test_each_hostile_body_is_one_short_line_in_the_log(self, house, caplog) -> None:
        caplog.set_level(logging.INFO)
        for path in FILES:
            caplog.clear()
            post(house, path.read_bytes(), path.suffix == ".gz")
            assert [record.levelname for record in caplog.records] == ["WARNING"], path.name
            line = caplog.records[0].getMessage()
            assert len(line) < 300, path.name
            assert line.isprintable(), path.name

    def test_no_refusal_repeats_control_characters_of_the_sender(self, house, caplog) -> None:
        answer = post(house, one("dtype", "\x1b[2K\nupdate accepted"), False)
        assert json.loads(answer.body)["detail"].isprintable()
        assert all(record.getMessage().isprintable() for record in caplog.records)


def refused_or_read(content: bytes) -> None:
    for unpack in (unpack_update, unpack_model):
        tracemalloc.start()
        try:
            with suppress(WireError):
                unpack(content)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < ROOM + 40 * len(content)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "U8"]) | anything,
        "shape": st.lists(st.integers(), max_size=3) | anything,
        "data_offsets": st.lists(st.integers(-8, 64), min_size=2, max_size=2) | anything,
    }
)
headers = st.dictionaries(
    st.sampled_from(["flaky", "build-duration", "__metadata__"]) | st.text(max_size=12), entries | anything, max_size=4
)


class TestAnyBytes:
    def test_tensor_with_more_members_than_the_format_is_refused(self, house) -> None:
        """A tensor with more members than the format has is refused."""
        entries = tensors()
        entries["flaky"]["note"] = "what nobody asked for"
        assert post(house, body({"__metadata__": words(), **entries}), False).status == 400

    @relaxed
    @given(st.binary(max_size=2000))
    def test_any_bytes_are_refused_or_read_in_bounded_memory(self, content: bytes) -> None:
        refused_or_read(content)

    @relaxed
    @given(st.lists(st.tuples(st.integers(0, len(good()) - 1), st.integers(0, 255)), min_size=1, max_size=6))
    def test_an_update_with_any_bytes_turned_is_refused_or_read(self, turned: list[tuple[int, int]]) -> None:
        content = bytearray(good())
        for place, value in turned:
            content[place] = value
        refused_or_read(bytes(content))

    @relaxed
    @given(headers, st.binary(max_size=64))
    def test_any_header_is_refused_or_read(self, header: dict[str, object], numbers: bytes) -> None:
        refused_or_read(body(json.dumps(header).encode("utf-8", "surrogatepass"), numbers))

    @relaxed
    @given(st.dictionaries(st.sampled_from([*words(), "trial.flaky"]) | st.text(max_size=12), st.text(max_size=40)))
    def test_any_fields_of_a_good_update_get_a_clean_answer(self, house, changes: dict[str, str]) -> None:
        """Any fields of an otherwise good update get a clean answer."""
        content = body(json.dumps({"__metadata__": {**words(), **changes, "base": "7"}, **tensors()}))
        answer = post(house, content, False)
        assert 400 <= answer.status < 500
        assert json.loads(answer.body)["status"] == answer.status

    @relaxed
    @given(st.binary(max_size=500), st.integers(0, 2000))
    def test_any_gzip_bytes_inflate_to_no_more_than_the_limit(self, content: bytes, most: int) -> None:
        """Any bytes declared as gzip inflate to no more than the limit."""
        for sent in (content, deflate(content), deflate(content)[:-1]):
            with suppress(WireError):
                assert len(inflate(sent, most)) <= most
