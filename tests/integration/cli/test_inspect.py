"""`fedstep inspect` shows what is sent, byte for byte, and changes nothing."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedstep.federation.messages import LARGEST_MESSAGE, inflate, unpack
from fedstep.federation.model_cache import load_starter_bytes
from tests.helpers.cli import (
    Behaviour,
    Checkout,
    answering,
    by_method,
    forty_tests,
    new_checkout,
    recording,
    server,
)

CASES = forty_tests(12)
TOKEN = "t" * 20
MODEL = answering("200 OK", load_starter_bytes(), "Content-Type: application/octet-stream")
RECEIPT = answering("202 Accepted", b'{"receipt": "r1", "version": 1}')


def files(place: Checkout) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.history.rglob("*") if path.is_file()}


def seen(place: Checkout, *more: str) -> dict[str, Any]:
    ran = place.run("inspect", "--json", *more)
    assert ran.code == 0, ran.err
    shown: dict[str, Any] = json.loads(ran.out)
    return shown


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of an aggregator, and the requests with an update that it got."""
    got: list[bytes] = []
    lock = threading.Lock()

    def post(connection: socket.socket, request: bytes) -> None:
        with lock:
            got.append(request)
        RECEIPT(connection, request)

    with server(by_method(GET=MODEL, POST=post)) as url:
        yield url, got


@dataclass(frozen=True)
class Sent:
    """What an aggregator got from one `train` with a token, and the history that this left."""

    requests: tuple[bytes, ...]
    history: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, connected_history: Path) -> Sent:
    """One train for all that look at what it sent."""
    place = new_checkout(tmp_path_factory.mktemp("trained") / "repo", connected_history).with_env(FEDSTEP_TOKEN=TOKEN)
    with listening() as (url, got):
        ran = place.with_env(FEDSTEP_AGGREGATOR=url).run("train", "--junit", place.report(CASES))
    assert ran.code == 0, ran.err
    return Sent(tuple(got), place.history)


@pytest.fixture
def sender(tmp_path: Path, trained: Sent) -> Checkout:
    """A copy of the project that sent it."""
    return new_checkout(tmp_path / "repo", trained.history)


def body_of(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return inflate(body, LARGEST_MESSAGE) if b"content-encoding: gzip" in head.lower() else body


class TestNextUpdate:
    def test_next_update_is_made_without_writing_anything(self, connected):
        """The next update is made from the examples that wait, and nothing is written."""
        before = files(connected)
        ran = connected.run("inspect")
        assert ran.code == 0, ran.err
        assert files(connected) == before
        assert "the next one: made from the examples that wait" in ran.out
        assert re.search(r"build-failure from 8\+ examples: \d+ of \d+, length", ran.out)
        assert "Token         none is configured" in ran.out
        digest = seen(connected)["update"]["sha256"]
        assert f"SHA-256       {digest}\n" in ran.out, "it is the same every time"

    def test_what_is_shown_is_what_train_sends_to_the_last_bit(self, trained, sender):
        (request,) = trained.requests
        sent = unpack(body_of(request))
        shown = seen(sender, "--last")["update"]
        assert shown["origin"] == "sent"
        assert shown["bytes"] == len(body_of(request))
        assert shown["bytes_compressed"] == len(request.partition(b"\r\n\r\n")[2])
        assert shown["metadata"] == dict(sent.words)
        for name, vector in sent.vectors.items():
            head = shown["heads"][name]
            assert head["size"] == len(vector)
            assert sorted(head["coefficients"].values()) == sorted(filter(None, vector))

    def test_every_header_that_fedstep_sets_is_shown(self, trained, sender):
        place = sender.with_env(FEDSTEP_TOKEN=TOKEN)
        lines = trained.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        on_the_wire = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}
        of_the_library = {"Host", "User-Agent", "Content-Length", "Connection", "Accept-Encoding"}
        shown = seen(place, "--last")["headers"]
        assert set(shown) == set(on_the_wire) - of_the_library
        assert {name: value for name, value in shown.items() if name != "Authorization"} == {
            name: on_the_wire[name] for name in shown if name != "Authorization"
        }
        assert TOKEN not in place.run("inspect", "--last").out

    def test_an_update_that_waits_in_the_outbox_is_the_next_one(self, connected):
        with server(by_method(GET=MODEL, POST=answering("503 Service Unavailable"))) as url:
            connected.run("train", "--junit", connected.report(CASES), "--aggregator", url, "--timeout", "2")
        (name,) = connected.outbox()
        (connected.history / "outbox" / "damaged.safetensors").write_bytes(b"no update")
        before = files(connected)
        shown = seen(connected)["update"]
        assert shown["origin"] == "outbox"
        assert shown["metadata"]["id"] == name.removesuffix(".safetensors")
        assert files(connected) == before, "the damaged one is left for push to set aside"

    def test_without_scikit_learn_the_last_one_is_shown_and_said_why(self, sender, without_sklearn):
        ran = without_sklearn(sender).run("inspect")
        assert ran.code == 0
        assert "the last one sent" in ran.out
        assert "pip install 'fedstep[train]'" in ran.err


class TestAbsence:
    def test_empty_project_has_a_reason_and_no_folder(self, fresh):
        """Before anything is known there is a reason and no folder."""
        ran = fresh.run("inspect")
        assert ran.code == 0
        assert "none: no build of this project is known yet" in ran.out
        assert "update was ever sent" in ran.out
        assert not fresh.history.exists()
        assert "nothing" in fresh.run("inspect", "--audit").out
        assert not fresh.history.exists()


class TestReports:
    def test_report_string_in_the_update_exits_3(self, sender):
        """No string of a report is in the update, and one that is exits 3."""
        report = sender.report(CASES)
        ran = sender.run("inspect", "--last", "--against", report)
        assert ran.code == 0, ran.out
        assert "none occurs in the update's bytes" in " ".join(ran.out.split())
        project = seen(sender, "--last")["update"]["metadata"]["project"]
        leaky = sender.report([(project, "passed", 0.1)], "leaky.xml")
        ran = sender.run("inspect", "--last", report, "--against", leaky)
        assert ran.code == 3
        assert "in the metadata project" in ran.out
        found = json.loads(sender.run("inspect", "--last", "--json", leaky).out)["against"]
        assert found["holds"] is False
        assert project in {leak["text"] for leak in found["found"]}

    @pytest.mark.parametrize("name", ["missing.xml", "empty.xml"])
    def test_a_report_that_says_nothing_proves_nothing(self, sender, name):
        (sender.root / "empty.xml").write_text("<testsuites/>")
        ran = sender.run("inspect", "--last", "--against", name)
        assert ran.code == 3
        assert "nothing is shown" in ran.out


PLACES = (
    *(
        "message",
        "stack",
        "printed",
        "errors",
        "property",
        "value",
        "name",
        "parameter",
        "group",
        "suite",
        "file",
        "host",
    ),
    *("log", "owner", "reason", "branch", "author", "commit", "path", "source", "job", "cell"),
)
MARKERS = {place: f"qzx{place}wvj" for place in PLACES}
MARKED = """<testsuite name="{suite}" hostname="{host}">
<properties><property name="{property}" value="{value}"/></properties>
<testcase classname="shop.{group}" name="{name}[{parameter}]" file="{file}.py" time="0.1">
<failure type="{group}Error" message="{message} expected 4711">Traceback
  File "{file}.py", line 7, in {stack}
{group}Error: {message}</failure>
<system-out>{printed}</system-out><system-err>{errors}</system-err></testcase>
{passed}</testsuite>"""


def forwarding(url: str) -> Behaviour:
    """A server that asks another one with the same request, and answers what that answered."""
    own = ("connection", "content-length", "transfer-encoding")

    def behave(connection: socket.socket, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _version = first.split(" ")
        asked = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        asked.request(method, path, body or None, dict(line.split(": ", 1) for line in lines))
        with closing(asked), asked.getresponse() as answer:
            told = answer.read()
            same = [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in own]
            answering(f"{answer.status} {answer.reason}", told, *same)(connection, request)

    return behave


class TestMarkers:
    """A real project whose report, log, mute list, change and job have a mark each, and a real aggregator."""

    @pytest.fixture
    def marked(self, connected: Checkout) -> Checkout:
        passed = "".join(f'<testcase classname="shop.test_cart" name="test_{n}" time="0.1"/>' for n in range(40))
        (connected.root / "report.xml").write_text(MARKED.format(**MARKERS, passed=passed))
        (connected.root / "job.log").write_text(f"Run make\n{MARKERS['log']}: no space left on device\n")
        connected.git("checkout", "-q", "-b", MARKERS["branch"])
        connected.git("config", "user.name", MARKERS["author"])
        connected.git("config", "user.email", f"{MARKERS['author']}@example.org")
        connected.commit(f"{MARKERS['path']}.py", f"def {MARKERS['source']}(): pass\n")
        connected.git("commit", "-q", "--amend", "-m", MARKERS["commit"])
        named = {"FEDSTEP_CI_JOB": MARKERS["job"], "FEDSTEP_CI_CELL": MARKERS["cell"]}
        return connected.with_env(CI="true", FEDSTEP_CI_RUN="7", FEDSTEP_CI_BRANCH=MARKERS["branch"], **named)

    def test_no_mark_is_in_any_request(self, marked: Checkout, hub: str) -> None:
        """Body and header of everything that every command of a build sends, as a wire has it and decompressed."""
        requests: list[bytes] = []
        test = f"shop.{MARKERS['group']}#{MARKERS['name']}[{MARKERS['parameter']}]"
        ran_by = ("--log", "job.log", "--exit-code", "1")
        with server(recording(requests, forwarding(hub))) as url:
            place = marked.with_env(FEDSTEP_AGGREGATOR=url)
            owner = ("--owner", MARKERS["owner"], "--reason", MARKERS["reason"])
            for command in (
                ("predict",),
                ("quarantine", "add", test, *owner),
                ("triage", "--junit", "report.xml", *ran_by),
                ("verdict", "--junit", "report.xml", *ran_by),
                ("pull",),
                ("doctor", "--aggregator", url),
                ("quarantine", "suggest"),
            ):
                assert place.run(*command).code in (0, 1), command
            for run in range(8, 20):  # the job is new: its first builds make no update
                assert place.with_env(FEDSTEP_CI_RUN=str(run)).run("train", "--junit", "report.xml").code == 0
                if any(request.startswith(b"POST /v1/updates ") for request in requests):
                    break
            else:
                pytest.fail("no update was sent")
        seen = b"\n".join(part for request in requests for part in (request, body_of(request))).lower()
        assert [mark for mark in MARKERS.values() if mark.encode() in seen] == []
        assert json.loads(place.run("explain", MARKERS["name"], "--json").out)["test"] == test, "the history knows it"
        told = json.loads(place.run("inspect", "--last", "--json", "report.xml", "job.log").out)["against"]
        assert (told["holds"], told["reports"], told["found"]) == (True, 2, [])

    @pytest.mark.parametrize("place", ["message", "stack", "printed", "errors", "value", "name", "log"])
    def test_a_mark_that_is_sent_is_found(self, sender: Checkout, place: str) -> None:
        """Planted the other way round: the sender's pseudonym, which every update has, in place of the mark."""
        project = seen(sender, "--last")["update"]["metadata"]["project"]
        words = {**MARKERS, place: project}
        (sender.root / "report.xml").write_text(MARKED.format(**words, passed=""))
        (sender.root / "job.log").write_text(f"Run make\n{words['log']}: no space left on device\n")
        ran = sender.run("inspect", "--last", "--against", "job.log" if place == "log" else "report.xml")
        assert ran.code == 3
        assert "in the metadata project" in ran.out


class TestRecord:
    def test_everything_ever_sent_is_on_record(self, connected, hub):
        assert connected.run("train", "--junit", connected.report(CASES), "--aggregator", hub).code == 0
        ran = connected.run("inspect", "--audit")
        assert ran.code == 0
        assert "1 update" in ran.out
        assert hub.removeprefix("http://") in ran.out
        assert "accepted" in ran.out
        (sent,) = json.loads(connected.run("inspect", "--audit", "--json").out)["sent"]
        assert sent["sha256"] == seen(connected, "--last")["update"]["sha256"]
        assert sent["hour"].endswith(":00Z")
        assert sent["rows"]["build-failure"] == 8

    def test_nothing_leaves_without_a_record(self, connected):
        """A record that cannot be kept costs one warning, and nothing leaves."""
        Path(connected.history / "sent").write_text("a file where the folder should be")
        with listening() as (url, got):
            ran = connected.run("train", "--junit", connected.report(CASES), "--aggregator", url)
        assert ran.code == 0
        assert [line for line in ran.warnings if "cannot be recorded" in line] == ran.warnings
        assert got == []
        assert len(connected.outbox()) == 1


class TestToken:
    def test_a_jwt_is_decoded_and_its_signature_is_not_shown(self, sender):
        header, claims = "eyJhbGciOiJSUzI1NiJ9", "eyJhY3RvciI6Im9jdG9jYXQifQ"  # {"alg":"RS256"}, {"actor":"octocat"}
        ran = sender.with_env(FEDSTEP_TOKEN=f"{header}.{claims}.c2lnbmF0dXJl").run("inspect", "--last")
        assert "octocat" in ran.out
        assert "tells a person" in ran.out
        assert "c2lnbmF0dXJl" not in ran.out
        assert claims not in ran.out
