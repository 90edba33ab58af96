"""The store, with its work timed and counted."""

import time
from collections.abc import Sequence

from fedstep.federation.wire import Shape
from fedstep.server.buffer import Pending
from fedstep.server.metrics import Metrics
from fedstep.server.store import Accepted, Offer, Refused, Step, Store, Version

__all__ = ["ObservedStore"]


class ObservedStore(Store):
    """A store that tells the metrics what it does."""

    def __init__(self, url: str, shape: Shape, metrics: Metrics) -> None:
        super().__init__(url, shape)
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

    def fold(self, step: Step, now: float) -> Version:
        """As the store does."""
        began, made = time.perf_counter(), None
        try:
            made = super().fold(step, now)
            return made
        finally:
            self._metrics.folded(time.perf_counter() - began, made is not None)
