"""The documentation says what the program does: every option is documented, every documented option exists."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import ClassVar

import click
import pytest
import yaml

from fedstep.cli.main import TERMINATED, iter_commands
from fedstep.report.ci_outputs import KEYS
from tests import make_cli_reference

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## fedstep ([\w -]+)\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S))
COMMANDS = {" ".join(path): command for path, command in iter_commands()}
NAMES = sorted(COMMANDS)
PAGES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
SEPARATOR = re.compile(r" [|]{1,2} | && |; (?:do )?| [|&{(] ")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.M | re.S)


def options(name: str) -> dict[str, click.Option]:
    """The options of a command by their long name."""
    return {p.opts[0]: p for p in COMMANDS[name].params if isinstance(p, click.Option)}


def rows(section: str) -> dict[str, tuple[str, ...]]:
    """The cells of a table by the option in the first one."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `--")]
    return {re.findall(r"--[\w-]+", cells[0])[0]: tuple(cell.strip() for cell in cells) for cells in lines}


def parsed(line: str) -> None:
    """Whether the parser takes the line `fedstep ...`; raises click's UsageError if not."""
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((i for i, word in enumerate(words) if word in ("|", "&&", ";", "&", ">")), len(words))]
    if words[0] in ("--help", "--version"):
        return
    depth = next((n for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS), 1)
    name = " ".join(words[:depth])
    given = [word for word in words[depth:] if word not in ("--help", "-h")]
    COMMANDS[name].make_context(name, ["." if word.endswith("/") else word for word in given])


def shell_lines(markdown: str) -> list[str]:
    """Return every command of the code blocks that runs fedstep: of pipes and lists of commands each part alone."""
    blocks = [block.replace("\\\n", " ") for _, _, block in FENCE.findall(markdown)]
    lines = (re.sub(r"^[\s-]*(run: |\$ )?", "", line) for block in blocks for line in block.splitlines())
    parts = (re.sub(r"^(\w+=\S+ )+", "", part.strip()) for line in lines for part in SEPARATOR.split(line))
    return [part for part in parts if re.match(r"fedstep [a-z-]", part)]


class TestCommandReference:
    def test_the_reference_is_generated_from_the_program(self):
        """Usage and options in docs/reference/cli.md are those of `--help`."""
        assert make_cli_reference.render_page(REFERENCE) == REFERENCE, "run python -m tests.make_cli_reference"

    def test_every_command_has_one_section(self):
        """Every command has its section, and every section its command."""
        assert sorted(SECTIONS) == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_every_option_of_a_command_is_in_its_table_and_no_other(self, name):
        documented, there = set(rows(SECTIONS[name])), set(options(name))
        missing, invented = sorted(there - documented), sorted(documented - there)
        assert not missing, f"docs/reference/cli.md, fedstep {name}: add {', '.join(missing)}"
        assert not invented, (
            f"docs/reference/cli.md, fedstep {name}: remove {', '.join(invented)}, which --help does not know"
        )

    @pytest.mark.parametrize("name", NAMES)
    def test_tables_have_the_variables_and_defaults_of_the_program(self, name):
        """The tables have the variables and defaults of the program."""
        wrong = []
        for option, (_, variable, default, _) in rows(SECTIONS[name]).items():
            found = options(name)[option]
            empty = found.multiple or found.default in ("", None) or not isinstance(found.default, str | int | float)
            expected = "off" if found.is_flag else "none" if empty else f"`{found.default}`"
            if (variable, default) != (f"`{found.envvar}`", expected):
                wrong.append(f"{option} says {variable}, {default}; it is `{found.envvar}`, {expected}")
        assert not wrong, f"docs/reference/cli.md, fedstep {name}: {'; '.join(wrong)}"


class TestTexts:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_example_of_the_help_is_the_one_of_the_reference(self, name):
        example = re.search(r"Example: (fedstep .+)", COMMANDS[name].help or "")
        assert example, "the help has no example"
        assert example[1] in SECTIONS[name]

    @pytest.mark.parametrize(("path", "text"), [("README.md", README), ("docs/reference/cli.md", REFERENCE)])
    def test_every_option_and_variable_named_in_a_text_exists(self, path, text):
        known = {option for name in NAMES for option in options(name)} | {"--help", "--version"}
        known |= {word for name in NAMES for each in COMMANDS[name].params for word in each.opts}
        lines = [line for line in text.splitlines() if "fedstep" in line and "pip " not in line]
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(lines)))
        named |= set(re.findall(r"`(--[a-z][\w-]*)", text))
        unknown = sorted(named - known)
        assert not unknown, f"{path} names options that no command has: {unknown}"

    @pytest.mark.parametrize("path", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
    def test_every_module_and_name_for_contributors_exists(self, path: str) -> None:
        """A module that these pages name is there, and has the function or class in brackets behind it."""
        text = (ROOT / path).read_text(encoding="utf-8")
        for file, names in re.findall(r"`([\w/]+/\w+\.py)`(?: \((`[^)]*`)\))?", text):
            module = next((root / file for root in (ROOT, ROOT / "fedstep") if (root / file).exists()), None)
            assert module, f"{path} names {file}"
            defined = module.read_text(encoding="utf-8")
            for name in re.findall(r"`([\w.]+)`", names):
                assert re.search(rf"\b{name.rpartition('.')[2]}\b", defined), f"{path} names {name} in {file}"

    @pytest.mark.parametrize("path", PAGES)
    def test_every_shell_line_that_runs_fedstep_parses(self, path):
        """The parser of the program accepts each line `fedstep ...` in a code block of a page."""
        wrong = []
        for line in shell_lines((ROOT / path).read_text(encoding="utf-8")):
            try:
                parsed(line)
            except (click.UsageError, KeyError, IndexError) as error:
                wrong.append(f"{line!r}: {getattr(error, 'message', error)}")
        assert not wrong, f"{path}: {wrong}"


class TestOutputsAndExamples:
    def test_the_readme_names_every_command(self):
        missing = [name for name in NAMES if f"fedstep {name}" not in README + REFERENCE]
        assert not missing, f"neither README.md nor docs/reference/cli.md names {missing}"

    def test_the_outputs_of_the_reference_are_those_of_the_program(self):
        table = REFERENCE.partition("## Outputs")[2].partition("\n## ")[0]
        assert re.findall(r"^\| `([\w-]+)` \|", table, re.M) == list(KEYS)

    def test_the_exit_codes_of_the_reference_are_those_of_the_errors(self):
        from fedstep import errors

        table = REFERENCE.partition("## Exit codes")[2].partition("\n## ")[0]
        documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)}
        kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
        used = {kind.exit_code for kind in kinds if issubclass(kind, errors.FedstepError)} - {1}
        assert documented == used | {0, 130, TERMINATED}


class TestLinks:
    @pytest.mark.parametrize(
        ("page", "example"),
        [
            ("how-to/github.md", "github.yml"),
            ("how-to/github.md", "github-team.yml"),
            ("how-to/github.md", "github-forks.yml"),
            ("how-to/github.md", "github-service.yml"),
            ("how-to/github.md", "github-services.yml"),
            ("how-to/jenkins.md", "Jenkinsfile"),
            ("how-to/faster.md", "github-shards.yml"),
            ("how-to/faster.md", "gitlab-shards.yml"),
        ],
    )
    def test_examples_of_the_pages_are_the_files_that_tests_run(self, page: str, example: str) -> None:
        """The examples of the pages are the files that the tests run."""
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert (ROOT / "tests/pipelines/examples" / example).read_text(encoding="utf-8").strip() in text

    def test_every_link_of_the_docs_leads_somewhere(self) -> None:
        for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
            for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"

    @pytest.mark.parametrize("path", PAGES)
    def test_a_page_that_installs_says_from_where_before_the_release(self, path: str) -> None:
        """What a page installs comes from the repository, or the page names the one that says how."""
        text = (ROOT / path).read_text(encoding="utf-8")
        blocks = "\n".join(block for _, _, block in FENCE.findall(text))
        installs = re.findall(
            r"pip install .*fedstep.*|uses: fedstep/.*@v1|component: .*fedstep/.*@v1|@Library", blocks
        )
        elsewhere = [line for line in installs if "git+https://github.com/fedstep/fedstep" not in line]
        assert not elsewhere or "install.md" in text or path.startswith("docs/decisions"), elsewhere


class TestInstallPage:
    """docs/how-to/install.md: what stands for each surface before the first release."""

    PAGE = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    BLOCKS: ClassVar = [yaml.safe_load(block) for _, kind, block in FENCE.findall(PAGE) if kind == "yaml"]

    def test_the_actions_are_in_the_repository_with_these_inputs(self) -> None:
        steps = [step for step in self.BLOCKS[0] if "uses" in step]
        assert len(steps) == 2
        for step in steps:
            folder = step["uses"].removeprefix("fedstep/fedstep/").removesuffix("@main")
            action = yaml.safe_load((ROOT / folder / "action.yml").read_text(encoding="utf-8"))
            assert set(step["with"]) <= set(action["inputs"])

    def test_the_component_is_in_the_repository_with_these_inputs(self) -> None:
        (included,) = self.BLOCKS[1]["include"]
        (template,) = set(re.findall(r"blob/main/(actions/gitlab/templates/\w+\.yml)", self.PAGE))
        about = next(yaml.safe_load_all((ROOT / template).read_text(encoding="utf-8")))
        assert set(included["inputs"]) <= set(about["spec"]["inputs"])

    def test_the_table_has_every_extra_of_a_user(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = set(project["optional-dependencies"]) - {"dev", "docs"}
        assert set(re.findall(r"^\|.*\| `fedstep\[(\w+)\]` \|", self.PAGE, re.M)) == extras
