"""Check docs/explanation/scale.md against benchmarks.json and the constants of the code."""

import pytest

from fedstep.schema.schema import schema
from tests.benchmarks.scale import FIGURES, MODEL_BYTES, PAGE, PLAIN_BYTES, figures_of, measured, page, table


def cells(name: str, figures: dict[str, float]) -> list[str]:
    rows = [line.strip("| ").split(" | ") for line in table(measured(figures)).splitlines()]
    return next(row[1:] for row in rows if row[0] == name)


class TestScalePage:
    def test_the_page_agrees_with_the_figures(self):
        text = PAGE.read_text(encoding="utf-8")
        assert page(text, figures_of(FIGURES)) == text, "run: python -m tests.benchmarks.scale"

    def test_million_projects_send_between_an_eighth_and_all(self):
        """A million projects of twenty builds send between an eighth of them and all."""
        assert cells("updates per day", {}) == ["2.5 million", "20 million"]
        assert cells("updates per second, mean", {}) == ["29", "231"]

    def test_cores_and_bandwidth_follow_figures_or_say_unmeasured(self):
        """Cores and bandwidth follow the figures, and what is not measured is stated to be so."""
        figures = {
            "16 kB updates durable on SQLite, 32 connections, rate": 500.0,
            "update of a build of 5000 tests": 1000.0,
        }
        assert cells("cores that take updates at the peak", figures) == ["0.23", "1.9"]
        assert cells("in at the peak", figures) == ["0.93 Mbit/s", "7.4 Mbit/s"]
        assert cells("cores that answer pulls at the peak", figures) == ["not measured", "not measured"]

    def test_the_sizes_are_those_of_the_schema(self):
        coordinates = sum(task.size() for task in schema().tasks.values())
        assert pytest.approx(3 * 4 * coordinates) == MODEL_BYTES
        assert 4 * coordinates < PLAIN_BYTES < 4 * coordinates + 1000
