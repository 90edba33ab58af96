"""Facts about `fedstep backfill`: every source from the command line, errors that help, and interruptions."""

import io
import json
import os
import signal
import socket
import time
import zipfile
from pathlib import Path

import pytest

from tests.helpers.builds import CASE, write_build
from tests.helpers.cli import Behaviour, Checkout, answering, ended, forty_tests, junit, server

RUN = {
    "id": 7,
    "name": "CI",
    "event": "push",
    "head_branch": "main",
    "head_sha": "a" * 40,
    "status": "completed",
    "conclusion": "success",
    "created_at": "2026-01-01T08:00:00Z",
    "run_attempt": 1,
    "repository": {"full_name": "acme/shop"},
    "head_repository": {"full_name": "acme/shop"},
}
JOB = {
    "name": "test",
    "conclusion": "success",
    "started_at": "2026-01-01T08:01:00Z",
    "completed_at": "2026-01-01T08:09:00Z",
    "run_attempt": 1,
}


BUILDS = 40


def routed(**routes: bytes) -> Behaviour:
    """A server that answers by the last part of the path, to those who have the token."""

    def behave(connection: socket.socket, request: bytes) -> None:
        path = request.split(b" ")[1].decode().partition("?")[0]
        body = routes.get(path.rpartition("/")[2])
        if b"Authorization: Bearer s3cret" not in request:
            answering("401 Unauthorized")(connection, request)
        elif body is None:
            answering("404 Not Found")(connection, request)
        else:
            answering("200 OK", body)(connection, request)

    return behave


def github() -> Behaviour:
    report = io.BytesIO()
    with zipfile.ZipFile(report, "w") as archive:
        archive.writestr("report.xml", junit(forty_tests(1)))
    artifact = {"name": "test-reports", "expired": False, "created_at": "2026-01-01T08:08:00Z"}
    place = {"archive_download_url": "https://nowhere.invalid/zip"}
    bodies = {
        "runs": {"workflow_runs": [RUN]},
        "jobs": {"jobs": [JOB]},
        "artifacts": {"artifacts": [{**artifact, **place}]},
    }
    return routed(zip=report.getvalue(), **{name: json.dumps(body).encode() for name, body in bodies.items()})


class TestSources:
    def test_a_repository_on_github_is_learned_from_its_api(self, fresh: Checkout) -> None:
        listed = github()

        def behave(connection: socket.socket, request: bytes) -> None:
            """Artifacts are on this server too."""
            if b"/artifacts" in request.split(b"\r\n")[0]:
                host = next(line for line in request.split(b"\r\n") if line.startswith(b"Host: "))[6:].decode()
                body = {
                    "artifacts": [
                        {
                            "name": "test-reports",
                            "expired": False,
                            "created_at": "2026-01-01T08:08:00Z",
                            "archive_download_url": f"http://{host}/zip",
                        }
                    ]
                }
                answering("200 OK", json.dumps(body).encode())(connection, request)
            else:
                listed(connection, request)

        place = fresh.with_env(GITHUB_TOKEN="s3cret")
        with server(behave) as url:
            first, again = (place.run("backfill", "--github", "acme/shop", "--api", url) for _ in range(2))
        assert (first.code, first.warnings) == (0, [])
        assert first.out.startswith("1 builds recorded, 0 known already; 40 test results")
        assert again.out.startswith("0 builds recorded, 1 known already; 0 test results")
        assert "s3cret" not in first.err + first.out
        for path in place.history.rglob("*"):
            assert path.is_dir() or b"s3cret" not in path.read_bytes()

    @pytest.mark.parametrize("source", [("--github", "acme/shop"), ("--gitlab", "acme/shop")], ids=str)
    def test_a_refused_token_names_what_to_do(self, fresh: Checkout, source: tuple[str, str]) -> None:
        with server(github()) as url:
            ran = fresh.run("backfill", *source, "--api", url)
            strict = fresh.run("backfill", *source, "--api", url, "--strict")
        assert (ran.code, ran.out, strict.code) == (0, "", 3)
        (warning,) = ran.warnings
        assert "answers 401" in warning
        assert f"{source[0].strip('-').upper()}_TOKEN" in warning

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "no source is given"),
            (("x", "--github", "a/b"), "two sources are given"),
            (("--github", "acme"), "--github acme names no project. Give OWNER/REPO"),
            (("--github", "../../x"), "names no project"),
            (("--gitlab", "a?b"), "names no project"),
            (("--github", "a/b", "--api", "ftp://x"), "the URL of the API cannot be used"),
            (("http://127.0.0.1:9", "--user", "ada"), "--user and FEDSTEP_JENKINS_TOKEN belong together"),
            ((".", "--since", "yesterday"), "--since: 'yesterday' is no time"),
            ((".", "--backend", "dask"), "--backend dask and --scheduler ADDRESS belong together"),
            ((".", "--keep", "0"), "--keep"),
            (("nowhere",), "nowhere does not exist"),
        ],
        ids=str,
    )
    def test_a_source_that_cannot_be_meant_exits_2_and_says_why(
        self, fresh: Checkout, arguments: tuple[str, ...], said: str
    ) -> None:
        ran = fresh.run("backfill", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert not fresh.builds()

    def test_a_folder_without_builds_says_what_could_be_there(self, fresh: Checkout) -> None:
        ran = fresh.run("backfill", ".", "--strict")
        assert ran.code == 3
        assert "no recorded build was found in ." in ran.err
        assert "build.json" in ran.err

    def test_a_table_of_results_is_learned_and_predicted_from(self, fresh: Checkout) -> None:
        rows = [
            f"{n},2026-01-01T{n:02d}:00:00Z,t{t},0.{t},{'failed' if t == n % 7 else 'passed'}"
            for n in range(20)
            for t in range(9)
        ]
        (fresh.root / "results.csv").write_text("build,started_at,test,seconds,outcome\n" + "\n".join(rows) + "\n")
        ran = fresh.run("backfill", "results.csv", "--keep", "15")
        assert ran.out.startswith("20 builds recorded, 0 known already; 180 test results")
        assert len(fresh.builds()) == 15
        predicted = json.loads(fresh.run("predict", "--format", "json").out)
        assert (predicted["builds_known"], predicted["tests_known"]) == (20, 9)


class TestChangedLevel:
    @pytest.mark.parametrize(
        ("newest", "expected"),
        [([200.0] * 4, 200.0), ([50.0] * 4, 50.0), ([2000.0], 100.0), ([200.0, 200.0], 100.0)],
        ids=["twice as long", "half as long", "one outlier", "two outliers"],
    )
    def test_four_builds_of_a_new_level_are_followed_and_no_outlier(
        self, fresh: Checkout, tmp_path: Path, newest: list[float], expected: float
    ) -> None:
        """After thirty builds of about 100 seconds the new level is predicted as soon as four builds have it."""
        steady = [100.0 + 5.0 * (number % 3 - 1) for number in range(30)]
        for number, seconds in enumerate([*steady, *newest]):
            at = f"2026-01-{number // 8 + 1:02d}T{number % 8 + 8:02d}:00:00Z"
            write_build(tmp_path / "recorded", number, CASE.format(1, ""), seconds=seconds, started_at=at)
        assert fresh.run("backfill", str(tmp_path / "recorded"), "--jobs", "1").code == 0
        duration = json.loads(fresh.run("predict", "--format", "json").out)["duration"]
        assert duration["seconds"] == pytest.approx(expected, rel=0.15)
        assert duration["low"] < expected < duration["high"]


class TestInterruption:
    @pytest.mark.parametrize(
        ("order", "jobs"),
        [pytest.param(signal.SIGINT, "2", marks=pytest.mark.full), (signal.SIGKILL, "1")],
        ids=["Ctrl-C, two processes", "kill"],
    )
    def test_next_import_goes_on_after_an_interrupted_one(
        self, fresh: Checkout, tmp_path: Path, order: signal.Signals, jobs: str
    ) -> None:
        """What an interrupted import has learned stays, and the next one goes on."""
        for number in range(BUILDS):
            build = tmp_path / "recorded" / f"{number:03d}"
            build.mkdir(parents=True)
            told = {
                "build": str(number),
                "started_at": 1_700_000_000 + 3600 * number,
                "seconds": 60,
                "commit": f"{number:040x}",
            }
            (build / "build.json").write_text(json.dumps(told))
            (build / "report.xml").write_text(
                junit([*forty_tests(number), *((f"u{i}", "passed", 0.01) for i in range(400))])
            )
        with fresh.start("backfill", str(tmp_path / "recorded"), "--jobs", jobs) as process:
            while len(fresh.builds()) < 4 and process.poll() is None:
                time.sleep(0.01)
            os.killpg(process.pid, order)
            out, err = ended(process)
        done = len([name for name in fresh.builds() if name.endswith(".rec")])
        assert 1 <= done < BUILDS
        if order == signal.SIGINT:
            assert (process.returncode, out) == (130, "")
            assert err.strip() == "fedstep: interrupted"
            fresh.no_leftovers()
        again = fresh.run("backfill", str(tmp_path / "recorded"), "--jobs", "1")
        assert again.out.startswith(f"{BUILDS - done} builds recorded, {done} known already")
        assert len([name for name in fresh.builds() if name.endswith(".rec")]) == BUILDS
