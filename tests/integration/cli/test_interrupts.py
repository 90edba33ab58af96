"""Ctrl-C and readers that leave: no traceback, nothing half-written."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from tests.helpers.cli import COMMAND, aggregator, ended, forty_tests, hanging, server

CASES = forty_tests(12)


def interrupted(process) -> str:
    process.send_signal(signal.SIGINT)
    out, err = ended(process)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "fedstep: interrupted"
    return out


class TestSignals:
    def test_ctrl_c_while_the_network_is_waited_for(self, connected):
        asked = threading.Event()

        def behave(connection: socket.socket, request: bytes) -> None:
            asked.set()
            hanging(connection, request)

        with server(behave) as url:
            arguments = ("train", "--junit", connected.report(CASES), "--aggregator", url, "--timeout", "30")
            with connected.start(*arguments) as process:
                assert asked.wait(30)
                interrupted(process)
        connected.no_leftovers()
        assert len(connected.builds()) == 12

    def test_ctrl_c_while_learning_loses_nothing(self, tmp_path, experienced):
        """Ctrl-C while learning loses nothing, and the next train learns it."""
        (tmp_path / "slow" / "sklearn").mkdir(parents=True)
        flag = tmp_path / "reached"
        slow = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(60)\n"
        (tmp_path / "slow" / "sklearn" / "__init__.py").write_text(slow)
        place = experienced.with_env(PYTHONPATH=str(tmp_path / "slow"))
        with place.start("train", "--junit", place.report(CASES)) as process:
            end = time.monotonic() + 30
            while not flag.exists():
                assert time.monotonic() < end
                time.sleep(0.02)
            interrupted(process)
        experienced.no_leftovers()
        assert len(experienced.builds()) == 13
        ran = experienced.run("train", "--junit", "report.xml")
        assert ran.code == 0
        assert "Learned       from " in ran.out

    def test_the_aggregator_stops_on_sigterm_with_what_it_has(self, tmp_path):
        with aggregator(tmp_path):
            assert (tmp_path / "aggregator.db").exists()


class TestOutput:
    @pytest.mark.parametrize(
        "arguments", [("predict",), ("predict", "--format", "json"), ("triage", "--junit", "*.xml"), ("--help",)]
    )
    def test_a_reader_that_leaves_is_no_error(self, experienced, arguments):
        experienced.report(CASES)
        reader, writer = os.pipe()
        os.close(reader)
        with experienced.start(*arguments, stdout=writer) as process:
            os.close(writer)
            _, err = ended(process)
        assert err == ""
        assert process.returncode in (0, 1)

    def test_outputs_are_written_although_the_reader_has_left(self, tmp_path, experienced, github):
        place = github(experienced)
        reader, writer = os.pipe()
        os.close(reader)
        with place.start("predict", "--format", "json", stdout=writer) as process:
            os.close(writer)
            _, err = ended(process)
        assert (process.returncode, err) == (0, "")
        assert "status" in (tmp_path / "output").read_text()

    def test_head_of_a_shell_is_no_error(self, experienced):
        shell = f"set -o pipefail; {COMMAND[0]} -m fedstep predict --format json | head -n 1"
        ran = subprocess.run(
            ("bash", "-c", shell), cwd=experienced.root, env=experienced.env, capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "{\n", "")

    def test_a_terminal_without_unicode_gets_escapes(self, experienced):
        place = experienced.with_env(PYTHONIOENCODING="ascii", LC_ALL="C")
        report = place.report([("test_größe_\N{SNOWMAN}", "failed", 0.1)])
        ran = place.run("triage", "--junit", report)
        assert ran.code == 0
        assert "test_gr\\xf6\\xdfe_\\u2603" in ran.out
