"""Where a run takes place."""

from pathlib import Path

import pytest

from fedstep.ingest.ci import read_ci
from fedstep.pipeline.context import in_ci, with_tekton
from tests.helpers.ci import BAMBOO, CODEBUILD


class TestMachines:
    @pytest.mark.parametrize("environment", [BAMBOO, CODEBUILD, {"CI": "true"}])
    def test_jobs_without_the_usual_variable_are_no_own_machine(self, environment: dict[str, str]) -> None:
        """Bamboo and CodeBuild do not set CI."""
        assert in_ci(read_ci(environment))
        assert not in_ci(read_ci({}))

    def test_tekton_is_known_by_its_folder(self, tmp_path: Path) -> None:
        """Each step has it, and no variable; the pod is another for each run of a task."""
        environment = {"HOSTNAME": "unit-tests-run-x7-pod"}
        ci = read_ci(with_tekton(environment, str(tmp_path)))
        assert (ci.vendor, ci.run) == ("tekton", "unit-tests-run-x7-pod")
        assert in_ci(ci)
        assert not in_ci(read_ci(with_tekton(environment, str(tmp_path / "none"))))
