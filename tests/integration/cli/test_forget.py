"""`fedstep forget`: the history here is gone, the aggregator was asked, and what stays is said."""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, Ran, answering, by_method, dead_port, forty_tests, new_checkout, server
from tests.helpers.narrow import present

CASES = forty_tests(12)
HELD = re.compile(r"forgotten by http://\S+: 1 update and \d evaluations?\n")


def having_sent(place: Checkout, hub: str) -> Checkout:
    (place.history / "key").write_text(os.urandom(32).hex())
    ran = place.run("train", "--junit", place.report(CASES), "--aggregator", hub)
    assert ran.code == 0, ran.err
    assert place.outbox() == []
    return place


@pytest.fixture
def sent(connected: Checkout, hub: str) -> Checkout:
    """A project of its own, which has sent one update."""
    return having_sent(connected, hub)


@pytest.fixture(scope="module")
def sent_history(tmp_path_factory: pytest.TempPathFactory, connected_history: Path, hub: str) -> Path:
    """The history of another such project."""
    return having_sent(new_checkout(tmp_path_factory.mktemp("sent") / "repo", connected_history), hub).history


@pytest.fixture
def kept(tmp_path: Path, sent_history: Path) -> Checkout:
    """A copy of it, for tests in which the aggregator forgets nothing."""
    return new_checkout(tmp_path / "repo", sent_history)


def in_words(ran: Ran) -> str:
    return " ".join(ran.out.split())


class TestHistoryAndAggregator:
    def test_both_sides_forget_and_what_stays_is_said(self, sent: Checkout, hub: str) -> None:
        ran = sent.run("forget", "--yes", "--aggregator", hub)
        assert ran.code == 0, ran.err
        assert not sent.history.exists()
        assert HELD.search(ran.out)
        assert "with the record of 1 update sent" in ran.out
        for words in ("other clones and caches", "aggregated into the shared model", "receipts", "backups and logs"):
            assert words in in_words(ran)
        assert "nothing" in sent.run("inspect", "--audit").out

    def test_nothing_is_deleted_where_nobody_can_be_asked(self, sent: Checkout, hub: str) -> None:
        """It asks first and deletes nothing where nobody can be asked."""
        ran = sent.run("forget", "--aggregator", hub)
        assert ran.code == 2
        assert "Add --yes" in ran.err
        assert len(sent.builds()) == 13
        assert HELD.search(sent.run("forget", "--yes", "--aggregator", hub).out), "the aggregator still had it"

    def test_whoever_says_no_keeps_everything(self, kept: Checkout, hub: str) -> None:
        person, terminal = os.openpty()
        os.write(person, b"n\n")
        with kept.start("forget", "--aggregator", hub, stdin=terminal) as process:
            _, talk = process.communicate(timeout=60)
        os.close(person)
        os.close(terminal)
        assert process.returncode == 2
        assert "nothing is deleted" in talk
        assert len(kept.builds()) == 13

    def test_a_dry_run_names_both_and_deletes_neither(self, sent: Checkout, hub: str) -> None:
        ran = sent.run("forget", "--dry-run", "--aggregator", hub)
        assert ran.code == 0
        assert ran.out.count("would be deleted: ") == 2
        assert str(sent.history) in ran.out
        assert hub in ran.out
        assert len(sent.builds()) == 13
        assert HELD.search(sent.run("forget", "--yes", "--aggregator", hub).out)

    def test_where_updates_were_sent_the_aggregator_has_to_be_named(self, kept: Checkout, hub: str) -> None:
        ran = kept.run("forget", "--yes")
        assert ran.code == 2
        assert f"updates were sent to {hub.removeprefix('http://')}, and no aggregator is named" in ran.err
        assert len(kept.builds()) == 13

    def test_a_history_that_sent_nothing_needs_no_aggregator(self, experienced: Checkout) -> None:
        ran = experienced.run("forget", "--yes")
        assert ran.code == 0
        assert not experienced.history.exists()
        assert "forgotten by" not in ran.out

    def test_absent_aggregator_can_be_asked_again(self, sent: Checkout, hub: str) -> None:
        """An aggregator that is away costs the exit code and can be asked again."""
        with dead_port() as url:
            ran = sent.run("forget", "--yes", "--aggregator", url, "--timeout", "1")
        assert ran.code == 5
        assert not sent.history.exists()
        (warning,) = [line for line in ran.warnings if "has forgotten nothing" in line]
        said = re.search(r"fedstep (forget --pseudonym \w{32} --aggregator \S+)", warning)
        again = shlex.split(present(said)[1])
        ran = sent.run(*again[:-1], hub, "--yes")
        assert ran.code == 0, ran.err
        assert HELD.search(ran.out)
        assert "nothing, it held no update" in sent.run(*again[:-1], hub, "--yes").out

    def test_another_aggregator_that_got_updates_is_named(self, kept: Checkout, hub: str) -> None:
        with dead_port() as url:
            ran = kept.run("forget", "--dry-run", "--aggregator", url)
        assert f"updates were sent to {hub.removeprefix('http://')} too" in ran.err

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            ("404 Not Found", b"", "cannot be asked to forget"),
            ("405 Method Not Allowed", b"", "cannot be asked to forget"),
            ("200 OK", b"<html>login</html>", "not how much it deleted"),
            ("200 OK", b'{"updates": -1, "evaluations": 0}', "not how much it deleted"),
            ("200 OK", b'{"updates": true, "evaluations": 0}', "not how much it deleted"),
            ("401 Unauthorized", b"", "wants a token"),
            ("302 Found", b"", "302"),
        ],
    )
    def test_an_answer_that_is_no_deletion_is_not_called_one(
        self, experienced: Checkout, status: str, body: bytes, words: str
    ) -> None:
        with server(by_method(POST=answering(status, body))) as url:
            ran = experienced.run("forget", "--yes", "--pseudonym", "0" * 32, "--aggregator", url, "--timeout", "2")
        assert ran.code == 5
        assert words in ran.err
        assert "forgotten by" not in ran.out
        assert len(experienced.builds()) == 12, "the history is not touched"


class TestRefusals:
    @pytest.mark.parametrize(
        "options",
        [
            ("--pseudonym", "0" * 32),
            ("--pseudonym", "tests", "--aggregator", "http://127.0.0.1:1"),
            ("--aggregator", "ftp://127.0.0.1"),
            ("--aggregator", "http://127.0.0.1:1", "--token", "two words"),
            ("--history", "shop", "--aggregator", "http://127.0.0.1:1"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_deleted(
        self, experienced: Checkout, options: tuple[str, ...]
    ) -> None:
        assert experienced.run("forget", "--yes", *options).code == 2
        assert len(experienced.builds()) == 12

    def test_damaged_key_does_not_prevent_deletion(self, experienced: Checkout) -> None:
        """A key that is damaged keeps nobody from deleting the history."""
        (experienced.history / "key").write_text("damaged")
        assert experienced.run("forget", "--yes").code == 0
        assert not experienced.history.exists()

    def test_without_key_no_other_pseudonym_is_used(self, fresh: Checkout, hub: str) -> None:
        """Without the key, nothing is asked under another pseudonym."""
        ran = fresh.run("forget", "--yes", "--history", "git", "--aggregator", hub)
        assert ran.code == 2
        assert "the key of this project is not here" in ran.err

    def test_a_run_of_a_fork_deletes_nothing(self, kept: Checkout, hub: str) -> None:
        fork = kept.with_env(CI="true", GITLAB_CI="true", CI_MERGE_REQUEST_SOURCE_PROJECT_ID="2", CI_PROJECT_ID="1")
        ran = fork.run("forget", "--yes", "--aggregator", hub)
        assert ran.code == 2
        assert "fork" in ran.err
        assert len(kept.builds()) == 13


class TestPseudonym:
    def test_what_is_sent_afterwards_has_another_pseudonym(self, sent: Checkout, hub: str) -> None:
        before = (sent.history / "key").read_bytes()
        assert sent.run("forget", "--yes", "--aggregator", hub).code == 0
        assert sent.run("train", "--junit", sent.report(CASES)).code == 0
        assert (sent.history / "key").read_bytes() != before
