"""`fedstep doctor`: each thing that is wrong is named beside what fixes it, and exit 1 says that something is."""

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fedstep.federation.model_cache import load_starter_bytes
from fedstep.federation.transport import Transport, requests_transport
from tests.helpers.cli import Checkout, aggregator, answering, dead_port, forty_tests, hanging, new_checkout, server

CI = {"CI": "true", "FEDSTEP_CI_RUN": "77", "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": "main"}
WITHOUT_SKLEARN = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def checks(place: Checkout, *more: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit code, and state, words and fix of each check by its name."""
    ran = place.run("doctor", "--json", *more)
    told = json.loads(ran.out)["checks"]
    assert ran.code == int(any(check["state"] == "problem" for check in told))
    return ran.code, {check["name"]: (check["state"], check["says"], check["fix"]) for check in told}


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of an address on this machine that never completes a connection: its queue is full."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        callers = [socket.socket() for _ in range(6)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(door.getsockname())
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        for caller in callers:
            caller.close()


class TestProject:
    def test_a_project_in_order_needs_nothing(self, experienced):
        code, found = checks(experienced, "--junit", experienced.report(forty_tests(12)))
        assert code == 0
        assert {name: state for name, (state, _, _) in found.items() if state != "ok"} == {}
        assert found["Reports"][1] == "1 file, 40 tests"
        assert found["Builds"][1] == "12 builds and 40 tests known"
        assert "scikit-learn 1." in found["Learning"][1]
        assert experienced.run("doctor", "--junit", "report.xml").out.endswith("Nothing needs fixing.\n")

    def test_a_new_user_is_told_the_next_step_and_no_folder_is_made(self, fresh):
        code, found = checks(fresh)
        assert code == 0
        assert found["History"][0] == found["Builds"][0] == found["Reports"][0] == "warning"
        assert "fedstep train" in found["History"][2] + found["Builds"][2]
        assert not fresh.history.exists()


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The URLs of a leader and its helper, who know the tokens 1111... and 2222..."""
    folder, shared = tmp_path_factory.mktemp("pair"), ("--peer-token", "only-the-two-know-it")
    with (
        aggregator(folder / "helper", "--role", "helper", "--tokens", "2" * 20, *shared) as helper,
        aggregator(folder / "leader", "--role", "leader", "--peer", helper, "--tokens", "1" * 20, *shared) as leader,
    ):
        yield leader, helper


def counted(send: Transport) -> dict[str, float]:
    """The updates that an aggregator has counted, by outcome."""
    metrics = send("GET", "/metrics", {}, b"", 10.0).body.decode()
    found = re.findall(r'^fedstep_updates_total\{outcome="([^"]+)"\} (\S+)$', metrics, re.MULTILINE)
    return {outcome: float(count) for outcome, count in found}


class TestAggregator:
    def test_http_library_is_loaded_only_for_an_aggregator(self, experienced):
        """An HTTP library is loaded only for an aggregator, and numpy never."""

        def loaded(*more: str) -> set[str]:
            err = experienced.run("doctor", *more, python=("-X", "importtime")).err
            return {line.rpartition("|")[2].strip().partition(".")[0] for line in err.splitlines() if "|" in line}

        assert loaded().isdisjoint({"requests", "urllib3", "numpy", "scipy", "sklearn"})
        with dead_port() as url:
            with_aggregator = loaded("--aggregator", url)
        assert "requests" in with_aggregator
        assert with_aggregator.isdisjoint({"numpy", "scipy", "sklearn"})

    def test_aggregator_is_asked_whether_it_takes_updates(self, tmp_path, experienced):
        """An aggregator is asked whether it takes updates, and is told nothing."""
        with aggregator(tmp_path, "--tokens", "1" * 20) as url:
            code, found = checks(experienced, "--aggregator", url)
            assert code == 1
            assert found["Aggregator"][0] == found["Clock"][0] == "ok"
            assert "production 0, candidate 0, same schema" in found["Aggregator"][1]
            assert found["Welcome"][0] == "problem"
            assert "FEDSTEP_TOKEN" in found["Welcome"][2]
            code, found = checks(experienced.with_env(FEDSTEP_TOKEN="1" * 20), "--aggregator", url)
            assert (code, found["Welcome"][0]) == (0, "ok")
            assert "1" * 20 not in json.dumps(found)
            assert checks(experienced.with_env(FEDSTEP_TOKEN="2" * 20), "--aggregator", url)[0] == 1
            send = requests_transport(url)
            assert counted(send) == {}, "a question is no refused update"
            send("POST", "/v1/updates", {"Content-Type": "application/octet-stream"}, b"x", 10.0)
            assert counted(send) == {"unknown-sender": 1.0}
        assert not (experienced.history / "model.safetensors").exists()
        assert not (experienced.history / "sent").exists()

    def test_leader_without_a_helper_is_a_problem(self, experienced, pair):
        """A leader without a helper is a problem, and both in order are none."""
        leader, helper = pair
        known = experienced.with_env(FEDSTEP_TOKEN="1" * 20, FEDSTEP_AGGREGATOR=leader)
        code, found = checks(known)
        assert (code, found["Aggregator"][0], found["Welcome"][0]) == (1, "ok", "ok")
        assert found["Helper"][0] == "problem"
        assert "nothing is sent" in found["Helper"][1]
        assert found["Helper"][2].startswith("Set FEDSTEP_HELPER ")
        code, found = checks(known.with_env(FEDSTEP_HELPER=helper, FEDSTEP_HELPER_TOKEN="2" * 20))
        assert (code, found["Helper"][0]) == (0, "ok")
        assert helper in found["Helper"][1]

    def test_helper_that_does_not_answer_or_know_us_is_a_problem(self, experienced, pair):
        """A helper that does not answer, or that does not know this project, is a problem."""
        leader, helper = pair
        known = experienced.with_env(FEDSTEP_TOKEN="1" * 20, FEDSTEP_AGGREGATOR=leader)
        state, says, fix = checks(known, "--helper", helper)[1]["Helper"]
        assert (state, "(401)" in says, "FEDSTEP_HELPER_TOKEN" in fix) == ("problem", True, True)
        with dead_port() as dead, server(hanging) as hangs:
            for url in (dead, hangs):
                code, found = checks(known, "--helper", url)
                assert (code, found["Aggregator"][0], found["Helper"][0]) == (1, "ok", "problem")
                assert url in found["Helper"][1]
                assert found["Helper"][2]

    def test_helper_that_takes_no_shares_or_is_unneeded_is_named(self, tmp_path, experienced, pair):
        """A helper that takes no shares is named, and so is one that nobody needs."""
        leader, helper = pair
        with aggregator(tmp_path) as plain:
            known = experienced.with_env(FEDSTEP_TOKEN="1" * 20)
            state, says, fix = checks(known, "--aggregator", leader, "--helper", plain)[1]["Helper"]
            assert (state, "takes no shares" in says, "FEDSTEP_HELPER" in fix) == ("problem", True, True)
            assert "Helper" not in checks(known, "--aggregator", plain)[1]
            state, says, fix = checks(known, "--aggregator", plain, "--helper", helper)[1]["Helper"]
        assert (state, "takes updates whole" in says, "Unset FEDSTEP_HELPER" in fix) == ("problem", True, True)

    def test_a_dead_network_is_a_problem_and_costs_a_second(self, experienced):
        with server(hanging) as hangs, black_hole() as hole, dead_port() as refuses:
            for url in (hangs, hole, refuses):
                code, found = checks(experienced, "--aggregator", url)
                assert code == 1
                assert found["Aggregator"][0] == "problem"
                assert "Is it up" in found["Aggregator"][2] or "Check the URL" in found["Aggregator"][2]
                assert "Welcome" not in found, "it is not asked twice"

    @pytest.mark.parametrize(
        ("seconds", "state", "words"), [(0, "ok", "within"), (-3600, "warning", "ahead of"), (900, "warning", "behind")]
    )
    def test_a_clock_that_is_wrong_is_seen_by_the_aggregators(self, experienced, seconds, state, words):
        date = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds))
        with server(answering("200 OK", load_starter_bytes(), "Content-Type: application/octet-stream", date)) as url:
            _, found = checks(experienced, "--aggregator", url)
        assert found["Clock"][0] == state
        assert words in found["Clock"][1]

    def test_a_schema_that_differs_is_named_with_its_remedy(self, experienced):
        body = b'{"expected": "aaaaaaaaaaaaaaaa", "got": "bbbbbbbbbbbbbbbb"}'
        with server(answering("409 Conflict", body)) as url:
            code, found = checks(experienced, "--aggregator", url)
        assert code == 1
        assert "aaaaaaaaaaaaaaaa" in found["Aggregator"][1]
        assert "version of fedstep" in found["Aggregator"][2]

    def test_a_token_that_expired_is_a_problem(self, experienced):
        # {"exp":1700000000,...
        token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDAsInJlZiI6InJlZnMvaGVhZHMvbWFpbiJ9.c2ln"
        with dead_port() as url:
            _, found = checks(experienced.with_env(FEDSTEP_TOKEN=token), "--aggregator", url)
        assert found["Token"][0] == "problem"
        assert "expired" in found["Token"][1]
        assert "ref" in found["Token"][1]


class TestMachine:
    def test_missing_scikit_learn_is_a_problem_in_ci_only(self, tmp_path, experienced):
        """A missing scikit-learn is a problem in CI and a warning by hand."""
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_SKLEARN)
        poor = experienced.with_env(PYTHONPATH=str(tmp_path / "site"))
        assert checks(poor)[1]["Learning"][0] == "warning"
        state, _, fix = checks(poor.with_env(**CI))[1]["Learning"]
        assert state == "problem"
        assert fix.startswith("pip install 'fedstep[train]'")

    def test_unknown_job_start_is_warned_until_predict_marks_it(self, experienced):
        """A job whose start nobody tells is warned of until `predict` marks it."""
        job = experienced.with_env(**CI)
        state, _, fix = checks(job)[1]["Job start"]
        assert (state, "fedstep predict" in fix) == ("warning", True)
        assert job.run("predict").code == 0
        assert checks(job)[1]["Job start"][0] == "ok"
        early = job.with_env(FEDSTEP_CI_STARTED_AT=str(int(time.time()) + 600))
        assert checks(early)[1]["Job start"][0] == "problem"

    def test_a_shallow_clone_is_a_warning_with_the_vendors_remedy(self, tmp_path):
        place = new_checkout(tmp_path / "full")
        shallow = Checkout(tmp_path / "shallow", {**place.env, "GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "1"})
        place.git("clone", "-q", "--depth", "1", f"file://{place.root}", str(shallow.root))
        state, says, fix = checks(shallow)[1]["Git"]
        assert (state, "shallow" in says, "fetch-depth: 0" in fix) == ("warning", True, True)

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "matches no file"), (b"", "empty"), (b"<html/>", ""), (b"<testsuites/>", "no test")],
    )
    def test_reports_that_hold_no_test_are_a_problem(self, experienced, content, words):
        if content is not None:
            (experienced.root / "report.xml").write_bytes(content)
        code, found = checks(experienced, "--junit", "report.xml")
        assert (code, found["Reports"][0]) == (1, "problem")
        assert words in found["Reports"][1]
        assert "--junit" in found["Reports"][2]

    def test_a_history_that_is_no_folder_is_a_problem(self, fresh):
        fresh.history.write_text("a file where the folder should be")
        code, found = checks(fresh)
        assert (code, found["History"][0]) == (1, "problem")

    def test_a_key_that_is_damaged_is_a_problem(self, experienced):
        (experienced.history / "key").write_text("damaged")
        code, found = checks(experienced)
        assert (code, found["History"][0]) == (1, "problem")
        assert "Delete it" in found["History"][2]

    def test_what_waits_or_is_damaged_is_named(self, connected):
        (connected.history / "outbox").mkdir()
        (connected.history / "outbox" / f"{'0' * 32}.safetensors").write_bytes(b"waits")
        (connected.history / "model.safetensors").write_bytes(b"damaged")
        first = connected.history / "builds" / connected.builds()[0]
        shutil.copy(first, first.with_name(f"99999999999999-{'a' * 32}.rec"))
        first.with_name(f"99999999999999-{'a' * 32}.rec").write_bytes(b"damaged")
        code, found = checks(connected)
        assert code == 1
        assert found["Outbox"][0] == "warning"
        assert found["Outbox"][2].startswith("fedstep push")
        assert found["Model"][0] == "problem"
        assert found["Model"][2].startswith("fedstep pull")
        assert found["Builds"][0] == "warning"
        assert "99999999999999" in found["Builds"][1]

    def test_dead_proxy_and_missing_bundle_are_named(self, experienced):
        """A proxy that cannot reach the aggregator and a missing bundle of certificates are named."""
        with dead_port() as url:
            proxied = experienced.with_env(HTTP_PROXY="http://me:secret@127.0.0.1:9", NO_PROXY="")
            state, says, fix = checks(proxied, "--aggregator", url)[1]["Network"]
            assert (state, fix) == ("warning", "export NO_PROXY=127.0.0.1")
            assert "secret" not in says
        state, _, fix = checks(experienced.with_env(REQUESTS_CA_BUNDLE="/nowhere/ca.pem"))[1]["Network"]
        assert (state, "REQUESTS_CA_BUNDLE" in fix) == ("problem", True)

    def test_outside_of_git_and_without_git_there_is_a_warning(self, tmp_path, bare, experienced):
        assert checks(bare)[1]["Git"][0] == "warning"
        (tmp_path / "empty").mkdir()
        state, says, _ = checks(experienced.with_env(PATH=str(tmp_path / "empty")))[1]["Git"]
        assert (state, "git is not installed" in says) == ("warning", True)

    def test_a_run_of_a_fork_is_told_that_nothing_is_learned(self, experienced):
        fork = experienced.with_env(CIRCLECI="true", CIRCLE_BUILD_NUM="1", CIRCLE_PR_USERNAME="stranger")
        assert "fork" in checks(fork)[1]["CI"][1]
        assert "which run this is" in checks(experienced.with_env(CI="true"))[1]["CI"][1]
