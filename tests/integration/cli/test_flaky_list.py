"""The laws of the list of flaky tests through the program, which imports drawn histories and is asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.helpers.cli import Checkout, Ran

STEADY = tuple(f"steady{number}" for number in range(20))
FAILURE = '<failure type="AssertionError" message="AssertionError: no">trace</failure>'
FLAKED = (
    '<flakyFailure type="AssertionError" message="AssertionError: no">trace</flakyFailure>'  # passed when run again
)
BODIES = {"p": "", "f": FAILURE, "k": FLAKED}


def write_build(folder: Path, number: int, outcomes: dict[str, str], draw: Random) -> None:
    """One recorded build: tests that passed (p), failed (f), or failed and passed when run again (k)."""
    build = folder / f"{number:03d}"
    build.mkdir(parents=True)
    told = {
        "build": str(number),
        "job": "test",
        "branch": "main",
        "started_at": 1_700_000_000 + 3600 * number,
        "seconds": 60,
        "commit": f"{number + 1:040x}",
        "changes": [{"path": "docs/index.md", "added": 1, "deleted": 0}],
    }
    (build / "build.json").write_text(json.dumps(told))
    cases = "".join(
        f'<testcase classname="shop.CartTest" name="{name}" time="{draw.random():.3f}">{BODIES[letter]}</testcase>'
        for name, letter in (dict.fromkeys(STEADY, "p") | outcomes).items()
    )
    (build / "TEST-shop.CartTest.xml").write_text(f'<testsuite name="shop.CartTest">{cases}</testsuite>')


def flaky(place: Checkout, folder: Path) -> dict[str, dict[str, object]]:
    """The list of flaky tests by name, after all builds of the folder were imported."""
    assert place.run("backfill", str(folder), "--jobs", "1").code == 0
    told = json.loads(place.run("predict", "--format", "json").out)
    return {str(one["test"]).rpartition("#")[2]: one for one in told["flaky"]}


class TestLaws:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_more_evidence_never_says_less(self, fresh: Checkout, tmp_path: Path, seed: int) -> None:
        """A flip never lowers a probability, a pass never raises it; red and green tests are never on the list."""
        folder, draw, number, flips = tmp_path / "recorded", Random(seed), 0, 0
        for letter in [*draw.choices("ppppk", k=7), "k"]:
            write_build(folder, number, {"flake": letter, "red": "pf"[number > 2], "green": "p"}, draw)
            number, flips = number + 1, flips + (letter == "k")
        before = flaky(fresh, folder)
        for letter in draw.sample("kpkp", 4):
            write_build(folder, number, {"flake": letter, "red": "f", "green": "p"}, draw)
            number, flips = number + 1, flips + (letter == "k")
            after = flaky(fresh, folder)
            assert set(before) == set(after) == {"flake"}
            assert after["flake"]["flips"] == after["flake"]["failures"] == flips
            said, says = before["flake"]["probability"], after["flake"]["probability"]
            assert isinstance(said, float)
            assert isinstance(says, float)
            assert says >= said if letter == "k" else says <= said
            before = after

    def test_nothing_is_named_where_nothing_flipped(self, fresh: Checkout, tmp_path: Path) -> None:
        """Green builds and a test that breaks for good give no list, whatever the tests are called."""
        folder, draw = tmp_path / "recorded", Random(3)
        for number in range(6):
            write_build(folder, number, {"waitsForSocketTimeout": "p", "red": "pf"[number > 3]}, draw)
        assert flaky(fresh, folder) == {}

    def test_triage_and_list_agree_on_a_broken_test(self, fresh: Checkout, tmp_path: Path) -> None:
        """The failure of a known flake is called flaky, that of a test that stays red a regression."""
        folder, draw = tmp_path / "recorded", Random(4)
        for number, letter in enumerate("pkpkpkpp"):
            write_build(folder, number, {"flake": letter, "red": "pf"[number > 3]}, draw)
        assert set(flaky(fresh, folder)) == {"flake"}
        write_build(tmp_path / "now", 0, {"flake": "f", "red": "f"}, draw)
        assert verdicts(fresh.run("triage", "--junit", str(tmp_path / "now/000/*.xml"), "--format", "json")) == [
            ("flake", "flaky"),
            ("red", "regression"),
        ]


def verdicts(ran: Ran) -> Sequence[tuple[str, str]]:
    return sorted((one["test"].rpartition("#")[2], one["verdict"]) for one in json.loads(ran.out)["failures"])
