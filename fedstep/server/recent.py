"""What the updates say that came last: a fold need not read again what was read when they came."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from fedstep.federation.wire import Update
from fedstep.server.intake import Accepted, Offer, Refused

__all__ = ["Recent"]


class Recent:
    """At most so many updates by id; who came first is let go first."""

    def __init__(self, most: int) -> None:
        self._most, self._updates = most, OrderedDict[str, Update]()
        self.updates: Mapping[str, Update] = MappingProxyType(self._updates)

    def came(self, offers: Sequence[Offer], outcomes: Sequence[Accepted | Refused]) -> None:
        """Those of the offers that were accepted, and not before."""
        for offer, outcome in zip(offers, outcomes, strict=True):
            if offer.update and isinstance(outcome, Accepted) and not outcome.repeat:
                self._updates[offer.id] = offer.update
        while len(self._updates) > self._most:
            self._updates.popitem(last=False)

    def went(self, ids: Iterable[str]) -> None:
        """These are needed no longer."""
        for number in ids:
            self._updates.pop(number, None)

    def clear(self) -> None:
        """None is."""
        self._updates.clear()
