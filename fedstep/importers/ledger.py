"""What imports have learned, by name: `--keep` takes records out of the log, and a build counts once all the same."""

import os
from collections.abc import Iterable

from fedstep.errors import HistoryError
from fedstep.history.files import IMPORTED
from fedstep.history.home import Home

__all__ = ["Ledger"]


class Ledger:
    """Keyed hashes of builds, and of what they were read from; one a line in a file that only grows."""

    def __init__(self, home: Home) -> None:
        self.path = home.path(IMPORTED)
        lines = home.read(IMPORTED).decode("ascii", "replace").split("\n")
        self.names = {line for line in lines if len(line) == 32}
        self.whole = not lines[-1]  # else the last line was cut off by a full disk or a kill

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def add(self, names: Iterable[str]) -> None:
        """Remember these. HistoryError where the file cannot be written."""
        fresh = [name for name in names if name not in self.names]
        if not fresh:
            return
        self.names.update(fresh)
        text = ("" if self.whole else "\n") + "".join(f"{name}\n" for name in fresh)
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
        except OSError as error:
            remedy = "Free space or point --history at a folder that can be written"
            raise HistoryError(f"cannot write {os.path.basename(self.path)}: {error.strerror}", remedy) from error
        self.whole = True
