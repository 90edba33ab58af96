"""The check of `FEDSTEP_*` variables: none that something reads is unknown, and a misspelt one is named."""

import re
from pathlib import Path

import click
import pytest

from fedstep.cli.main import commands
from fedstep.cli.options import option_variables
from fedstep.diagnostics.doctor import check_ci, check_variables, read_besides_options
from fedstep.types import CiRun

ROOT = Path(__file__).parents[3]
OPTIONS = option_variables(commands)
NAMED = re.compile(r"\bFEDSTEP_[A-Z]+(?:_[A-Z]+)*\b(?!_)")


class TestVariables:
    def test_every_variable_of_program_steps_and_pages_is_known(self):
        """Every variable that the program, the steps and the pages name is known."""
        folders = (ROOT / name for name in ("fedstep", "actions", "jenkins", "docs"))
        files = [
            path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".sh", ".yml", ".md")
        ]
        named = {name for path in files for name in NAMED.findall(path.read_text(encoding="utf-8"))}
        # Any of the outputs, a misspelt one as an example, a constant of fedstep/ingest/ci_vendors.py, and a mark that
        # our hook sets for the one it starts.
        named -= {"FEDSTEP_KEY", "FEDSTEP_AGREGATOR", "FEDSTEP_VARIABLES", "FEDSTEP_HOOK_BEFORE"}
        assert len(named) > 40
        assert sorted(named - OPTIONS - read_besides_options()) == []

    def test_an_option_of_a_group_below_is_known(self):
        inner = click.Group("inner", [click.Command("leaf", params=[click.Option(["--deep"], envvar="FEDSTEP_DEEP")])])
        assert option_variables(click.Group("outer", [inner])) == {"FEDSTEP_DEEP"}

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("FEDSTEP_AGREGATOR", "FEDSTEP_AGGREGATOR"),
            ("FEDSTEP_CI_CELLS", "FEDSTEP_CI_CELL"),
            ("FEDSTEP_TOKEN_", "FEDSTEP_TOKEN"),
            ("FEDSTEP_DOT_ENV", "FEDSTEP_DOTENV"),
            ("FEDSTEP_WHATEVER", ""),
        ],
    )
    def test_unknown_variable_is_named_beside_the_likely_one(self, name, meant):
        """A variable that nothing reads is named beside the one that may be meant."""
        check = check_variables({name: "secret", "FEDSTEP_HISTORY": "git", "PATH": "x"}, OPTIONS)
        assert check.state == "warning"
        assert check.says == f"nothing reads {name}" + (f" ({meant}?)" if meant else "")
        assert check.fix

    def test_of_what_is_set_the_names_are_told_and_no_value(self):
        check = check_variables({"FEDSTEP_TOKEN": "secret", "FEDSTEP_STATUS": "ok"}, OPTIONS)
        assert (check.state, check.says) == ("ok", "2 variables set: FEDSTEP_STATUS, FEDSTEP_TOKEN")
        assert check_variables({"HOME": "/"}, OPTIONS).state == "ok"

    def test_many_are_not_all_listed(self):
        many = {f"FEDSTEP_X{number:03}": "" for number in range(300)}
        assert len(check_variables(many, OPTIONS).says) < 300


class TestCi:
    def test_a_job_without_a_name_is_pointed_out(self):
        """Bitbucket names no step: without a name all steps would share one stream of times."""
        nameless = check_ci(CiRun(vendor="generic", run="7"))
        assert nameless.state == "warning"
        assert "FEDSTEP_CI_JOB" in nameless.fix
        assert check_ci(CiRun(vendor="generic", run="7", job="test")).state == "ok"
