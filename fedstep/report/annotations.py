"""GitHub workflow commands that put failures and flaky tests beside their lines in the diff."""

from collections.abc import Iterable, Sequence

from fedstep.model.linear import Reason
from fedstep.report.escape import visible
from fedstep.report.findings import FailureVerdict, TestRisk
from fedstep.report.reasons import causes
from fedstep.report.units import percent
from fedstep.report.wording import by_urgency, past

__all__ = ["MOST_ANNOTATIONS", "TITLES", "because", "failure_annotations", "flaky_annotations", "is_path"]

MOST_ANNOTATIONS = 10  # GitHub drops what one step writes beyond ten of a level
MOST_PATH = 4_000
TITLES = {"flaky": "Likely flaky", "regression": "Likely a regression", "unsure": "Flaky or a regression"}


def failure_annotations(failures: Sequence[FailureVerdict]) -> str:
    """One `::warning` line a failure, the least likely flaky first, ten lines at most."""
    return _limited("warning", [_failure(failure) for failure in by_urgency(failures)])


def flaky_annotations(risks: Sequence[TestRisk]) -> str:
    """One `::notice` line a test likely to flake, ten lines at most."""
    return _limited("notice", [_risk(risk) for risk in risks])


def _failure(failure: FailureVerdict) -> str:
    title = f"{TITLES.get(failure.verdict, 'Failed')} ({percent(failure.flaky_probability)} flaky)"
    message = f"{visible(failure.test)}{because(failure.reasons)}"
    return _command("warning", failure.file, failure.line, title, message)


def _risk(risk: TestRisk) -> str:
    title = f"Likely to flake ({percent(risk.probability)})"
    return _command("notice", risk.file, risk.line, title, f"{visible(risk.test)}: {past(risk)}{because(risk.reasons)}")


def because(reasons: Iterable[Reason]) -> str:
    """The largest reasons in brackets, with a blank before them; "" where there are none."""
    parts = [" ".join(filter(None, (c.sign, c.phrase, visible(c.word, 40)))) for c in causes(reasons)]
    return f" ({'; '.join(parts)})" if parts else ""


def _limited(level: str, commands: Sequence[str]) -> str:
    if len(commands) > MOST_ANNOTATIONS:
        shown = commands[: MOST_ANNOTATIONS - 1]
        more = f"and {len(commands) - len(shown):,} more: see the step summary"
        commands = [*shown, _command(level, "", 0, "fedstep", more)]
    return "".join(f"{command}\n" for command in commands)


def _command(level: str, file: str, line: int, title: str, message: str) -> str:
    properties = {"file": file if is_path(file) else "", "line": str(line) if line > 0 else "", "title": title}
    if not properties["file"]:
        del properties["line"]
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{level} {written}::{_message(message)}"


def is_path(file: str) -> bool:
    """A path inside the workspace. One that had to be escaped would point nowhere."""
    inside = not file.startswith(("/", "\\")) and file[1:2] != ":" and ".." not in file.replace("\\", "/").split("/")
    return inside and file == visible(file, MOST_PATH)


def _message(text: str) -> str:
    """The escapes of the runner's own `@actions/core`, in which "%" comes first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
