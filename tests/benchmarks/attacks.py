"""What attackers reach on recorded tests: the table of docs/explanation/attacks.md, made again.

python -m tests.benchmarks.attacks CORPORA FOLDER

CORPORA is the folder of recorded CI, FOLDER is where the figures go. About four minutes of one core.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.studies.attacks.finding import Finding
from tests.studies.attacks.study import attacks_table

PAGE = Path(__file__).parents[2] / "docs/explanation/attacks.md"
START, END = "<!-- table: start -->\n", "<!-- table: end -->\n"


def findings(corpora: Path, target: Path) -> Sequence[Finding]:
    """Return the findings of the command, which writes them to `target`."""
    command = [sys.executable, "-m", "tests.studies.attacks", "--figures", str(target), str(corpora)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [Finding(**one) for one in json.loads(target.read_text(encoding="utf-8"))]


def main() -> None:
    corpora, folder = map(Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    table = attacks_table(findings(corpora, folder / "attacks.json"))
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(START)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
