"""Whatever is missing or broken: one warning with cause and remedy, status=degraded, nothing lost, exit 0 in time."""

import json
import resource
import shutil
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from fedstep.federation.messages import pack_model
from fedstep.federation.model_cache import load_starter_bytes, load_starter_model
from tests.helpers.cli import (
    SYSTEM_PATH,
    aggregator,
    answering,
    babbling,
    by_method,
    dead_port,
    dripping,
    forty_tests,
    hanging,
    parse_github_output,
    server,
)

CASES = forty_tests(12)
HURRY = ("--timeout", "1", "--budget", "4")
IN_TIME = 40.0  # seconds: the budget, and an interpreter with scikit-learn on a very busy machine
PAGE = b"<html>Please log in</html>"
MODEL = answering("200 OK", load_starter_bytes(), "Content-Type: application/octet-stream")
in_full = partial(pytest.param, marks=pytest.mark.full)  # each is on a surface of test_cli_never_the_reason, too


def outputs(tmp_path: Path) -> dict[str, str]:
    return parse_github_output((tmp_path / "output").read_text())


def one_warning(ran, *words):
    assert ran.code == 0, ran.err
    assert ran.seconds < IN_TIME
    assert len(ran.warnings) == 1, ran.err
    assert [word for word in words if word not in ran.warnings[0]] == [], ran.err


def sent_next(place, hub):
    """How many updates the next build sends."""
    ran = place.with_env(FEDSTEP_CI_RUN="next").run(
        "train", "--junit", "report.xml", "--aggregator", hub, "--format", "json"
    )
    return len(json.loads(ran.out)["exchange"]["sent"])


class TestAggregator:
    def test_without_an_aggregator_the_status_is_local(self, tmp_path, experienced, github):
        """Without an aggregator the status is local, and nothing is warned of."""
        place = github(experienced)
        ran = place.run("train", "--junit", place.report(CASES))
        assert ran.code == 0
        assert ran.warnings == []
        assert outputs(tmp_path)["status"] == "local"
        assert outputs(tmp_path)["failures-flaky"] + outputs(tmp_path)["failures-real"] in ("00", "01", "10")
        assert "test_7" in (tmp_path / "summary").read_text()

    @pytest.mark.parametrize(
        ("behave", "words"),
        [
            (hanging, ("no answer inside", "Is it up")),
            (dripping, ("no answer inside", "Is it up")),
            in_full(babbling, ("cannot be reached", "Check the URL")),
            in_full(answering("500 Internal Server Error"), ("answered 500", "aggregator's log")),
            in_full(
                answering("429 Too Many Requests", b"", "Retry-After: 3600"), ("asks to wait 3600 s", "next build")
            ),
            in_full(answering("413 Content Too Large"), ("too large", "proxy")),
        ],
        ids=["hanging", "slow drip", "garbage", "500", "429", "413"],
    )
    def test_failing_aggregator_costs_one_warning(self, tmp_path, connected, github, hub, behave, words):
        """An aggregator that fails costs one warning, and the rows wait."""
        place = github(connected)
        with server(behave) as url:
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url, *HURRY)
            one_warning(ran, url, *words)
            assert outputs(tmp_path)["status"] == "degraded"
            assert "Failures, and how likely each is flaky" in ran.out, "the verdict is shown all the same"
            assert len(place.builds()) == 13
            assert place.outbox() == [], "without the model an update would be old before it could be sent"
            strict = place.run("pull", "--aggregator", url, "--strict", *HURRY)
            assert (strict.code, len(strict.warnings)) == (5, 1)
        assert sent_next(place, hub) == 1

    def test_a_dead_port_costs_one_warning_and_strict_says_5(self, tmp_path, connected, github, hub):
        place = github(connected)
        with dead_port() as url:
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url, *HURRY)
            one_warning(ran, url, "Connection refused", "Check the URL")
            assert outputs(tmp_path)["status"] == "degraded"
            assert place.run("train", "--junit", "report.xml", "--aggregator", url, "--strict", *HURRY).code == 5
        assert len(place.builds()) == 13
        assert sent_next(place, hub) == 1

    def test_a_login_page_is_not_taken_for_a_model(self, connected):
        before = (connected.history / "model.safetensors").read_bytes()
        with server(answering("200 OK", PAGE)) as url:
            one_warning(connected.run("pull", "--aggregator", url), url, "no usable model", "login page")
        assert (connected.history / "model.safetensors").read_bytes() == before

    def test_version_that_goes_back_is_said_by_pull(self, connected):
        """Only `train` said that an aggregator's store had been emptied, or an older one put in its place."""
        later = pack_model(load_starter_model()._replace(candidate_version=9))
        answers = iter((answering("200 OK", later), MODEL))
        with server(lambda *request: next(answers)(*request)) as url:
            assert connected.run("pull", "--aggregator", url).warnings == []
            one_warning(connected.run("pull", "--aggregator", url), "from version 9 to 0: its store was replaced")

    def test_store_that_is_replaced_is_said_whatever_its_version(self, tmp_path, connected, github):
        """Only a lower version was noticed. A backup that is imported elsewhere continues its store."""
        stores = {name: f"sqlite:///{tmp_path / name}.db" for name in ("first", "ahead", "moved")}
        file, place = str(tmp_path / "backup.gz"), github(connected)

        def start(name: str, port: str) -> AbstractContextManager[str]:
            return aggregator(tmp_path / "served", "--store", stores[name], "--port", port)

        with start("first", "0") as url:
            port = url.rpartition(":")[2]
            assert place.run("pull", "--aggregator", url).warnings == []
        with start("ahead", port):
            pass
        for _ in range(3):
            assert place.run("server", "rollback", "0", "--store", stores["ahead"]).code == 0
        said = f"{url} serves version 3 of another store than before: its store was replaced"
        with start("ahead", port):
            one_warning(place.run("pull", "--aggregator", url), said)
            assert place.run("pull", "--aggregator", url).warnings == []
        assert place.run("server", "export", file, "--store", stores["ahead"]).code == 0
        assert place.run("server", "import", file, "--store", stores["moved"]).code == 0
        with start("moved", port):
            assert place.run("pull", "--aggregator", url).warnings == []
        for _ in range(4):
            assert place.run("server", "rollback", "0", "--store", stores["first"]).code == 0
        with start("first", port):
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url)
            one_warning(ran, f"{url} serves version 4 of another store")
            assert outputs(tmp_path)["status"] == "ok", "it is said, and the build goes on"

    def test_an_update_that_is_not_taken_waits_for_the_next_push(self, tmp_path, connected, github, hub):
        place = github(connected)
        with server(by_method(GET=MODEL, POST=answering("503 Service Unavailable"))) as url:
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url, "--timeout", "3")
        one_warning(ran, url, "answered 503", "next build tries again")
        assert outputs(tmp_path)["status"] == "degraded"
        assert "1 waiting in the outbox" in " ".join(ran.out.split())
        assert len(place.builds()) == 13
        assert place.run("push", "--aggregator", hub).out == "1 sent, 0 refused, 0 waiting\n"

    def test_an_update_that_is_refused_is_said_so(self, tmp_path, connected, github):
        place = github(connected)
        with server(
            by_method(GET=MODEL, POST=answering("422 Unprocessable Content", b'{"detail": "not this one"}'))
        ) as url:
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url, "--timeout", "3")
        one_warning(ran, url, "not this one", "will not be sent again")
        assert outputs(tmp_path)["status"] == "degraded"
        assert len(place.builds()) == 13


class TestGit:
    def test_no_history_yet_costs_predict_and_triage_one_warning(self, tmp_path, fresh, github):
        place = github(fresh)
        predicted = place.run("predict")
        one_warning(predicted, "no build of this project is known yet", "Run fedstep train")
        assert "starter model" in predicted.out
        assert outputs(tmp_path)["status"] == "local", "a missing history is no fault"
        judged = place.run("triage", "--junit", place.report(CASES))
        one_warning(judged, "no build of this project is known yet", "Run fedstep train")
        assert "test_7" in judged.out
        assert place.run("predict", "--strict").code == 0

    @pytest.mark.parametrize("command", ["train", "predict"])
    def test_without_git_there_is_one_warning_and_a_result(self, tmp_path, bare, github, command):
        place = github(bare)
        reports = () if command == "predict" else ("--junit", place.report(CASES))
        ran = place.run(command, *reports)
        one_warning(ran, "not a git work tree", "git checkout")
        assert ran.out
        assert outputs(tmp_path)["status"] == "degraded"
        assert len(place.builds()) == (13 if command == "train" else 12)
        assert place.run("triage" if reports else "predict", *reports, "--strict").code == 3

    def test_without_the_git_program_there_is_one_warning(self, tmp_path, experienced, github):
        """Without the git program there is one warning and a result."""
        (tmp_path / "empty").mkdir()
        place = github(experienced).with_env(PATH=str(tmp_path / "empty"))
        assert shutil.which("git", path=SYSTEM_PATH), "or this test shows nothing"
        ran = place.run("predict")
        one_warning(ran, "git is not installed or not on the PATH", "with git on the PATH")
        assert ran.out
        assert outputs(tmp_path)["status"] == "degraded"


class TestReports:
    def test_empty_glob_costs_one_warning_and_the_build_counts(self, tmp_path, experienced, github):
        """A glob that matches nothing costs one warning, and the build counts."""
        place = github(experienced)
        ran = place.run("train", "--junit", "build/**/TEST-*.xml", "--outcome", "failed")
        one_warning(ran, "build/**/TEST-*.xml", "matches no file", "Check --junit")
        assert outputs(tmp_path)["status"] == "degraded"
        assert len(place.builds()) == 13
        assert place.run("triage", "--junit", "build/**/TEST-*.xml", "--strict").code == 3
        assert place.run("triage", "--strict").code == 3
        one_warning(place.run("triage"), "no test report was read", "--junit")

    @pytest.mark.parametrize("content", [b"", b"<testsuite><testca", b"not XML at all", b"<html><body/></html>"])
    def test_a_broken_report_is_named_with_its_reason(self, tmp_path, experienced, github, content):
        place = github(experienced)
        (place.root / "broken.xml").write_bytes(content)
        ran = place.run("triage", "--junit", "broken.xml")
        one_warning(ran, "broken.xml", "Check --junit")
        assert outputs(tmp_path)["status"] == "degraded"
        assert place.run("triage", "--junit", "broken.xml", "--strict").code == 3

    def test_a_broken_report_does_not_spoil_the_good_one(self, experienced, github, without_sklearn):
        place = without_sklearn(github(experienced))
        (place.root / "broken.xml").write_bytes(b"")
        place.report(CASES)
        ran = place.run("train", "--junit", "*.xml", "--format", "json")
        told = json.loads(ran.out)
        assert told["reports"]["tests"] == 40
        assert [item["source"] for item in told["reports"]["dropped"]] == ["broken.xml"]
        assert sum("broken.xml" in line for line in ran.warnings) == 1
        assert len(place.builds()) == 13


class TestForks:
    @pytest.mark.parametrize("who", ["a fork", "Dependabot"])
    def test_build_of_a_stranger_is_judged_but_not_recorded_or_sent(self, tmp_path, connected, github, who):
        """A stranger's build is judged but neither recorded nor sent."""
        event = json.loads((Path(__file__).parents[2] / "data" / "ci" / "pull_request_fork.json").read_text())
        event["pull_request"]["base"]["sha"] = connected.git("rev-parse", "HEAD^").strip()
        (tmp_path / "event.json").write_text(json.dumps(event))
        told = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(tmp_path / "event.json")}
        place = github(connected).with_env(**(told if who == "a fork" else {"GITHUB_ACTOR": "dependabot[bot]"}))
        asked: list[bytes] = []
        with server(lambda _connection, request: asked.append(request)) as url:
            ran = place.run("train", "--junit", place.report(CASES), "--aggregator", url, *HURRY)
            one_warning(ran, "fork or Dependabot", "Nothing to do")
            assert "test_7" in ran.out
            assert outputs(tmp_path)["status"] == "local", "nothing failed"
            assert place.run("predict").out.startswith("Build time")
            assert "test_7" in place.run("triage", "--junit", "report.xml").out
            strict = place.run("train", "--junit", "report.xml", "--aggregator", url, "--strict", *HURRY)
            assert strict.code == 0, "a stranger's build is no failure"
        assert asked == []
        assert len(place.builds()) == 12
        assert place.outbox() == []
        assert not (place.history / "marks.json").exists()


class TestScikitLearn:
    def test_build_without_scikit_learn_is_learned_later(self, tmp_path, experienced, github, without_sklearn):
        """Without scikit-learn the build is kept and learned later."""
        poor = without_sklearn(github(experienced))
        ran = poor.run("train", "--junit", poor.report(CASES))
        one_warning(ran, "sklearn is not installed", "pip install 'fedstep[train]'", "learned then")
        assert outputs(tmp_path)["status"] == "degraded"
        assert len(poor.builds()) == 13
        assert poor.run("train", "--junit", "report.xml", "--strict").code == 6
        assert json.loads(poor.run("predict", "--format", "json").out)["builds_known"] == 13

        report = poor.report(CASES)  # anew: one that is older than the mark of `predict` is no evidence
        rich = json.loads(github(experienced).run("train", "--junit", report, "--format", "json").out)
        assert rich["rows"]["learned"] > 0
        assert "in the history already" in rich["warnings"][0]
        assert len(poor.builds()) == 13

    def test_backfill_without_scikit_learn_says_what_to_install(self, fresh, recorded, without_sklearn):
        place = without_sklearn(fresh)
        one_warning(place.run("backfill", str(recorded)), "pip install 'fedstep[train]'")
        assert place.run("backfill", str(recorded), "--strict").code == 6


class TestFiles:
    @pytest.mark.parametrize("command", ["train", "predict", "triage", "pull", "backfill"])
    def test_unusable_history_costs_one_warning(self, tmp_path, fresh, github, recorded, command):
        """A history that cannot be written or read costs one warning."""
        place = github(fresh)
        place.history.write_text("a file where the folder should be")
        more = {"predict": (), "pull": ("--aggregator", "http://127.0.0.1:9", *HURRY), "backfill": (str(recorded),)}
        arguments = (command, *more.get(command, ("--junit", place.report(CASES))))
        one_warning(
            place.run(*arguments), ".fedstep/", "Check its permissions" if command in "predict triage" else "--history"
        )
        if command in ("train", "predict", "triage"):
            assert outputs(tmp_path)["status"] == "degraded"
        assert place.run(*arguments, "--strict").code == 4
        assert place.history.read_text() == "a file where the folder should be"
        assert [path.name for path in place.root.iterdir() if "fedstep" in path.name] == [".fedstep"]

    def test_a_full_disk_costs_one_warning(self, experienced):
        """A limit of the size of files stands for the disk: no file can be written."""
        report = experienced.report(CASES)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
        with experienced.start("train", "--junit", report, before=limit) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert [line for line in err.splitlines() if "Traceback" in line] == []
        assert len([line for line in err.splitlines() if ".fedstep/builds" in line]) == 1, err
        assert len(experienced.builds()) == 12

    def test_a_link_in_the_history_is_refused(self, experienced):
        """A change of the repository could lead what is written and deleted elsewhere."""
        shutil.rmtree(experienced.history / "builds")
        (experienced.history / "builds").symlink_to("/tmp")
        ran = experienced.run("train", "--junit", experienced.report(CASES))
        assert ran.code == 4
        assert ".fedstep/builds is a link" in ran.err

    def test_a_damaged_record_is_skipped_and_named(self, experienced):
        first = experienced.history / "builds" / experienced.builds()[0]
        first.write_bytes(first.read_bytes()[:40])
        for cache in ("summary.json", "outlook.json"):
            (experienced.history / cache).unlink()
        ran = experienced.run("predict")
        one_warning(ran, first.name)
        assert "11 builds" in ran.out

    def test_a_damaged_model_is_replaced_by_the_starter_and_said_so(self, connected):
        (connected.history / "model.safetensors").write_bytes(b"\x00" * 100)
        ran = connected.run("predict")
        one_warning(ran, "the pulled model cannot be used", "starter model")

    def test_an_output_file_that_cannot_be_written_costs_one_warning(self, experienced, github):
        place = github(experienced).with_env(GITHUB_STEP_SUMMARY="/nowhere/summary")
        one_warning(place.run("predict"), "/nowhere/summary")
