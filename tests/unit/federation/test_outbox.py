"""Updates that wait."""

import os
from array import array
from pathlib import Path

import pytest

from fedstep.errors import AggregatorUnreachable, HistoryError, WireError
from fedstep.federation.messages import Update, pack_update
from fedstep.federation.outbox import Outbox, flush
from fedstep.federation.transport import HttpResponse, RetryPolicy

ONCE = RetryPolicy(timeout=1.0, waits=())
URL = "https://ci.example.org"


def body(number: int) -> bytes:
    delta = {"flaky": array("f", [float(number)])}
    return pack_update(Update("a" * 16, 0, f"{number:032x}", "c" * 32, {"flaky": 64}, delta))


def keep(outbox: Outbox, number: int) -> None:
    """Keeps update `number` as if at that second."""
    os.utime(outbox.folder / f"{outbox.add(body(number))}.safetensors", (number, number))


def answering(*statuses: int):
    """A server that answers with these statuses, one after the other."""
    left = list(statuses)

    def send(_method, _path, headers, _body, _timeout):
        receipt = b'{"receipt": "r-%s", "version": 1}' % headers["Idempotency-Key"].encode()
        return HttpResponse(left.pop(0), {}, receipt)

    return send


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox", max_updates=3)


class TestStorage:
    def test_nothing_waits_in_a_folder_that_is_not_there(self, outbox):
        assert outbox.waiting().updates == ()
        assert not outbox.folder.exists()

    def test_what_was_kept_waits_oldest_first_until_it_is_dropped(self, outbox):
        for number in (5, 1, 3):
            keep(outbox, number)
        assert [int(number, 16) for number, _ in outbox.waiting().updates] == [1, 3, 5]
        outbox.remove(f"{3:032x}")
        outbox.remove(f"{3:032x}")
        assert outbox.waiting().updates == ((f"{1:032x}", body(1)), (f"{5:032x}", body(5)))

    def test_the_same_update_is_kept_once(self, outbox):
        keep(outbox, 1)
        keep(outbox, 1)
        assert len(outbox.waiting().updates) == 1

    def test_a_full_outbox_lets_the_oldest_go(self, outbox):
        for number in (1, 2, 3, 4):
            keep(outbox, number)
        assert [int(number, 16) for number, _ in outbox.waiting().updates] == [2, 3, 4]

    def test_damaged_files_are_set_aside_and_the_others_count(self, outbox):
        """Damaged files are set aside with a warning, and the others count."""
        keep(outbox, 1)
        keep(outbox, 2)
        (outbox.folder / f"{2:032x}.safetensors").write_bytes(body(2)[:-1])
        (outbox.folder / f"{3:032x}.safetensors").write_bytes(body(4))
        (outbox.folder / f"{5:032x}.safetensors").mkdir()
        (outbox.folder / "empty.safetensors").touch()
        (outbox.folder / "README").touch()
        before = sorted(outbox.folder.iterdir())
        waiting = outbox.waiting()
        assert [number for number, _ in waiting.updates] == [f"{1:032x}"]
        assert len(waiting.warnings) == 4
        assert sorted(outbox.folder.iterdir()) == before, "who only looks renames nothing"
        flushed = flush(outbox, URL, answering(500), ONCE)
        assert [warning.rpartition("; ")[2].startswith("set aside as ") for warning in flushed.warnings] == [True] * 4
        assert (outbox.waiting().warnings, flushed.waiting) == ((), 1)


class TestFlush:
    def test_a_flush_gives_back_the_bytes_of_what_arrived(self, outbox):
        for number in (1, 2, 3):
            keep(outbox, number)
        assert flush(outbox, URL, answering(202, 422, 202), ONCE).bodies == (body(1), body(3))

    def test_update_is_in_the_outbox_once_its_examples_are_taken(self, outbox):
        """An update is in the outbox only once its examples are taken from those that wait."""
        keeping = outbox.stage(body(1))
        keeping.__enter__()
        assert outbox.waiting().updates == ()
        broken = KeyboardInterrupt()
        assert not keeping.__exit__(type(broken), broken, None)
        assert list(outbox.folder.iterdir()) == []
        with outbox.stage(body(1)) as number:
            assert len(list(outbox.folder.glob("*.partial"))) == 1, "what cannot be written is known before"
        assert outbox.waiting().updates == ((number, body(1)),)

    def test_what_was_set_aside_is_bounded_too(self, outbox):
        keep(outbox, 1)
        for number in range(10):
            (outbox.folder / f"{number}.damaged").touch()
        keep(outbox, 2)
        assert len(list(outbox.folder.glob("*.damaged"))) == 3

    def test_what_is_no_update_is_not_kept(self, outbox):
        with pytest.raises(WireError):
            outbox.add(b"{}")

    def test_a_folder_that_cannot_be_made_is_a_history_error(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(HistoryError, match="outbox"):
            Outbox(tmp_path / "file" / "outbox").add(body(1))

    def test_a_flush_removes_what_was_acknowledged_or_refused(self, outbox):
        for number in (1, 2, 3):
            keep(outbox, number)
        flushed = flush(outbox, URL, answering(202, 422, 202), ONCE)
        assert [receipt.id for receipt in flushed.sent] == [f"{1:032x}", f"{3:032x}"]
        assert len(flushed.refused) == 1
        assert (flushed.waiting, flushed.failures) == (0, ())
        assert outbox.waiting().updates == ()

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 200])
    def test_flush_stops_at_a_general_failure_and_keeps_the_rest(self, outbox, status):
        """A flush stops at a failure that concerns all updates, and keeps the rest."""
        for number in (1, 2, 3):
            keep(outbox, number)
        flushed = flush(outbox, URL, answering(202, status), ONCE)
        assert (len(flushed.sent), len(flushed.failures), flushed.waiting) == (1, 1, 2)
        assert [int(number, 16) for number, _ in outbox.waiting().updates] == [2, 3]

    def test_a_flush_sends_nothing_after_its_deadline(self, outbox):
        keep(outbox, 1)
        flushed = flush(outbox, URL, answering(), RetryPolicy(deadline=5.0, clock=lambda: 5.0))
        assert (flushed.sent, flushed.failures, flushed.waiting) == ((), (), 1)

    def test_a_flush_passes_warnings_on(self, outbox):
        outbox.folder.mkdir()
        (outbox.folder / "x.safetensors").touch()
        assert len(flush(outbox, URL, answering(), ONCE).warnings) == 1

    def test_an_unreachable_aggregator_is_a_failure_value(self, outbox):
        keep(outbox, 1)

        def send(*_arguments):
            raise AggregatorUnreachable("nobody is there")

        assert flush(outbox, URL, send, ONCE).waiting == 1
