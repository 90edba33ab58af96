"""JUnit reports of artifacts on GitHub: downloaded one after the other, read from the zip."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from fedstep.build.record import Absent, Dropped, Reports
from fedstep.importers.artifacts import LARGEST_ZIP, zip_reports
from fedstep.importers.asker import Asker
from fedstep.ingest.junit import ReportFile, read_reports

__all__ = ["no_reports", "read_artifacts"]


def read_artifacts(asker: Asker, artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """The reports of these artifacts together; files that are no reports are left out. Raises TooLarge."""
    files: list[ReportFile | Dropped] = []
    with ExitStack() as stack:
        for artifact in artifacts:
            name = f"artifact {artifact['name']}"
            found = asker.file(str(artifact["archive_download_url"]), LARGEST_ZIP)
            if isinstance(found, Absent):
                files.append(Dropped(name, found.reason))
            else:
                files += zip_reports(stack.enter_context(found), name)
        reports = read_reports(files)
    return reports._replace(dropped=tuple(one for one in reports.dropped if "its root element is" not in one.reason))


def no_reports(artifacts: Sequence[Mapping[str, Any]]) -> Reports:
    """No reports, and the word that they have expired where they have."""
    expired = [str(artifact["name"]) for artifact in artifacts if artifact.get("expired")]
    return Reports(dropped=tuple(Dropped(f"artifact {name}", "has expired", True) for name in expired))
