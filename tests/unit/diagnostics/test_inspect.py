"""An update taken apart: every coordinate has its name, every field its meaning."""

import os
from array import array
from pathlib import Path

import pytest

from fedstep.diagnostics.inspect import (
    headers_of,
    inspection_of,
    last_update,
    next_update,
    seen_update,
    waiting_updates,
)
from fedstep.errors import WireError
from fedstep.federation.messages import Update, pack, pack_update
from fedstep.federation.outbox import audit_transport
from fedstep.federation.transport import HttpResponse
from fedstep.history.project_store import ProjectStore
from fedstep.model.linear import zeros
from fedstep.report.inspection import InspectedToken
from fedstep.schema.schema import schema
from fedstep.types import Unavailable

SIZE = schema().tasks["build-failure"].size()


def packed(*moved: tuple[int, float]) -> bytes:
    delta = zeros(SIZE)
    for index, value in moved:
        delta[index] = value
    update = Update(schema().digest, 7, "a" * 32, "b" * 32, {"build-failure": 8}, {"build-failure": delta})
    return pack_update(update)


class TestFields:
    def test_every_moved_coefficient_has_its_name_largest_first(self) -> None:
        """Every coefficient that moved has its name, the largest first."""
        (task,) = seen_update(packed((1, 0.125), (SIZE - 1, -0.5)), "rows").tasks
        names = schema().tasks["build-failure"].names()
        assert [(one.name, one.value) for one in task.coefficients] == [(names[-1], -0.5), (names[1], 0.125)]
        assert (task.rows, task.size, task.clip) == (8, SIZE, schema().tasks["build-failure"].clip)
        assert task.norm == pytest.approx((0.125**2 + 0.5**2) ** 0.5)

    def test_every_field_of_an_update_has_a_meaning(self) -> None:
        fields = seen_update(packed((0, 1.0)), "rows").fields
        assert {one.name for one in fields} == {"format", "schema", "base", "id", "project", "examples.build-failure"}
        assert [one.name for one in fields if "not known" in one.meaning] == []

    def test_the_score_of_a_trial_is_no_change_of_a_coefficient(self) -> None:
        delta = array("f", [*zeros(SIZE), 0.75])
        words = {"format": "fedstep-update-2", "trial.build-failure": "12", "examples.build-failure": "8"}
        seen = seen_update(pack(words, {"build-failure": delta}), "sent")
        (task,) = seen.tasks
        assert [(one.name, one.value) for one in task.coefficients] == [
            ("loss of version 12 on trial, less production's", 0.75)
        ]
        assert task.norm == 0.0
        assert [one.name for one in seen.fields if "not known" in one.meaning] == []

    def test_a_vector_of_another_version_has_numbers_for_names(self) -> None:
        seen = seen_update(pack({"format": "fedstep-update-9", "new": "x"}, {"later": array("f", [0.0, 1.0])}), "sent")
        assert seen.tasks[0].coefficients[0].name == "later[1]"
        assert {one.name for one in seen.fields if "not known" in one.meaning} == {"new"}

    def test_coefficients_of_another_schema_are_not_named(self) -> None:
        """The same number means another feature there."""
        words = {"format": "fedstep-update-1", "schema": "0" * 16}
        (task,) = seen_update(pack(words, {"build-failure": array("f", [0.0, 1.0])}), "sent").tasks
        assert [(one.name, one.value) for one in task.coefficients] == [("build-failure[1]", 1.0)]
        assert task.clip == 0.0


class TestUpdates:
    def test_bytes_that_are_no_update_are_an_error(self) -> None:
        with pytest.raises(WireError):
            seen_update(b"no update", "sent")

    def test_the_headers_follow_the_token_and_the_size(self) -> None:
        assert "Authorization" not in {one.name for one in headers_of(packed((0, 1.0)), token=False)}
        assert "Authorization" in {one.name for one in headers_of(packed((0, 1.0)), token=True)}

    def test_the_oldest_update_of_the_outbox_is_the_next_one(self, tmp_path: Path) -> None:
        home = ProjectStore(str(tmp_path))
        (tmp_path / "outbox").mkdir()
        for age, name in ((30, "b"), (20, "c"), (10, "damaged")):
            path = tmp_path / "outbox" / f"{name}.safetensors"
            path.write_bytes(b"damaged" if name == "damaged" else packed((0, age)))
            os.utime(path, (1_000_000 - age, 1_000_000 - age))
        (tmp_path / "outbox" / "x.partial").write_bytes(packed((0, 1.0)))
        assert [seen_update(body, "").tasks[0].coefficients[0].value for body in waiting_updates(home)] == [30, 20]
        chosen = next_update(home)
        assert getattr(chosen, "note", "") == "it waits in the outbox; 1 more behind it"
        assert len(list((tmp_path / "outbox").iterdir())) == 4, "nothing is set aside"
        found = inspection_of(home, False, InspectedToken("none"), ())
        assert getattr(found.update, "origin", "") == "outbox"

    def test_half_of_an_update_is_not_shown_as_one(self, tmp_path: Path) -> None:
        home = ProjectStore(str(tmp_path / "history"))
        send = audit_transport(home, "https://fedstep.example.org", lambda *_: HttpResponse(202, {}, b"{}"))
        send("POST", "/v1/shares", {}, b"half of an update", 1.0)
        found = last_update(home)
        assert isinstance(found, Unavailable)
        assert "two shares" in found.reason
