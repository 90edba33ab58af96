"""A new schema starts from the old coefficients of the features that it kept, and the old one keeps serving."""

import json
import logging
import time
from array import array
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.federation.client import push
from fedstep.federation.messages import pack_update, shape, unpack_model
from fedstep.federation.transport import RetryPolicy
from fedstep.schema.schema import Categorical, Numeric, PiecewiseLinear, Schema, Task
from fedstep.server.aggregation.step import coordinate_names, inherit_weights
from fedstep.server.mode import BufferPolicy
from fedstep.server.settings import Settings
from fedstep.server.storage.engine import open_engine
from fedstep.server.storage.store import Store

OLD = Schema(
    (Task("flaky", (Numeric("bias"), PiecewiseLinear("rate", (0.0, 0.5, 1.0)), Numeric("gone")), 1.0, 50, 20, 20),)
)
NEW = Schema(
    (
        Task("flaky", (Numeric("new"), PiecewiseLinear("rate", (0.0, 0.5, 2.0)), Numeric("bias")), 1.0, 50, 20, 20),
        Task("triage", (Numeric("bias"), Categorical("event", ("push", "tag"))), 1.0, 8, 8, 0),
    )
)
STARTS = {"flaky": array("f", [-2, 0, 0, 0, 0, -4]), "triage": array("f", [1, 0, 0])}
URL, ONCE = "http://here", RetryPolicy(timeout=10.0, waits=())
weights = st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6).map(lambda found: array("f", found))


class TestWeights:
    def test_kept_coordinates_keep_weights_and_new_ones_start_fresh(self):
        """Kept coordinates keep their weights wherever they moved, and new ones start as given."""
        found = inherit_weights(
            coordinate_names(NEW), STARTS, coordinate_names(OLD), {"flaky": array("f", [1, 2, 3, 4, 5, 6])}
        )
        assert dict(zip(coordinate_names(NEW)["flaky"], found["flaky"], strict=True)) == {
            "new": -2.0,
            "rate=0": 2.0,
            "rate=0.5": 3.0,
            "rate=2": 0.0,
            "rate=absent": 5.0,
            "bias": 1.0,
        }
        assert found["triage"] == STARTS["triage"], "a head of its own, though it has a coordinate of the same name"

    @given(weights)
    def test_same_schema_inherits_everything_without_mutation(self, vector: array):
        """The same schema inherits everything, and nothing is changed in place."""
        before, start = vector[:], {"flaky": array("f", bytes(24))}
        found = inherit_weights(coordinate_names(OLD), start, coordinate_names(OLD), {"flaky": vector})
        assert found["flaky"] == vector == before
        assert found["flaky"] is not vector
        assert start["flaky"] == array("f", bytes(24))

    @given(weights)
    def test_there_and_back_keeps_what_both_schemas_have(self, vector: array):
        there = inherit_weights(coordinate_names(NEW), STARTS, coordinate_names(OLD), {"flaky": vector})
        back = inherit_weights(coordinate_names(OLD), {"flaky": array("f", bytes(24))}, coordinate_names(NEW), there)[
            "flaky"
        ]
        assert list(back) == [vector[0], vector[1], vector[2], 0.0, vector[4], 0.0]

    def test_names_that_do_not_fit_their_vector_are_an_error(self):
        with pytest.raises(ValueError, match="zip"):
            inherit_weights(coordinate_names(NEW), STARTS, coordinate_names(OLD), {"flaky": array("f", [1.0])})


def started(url: str, schema: Schema, starts) -> Store:
    store = Store(url, shape(schema))
    store.start(starts, 1.0, coordinate_names(schema))
    return store


def wider(schema: Schema) -> Schema:
    """The same features and one more, in another order."""
    flaky, duration = schema.tasks.values()
    return Schema((duration, flaky._replace(parts=(Numeric("added"), *flaky.parts))))


def get(house, digest: str):
    return house.send("GET", f"/v1/model?schema={quote(digest)}", {}, b"", 10)


@pytest.mark.slow
class TestStore:
    def test_store_of_one_schema_continues_in_the_next(self, url, caplog):
        """A store that was started with one schema goes on with its production in the next."""
        with closing(started(url, OLD, {"flaky": array("f", [1, 2, 3, 4, 5, 6])})):
            pass
        with caplog.at_level(logging.INFO), closing(started(url, NEW, STARTS)) as store:
            begun = store.current()
        assert begun.candidate.version == 1
        assert (
            begun.candidate.vectors
            == begun.production
            == {"flaky": array("f", [-2, 2, 3, 0, 5, 1]), "triage": STARTS["triage"]}
        )
        assert "4 of its coefficients" in caplog.text
        with closing(started(url, NEW, {})) as again:
            assert again.current() == begun, "it starts once"

    def test_newest_of_several_schemas_is_inherited(self, url):
        """The newest of several schemas is the one that is inherited."""
        middle = Schema((Task("flaky", (Numeric("bias"),), 1.0, 50, 20, 20),))
        for schema, bias in ((OLD, [1, 2, 3, 4, 5, 6]), (middle, [7])):
            started(url, schema, {"flaky": array("f", bias)}).close()
        with closing(Store(url, shape(OLD))) as back:
            back.roll_back(0, 2.0)
        with closing(started(url, NEW, STARTS)) as store:
            assert store.current().production["flaky"][-1] == 1.0

    def test_a_schema_whose_names_are_not_known_is_not_inherited(self, url):
        with closing(Store(url, shape(OLD))) as store:
            store.start({"flaky": array("f", [1, 2, 3, 4, 5, 6])}, 0.0)
        with closing(started(url, NEW, STARTS)) as store:
            assert store.current().production == STARTS

    @pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
    def test_upgraded_aggregator_starts_from_and_serves_old_model(
        self, kind, request, settings: Settings, open_aggregator, small, ours, update
    ):
        """An upgraded aggregator starts from the old model and still serves it."""
        if kind == "postgresql":
            settings = replace(settings, store=request.getfixturevalue("database"))
        settings = replace(settings, buffer=BufferPolicy(updates=1, seconds=0.05))
        with open_aggregator(settings) as house:
            push(pack_update(update(1)), URL, house.send, ONCE)
            end = time.monotonic() + 20
            while (old := unpack_model((before := get(house, ours.digest)).body)).candidate_version < 1:
                assert time.monotonic() < end, "the update is not folded"
                time.sleep(0.02)
        new = wider(small)
        with open_aggregator(settings, new) as house:
            begun = house.pulled(shape(new))
            assert begun.production["flaky"] == array("f", [0.0, *old.production["flaky"]])
            assert begun.production["build-duration"] == old.production["build-duration"]
            assert begun.candidate_version == 2
            after = get(house, ours.digest)
            assert (after.status, after.body, after.headers["etag"]) == (200, before.body, before.headers["etag"])
            known = house.send(
                "GET", f"/v1/model?schema={ours.digest}", {"If-None-Match": after.headers["etag"]}, b"", 10
            )
            assert known.status == 304
            refused = house.send("POST", "/v1/updates", {"Idempotency-Key": update(2).id}, pack_update(update(2)), 10)
            told = json.loads(refused.body)
            assert (refused.status, told["expected"], told["got"]) == (409, new.digest, ours.digest)

    def test_updates_that_wait_for_another_schema_are_named(
        self, settings: Settings, open_aggregator, small, update, caplog
    ):
        """One line of the log says how many updates no aggregation will ever read."""
        settings = replace(settings, buffer=BufferPolicy(updates=5, seconds=600.0))
        with open_aggregator(settings) as house:
            push(pack_update(update(1)), URL, house.send, ONCE)
        with caplog.at_level(logging.WARNING), open_aggregator(settings, wider(small)):
            pass
        assert "1 updates of another feature schema wait" in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING), open_aggregator(settings):
            pass
        assert "another feature schema" not in caplog.text

    @pytest.mark.parametrize("asked", ["f" * 16, "0" * 15, "\0" * 16, "F" * 16, "' or 1=1 --", "x" * 5000])
    def test_a_schema_that_never_was_is_409(self, open_aggregator, settings, asked):
        with open_aggregator(settings) as house:
            assert get(house, asked).status == 409

    @pytest.mark.slow
    def test_an_earlier_model_that_cannot_be_read_is_503(self, open_aggregator, settings, small, ours):
        with open_aggregator(settings):
            pass
        with open_aggregator(settings, wider(small)) as house:
            engine = open_engine(settings.store)
            with engine.begin() as connection:
                connection.exec_driver_sql("alter table versions rename to lost")
            assert get(house, ours.digest).status == 503
            engine.dispose()
