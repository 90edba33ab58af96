"""Options: from the command line, the environment and files; what is wrong is named, with exit 2."""

import re
import shlex

import pytest

from fedstep.cli.main import iter_commands
from fedstep.cli.options import FormatChoice
from tests.helpers.cli import forty_tests

HEAVY = ("numpy", "scipy", "sklearn", "joblib", "requests", "urllib3")
COMMANDS = {" ".join(path): command for path, command in iter_commands()}
NAMES = sorted(COMMANDS)
VARIABLES = sorted({str(p.envvar) for command in COMMANDS.values() for p in command.params if p.envvar})


class TestUsageErrors:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("predict", "--junti", "x"), "--junti"),
            (("prophesy",), "prophesy"),
            (("train", "--timeout", "soon"), "--timeout"),
            (("train", "--budget", "-1"), "--budget"),
            (("train", "--keep", "0"), "--keep"),
            (("predict", "--format", "xml"), "--format"),
            (("train", "--aggregator", "fedstep.example.org"), "fedstep.example.org"),
            (("train", "--aggregator", "ftp://fedstep.example.org"), "ftp://fedstep.example.org"),
            (("pull", "--aggregator", "http://127.0.0.1:99999"), "127.0.0.1:99999"),
            (("push",), "--aggregator"),
            (("pull",), "--aggregator"),
            (("backfill", "nowhere"), "nowhere"),
            (("serve", "--port", "70000"), "--port"),
            (("serve", "--host", "0.0.0.0"), "0.0.0.0"),
        ],
    )
    def test_a_usage_error_exits_2_and_names_it(self, fresh, arguments, named):
        ran = fresh.run(*arguments)
        assert ran.code == 2
        assert named in ran.err
        assert ran.out == ""

    @pytest.mark.parametrize(
        ("name", "content", "named"),
        [
            (".fedstep.toml", 'agregator = "http://x"\n', "`agregator`"),
            (".fedstep.toml", 'timeout = "soon"\n', "`timeout`"),
            (".fedstep.toml", "timeout = true\n", "`timeout`"),
            (".fedstep.toml", 'junit = "report.xml"\n', "`junit`"),
            (".fedstep.toml", "junit = [1]\n", "`junit`"),
            (".fedstep.toml", 'strict = "yes"\n', "`strict`"),
            (".fedstep.toml", "keep = 1.5\n", "`keep`"),
            (".fedstep.toml", "history = 5\n", "`history`"),
            (".fedstep.toml", 'format = "xml"\n', "--format"),
            (".fedstep.toml", "history = \n", ".fedstep.toml"),
            (".fedstep.toml", "[train]\njunit = []\n", "`train`"),
            ("pyproject.toml", '[tool.fedstep]\nagregator = "http://x"\n', "`agregator`"),
            ("pyproject.toml", "[tool.fedstep]\nbudget = []\n", "`budget`"),
        ],
    )
    def test_unknown_key_or_wrong_value_exits_2_and_names_it(self, fresh, name, content, named):
        """An unknown key or a wrong value in a file exits 2 and names it."""
        (fresh.root / name).write_text(content)
        ran = fresh.run("predict")
        assert ran.code == 2
        assert named in ran.err
        assert name in ran.err or named == "--format"


class TestSources:
    def test_other_tables_of_pyproject_are_none_of_our_business(self, experienced):
        (experienced.root / "pyproject.toml").write_text("[tool.fedstepper]\nx = 1\n[tool.other]\ny = 2\n")
        assert experienced.run("predict").code == 0

    def test_command_line_outranks_environment_and_file(self, experienced):
        """The command line outranks the environment, and that outranks the file."""
        (experienced.root / ".fedstep.toml").write_text('format = "json"\nhistory = "elsewhere"\n')
        from_file = experienced.run("predict")
        assert from_file.out.startswith("{")
        assert "no build of this project" in from_file.err
        env = experienced.with_env(FEDSTEP_FORMAT="markdown", FEDSTEP_HISTORY=".fedstep")
        assert env.run("predict").out.startswith("#")
        assert env.run("predict").err == ""
        assert env.run("predict", "--format", "text").out.startswith("Build time")
        assert experienced.with_env(FEDSTEP_FORMAT="xml").run("predict").code == 2

    def test_dot_file_outranks_pyproject_also_in_subfolders(self, experienced):
        """The dot file outranks pyproject.toml, and both count in folders below."""
        (experienced.root / "pyproject.toml").write_text('[tool.fedstep]\nformat = "json"\n')
        assert experienced.run("predict").out.startswith("{")
        (experienced.root / ".fedstep.toml").write_text('format = "markdown"\n')
        assert experienced.run("predict").out.startswith("#")
        inside = type(experienced)(experienced.root / "shop", experienced.env)
        assert inside.run("predict").out.startswith("#")

    def test_reports_and_strictness_have_every_source(self, experienced):
        """Reports and strictness come from files and from the environment."""
        experienced.report(forty_tests(12), "one.xml")
        experienced.report(forty_tests(11), "two.xml")
        (experienced.root / ".fedstep.toml").write_text('junit = ["one.xml", "two.xml"]\nstrict = true\n')
        ran = experienced.run("triage")
        assert "2 report files" in ran.out
        assert experienced.with_env(FEDSTEP_JUNIT="one.xml missing.xml").run("triage").code == 3
        relaxed = experienced.with_env(FEDSTEP_JUNIT="missing.xml", FEDSTEP_STRICT="false")
        assert relaxed.run("triage").code == 0


class TestVariables:
    @pytest.mark.parametrize("variable", VARIABLES)
    def test_variable_has_one_meaning_for_all_commands(self, variable):
        """A variable has one meaning, and whatever it may say, every command with it takes."""
        having = [p for command in COMMANDS.values() for p in command.params if p.envvar == variable]
        kinds = {"FormatChoice" if isinstance(p.type, FormatChoice) else repr(p.type) for p in having}
        assert len(kinds) == len({(p.opts[0], p.multiple, p.metavar) for p in having}) == 1

    @pytest.mark.parametrize("name", ["json", "markdown", "slack"])
    def test_a_format_of_other_commands_leaves_the_default(self, experienced, name):
        """A file or a variable is for all commands, and few have every format. On the command line it is an error."""
        commands = ("predict", "digest", "order")
        assert [experienced.with_env(FEDSTEP_FORMAT=name).run(*words.split()).code for words in commands] == [0, 0, 0]
        (experienced.root / ".fedstep.toml").write_text(f'format = "{name}"\n')
        assert [experienced.run(*words.split()).code for words in commands] == [0, 0, 0]
        assert experienced.run("predict", "--format", "slack").code == 2

    @pytest.mark.parametrize("since", ["7d", "2030-12-31"])
    def test_an_age_and_a_day_are_a_start_for_each_command(self, experienced, since):
        spoken = experienced.with_env(FEDSTEP_SINCE=since)
        (experienced.root / "recorded").mkdir()
        assert [spoken.run("digest").code, spoken.run("backfill", "recorded").code] == [0, 0]

    def test_server_commands_look_for_the_store_in_one_place(self):
        """All commands of the server look for its store in one place."""
        having = {name: p for name, command in COMMANDS.items() for p in command.params if p.name == "store"}
        assert having.keys() == {name for name in NAMES if name.startswith("server ")} | {"serve"}
        assert len({(p.default, p.help) for p in having.values()}) == 1

    def test_a_flag_of_one_command_leaves_another_as_it_was(self, experienced):
        """FEDSTEP_JSON was the file of `simulate` once, which then wrote its figures to one called 1."""
        spoken = experienced.with_env(FEDSTEP_JSON="1", FEDSTEP_FORMAT="markdown")
        assert spoken.run("status").out.startswith("{")
        assert spoken.run("history", "show").out.startswith("#")
        (experienced.root / ".fedstep.toml").write_text("json = true\n")
        assert experienced.run("status").out.startswith("{")

    def test_a_stray_variable_does_not_become_an_option(self, experienced):
        """click's own prefix would turn these into --version and --help."""
        assert experienced.with_env(FEDSTEP_VERSION="1", FEDSTEP_HELP="1").run("predict").out.startswith("Build time")


class TestHelp:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_help_has_an_example_that_the_parser_takes(self, name, tmp_path, monkeypatch):
        command = COMMANDS[name]
        found = re.findall(r"Example: fedstep (.+)", command.help or "")
        assert found
        (tmp_path / "recorded-builds").mkdir()
        monkeypatch.chdir(tmp_path)
        for example in found:
            words = shlex.split(example.partition(" > ")[0])
            assert words[: len(name.split())] == name.split()
            given = command.make_context(name, words[len(name.split()) :])
            assert set(given.params) == {parameter.name for parameter in command.params if parameter.expose_value}

    def test_help_is_shown_for_the_whole_and_for_each_command(self, fresh):
        whole = fresh.run("--help")
        assert whole.code == 0
        assert "Example: fedstep " in whole.out
        assert "Exit codes:" in whole.out
        assert [name for name in NAMES if not re.search(rf"^  {name.split()[0]} ", whole.out, re.M)] == []
        assert re.fullmatch(r"fedstep, version \d+\.\d+\.\d+\S*\n", fresh.run("--version").out)
        assert "Example: fedstep train" in fresh.run("train", "-h").out

    @pytest.mark.parametrize(
        "arguments", [("--help",), ("predict", "--help"), ("predict",), ("triage", "--junit", "*.xml")]
    )
    def test_help_predict_triage_load_no_numpy_or_http_library(self, connected, arguments):
        """`--help`, `predict` and `triage` load neither numpy nor an HTTP library."""
        connected.report(forty_tests(12))
        ran = connected.run(*arguments, python=("-X", "importtime"))
        assert ran.code == 0
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.err.splitlines() if "|" in line}
        assert "click" in loaded, "the list was read"
        assert loaded.isdisjoint(HEAVY), sorted(loaded.intersection(HEAVY))
        if arguments[-1] != "--help":
            assert "production model" in ran.out
