"""The published JSON schemas fit what the commands print."""

import json
from pathlib import Path

import click
import jsonschema
import pytest

from fedstep.cli.main import iter_commands
from tests.make_json_schemas import COMMANDS, FOLDER, outputs

PAGES = FOLDER


@pytest.fixture(scope="module")
def printed():
    return outputs()


def prints_json(command: click.Command) -> bool:
    """Return whether a command has an option for JSON."""
    return any(
        option.name == "as_json" or (option.name == "output_format" and "json" in getattr(option.type, "choices", ()))
        for option in command.params
    )


class TestSchemas:
    def test_every_command_with_json_has_one(self) -> None:
        printing = {name for name, command in iter_commands() if prints_json(command)}
        assert printing - {given[: len(name)] for given in COMMANDS.values() for name in printing} == set()

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_output_fits_its_schema(self, printed, name: str) -> None:
        """Without history and with some builds; the outputs are not those that the schema was written from."""
        schema = json.loads((Path(PAGES) / f"{name}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        assert printed[name]
        for value in printed[name]:
            jsonschema.validate(value, schema)

    def test_a_key_that_went_is_found(self, printed) -> None:
        """Programs depend on the keys."""
        schema = json.loads((Path(PAGES) / "triage.json").read_text())
        broken = {key: value for key, value in printed["triage"][0].items() if key != "failures"}
        with pytest.raises(jsonschema.ValidationError, match="failures"):
            jsonschema.validate(broken, schema)
