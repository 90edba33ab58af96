"""Facts about the replay that shows what the shared model gains on a project's own builds."""

from pathlib import Path

import pytest

from fedstep.diagnostics.sharing_value import value_of_live_sharing, value_of_sharing
from fedstep.federation.model_cache import load_starter_model
from fedstep.model.linear import zeros
from fedstep.model.state import LocalModel
from fedstep.report.project_page import value_text
from fedstep.schema.schema import TASK_NAMES, schema
from fedstep.types import Unavailable
from tests.helpers.project_history import write_history


class TestValue:
    def test_no_weights_gain_nothing(self, tmp_path: Path) -> None:
        """With a shared model of zeros both ways are the same."""
        blank = {task: zeros(len(schema().tasks[task].names())) for task in TASK_NAMES}
        found = value_of_sharing(write_history(tmp_path, 40), blank)
        assert not isinstance(found, Unavailable)
        assert [one.shared for one in found] == [one.alone for one in found]
        assert "build-duration (s)" in {one.task for one in found}

    def test_the_starter_model_makes_a_difference(self, tmp_path: Path) -> None:
        found = value_of_sharing(write_history(tmp_path, 40), load_starter_model().production)
        assert not isinstance(found, Unavailable)
        assert any(one.shared != one.alone for one in found)
        assert "alone" in value_text(found)

    def test_made_predictions_are_compared_with_the_replay(self, tmp_path: Path) -> None:
        """The forecast of the helper is 310 seconds for every build: it is what stands beside the replay."""
        store = write_history(tmp_path, 40)
        found = value_of_live_sharing(store, LocalModel())
        assert not isinstance(found, Unavailable)
        [duration] = found
        assert duration.shared < 30
        assert duration.examples >= 20

    @pytest.mark.parametrize("builds", [0, 3])
    def test_too_few_builds_say_nothing(self, tmp_path: Path, builds: int) -> None:
        found = value_of_sharing(write_history(tmp_path, builds), load_starter_model().production)
        assert isinstance(found, Unavailable)
        assert "not known" in value_text(found)
