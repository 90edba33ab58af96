"""`fedstep.__all__` is the public API: complete, documented, typed, and loaded only when it is used."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedstep

ROOT = Path(__file__).parents[2]

CONSUMER = """
import fedstep
from fedstep import FailureVerdict, Interval, Project, TestRun, Unavailable


def describe(project: Project) -> str:
    prediction = project.predict()
    if isinstance(prediction.duration, Unavailable):
        return prediction.duration.reason
    return f"{prediction.duration.low:.0f} to {prediction.duration.high:.0f} s, {len(prediction.flaky)} flaky"


def train(project: Project, token: str) -> fedstep.TrainReport:
    aggregator = fedstep.Aggregator("https://fedstep.example.org", token=token)
    return project.train(["report.xml"], aggregator=aggregator, outcome=fedstep.BuildOutcome.PASSED)


def verdicts(project: Project) -> tuple[FailureVerdict, ...]:
    try:
        return project.triage(["report.xml"]).failures
    except fedstep.FedstepError as error:
        print(error.remedy, error.exit_code)
        return ()


runs: tuple[TestRun, ...] = fedstep.read_junit("report.xml")
interval: Interval | Unavailable = fedstep.Project.discover(".").predict().duration
"""


def run_python(code: str, *options: str) -> str:
    command = (sys.executable, *options, "-c", code)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class TestNames:
    def test_names_are_sorted_and_unique(self) -> None:
        assert fedstep.__all__ == sorted(set(fedstep.__all__))

    @pytest.mark.parametrize("name", fedstep.__all__)
    def test_every_name_resolves_and_is_documented(self, name: str) -> None:
        """Each name is what its module defines, with a docstring of its own."""
        value = getattr(fedstep, name)
        assert value.__name__ == name
        text = inspect.getdoc(value) or ""
        assert text
        assert not text.startswith(f"{name}("), "the docstring that a NamedTuple makes of its fields"
        assert value.__module__.startswith("fedstep.")

    def test_nothing_else_is_public(self) -> None:
        """Besides modules, `dir()` lists exactly the public names."""
        listed = {name for name in dir(fedstep) if not name.startswith("_") and name != "TYPE_CHECKING"}
        modules = {name for name in listed if inspect.ismodule(getattr(fedstep, name))}
        assert listed - modules == set(fedstep.__all__)

    def test_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="has no attribute 'Projekt'"):
            fedstep.Projekt  # noqa: B018

    @pytest.mark.parametrize("owner", [fedstep.Project, fedstep.Aggregator])
    def test_every_public_method_is_documented(self, owner: type) -> None:
        members = {name: value for name, value in vars(owner).items() if not name.startswith("_") and callable(value)}
        assert [name for name, value in members.items() if not inspect.getdoc(value)] == []


class TestLoading:
    def test_import_loads_no_other_module(self) -> None:
        """Neither a module of the package nor numpy, requests or click."""
        loaded = run_python("import sys, fedstep; print(*sys.modules)").split()
        assert [name for name in loaded if name.startswith("fedstep.")] == []
        assert not {"numpy", "requests", "click"} & set(loaded)

    def test_prediction_loads_no_heavy_library(self, tmp_path: Path) -> None:
        code = f"import sys, fedstep; fedstep.Project.discover({str(tmp_path)!r}).predict(); print(*sys.modules)"
        assert not {"numpy", "sklearn", "requests", "click", "starlette"} & set(run_python(code).split())


class TestTyping:
    @pytest.mark.slow
    def test_consumer_passes_mypy_strict(self, tmp_path: Path) -> None:
        """A program that uses the API type-checks without a stub or an ignore."""
        (tmp_path / "consumer.py").write_text(CONSUMER)
        command = (sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", "consumer.py")
        checked = subprocess.run(
            (*command, "--follow-imports=silent", "--cache-dir=/dev/null"),
            cwd=tmp_path,
            env={"MYPYPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert checked.stdout.startswith("Success"), checked.stdout

    def test_package_has_the_marker_file(self) -> None:
        """`py.typed` tells type checkers that the package has types (PEP 561); wheels contain the whole folder."""
        assert (ROOT / "fedstep/py.typed").is_file()
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert settings["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["fedstep"]}
