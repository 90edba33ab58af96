"""What a study prints names no variable of the code, and no figure that is not there."""

import doctest
import re
from math import nan

import pytest

from fedstep.evaluation import study_report
from fedstep.evaluation.scores import ORDER_FIGURES, RUNS_KNOWN
from fedstep.evaluation.study import Study, StudyPlan
from fedstep.evaluation.study_report import COLUMNS, HEADINGS, LABELS, label, study_text

KNOWN = [f"{what}_runs_{known}{end}" for what in ("said", "seen") for known in RUNS_KNOWN for end in ("", "_named")]


class TestText:
    def test_the_examples_hold(self) -> None:
        assert doctest.testmod(study_report).failed == 0

    @pytest.mark.parametrize("name", [*LABELS, *ORDER_FIGURES, *KNOWN, "list_precision_at_10"])
    def test_a_figure_is_called_by_words(self, name: str) -> None:
        assert not re.search(r"_|mae|mdape|\bsaid\b", label(name))

    def test_headings_are_words_as_well(self) -> None:
        headings = {HEADINGS.get(name, name) for names in COLUMNS.values() for name in names}
        assert not [heading for heading in headings if "_" in heading]

    def test_what_is_not_known_is_a_dash(self) -> None:
        """A number that is none was printed as `nan`."""
        study = Study(
            StudyPlan("triage"), {"shop": {"auc": nan}}, {"auc": nan}, {}, {"flip-rate": {"auc": nan}}, {}, 0, (), {}
        )
        assert "nan" not in study_text(study)
