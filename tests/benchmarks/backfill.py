"""How fast `fedstep backfill` learns from XML, and in how much memory.

python -m tests.benchmarks.backfill [TESTS BUILDS]...

Without arguments: 5,000 tests in 100 builds for the speed, in 200 builds (a million results) for the memory.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.project import HOUR, START, write_report

SLOWEST, LARGEST = 10_000, 300  # results a second and core; MB
# The child tells its own figures: getrusage of children has the maximum of the process that forked.
MEASURED = """
import sys, time
from fedstep.__main__ import main
try:
    main()
finally:
    peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
    print(time.process_time(), peak, file=sys.stderr)
"""


def record_builds(folder: Path, tests: int, builds: int) -> None:
    """So many builds as a recorded history has them, three tests failing in every seventh."""
    for number in range(builds):
        build = folder / f"{number:05d}"
        build.mkdir(parents=True)
        told = {
            "build": f"bench-{number}",
            "job": "test",
            "started_at": START + number * HOUR,
            "seconds": 300 + number % 17,
            "branch": "main",
            "event": "push",
            "commit": f"{number:040x}",
            "changes": [{"path": "src/org/acme/a/Thing.java", "added": 3, "deleted": 1}],
        }
        (build / "build.json").write_text(json.dumps(told), encoding="utf-8")
        write_report(build / "report.xml", tests, failing=0 if number % 7 else 3)


def measure(tests: int, builds: int) -> dict[str, object]:
    """One import by one process, as a user would run it."""
    with tempfile.TemporaryDirectory() as folder:
        record_builds(Path(folder, "recorded"), tests, builds)
        command = [sys.executable, "-c", MEASURED, "backfill", "recorded", "--jobs", "1"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds, peak = ran.stderr.splitlines()[-1].split()
    speed, memory = tests * builds / float(seconds), int(peak) / 1024
    return {
        "name": f"backfill, {tests} tests, {builds} builds",
        "results_per_second_and_core": round(speed),
        "peak_mb": round(memory),
        "said": ran.stdout.strip(),
        "met": speed >= SLOWEST and memory <= LARGEST,
    }


def main() -> None:
    """Print a line of JSON for each size; leave with 1 when a target is missed."""
    numbers = list(map(int, sys.argv[1:])) or [5_000, 100, 5_000, 200]
    figures = [measure(tests, builds) for tests, builds in zip(numbers[::2], numbers[1::2], strict=True)]
    print("\n".join(map(json.dumps, figures)))
    sys.exit(not all(figure["met"] for figure in figures))


if __name__ == "__main__":
    main()
