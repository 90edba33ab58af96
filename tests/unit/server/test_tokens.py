"""Static tokens: shown once, kept as hashes, taken back at once."""

import gzip
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from fedstep.cli.main import commands
from fedstep.errors import UsageError
from fedstep.federation.messages import pack_update
from fedstep.server import auth
from fedstep.server.identity import Identity, TokenBook, digest_of
from tests.helpers.aggregator import until


@pytest.fixture
def book(tmp_path):
    made = TokenBook(f"sqlite:///{tmp_path / 'a.db'}")
    yield made
    made.close()


def post(house, made, token: str = ""):
    signed = {"Authorization": f"Bearer {token}"} if token else {}
    return house.send("POST", "/v1/updates", {"Idempotency-Key": made.id, **signed}, pack_update(made), 5.0)


@pytest.fixture
def soon(monkeypatch):
    """A door that looks at the store all the time."""
    monkeypatch.setattr(auth, "LOOK_SECONDS", 0.02)


def run(*words: str):
    return CliRunner().invoke(commands, words, catch_exceptions=False, standalone_mode=False)


class TestTokens:
    def test_token_names_owner_and_project_and_only_its_hash_is_kept(self, book, tmp_path):
        """A token names its owner and its project, and only its hash is kept."""
        token = book.create("acme/web", 0.0)
        assert len(token) > 43
        assert book.senders() == {digest_of(token): Identity("acme", "acme/web")}
        assert token.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert book.list_tokens()[0].id == digest_of(token)[:8]

    def test_two_tokens_are_never_the_same_and_have_256_random_bits(self, book):
        made = {book.create("acme", float(number)) for number in range(20)}
        assert len(made) == 20
        assert all(len(token.removeprefix("fedstep_")) == 43 for token in made)

    def test_token_is_replaced_without_a_gap_and_revoked(self, book):
        """A token is replaced without a gap, and revoked by name or by id."""
        old, new = book.create("acme", 1.0), book.create("acme", 2.0)
        assert set(book.senders()) == {digest_of(old), digest_of(new)}
        assert book.revoke(digest_of(old)[:8], 3.0) == 1
        assert set(book.senders()) == {digest_of(new)}
        book.create("acme", 4.0)
        assert book.revoke("acme", 5.0) == 2
        assert book.senders() == {}
        assert len(book.list_tokens()) == 3
        with pytest.raises(UsageError, match="no token in use is named"):
            book.revoke("acme", 6.0)

    @pytest.mark.parametrize(
        "name", ["", "a/b/c", "/web", "acme/", "a b", "-acme", "x" * 41, "acme\n", "github:7", "ä"]
    )
    def test_a_name_that_is_no_owner_and_project_is_refused(self, book, name):
        with pytest.raises(UsageError, match="no name for a token"):
            book.create(name, 0.0)
        assert book.list_tokens() == ()

    @pytest.mark.usefixtures("soon")
    def test_a_running_aggregator_follows_what_is_made_and_revoked(
        self, open_aggregator, settings, update, book, caplog
    ):
        caplog.set_level(logging.DEBUG)
        first = book.create("acme", 0.0)
        with open_aggregator(replace(settings, host="0.0.0.0")) as house:
            assert post(house, update(1), first).status == 202
            second = book.create("acme/web", 0.0)
            until(lambda: post(house, update(2), second).status == 202)
            book.revoke("acme", 1.0)
            until(lambda: post(house, update(3), first).status == 401)
            assert post(house, update(4), second).status == 202
        assert first not in caplog.text
        assert second not in caplog.text
        assert "the token is not known here" in caplog.text

    @pytest.mark.usefixtures("soon")
    def test_first_token_closes_and_last_revocation_does_not_open(self, open_aggregator, settings, update, book):
        """The first token closes an open aggregator, and the last revocation does not open it."""
        with open_aggregator(settings) as house:
            assert post(house, update(1)).status == 202
            book.create("acme", 0.0)
            until(lambda: post(house, update(1)).status == 401)
            book.revoke("acme", 1.0)
            time.sleep(0.1)
            assert post(house, update(1)).status == 401
        with pytest.raises(UsageError, match="without a token"), open_aggregator(settings):
            pass

    def test_unreadable_token_table_keeps_the_last_known_tokens(
        self, open_aggregator, settings, update, book, monkeypatch, caplog
    ):
        """A store whose tokens cannot be read keeps those known last."""
        monkeypatch.setattr(auth, "LOOK_SECONDS", 0.02)
        token = book.create("acme", 0.0)
        with open_aggregator(settings) as house:

            def locked(_book):
                raise OSError("database is locked")

            monkeypatch.setattr(TokenBook, "senders", locked)
            until(lambda: "the tokens cannot be read" in caplog.text)
            assert post(house, update(1), token).status == 202

    def test_the_commands_make_list_and_revoke(self, tmp_path):
        store = f"sqlite:///{tmp_path / 'new.db'}"
        with pytest.raises(UsageError, match="not there"):
            run("server", "token", "list", "--store", store)
        made = run("server", "token", "create", "acme/web", "--store", store)
        token = made.stdout.strip()
        listed = run("server", "token", "list", "--store", store).stdout
        assert token.startswith("fedstep_")
        assert "acme/web" in listed
        assert token not in listed + made.stderr
        assert re.search(r"^[0-9a-f]{8} acme/web made \d{4}-\d\d-\d\dT\d\d:\d\dZ$", listed, re.M)
        assert "1 revoked" in run("server", "token", "revoke", "acme/web", "--store", store).stdout
        with pytest.raises(UsageError, match="no token in use is named 'acme/web'"):
            run("server", "token", "revoke", "acme/web", "--store", store)
        assert "revoked" in run("server", "token", "list", "--store", store).stdout


class TestArchive:
    def test_a_store_travels_whole_and_only_whole(self, tmp_path, open_aggregator, settings, update):
        book = TokenBook(settings.store)
        token = book.create("acme", 0.0)
        book.close()
        with open_aggregator(settings) as house:
            for number in (1, 2, 3):
                assert post(house, update(number), token).status == 202
        file, target = str(tmp_path / "b.gz"), f"sqlite:///{tmp_path / 'restored.db'}"
        said = run("server", "export", file, "--store", settings.store).stdout
        assert said == run("server", "import", file, "--store", target).stdout
        with pytest.raises(UsageError, match="not empty"):
            run("server", "import", file, "--store", target)
        with open_aggregator(replace(settings, store=target)) as house:
            again = post(house, update(1), token)
            assert (again.status, b"stored-" in again.body) == (202, True)
            assert post(house, update(9)).status == 401
            assert b'fedstep_updates_total{outcome="repeat"} 1.0' in house.send("GET", "/metrics", {}, b"", 5).body

    @pytest.mark.parametrize("cut", [0, 10, 200, -1])
    def test_truncated_or_other_file_leaves_the_store_empty(self, tmp_path, open_aggregator, settings, update, cut):
        """A file that was truncated or is another one leaves the store empty."""
        with open_aggregator(settings) as house:
            assert post(house, update(1)).status == 202
        file, target = tmp_path / "b.gz", f"sqlite:///{tmp_path / 'restored.db'}"
        run("server", "export", str(file), "--store", settings.store)
        whole = file.read_bytes()
        file.write_bytes(whole[:cut] if cut else b"nonsense")
        with pytest.raises(UsageError):
            run("server", "import", str(file), "--store", target)
        file.write_bytes(whole)
        assert "rows" in run("server", "import", str(file), "--store", target).stdout

    def test_the_store_is_exported_while_another_writes(self, tmp_path, settings, open_aggregator, update):
        with open_aggregator(settings) as house:
            assert post(house, update(1)).status == 202
            done = subprocess.run(
                [sys.executable, "-m", "fedstep", "server", "export", "b.gz", "--store", settings.store],
                cwd=tmp_path,
                env=os.environ | {"PYTHONSAFEPATH": "1"},
                capture_output=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
            assert post(house, update(2)).status == 202
        assert not list(tmp_path.glob("*.part"))

    @pytest.mark.parametrize(
        "kept", [lambda lines: lines[:-1], lambda lines: [lines[0], *lines[2:]], lambda lines: lines[1:]]
    )
    def test_a_file_that_lacks_a_line_is_not_imported(self, tmp_path, open_aggregator, settings, update, kept):
        with open_aggregator(settings) as house:
            assert post(house, update(1)).status == 202
        file, target = tmp_path / "b.gz", f"sqlite:///{tmp_path / 'restored.db'}"
        run("server", "export", str(file), "--store", settings.store)
        file.write_bytes(gzip.compress(b"".join(kept(gzip.decompress(file.read_bytes()).splitlines(keepends=True)))))
        with pytest.raises(UsageError):
            run("server", "import", str(file), "--store", target)
        with sqlite3.connect(tmp_path / "restored.db") as found:
            assert found.execute("select count(*) from versions").fetchone() == (0,)
