"""What a person mistypes: the near one is named, and a wrong configuration file does not stop a CI job."""

import json

import click
import pytest

from fedstep.cli.main import accept_both_formats, commands, iter_commands
from fedstep.cli.options import FORMATS
from tests.helpers.cli import Checkout, forty_tests, junit


def has_json(command: click.Command) -> bool:
    """Whether the command prints JSON when it is asked for."""
    formats = [one for one in command.params if one.name == "output_format"]
    choices = {choice for one in formats for choice in getattr(one.type, "choices", ())}
    return "as_json" in {one.name for one in command.params} or "json" in choices


class TestSharedFormat:
    @pytest.mark.parametrize("command", ["predict", "triage --junit r.xml", "reports r.xml", "history show"])
    def test_each_format_of_a_command_is_one_of_its_own(self, fresh: Checkout, command, monkeypatch, capsys) -> None:
        """The option is shared: a format that is added for one command is printed by each that has it."""
        monkeypatch.chdir(fresh.root)
        (fresh.root / "r.xml").write_text(junit(forty_tests(1)))
        texts = set()
        for output_format in FORMATS:
            commands.main(args=[*command.split(), "--format", output_format], standalone_mode=False)
            texts.add(capsys.readouterr().out)
        assert len(texts) == len(FORMATS)


class TestMisspelt:
    @pytest.mark.parametrize(
        ("arguments", "near"),
        [
            (("tirage",), "Did you mean triage?"),
            (("triage", "--junt", "x"), "Did you mean '--junit'?"),
            (("train", "--report", "x"), "Did you mean '--junit'?"),
        ],
    )
    def test_a_command_and_an_option_have_a_near_one(self, fresh: Checkout, arguments, near) -> None:
        ran = fresh.run(*arguments)
        assert ran.code == 2
        assert near in ran.err

    @pytest.mark.parametrize("arguments", [("train", "a.xml"), ("triage", "--junit", "a.xml", "b.xml")])
    def test_reports_without_their_option_are_told_where_they_belong(self, fresh: Checkout, arguments) -> None:
        """Also what a shell makes of a glob without quotes."""
        ran = fresh.run(*arguments)
        assert ran.code == 2
        assert "Give reports with --junit, and a glob in quotes" in ran.err

    def test_a_key_has_a_near_one_on_a_developers_machine(self, fresh: Checkout) -> None:
        (fresh.root / ".fedstep.toml").write_text('agregator = "x"\n')
        ran = fresh.run("predict")
        assert (ran.code, "Did you mean aggregator?" in ran.err) == (2, True)

    def test_in_ci_a_bad_file_is_one_warning_and_defaults(self, fresh: Checkout) -> None:
        """--strict keeps it an error."""
        (fresh.root / ".fedstep.toml").write_text('agregator = "x"\n')
        ci = fresh.with_env(CI="true")
        ran = ci.run("predict")
        assert ran.code == 0
        assert ran.err.count("Did you mean aggregator?") == 1
        assert ci.run("predict", "--strict").code == 2


class TestFormats:
    @pytest.mark.parametrize("command", ["predict", "status"])
    @pytest.mark.parametrize("spelling", [("--json",), ("--format", "json"), ("--format=json",)])
    def test_both_spellings_give_json(self, fresh: Checkout, command: str, spelling: tuple[str, ...]) -> None:
        ran = fresh.run(command, *spelling)
        assert ran.code == 0
        assert json.loads(ran.out)

    @pytest.mark.parametrize("path", [path for path, command in iter_commands() if has_json(command)], ids=" ".join)
    @pytest.mark.parametrize("spelling", [("--json",), ("--format", "json"), ("--format=json",)], ids=" ".join)
    def test_every_command_with_json_takes_both(self, path: tuple[str, ...], spelling: tuple[str, ...]) -> None:
        """The spelling that a command lacks becomes the one that it has."""
        command = dict(iter_commands())[path]
        own = [word for parameter in command.params for word in parameter.opts]
        words = accept_both_formats([*path, *spelling])[len(path) :]
        assert words in ([["--json"]] if "--json" in own else [["--format", "json"], ["--format=json"]])


class TestVerdict:
    CASE = '<testcase classname="a.T" name="x" time="1"><failure message="no">t</failure></testcase>'
    REPORT = f"<testsuite>{CASE}</testsuite>"

    def test_quarantine_of_an_unknown_name_says_what_is_meant(self, experienced: Checkout) -> None:
        """Half a name forgives nothing; a pattern of a known test does."""
        why = ("--owner", "ada", "--reason", "#7")
        ran = experienced.run("quarantine", "add", "test_7", *why)
        assert ran.code == 0, "the test may come with the next build"
        assert "no known test is called test_7" in ran.err
        assert "Did you mean: shop.test_cart#test_7" in ran.err
        assert experienced.run("quarantine", "add", "shop.test_cart#test_7*", *why).err == ""

    def test_quarantine_makes_a_failing_build_pass(self, fresh: Checkout) -> None:
        """Add, judge, list, remove, judge again: exit codes as a pipeline sees them."""
        (fresh.root / "r.xml").write_text(self.REPORT)
        assert fresh.run("verdict", "--junit", "r.xml").code == 1
        assert fresh.run("triage", "--junit", "r.xml", "--fail-on", "regressions").code == 1
        assert fresh.run("triage", "--junit", "r.xml").code == 0
        assert fresh.run("quarantine", "add", "a.T#x", "--owner", "ada", "--reason", 'a "quote" # 7').code == 0
        passed = fresh.run("verdict", "--junit", "r.xml", "--json")
        assert passed.code == 0
        told = json.loads(passed.out)["verdict"]
        assert (told["passed"], [one["test"] for one in told["forgiven"]]) == (True, ["a.T#x"])
        assert 'a "quote" # 7' in fresh.run("quarantine", "list").out
        assert fresh.run("quarantine", "remove", "a.T#x").code == 0
        assert fresh.run("quarantine", "remove", "a.T#x").code == 2
        assert fresh.run("verdict", "--junit", "r.xml").code == 1

    def test_an_entry_that_is_over_forgives_nothing(self, fresh: Checkout) -> None:
        (fresh.root / "r.xml").write_text(self.REPORT)
        entry = '[[mute]]\ntest = "a.T#x"\nowner = "ada"\nreason = "#7"\nuntil = 2020-01-01\n'
        (fresh.root / ".fedstep-mutes.toml").write_text(entry)
        ran = fresh.run("verdict", "--junit", "r.xml")
        assert (ran.code, "ended on 2020-01-01" in ran.err) == (1, True)

    def test_the_list_has_a_cap(self, fresh: Checkout) -> None:
        """A list without an end is no quarantine: adding to a full one is refused, and the verdict on one fails."""
        (fresh.root / "r.xml").write_text(self.REPORT)
        for test in ("a.T#x", "a.T#y"):
            assert fresh.run("quarantine", "add", test, "--owner", "ada", "--reason", "#7").code == 0
        refused = fresh.run("quarantine", "add", "a.T#z", "--owner", "a", "--reason", "b", "--max-quarantined", "2")
        assert (refused.code, "2 tests are quarantined already" in refused.err) == (2, True)
        renewed = ("a.T#y", "--owner", "bob", "--reason", "#7", "--max-quarantined", "2")
        assert fresh.run("quarantine", "add", *renewed).code == 0
        assert fresh.run("quarantine", "list").out.count("a.T#y") == 1
        assert fresh.run("verdict", "--junit", "r.xml").code == 0
        ran = fresh.run("verdict", "--junit", "r.xml", "--max-quarantined", "1")
        assert (ran.code, "at most 1 may be" in ran.out) == (1, True)

    def test_no_report_is_not_green(self, fresh: Checkout) -> None:
        """The test command may have crashed before it wrote one."""
        assert fresh.run("verdict", "--junit", "none/*.xml").code == 1
