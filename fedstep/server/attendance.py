"""How many are active, from one fold to the next: to count them reads every update of a week. Pure; no clock."""

from collections.abc import Callable
from dataclasses import dataclass

from fedstep.server.gate import Active

__all__ = ["Attendance"]

SOON = 10_000  # updates that are read in 30 ms: fewer are counted every time
PART = 4  # of the updates that were counted, one part has to be new
MANY = 100  # projects, and owners: what the gate asks of them is whether there are one, or five
LONGEST = 600.0  # seconds; other processes accept, too
NOBODY = Active(0, 0)


@dataclass(slots=True)
class Attendance:
    """Who was counted last. Where there are many of both a quarter more is no matter; few are counted every time."""

    _active: Active = NOBODY
    _updates: int = 0  # that it was counted from
    _came: int = 0  # since
    _at: float = float("-inf")

    def came(self, updates: int) -> None:
        """So many more were accepted."""
        self._came += updates

    def forget(self) -> None:
        """Somebody may be gone: the next one counts."""
        self._at = float("-inf")

    def active(self, now: float, count: Callable[[], tuple[Active, int]]) -> Active:
        """Who is active, counted now where that may say something else; `count` says of how many updates, too."""
        old = not 0.0 <= now - self._at < LONGEST
        few = self._updates < SOON or min(self._active.projects, self._active.owners) < MANY
        if old or few or self._came * PART > self._updates:
            self._active, self._updates = count()
            self._came, self._at = 0, now
        return self._active
