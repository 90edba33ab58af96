"""What differential privacy costs: the table of docs/explanation/privacy.md, made again.

python -m tests.benchmarks.privacy FOLDER

The recorded projects are read from CORPORA/flaky (`../shared/corpora` where that is not set). Each cell is one training
for each of four groups of projects held out; about ten minutes of one core.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

from fedstep.federation.messages import PrivacyGuarantee
from fedstep.server.differential_privacy import calibrate_budget
from tests.studies.private import PrivatePlan, PrivateStudy, private_json, run_private

BEGIN, END = "<!-- made by `make evaluate-privacy`: begin -->", "<!-- made by `make evaluate-privacy`: end -->"
PAGE = Path(__file__).parents[2] / "docs/explanation/privacy.md"
PARTICIPANTS = (25, 50, 100, 200)
FIRST = (100, 50, 25, 200)  # what matters most is known first
EPSILONS = (0.0, inf, 8.0, 4.0, 2.0)
NAMES = {0.0: "without", inf: "bounds, no noise", 8.0: "epsilon 8", 4.0: "epsilon 4", 2.0: "epsilon 2"}
Cells = Mapping[tuple[int, float], PrivateStudy]


def table(cells: Cells) -> str:
    """Mean AUC by participants and epsilon, as Markdown."""
    rows = [
        f"| {count} | " + " | ".join(f"{cells[count, epsilon].auc:.3f}" for epsilon in EPSILONS) + " |"
        for count in PARTICIPANTS
    ]
    task = ["| projects | " + " | ".join(NAMES[epsilon] for epsilon in EPSILONS) + " |", "|---" * 6 + "|"]
    return "\n".join([*task, *rows])


def yardstick() -> str:
    """How many projects make the noise of one release that spends everything 1 % of the bound, as Markdown."""
    rows = []
    for epsilon in (8.0, 4.0, 2.0):
        noise = [calibrate_budget(PrivacyGuarantee(epsilon, 1e-6, releases, 7.0)).multiplier for releases in (1, 5, 52)]
        rows.append(f"| {epsilon:g} | " + " | ".join(f"{one:.2f}" for one in noise) + f" | {100 * noise[0]:.0f} |")
    task = "| epsilon | noise, 1 release | 5 releases | 52 releases | projects for 1 % |\n|---|---|---|---|---|"
    return "\n".join([task, *rows])


def main(arguments: Sequence[str]) -> None:
    """Fills the page, and writes every figure into the folder."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    corpora = Path(os.environ.get("CORPORA", "../shared/corpora")) / "flaky"
    plans = [PrivatePlan(epsilon, count) for count in FIRST for epsilon in EPSILONS]
    cells: dict[tuple[int, float], PrivateStudy] = {}
    began = time.monotonic()
    for study in run_private([corpora], plans):
        cells[study.plan.participants, study.plan.epsilon] = study
        said = f"{study.plan.participants} projects, {NAMES[study.plan.epsilon]}: auc {study.auc:.3f}"
        print(f"{said} ({time.monotonic() - began:.0f} s)", flush=True)
    (folder / "privacy.json").write_text(private_json(tuple(cells.values())))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{before}{BEGIN}\n{table(cells)}\n\n{yardstick()}\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
