"""Write the JSON schemas of docs/reference/json from the outputs of real commands: `python -m tests.make_json_schemas`.

A key is required if every output has it. New keys may come; a key that is there stays, with its type.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.prefork import run_forked

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "json"
PASSED = (
    '<testsuite><testcase classname="a.T" name="x" time="1"/><testcase classname="a.T" name="y" time="2"/></testsuite>'
)
FAILED = PASSED.replace(
    'name="x" time="1"/>', 'name="x" time="1"><failure message="assert 200 == 401">t</failure></testcase>'
)
FLAKED = PASSED.replace(
    'name="x" time="1"/>', 'name="x" time="1"><flakyFailure message="no">t</flakyFailure></testcase>'
)
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "predict": ("predict",),
    "triage": ("triage", "--junit", "failed.xml"),
    "verdict": ("verdict", "--junit", "failed.xml"),
    "train": ("train", "--junit", "failed.xml"),
    "status": ("status",),
    "doctor": ("doctor",),
    "explain": ("explain", "a.T#x"),
    "inspect": ("inspect",),
    "reports": ("reports", "failed.xml"),
    "quarantine-list": ("quarantine", "list"),
    "quarantine-suggest": ("quarantine", "suggest"),
    "order": ("order",),
    "select": ("select", "--share", "0.5"),
    "plan": ("plan", "--total", "2"),
    "shard": ("shard", "--total", "2"),
    "shard-tests": ("shard", "--index", "1", "--total", "1"),
    "history-show": ("history", "show"),
    "badge": ("badge", "flaky"),
}

MAPS = ("heads", "metadata", "headers", "rows")  # objects whose keys are names and no part of the format


def outputs() -> Mapping[str, Sequence[object]]:
    """Return the outputs of each command in a project without history, and in one with some builds."""
    found: dict[str, list[object]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="fedstep-schemas-") as folder:
        place = Path(folder)
        for name, text in (("passed", PASSED), ("failed", FAILED), ("flaked", FLAKED)):
            (place / f"{name}.xml").write_text(text)
        subprocess.run(["git", "init", "-q"], cwd=place, check=True)
        _collect(place, found)
        for number in range(8):
            report = place / f"{('passed', 'flaked', 'passed', 'failed')[number % 4]}.xml"
            copy = place / "build.xml"
            copy.write_text(report.read_text().replace('time="2"', f'time="2.{number}"'))
            _run(place, "train", "--junit", "build.xml")
        _run(place, "quarantine", "add", "a.T#y", "--owner", "ada", "--reason", "#7")
        _collect(place, found)
    return found


def schema_of(values: Sequence[object], key: str = "") -> dict[str, object]:
    """Return the schema that all values fit; anything fits where all are null."""
    kinds = {_kind(value) for value in values}
    if kinds == {"null"}:
        return {}
    if key in MAPS:
        return {"type": sorted(kinds)}
    if "integer" in kinds and "number" in kinds:
        kinds.remove("integer")
    schema: dict[str, object] = {"type": kinds.pop() if len(kinds) == 1 else sorted(kinds)} if kinds else {}
    objects = [value for value in values if isinstance(value, dict)]
    if objects:
        keys = list(dict.fromkeys(key for value in objects for key in value))
        schema["properties"] = {key: schema_of([value[key] for value in objects if key in value], key) for key in keys}
        schema["required"] = [key for key in keys if all(key in value for value in objects)]
    items = [item for value in values if isinstance(value, list) for item in value]
    if items:
        schema["items"] = schema_of(items)
    return schema


def document(name: str, values: Sequence[object]) -> str:
    """Return one schema as the file has it."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"fedstep {' '.join(COMMANDS[name])} --format json",
    }
    return json.dumps({**head, **schema_of(values)}, indent=2) + "\n"


def _kind(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _collect(place: Path, found: dict[str, list[object]]) -> None:
    for name, command in COMMANDS.items():
        text = _run(place, *command, "--format", "json")
        if text.startswith("{"):
            found[name].append(json.loads(text))


def _run(place: Path, *arguments: str) -> str:
    return run_forked(arguments, place, os.environ, 120.0).out


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, values in outputs().items():
        (FOLDER / f"{name}.json").write_text(document(name, values))


if __name__ == "__main__":
    main()
