"""What a copy of a history brings along: the later model, the later turn, and everything that was sent."""

import json
from itertools import count
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from fedstep.federation.outbox import audit_transport, read_audit
from fedstep.federation.sync import ContributionLog, load_contributions
from fedstep.federation.transport import HttpResponse
from fedstep.history.merge import import_notes, merge_folder
from fedstep.history.project_store import FILES, LEARNED, MODEL, MODEL_NOTE, TRAVELLING, TURNS, ProjectStore, exclusive
from fedstep.history.records import BuildRecord
from fedstep.types import BuildOutcome
from tests.helpers.history import NOW, Clone

URL = "https://hub.example"
NUMBERS = count(1)


def publish(place: Clone) -> None:
    """Publish with one more build, as every train does."""
    place.record(next(NUMBERS))
    place.publish()


def pulled(place: Clone, model: bytes, at: float) -> None:
    place.home.prepare()
    place.home.write(MODEL, model)
    place.home.write(MODEL_NOTE, json.dumps({"etag": "", "fetched_at": at, "url": URL}).encode())


def sent(place: Clone, *bodies: bytes) -> None:
    place.home.prepare()
    send = audit_transport(place.home, URL, lambda *_: HttpResponse(202, {}, b""), clock=lambda: 1.0)
    for body in bodies:
        send("POST", "/v1/updates", {}, body, 1.0)


class TestModel:
    @pytest.mark.parametrize(("at", "used"), [(50.0, b"ours"), (150.0, b"theirs")])
    def test_later_model_of_the_ref_is_taken(self, ada, bob, at, used):
        """The model of the ref is taken where it was asked for later."""
        pulled(ada, b"theirs", at)
        publish(ada)
        pulled(bob, b"ours", 100.0)
        bob.receive()
        assert bob.home.read(MODEL) == used
        publish(bob)
        ada.receive()
        assert ada.home.read(MODEL) == used

    def test_a_fresh_clone_gets_the_model(self, ada, bob):
        pulled(ada, b"model", 1.0)
        publish(ada)
        bob.receive()
        assert (bob.home.read(MODEL), json.loads(bob.home.read(MODEL_NOTE))["fetched_at"]) == (b"model", 1.0)

    @pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"fetched_at": "soon"}', b'{"fetched_at": NaN}', b"\xff"])
    def test_a_damaged_note_of_the_ref_replaces_no_model(self, ada, bob, note):
        pulled(ada, b"theirs", 1.0)
        ada.home.write(MODEL_NOTE, note)
        publish(ada)
        pulled(bob, b"ours", 0.0)
        bob.receive()
        assert bob.home.read(MODEL) == b"ours"


class TestSent:
    @pytest.mark.parametrize(
        ("ours", "theirs", "after"),
        [
            (None, ContributionLog(URL, 1, 100.0), ContributionLog(URL, 1, 100.0)),
            (ContributionLog(URL, 1, 100.0), ContributionLog(URL, 2, 200.0), ContributionLog(URL, 2, 200.0)),
            (ContributionLog(URL, 2, 200.0), ContributionLog(URL, 1, 100.0), ContributionLog(URL, 2, 200.0)),
            (
                ContributionLog(URL, 2, 200.0),
                ContributionLog(URL, 2, 200.0, over=True),
                ContributionLog(URL, 2, 200.0, over=True),
            ),
            (
                ContributionLog(URL, 2, 200.0, over=True),
                ContributionLog(URL, 2, 200.0),
                ContributionLog(URL, 2, 200.0, over=True),
            ),
        ],
    )
    def test_private_contributions_are_known_to_every_clone(self, ada, bob, ours, theirs, after):
        """What was given under differential privacy is known to every clone."""
        ada.home.prepare()
        ada.home.write(TURNS, json.dumps(theirs._asdict()).encode())
        publish(ada)
        bob.record(next(NUMBERS))
        if ours:
            bob.home.write(TURNS, json.dumps(ours._asdict()).encode())
        bob.receive()
        assert load_contributions(bob.home, URL) == after

    def test_what_was_sent_from_any_machine_is_on_record_on_all(self, ada, bob):
        sent(ada, b"first", b"second")
        publish(ada)
        sent(bob, b"third")
        publish(bob)
        ada.receive()
        for place in (ada, bob):
            audit = read_audit(place.home)
            assert (len(audit.sent), audit.damaged) == (3, 0)
            assert {one.answer for one in audit.sent} == {202}
        assert read_audit(ada.home).sent[:2] == read_audit(bob.home).sent[1:]

    def test_nothing_is_noted_twice_however_often_it_travels(self, ada, bob):
        sent(ada, b"first")
        for _ in range(3):
            publish(ada)
            publish(bob)
            ada.receive()
        assert len(read_audit(ada.home).sent) == 1
        assert len(ada.home.read("sent/log.jsonl").split()) == len(bob.home.read("sent/log.jsonl").split())

    def test_invalid_lines_are_counted_and_break_nothing(self, ada, bob):
        """Lines that are none are counted as damaged and break nothing."""
        sent(ada, b"first")
        with open(ada.home.path("sent/log.jsonl"), "ab") as file:
            file.write(b"\n\xff\xfe\n")
        publish(ada)
        bob.receive()
        assert (len(read_audit(bob.home).sent), read_audit(bob.home).damaged) == (1, 1)


class TestKey:
    def test_a_key_that_is_on_the_ref_stays_whatever_is_merged(self, ada, bob, tmp_path):
        """The ref has one key for all parts; this part has no build yet."""
        publish(ada)
        part = Clone(bob.root, "api")
        part.home.prepare()
        part.receive()
        other = ProjectStore(str(tmp_path / "folder"))
        other.prepare()
        other.log.append(BuildRecord("7" * 32, NOW, NOW + 30, 30.0, "unit||mark", BuildOutcome.PASSED))
        assert merge_folder(part.home, other.folder).added == 1
        assert part.home.key() == ada.home.key() != other.key()


class TestLearning:
    def test_what_was_learned_is_not_replaced_while_somebody_learns(self, ada, bob):
        ada.home.prepare()
        for name in LEARNED:
            ada.home.write(name, b"{}")
        publish(ada)
        bob.home.prepare()
        with exclusive(bob.home), pytest.raises(HistoryError, match="another fedstep is learning"):
            bob.receive()
        assert bob.home.read(LEARNED[0]) == b""
        bob.receive()
        assert bob.home.read(LEARNED[0]) == b"{}"

    def test_a_copy_without_notes_brings_none(self, home):
        before = sorted(Path(home.folder).iterdir())
        import_notes(home, lambda _: b"")
        assert sorted(Path(home.folder).iterdir()) == before


class TestFiles:
    def test_secrets_and_local_files_do_not_travel(self):
        """Secrets, and what is of one machine alone, stay off the list of what travels."""
        assert len({file.path for file in FILES}) == len(FILES)
        assert not {"key", "outbox", "marks", "travel.json", "learning.lock", "sent"} & set(TRAVELLING.values())
        assert all("/" not in name for name in TRAVELLING)
