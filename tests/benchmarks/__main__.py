"""`make bench`: every figure with its target and its yardstick of the same run, written as JSON.

python -m tests.benchmarks docs/reference/benchmarks.json
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks import aggregation, scale, throughput
from tests.benchmarks.actions import actions_figure
from tests.benchmarks.client import (
    hook_figure,
    import_figure,
    install_figure,
    junit_figures,
    predict_figure,
    shortening_figures,
    train_figure,
    update_figure,
)
from tests.benchmarks.readers import reader_figures
from tests.benchmarks.shares import share_figures
from tests.benchmarks.start import start_figure
from tests.benchmarks.timing import Figure

FIGURES: Sequence[Callable[[], Figure | list[Figure]]] = (
    lambda: predict_figure(5_000, 100, 1.2),
    lambda: predict_figure(50_000, 20, 6.0),
    lambda: hook_figure(5_000, 100, 1.5),
    lambda: shortening_figures(5_000, 100, 1.5),
    lambda: shortening_figures(50_000, 20, 6.0),
    lambda: import_figure(30.0),
    lambda: train_figure(5_000, 1.8),
    lambda: update_figure(5_000, 16_384),
    lambda: install_figure(15.0),
    lambda: junit_figures(100, 1.6, 150.0),
    throughput.figures,
    reader_figures,
    aggregation.figures,
    share_figures,
    start_figure,
    lambda: actions_figure(2.0),
)


def main() -> None:
    figures: list[Figure] = []
    for measure in FIGURES:
        found = measure()
        for figure in found if isinstance(found, list) else [found]:
            figures.append(figure)
            verdict = "ok  " if figure["met"] else "MISS"
            print(
                f"{verdict} {figure['name']}: {figure['value']} {figure['unit']}, target {figure['target']}", flush=True
            )
    Path(sys.argv[1]).write_text(
        json.dumps({"command": "make bench", "figures": figures}, indent=1) + "\n", encoding="utf-8"
    )
    if Path(sys.argv[1]).resolve() == scale.FIGURES:
        scale.rewrite()


if __name__ == "__main__":
    main()
