"""docs/reference/python.md: its examples run, and it names all that is public."""

import dataclasses
import doctest
import os
import re
from functools import partial
from pathlib import Path

import pytest

import fedstep
import fedstep.server
from tests.helpers.cli import Checkout, forty_tests, new_checkout

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODE = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`|^#+ .*$", TEXT, re.MULTILINE))))
BUILDS = 12


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a repository with the history that the page describes, and the report of a build that is not recorded."""
    made = new_checkout(tmp_path / "shop")
    for number in range(1, BUILDS + 1):
        made.commit("shop/cart.py", f"total = {number + 1}\n")
        made.report(forty_tests(number))
        at = 1_700_000_000.0 + 3600 * number
        fedstep.Project.discover(made.root, environment=made.env, clock=partial(float, at)).train(["report.xml"])
    made.commit("shop/cart.py", "total = 100\n")
    made.report(forty_tests(BUILDS + 3))  # test_7 fails in every third build
    return made


class TestPythonReference:
    def test_every_example_gives_the_output_shown(self, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
        """The examples run from top to bottom, in a repository and with the environment of a bare machine."""
        monkeypatch.chdir(checkout.root)
        for name in set(os.environ) - set(checkout.env):
            monkeypatch.delenv(name)
        for name, value in checkout.env.items():
            monkeypatch.setenv(name, value)
        text = re.sub(r"^```.*$", "", TEXT, flags=re.MULTILINE)  # a fence is not a part of the expected output
        examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
        written: list[str] = []

        result = doctest.DocTestRunner(verbose=False).run(examples, out=written.append)

        assert result.attempted > 15
        assert not result.failed, "".join(written)

    @pytest.mark.parametrize("name", [*fedstep.__all__, *fedstep.server.__all__])
    def test_every_public_name_is_on_the_page(self, name: str) -> None:
        """A name of `__all__` is in a heading or in code."""
        assert name in CODE, f"docs/reference/python.md: add {name}"

    @pytest.mark.parametrize("name", [*fedstep.__all__, "Settings"])
    def test_every_field_of_a_public_type_is_on_the_page(self, name: str) -> None:
        """The fields of named tuples and dataclasses are in a heading or in code."""
        public = getattr(fedstep if name in fedstep.__all__ else fedstep.server, name)
        fields = set(getattr(public, "_fields", ()))
        if dataclasses.is_dataclass(public):
            fields |= {field.name for field in dataclasses.fields(public) if not field.name.startswith("_")}
        assert not fields - CODE, f"docs/reference/python.md, {name}: add {', '.join(sorted(fields - CODE))}"
