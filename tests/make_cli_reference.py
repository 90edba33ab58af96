"""Write usage and options of every command into docs/reference/cli.md; keep the notes between them.

Run `python -m tests.make_cli_reference` after changing a command, an option or a help text.
"""

import re
from pathlib import Path

import click

from fedstep.cli.main import iter_commands

PAGE = Path(__file__).parents[1] / "docs/reference/cli.md"
BEGIN, END = "<!-- generated from --help -->", "<!-- end -->"
MORE = {  # pages that say more about an option
    "--attack": "../explanation/attacks.md",
    "--helper": "../explanation/secure-aggregation.md",
    "--privacy-epsilon": "../explanation/privacy.md#differential-privacy",
    "--role": "../explanation/secure-aggregation.md",
}


def render_page(page: str) -> str:
    """Return the page with the generated parts written anew, commands in the order of `fedstep --help`."""
    preamble = page.partition("## fedstep ")[0].rstrip()
    sections = [render_section(" ".join(path), command, notes_of(page)) for path, command in iter_commands()]
    return "\n\n".join([preamble, *sections]) + "\n"


def notes_of(page: str) -> dict[str, str]:
    """Return the hand-written text of each section by its command."""
    pattern = rf"^## fedstep ([\w -]+)\n\n{BEGIN}\n.*?\n{END}\n(.*?)(?=^{BEGIN}|^## |\Z)"
    return {name: notes.strip() for name, notes in re.findall(pattern, page, re.MULTILINE | re.DOTALL)}


def render_section(name: str, command: click.Command, notes: dict[str, str]) -> str:
    """Return heading, usage, notes and options of one command."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    parts = [f"## fedstep {name}", _generated(render_usage(command)), notes.get(name, "")]
    if options:
        parts.append(_generated(render_options(options)))
    return "\n\n".join(part for part in parts if part)


def render_usage(command: click.Command) -> str:
    """Return the help text of a command and its examples."""
    text, _, examples = (command.help or "").partition("\b\n")
    lines = [line.strip().removeprefix("Example: ") for line in examples.splitlines() if line.strip()]
    return "\n".join([" ".join(text.split()), "", "```console", *(f"$ {line}" for line in lines), "```"])


def render_options(options: list[click.Option]) -> str:
    """Return the table of a command's options."""
    rows = [
        f"| {_spelling(option)} | `{option.envvar}` | {_default(option)} | {_meaning(option)} |" for option in options
    ]
    return "\n".join(["| option | variable | default | meaning |", "|---|---|---|---|", *rows])


def _generated(text: str) -> str:
    return f"{BEGIN}\n\n{text}\n\n{END}"


def _spelling(option: click.Option) -> str:
    name = option.opts[0]
    if option.is_flag:
        return f"`{name}`"
    if isinstance(option.type, click.Choice):
        choices = "\\|".join(str(choice) for choice in option.type.choices if choice)
        return f"`{name}` `{choices}`"
    return f"`{name} {option.metavar or 'NUMBER'}`"


def _default(option: click.Option) -> str:
    if option.is_flag:
        return "off"
    empty = option.multiple or option.default in ("", None) or not isinstance(option.default, str | int | float)
    return "none" if empty else f"`{option.default}`"


def _meaning(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    text = re.sub(r"([*|<_])", r"\\\1", text).rstrip(".") + "."
    if option.multiple and "repeated" not in text:
        text += " Can be repeated."
    if more := MORE.get(option.opts[0]):
        text += f" [More]({more})"
    return text


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
