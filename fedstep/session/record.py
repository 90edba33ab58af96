"""The outcomes of a session of pytest as JUnit XML that names every attempt: both outcomes of a test make a flake."""

import os
import re
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import quoteattr

from fedstep.session.attempts import Attempt, Attempted, identity

__all__ = ["record_of", "write_record"]

_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n<testsuite name="fedstep">\n'
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def record_of(tests: Iterable[Attempted], folder: str = "", prefix: str = "") -> str:
    """The document. `folder` is pytest's root as seen from the repository's; `prefix` that of `--junit-prefix`.

    A failure that passed later is a `flakyFailure`; one that never passed is a `failure`, and a `rerunFailure` for each
    further attempt. The time is that of the last attempt.
    """
    lines = "".join(_case(test, folder, prefix) for test in tests if test.attempts)
    return f"{_HEAD}{lines}</testsuite>\n</testsuites>\n"


def write_record(path: str, text: str) -> None:
    """Write the document, whole or not at all. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    scratch = f"{path}.{os.getpid()}.tmp"
    try:
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.remove(scratch)


def _case(test: Attempted, folder: str, prefix: str) -> str:
    group, name = identity(test.node_id, prefix)
    place = {"file": os.path.normpath(os.path.join(folder, test.file)).replace(os.sep, "/"), "line": str(test.line)}
    told = {"classname": group, "name": name, "time": f"{test.attempts[-1].seconds:.3f}"}
    told |= place if test.line else {}
    attributes = " ".join(f"{key}={_quoted(value)}" for key, value in told.items())
    inside = "".join(_outcomes(test.attempts))
    return f"<testcase {attributes}>{inside}</testcase>\n" if inside else f"<testcase {attributes}/>\n"


def _outcomes(attempts: list[Attempt]) -> Iterator[str]:
    """The elements inside a test case; none for a test that passed at once."""
    failures = [attempt for attempt in attempts if attempt.outcome == "failed"]
    if not failures:
        if all(attempt.outcome == "skipped" for attempt in attempts):
            yield "<skipped/>"
        return
    if any(attempt.outcome == "passed" for attempt in attempts):
        first, others = "flakyFailure", "flakyFailure"
    else:
        first, others = "failure", "rerunFailure"
    for number, failure in enumerate(failures):
        yield f"<{others if number else first} message={_quoted(failure.message)}/>"


def _quoted(text: str) -> str:
    """An attribute's value; what XML cannot hold stands as an escape."""
    return quoteattr(_NO_XML.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text))
