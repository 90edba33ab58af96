"""The store, with its work timed and counted."""

import time
from collections.abc import Callable, Sequence

from fedstep.federation.wire import Shape
from fedstep.server.buffer import Pending
from fedstep.server.metrics import Metrics
from fedstep.server.spending import FREE, Purse
from fedstep.server.store import Accepted, Offer, Refused, Step, Store, Version

__all__ = ["ObservedStore"]


class ObservedStore(Store):
    """A store that tells the metrics what it does."""

    def __init__(self, url: str, shape: Shape, metrics: Metrics, purse: Purse = FREE) -> None:
        super().__init__(url, shape, purse)
        self._metrics = metrics

    def accept(self, offers: Sequence[Offer], head: int, staleness: int, now: float) -> tuple[Accepted | Refused, ...]:
        """As the store does."""
        began = time.perf_counter()
        outcomes = super().accept(offers, head, staleness, now)
        self._metrics.committed(time.perf_counter() - began)
        return outcomes

    def pending(self) -> Pending:
        """As the store does."""
        found = super().pending()
        self._metrics.waiting(found)
        return found

    def fold(self, step: Step, now: float, ripe: Callable[[Pending], bool] = lambda _: True) -> Version | None:
        """As the store does. What was left to another replica is not counted."""
        began, failed = time.perf_counter(), True
        try:
            made = super().fold(step, now, ripe)
            failed = False
            return made
        finally:
            if failed or made:
                self._metrics.folded(time.perf_counter() - began, not failed)
