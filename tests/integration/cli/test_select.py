"""The commands that shorten a build, run as processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, new_checkout


def write_names(place: Checkout, count: int = 40) -> Path:
    names = place.root / "names.txt"
    names.write_text("".join(f"tests/test_{n % 7}.py::test_{n}\n" for n in range(count)))
    return names


class TestShard:
    def test_machines_with_other_histories_agree(self, experienced: Checkout, tmp_path: Path) -> None:
        """One machine knows the tests, the other nothing: with the first one's plan their shards fit together."""
        plan = experienced.run("shard", "--total", "3", "--unit", "test")
        assert plan.code == 0, plan.err
        names = experienced.root / "names.txt"
        listed = "".join(experienced.run("shard", "--index", "1", "--total", "1").out)
        names.write_text(listed + "tests.test_new#test_new\n")
        newcomer = new_checkout(tmp_path / "newcomer")
        (newcomer.root / "names.txt").write_text(names.read_text())
        machines = (experienced, newcomer, newcomer)
        given = ("--plan", plan.out.strip(), "--names", "names.txt")
        shards = [place.run("shard", "--index", str(n), *given) for n, place in enumerate(machines, 1)]
        assert [ran.code for ran in shards] == [0, 0, 0]
        together = [line for ran in shards for line in ran.out.splitlines()]
        assert sorted(together) == sorted(names.read_text().splitlines())
        assert all(ran.out for ran in shards)

    def test_without_a_plan_the_names_decide_and_that_is_said(self, experienced: Checkout) -> None:
        """Complete and disjoint all the same; one warning says how to balance."""
        names = write_names(experienced)
        shards = [
            experienced.run("shard", "--index", str(n), "--total", "4", "--names", "names.txt") for n in (1, 2, 3, 4)
        ]
        assert sorted(line for ran in shards for line in ran.out.splitlines()) == sorted(names.read_text().splitlines())
        assert all(ran.err.count("no plan") == 1 for ran in shards)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (("--plan", ""), "the plan is empty, so the number of machines is not known. Give it with --total"),
            ((), "there is no plan, so the number of machines is not known. Give it with --total"),
            (("--total", "0"), "--total 0 is not between 1 and 1000"),
            (("--plan", "@empty.txt"), "the plan is empty, so the number of machines is not known"),
        ],
    )
    def test_without_plan_and_total_the_message_names_both(
        self, experienced: Checkout, given: tuple[str, ...], told: str
    ) -> None:
        """The plan is empty where the job before could not make one; nobody gave `--total 0`."""
        (experienced.root / "empty.txt").write_text("\n")
        ran = experienced.run("shard", "--index", "1", *given)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.err

    def test_an_empty_plan_with_a_total_is_no_plan(self, experienced: Checkout) -> None:
        """The names decide, as without the option."""
        write_names(experienced)
        ran = experienced.run("shard", "--index", "1", "--total", "2", "--plan", "", "--names", "names.txt")
        assert ran.code == 0
        assert ran.err.count("no plan") == 1

    def test_bad_input_is_an_error_and_prints_no_test(self, experienced: Checkout) -> None:
        """An empty list, an index out of range, a plan that is lost or for others: exit 2 or 3, no output."""
        write_names(experienced)
        (experienced.root / "empty.txt").write_text("\n")
        plan = experienced.run("shard", "--total", "2").out.strip()
        for arguments in (
            ("--index", "5", "--total", "4"),
            ("--index", "0", "--total", "2"),
            ("--index", "1", "--total", "2", "--names", "empty.txt"),
            ("--index", "1", "--total", "2", "--names", "none.txt"),
            ("--index", "1", "--plan", plan[:-20]),
            ("--index", "1", "--plan", "@none.txt"),
            ("--index", "1", "--total", "3", "--plan", plan),
        ):
            ran = experienced.run("shard", *arguments)
            assert (ran.code in (2, 3), ran.out) == (True, ""), (arguments, ran)
            assert "error: " in ran.err or "Error: " in ran.err

    def test_a_machine_without_a_test_says_so(self, experienced: Checkout) -> None:
        """Most runners run all tests of an empty list: whoever starts one must know."""
        (experienced.root / "names.txt").write_text("tests/test_1.py::test_1\n")
        shards = [
            experienced.run("shard", "--index", str(number), "--total", "3", "--names", "names.txt")
            for number in (1, 2, 3)
        ]
        assert sorted(len(ran.out.splitlines()) for ran in shards) == [0, 0, 1]
        assert all(("has no test" in ran.err) == (not ran.out) for ran in shards)

    def test_the_plan_as_json_tells_the_load_of_each_machine(self, experienced: Checkout) -> None:
        """A pipeline's matrix is made from it."""
        told = json.loads(experienced.run("shard", "--total", "2", "--unit", "test", "--format", "json").out)
        assert [shard["number"] for shard in told["shards"]] == [1, 2]
        assert told["total"] == 2


class TestOrder:
    def test_all_tests_are_printed_the_nearest_first(self, experienced: Checkout) -> None:
        """Unknown names are kept; a change of one file moves its tests to the front."""
        listed = experienced.run("order").out.splitlines()
        assert len(listed) > 10
        (experienced.root / "names.txt").write_text("\n".join([*listed, "tests.test_brandnew#test_new"]))
        (experienced.root / "brandnew.py").write_text("changed\n")
        ordered = experienced.run("order", "--names", "names.txt")
        assert ordered.code == 0, ordered.err
        assert sorted(ordered.out.splitlines()) == sorted([*listed, "tests.test_brandnew#test_new"])
        assert ordered.out.splitlines()[0] == "tests.test_brandnew#test_new"

    def test_a_test_whose_source_calls_what_changed_comes_first(self, tmp_path: Path) -> None:
        """No name tells it, and it never failed: `train` has read the sources of the tests."""
        place = new_checkout(tmp_path / "shop")
        names = [f"tests.test_{letter}#test_{number}" for letter in "abcd" for number in range(2)]
        for letter in "abcd":
            body = "".join(f"def test_{number}():\n    assert check_{letter}{number}()\n" for number in range(2))
            place.commit(f"tests/test_{letter}.py", body.replace("check_c1", "compute_discount"))
        (place.root / "report.xml").write_text(report_of(names))
        assert place.run("train", "--junit", "report.xml").code == 0
        assert place.run("order").out.splitlines()[0] != "tests.test_c#test_1"
        (place.root / "shop/cart.py").write_text("def compute_discount():\n    return 2\n")
        assert place.run("order").out.splitlines()[0] == "tests.test_c#test_1"
        chosen = place.run("select", "--share", "0.01", "--explore", "0").out.splitlines()
        assert chosen == ["tests.test_c#test_1"], "a selection is never empty"


class TestSharedHistory:
    def test_a_fresh_clone_knows_the_tests_of_the_others(self, tmp_path: Path) -> None:
        """The history is fetched, with the words of the tests' source."""
        place = new_checkout(tmp_path / "shop")
        place.git("init", "-q", "--bare", str(tmp_path / "origin.git"))
        place.git("remote", "add", "origin", str(tmp_path / "origin.git"))
        place.git("push", "-q", "origin", "main")
        (place.root / "report.xml").write_text(report_of(["tests.test_a#test_1", "tests.test_b#test_2"]))
        assert place.run("train", "--junit", "report.xml", "--history", "git").code == 0
        for command, expected in {"order": 2, "plan": 1}.items():
            place.git("clone", "-q", str(tmp_path / "origin.git"), str(tmp_path / command))
            ran = Checkout(tmp_path / command, place.env).run(command, "--history", "git")
            assert (ran.code, len(ran.out.splitlines())) == (0, expected), ran.err
            assert "no test" not in ran.err


class TestSelect:
    def test_a_share_of_the_time_is_selected_and_said(self, experienced: Checkout) -> None:
        """One line tells how much runs and what it would have caught; new tests are always in."""
        listed = experienced.run("order").out.splitlines()
        (experienced.root / "names.txt").write_text("\n".join([*listed, "tests.test_new#test_new"]))
        ran = experienced.run("select", "--share", "0.3", "--explore", "0", "--names", "names.txt", "--format", "json")
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        chosen = [test["test"] for test in told["tests"]]
        assert 0 < len(chosen) < len(listed)
        assert "tests.test_new#test_new" in chosen
        assert sorted([*chosen, *told["skipped"]]) == sorted([*listed, "tests.test_new#test_new"])
        assert "% of the time, saving" in ran.err
        assert "always do: new, changed or failed lately" in ran.err

    def test_a_young_project_runs_all_and_is_told_why(self, experienced: Checkout) -> None:
        """A confidence needs twenty failing builds."""
        ran = experienced.run("select", "--confidence", "0.95")
        assert sorted(ran.out.splitlines()) == sorted(experienced.run("order").out.splitlines())
        assert "all tests run: " in ran.err
        assert "20 are needed" in ran.err

    def test_shadow_prints_all_and_says_what_would_be_skipped(self, experienced: Checkout) -> None:
        """Nothing is left out before somebody has seen what it would cost."""
        ran = experienced.run("select", "--share", "0.2", "--shadow")
        assert sorted(ran.out.splitlines()) == sorted(experienced.run("order").out.splitlines())
        assert "would run" in ran.err

    @pytest.mark.parametrize("wish", ["--share nan", "--confidence nan", "--share .5 --explore nan"])
    @pytest.mark.parametrize("command", ["select", "plan"])
    def test_what_is_no_number_is_refused(self, experienced: Checkout, command: str, wish: str) -> None:
        """No test is chosen by it: half a list would run as if it were the promised one."""
        ran = experienced.run(command, *wish.split())
        assert (ran.code, ran.out) == (2, "")
        assert "nan is no number" in ran.err

    @pytest.mark.parametrize("command", ["order", "select --share 1", "select --share 0 --shadow"])
    def test_a_runner_is_told_nothing_if_one_cannot_be_named(self, experienced: Checkout, command: str) -> None:
        """Arguments without that test would leave it out, though all are to run."""
        (experienced.root / "names.txt").write_text("org.acme.CartTest#pays\nno class\n")
        ran = experienced.run(*command.split(), "--for", "maven", "--names", "names.txt")
        assert (ran.code, ran.out) == (0, "")
        assert "1 test cannot be named to maven, the first is no class. No arguments are printed" in ran.err

    def test_names_are_printed_as_they_were_read(self, experienced: Checkout) -> None:
        """Bytes that are no UTF-8 are those of a file name; a byte order mark belongs to no name."""
        names = b"\xef\xbb\xbftests/b.py\ntests/\xff.py\ntests/\xc3\xa4.py\n"
        (experienced.root / "names.txt").write_bytes(names)
        for source in ("names.txt", "-"):
            command = [sys.executable, "-m", "fedstep", "order", "--names", source]
            done = subprocess.run(
                command, cwd=experienced.root, env=dict(experienced.env), input=names, capture_output=True, check=True
            )
            assert sorted(done.stdout.splitlines()) == [b"tests/b.py", b"tests/\xc3\xa4.py", b"tests/\xff.py"]

    def test_unclear_wishes_are_refused(self, experienced: Checkout) -> None:
        """No wish, two wishes, or a time that is none: exit 2 and no test."""
        for wishes in ((), ("--share", "0.1", "--time", "1m"), ("--time", "soon"), ("--confidence", "1")):
            ran = experienced.run("select", *wishes)
            assert (ran.code, ran.out) == (2, ""), wishes


class TestPlan:
    def test_a_plan_selects_and_divides_for_all_machines(self, experienced: Checkout) -> None:
        """Together the machines run what was selected, and a test that the plan does not know."""
        listed = experienced.run("order").out.splitlines()
        (experienced.root / "names.txt").write_text("\n".join([*listed, "tests.test_new#test_new"]))
        planned = experienced.run("plan", "--total", "2", "--share", "0.3", "--explore", "0", "--format", "json")
        assert planned.code == 0, planned.err
        told = json.loads(planned.out)
        given = ("--plan", told["plan"], "--names", "names.txt")
        shards = [experienced.run("shard", "--index", str(number), *given) for number in (1, 2)]
        ran = [name for one in shards for name in one.out.splitlines()]
        assert len(ran) == len(set(ran)) == sum(one["tests"] for one in told["shards"]) + 1
        assert "tests.test_new#test_new" in ran
        assert len(ran) < len(listed)

    def test_without_history_all_run_divided_by_names(self, tmp_path: Path) -> None:
        newcomer = new_checkout(tmp_path / "newcomer")
        planned = newcomer.run("plan", "--total", "2", "--confidence", "0.95")
        assert planned.code == 0, planned.err
        assert "no test is known yet" in planned.err
        (newcomer.root / "names.txt").write_text("".join(f"tests.test_{n}#x\n" for n in range(20)))
        given = ("--plan", planned.out.strip(), "--names", "names.txt")
        ran = [newcomer.run("shard", "--index", str(number), *given).out.splitlines() for number in (1, 2)]
        assert sorted(name for names in ran for name in names) == sorted(f"tests.test_{n}#x" for n in range(20))


def report_of(names: list[str], failing: str = "") -> str:
    """A report in which these tests ran."""
    cases = []
    for name in names:
        group, _, test = name.partition("#")
        body = '<failure message="assert 1 == 2">t</failure>' if name == failing else ""
        cases.append(f'<testcase classname="{group}" name="{test}" time="1">{body}</testcase>')
    return f"<testsuite>{''.join(cases)}</testsuite>"


class TestTrained:
    def test_train_counts_what_was_saved_and_what_escaped(self, tmp_path: Path) -> None:
        """A test that was left out fails when all run: the escape is in the summary, in status and on the page."""
        place = new_checkout(tmp_path / "shop")
        tests = [f"tests.test_{letter}#test_{number}" for letter in "abcde" for number in range(4)]
        report = place.root / "report.xml"
        for number in range(2):
            report.write_text(report_of(tests))
            place.commit("shop.py", str(number))
            assert place.run("train", "--junit", "report.xml").code == 0
        chosen = place.run("select", "--share", "0.3", "--explore", "0").out.splitlines()
        left_out = [test for test in tests if test not in chosen]
        report.write_text(report_of(chosen))
        place.commit("shop.py", "again")
        told = json.loads(place.run("train", "--junit", "report.xml", "--format", "json").out)
        assert told["selection"]["tests_left_out"] == len(left_out)
        assert told["selection"]["saved_seconds"] == len(left_out)

        report.write_text(report_of(tests, failing=left_out[0]))
        place.commit("shop.py", "broken")
        told = json.loads(place.run("train", "--junit", "report.xml", "--format", "json").out)
        assert told["selection"]["escaped"] == 1
        assert told["selection"]["escape_rate"] == 1.0
        assert told["selection"]["tests_left_out"] == 0, "what was noted counts for one build"
        assert "escape rate 100 %" in " ".join(place.run("status").out.split())
        assert place.run("report", "--html", "page.html").code == 0
        assert "escape rate 100 %" in (place.root / "page.html").read_text()

    def test_a_shadow_build_has_a_false_green_rate(self, tmp_path: Path) -> None:
        """All tests run, and the failure is one that the selection would have left out."""
        place = new_checkout(tmp_path / "shop")
        tests = [f"tests.test_{letter}#test_{number}" for letter in "abcde" for number in range(4)]
        report = place.root / "report.xml"
        report.write_text(report_of(tests))
        assert place.run("train", "--junit", "report.xml").code == 0
        told = place.run("select", "--share", "0.3", "--explore", "0", "--shadow", "--format", "json")
        report.write_text(report_of(tests, failing=json.loads(told.out)["skipped"][0]))
        place.commit("shop.py", "broken")
        ran = place.run("train", "--junit", "report.xml")
        assert "false green rate 100 %" in " ".join(ran.out.split())

    def test_a_selection_that_nobody_followed_is_no_shadow(self, tmp_path: Path) -> None:
        """It was made to look at, and all tests ran: only `--shadow` asks for a count of what would have been seen."""
        place = new_checkout(tmp_path / "shop")
        tests = [f"tests.test_{letter}#test_{number}" for letter in "abcde" for number in range(4)]
        report = place.root / "report.xml"
        report.write_text(report_of(tests))
        assert place.run("train", "--junit", "report.xml").code == 0
        assert place.run("select", "--share", "0.3", "--explore", "0").code == 0
        report.write_text(report_of(tests, failing=tests[-1]))
        place.commit("shop.py", "broken")
        told = json.loads(place.run("train", "--junit", "report.xml", "--format", "json").out)
        assert told["selection"] is None

    def test_a_plan_that_cannot_be_read_loses_no_build(self, tmp_path: Path) -> None:
        place = new_checkout(tmp_path / "shop")
        (place.root / "report.xml").write_text(report_of(["tests.test_a#test_1"]))
        ran = place.run("train", "--junit", "report.xml", "--plan", "nonsense")
        assert ran.code == 0
        assert "the plan cannot be read" in ran.err
        assert json.loads(place.run("status", "--json").out)["checks"][1]["says"] == "1 build recorded"


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal of POSIX")
class TestNames:
    @pytest.mark.parametrize(
        "command", [("order",), ("select", "--share", "1"), ("shard", "--index", "1", "--total", "1")]
    )
    def test_a_terminal_shows_escapes_and_a_pipe_the_names(
        self, experienced: Checkout, command: tuple[str, ...]
    ) -> None:
        """A name with control sequences would be obeyed by a terminal; a test runner has to find it as it is."""
        name = "tests/test_new.py::test_x[\x1b]0;title\x07]"
        (experienced.root / "names.txt").write_text(f"{name}\n")
        given = (*command, "--names", "names.txt")
        assert experienced.run(*given).out == f"{name}\n"
        ours, its = os.openpty()
        process = experienced.start(*given, stdout=its)
        assert process.wait() == 0
        os.close(its)
        shown = os.read(ours, 4096).decode()
        os.close(ours)
        process.communicate()
        assert shown.strip() == r"tests/test_new.py::test_x[\x1b]0;title\x07]"
