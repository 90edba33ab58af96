"""Where failing tests stand in the source, for annotations beside their lines."""

from collections.abc import Sequence

from fedstep.build.git import list_files
from fedstep.build.record import Absent, Outcome, TestRun
from fedstep.build.source import SourceIndex, test_place, walk_files
from fedstep.report.findings import FailureVerdict

__all__ = ["placed"]


def placed(failures: Sequence[FailureVerdict], root: str) -> tuple[FailureVerdict, ...]:
    """The failures, each with a file of this repository and a line: as its report says, else as its name tells.

    A path that is none of the repository's own, or is not found, becomes "".
    """
    if not failures:
        return ()
    tracked = list_files(root)
    index = SourceIndex(walk_files(root) if isinstance(tracked, Absent) else tracked)
    return tuple(_placed(failure, root, index) for failure in failures)


def _placed(failure: FailureVerdict, root: str, index: SourceIndex) -> FailureVerdict:
    run = TestRun(failure.test, Outcome.FAILED, file=failure.file, line=failure.line)
    file, line = test_place(run, root, index)
    return failure._replace(file=file, line=line)
