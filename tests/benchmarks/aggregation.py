"""Updates of 2^16 coefficients that one aggregation sums in a CPU second, beside Flower's `aggregate()` and a loop.

python -m tests.benchmarks.aggregation
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.timing import Figure

UPDATES, TURNS = 100, 5
FLOWER = "flwr==1.41.0"
DRAWN = f"""
import time
import numpy as np
dice = np.random.default_rng(0)
deltas = [(dice.standard_normal(1 << 16) / 300).astype(np.float32) for _ in range({UPDATES})]

def best(fold):
    found = []
    for _ in range(9):
        began = time.process_time()
        fold()
        found.append(time.process_time() - began)
    print({UPDATES} / min(found[2:]))
"""
OURS = """
from fedstep.server.aggregation.fedbuff import TaskDelta, AggregationRules, aggregate
task = np.zeros(1 << 16, np.float32)
updates = [TaskDelta(f"{n:032x}", f"p{n}", n % 4, delta, f"o{n}") for n, delta in enumerate(deltas)]
best(lambda: aggregate(task, updates, AggregationRules(clip=1.0)))
"""
BARE = """
weights = [(1 + n % 4) ** -0.5 for n in range(len(deltas))]

def fold():
    whole = np.zeros(1 << 16)
    for weight, delta in zip(weights, deltas):
        whole += weight * delta
    return whole

best(fold)
"""
THEIRS = """
from flwr.server.strategy.aggregate import aggregate
best(lambda: aggregate([([delta], 50) for delta in deltas]))
"""


def figures() -> list[Figure]:
    """Ratios of updates per CPU second, each the median of runs in turn."""
    with tempfile.TemporaryDirectory() as folder:
        python = flower(Path(folder))
        turns = [(_rate(OURS), _rate(BARE), _rate(THEIRS, python) if python else 0.0) for _ in range(TURNS)]
    return [
        _figure("Flower's aggregate()" if python else "Flower, which could not be installed", 4.0, turns, 2),
        _figure("bare numpy loop of multiply and add, summed in doubles", 0.8, turns, 1),
    ]


def flower(folder: Path) -> str:
    """The Python of a new environment with Flower in it; "" where it cannot be had."""
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=120)
        python = str(folder / "bin" / "python")
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", FLOWER]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except (OSError, subprocess.SubprocessError):
        return ""
    return python


def _figure(yardstick: str, target: float, turns: Sequence[tuple[float, ...]], column: int) -> Figure:
    there = all(turn[column] for turn in turns)
    ratio = statistics.median(turn[0] / turn[column] for turn in turns) if there else 0.0
    return {
        "name": f"aggregate, 65536 coefficients, {UPDATES} updates, against {'numpy' if column == 1 else 'Flower'}",
        "value": round(ratio, 2),
        "unit": "times the yardstick",
        "target": target,
        "yardstick": yardstick,
        "met": ratio >= target,
        "updates_per_cpu_second": round(statistics.median(turn[0] for turn in turns)),
        "yardstick_per_cpu_second": round(statistics.median(turn[column] for turn in turns)),
    }


def _rate(fold: str, python: str = sys.executable) -> float:
    """Updates per CPU second on one thread, the best of a few aggregations: the machine is shared."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [python, "-c", DRAWN + fold]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=300).stdout)


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
