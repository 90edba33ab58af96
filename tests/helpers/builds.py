"""Folders of recorded builds, as `fedstep backfill` reads them."""

import json
from pathlib import Path

CASE = '<testcase classname="org.acme.{0}Test" name="works" time="0.{0}">{1}</testcase>'
FLAKE = '<flakyFailure type="java.net.ConnectException" message="x">at x</flakyFailure>'


def write_build(folder: Path, number: int, cases: str = "", **changed: object) -> Path:
    """Write one build as a replay of recorded CI leaves it, and return its folder."""
    fields = {
        "build": f"acme-{number:05d}",
        "started_at": f"2026-01-{number:02d}T08:00:00Z",
        "seconds": 100.0 + number,
        "branch": "main",
        "event": "push",
        "attempt": 1,
        "commit": f"{number:040x}",
        "outcome": "passed",
        "changes": [{"path": "src/main/java/org/acme/A.java", "added": 3, "deleted": 1}],
    }
    build_folder = folder / f"{number:05d}"
    build_folder.mkdir(parents=True)
    (build_folder / "build.json").write_text(json.dumps({**fields, **changed}))
    (build_folder / "report.xml").write_text(f"<testsuites><testsuite name='x'>{cases}</testsuite></testsuites>")
    return build_folder
