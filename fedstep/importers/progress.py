"""How far an import is: a bar where someone watches, a line now and then where nobody does."""

from collections.abc import Callable
from typing import TextIO

__all__ = ["Bar"]

WIDTH = 24
BETWEEN_BARS, BETWEEN_LINES = 0.1, 30.0  # seconds


class Bar:
    """Writes builds done of all there are, and test results a second since the start."""

    def __init__(self, stream: TextIO, total: int, clock: Callable[[], float]) -> None:
        self.stream, self.total, self.clock = stream, total, clock
        self.watched = stream.isatty()
        self.began = self.shown = clock()

    def __call__(self, done: int, results: int) -> None:
        """Say that so many builds are done, if it was not said a moment ago."""
        now = self.clock()
        if now - self.shown >= (BETWEEN_BARS if self.watched else BETWEEN_LINES):
            self.shown = now
            text = self.text(done, results, now - self.began)
            self._write(f"\r{text}\x1b[K" if self.watched else f"fedstep: {text}\n")

    def text(self, done: int, results: int, seconds: float) -> str:
        """The bar for so many builds in so many seconds.

        >>> import io
        >>> Bar(io.StringIO(), 40, lambda: 0.0).text(10, 5000, 2.0)
        '10 of 40 builds, 5,000 test results, 2,500/s'
        """
        counts = f"{done:,} of {self.total:,} builds, {results:,} test results, {results / max(seconds, 0.001):,.0f}/s"
        if not self.watched:
            return counts
        filled = WIDTH * done // max(1, self.total)
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {counts}"

    def close(self) -> None:
        """Take the bar away."""
        if self.watched:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # whoever watched has left; the import goes on
            self.watched, self.shown = False, float("inf")
