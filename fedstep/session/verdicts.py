"""Which failures of a session are judged flaky: `fedstep triage` is asked, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fedstep.session.attempts import Attempted, identity
from fedstep.session.record import record_of

__all__ = ["Verdicts", "judged_flaky"]

PATIENCE = 20.0  # seconds; a judgement of 5,000 tests takes less than one
# The judgement is ours alone: nothing of it goes to the CI, and no setting of the project bends its output.
_OUTPUTS = (
    *("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "FEDSTEP_DOTENV", "FEDSTEP_SUMMARY", "FEDSTEP_RERUN_LIST"),
    *("FEDSTEP_CODE_QUALITY", "FEDSTEP_FINDINGS", "FEDSTEP_COMMENT"),
)


class Verdicts(NamedTuple):
    """The probability that a failure is flaky, by node id, for those judged flaky; or why nothing was judged."""

    flaky: Mapping[str, float]
    problem: str = ""


def judged_flaky(tests: Iterable[Attempted], folder: str, place: str, prefix: str = "") -> Verdicts:
    """The failures that are judged flaky, by the same model and history as `fedstep triage` in this `folder`.

    `place` is pytest's root as seen from the repository's. Muted failures and those of an incident are not among them.
    """
    seen = {test.node_id: "#".join(identity(test.node_id, prefix)) for test in tests if test.failed}
    try:
        with tempfile.TemporaryDirectory(prefix="fedstep-") as scratch:
            report = os.path.join(scratch, "session.xml")
            with open(report, "w", encoding="utf-8") as file:
                file.write(record_of(tests, place, prefix))
            told = _triage(report, folder)
        if told["incident"]:
            return Verdicts({}, f"an incident, nothing is run again: {told['incident_reason']}")
        flaky = {item["test"]: item["flaky_probability"] for item in told["failures"] if item["verdict"] == "flaky"}
        return Verdicts({node_id: flaky[test] for node_id, test in seen.items() if test in flaky})
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        return Verdicts({}, f"nothing was judged: {type(error).__name__}: {error}")


def _triage(report: str, folder: str) -> dict[str, Any]:
    """What `fedstep triage` says. `-P`: a module of the project is not taken for one of ours."""
    asked = ("--junit", report, "--format", "json", "--rerun-list", "")  # whatever .fedstep.toml would add
    command = (sys.executable, "-P", "-m", "fedstep", "triage", *asked)
    environment = {key: value for key, value in os.environ.items() if key not in _OUTPUTS}
    ran = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE
    )
    if not ran.stdout.strip():
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(lines[-1][:200] if lines else f"exit code {ran.returncode}")
    told: dict[str, Any] = json.loads(ran.stdout)
    return told
