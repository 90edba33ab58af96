"""Whole processes timed in turn with their yardstick: on a shared machine only ratios of one run mean anything."""

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figure = Mapping[str, object]


@dataclass(frozen=True)
class Pair:
    """Medians of a command and of its yardstick in milliseconds, and the median of their ratios, pair by pair."""

    milliseconds: float
    yardstick: float
    ratio: float


def paired(
    command: Sequence[str], yardstick: Sequence[str], cwd: str, environment: Mapping[str, str], runs: int = 11
) -> Pair:
    """Run both in turn, once to warm up and then `runs` times each. A command that fails ends the benchmark."""
    pairs = []
    for turn in range(runs + 1):
        pair = _milliseconds(command, cwd, environment), _milliseconds(yardstick, cwd, environment)
        if turn:
            pairs.append(pair)
    return Pair(
        round(statistics.median(first for first, _ in pairs), 1),
        round(statistics.median(second for _, second in pairs), 1),
        round(statistics.median(first / second for first, second in pairs), 3),
    )


def _milliseconds(command: Sequence[str], cwd: str, environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=dict(environment), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000
