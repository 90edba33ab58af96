"""The shared weights of one head while histories are replayed: from nobody, from a federation, from one pool."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np

from fedstep.build.record import Absent
from fedstep.features.schema import schema
from fedstep.federation.batch import make_update
from fedstep.federation.wire import Model, check_update, pack_update, shape, unpack_update
from fedstep.model.labels import Ripe
from fedstep.model.sgd import learn_shared
from fedstep.model.state import Backlog
from fedstep.server.aggregation.fedbuff import Contribution, aggregate, default_rules

__all__ = ["MODES", "Alone", "Federation", "Pool", "Reading", "Shared", "keyed_by"]


class Shared(Protocol):
    """What a project predicts with besides its own weights, and what it gives its rows to."""

    @property
    def weights(self) -> Sequence[float]:
        """The shared weights as they are now."""

    def offer(self, project: str, backlog: Backlog) -> Backlog:
        """Take the waiting rows of a project, if they are enough; the backlog without them."""


class Alone:
    """Nobody shares anything: the shared weights stay what they are, zero if not given."""

    def __init__(self, head: str, start: Sequence[float] | None = None) -> None:
        self.weights: Sequence[float] = start or schema().heads[head].start()

    def offer(self, project: str, backlog: Backlog) -> Backlog:  # noqa: ARG002
        return backlog._replace(waiting={})


class Federation:
    """Updates in the wire format, aggregated as they come: recorded builds lie minutes apart, a fold waits for one."""

    def __init__(self, head: str, start: Sequence[float] | None = None) -> None:
        self._head, self._version = head, 0
        self._rules, self._shape = default_rules(schema())[head], shape(schema())
        self.weights: Sequence[float] = start or schema().heads[head].start()
        self.sizes: list[int] = []  # bytes of each update

    def offer(self, project: str, backlog: Backlog) -> Backlog:
        model = Model(schema().digest, self._version, self._version, "", self._heads(), self._heads())
        update, left = make_update(backlog, model, keyed_by(project))
        if not isinstance(update, Absent):
            self.receive(pack_update(update))
        return left

    def receive(self, body: bytes) -> None:
        """Fold one update into the head, as the aggregator does."""
        update = unpack_update(body)
        check_update(update, self._shape)
        delta = np.array(update.deltas[self._head], np.float32)
        contribution = Contribution(update.id, update.project, self._version - update.base, delta)
        folded = aggregate(np.array(self.weights, np.float32), [contribution], self._rules)
        self.weights, self._version = array("f", folded.tobytes()), self._version + 1
        self.sizes.append(len(body))

    def _heads(self) -> Mapping[str, "array[float]"]:
        return {self._head: array("f", self.weights)}


class Reading:
    """What somebody else shares, as seen by a project that gives nothing."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    @property
    def weights(self) -> Sequence[float]:
        return self._shared.weights

    def offer(self, project: str, backlog: Backlog) -> Backlog:  # noqa: ARG002
        return backlog._replace(waiting={})


class Pool:
    """One learner that sees all rows as they are: the bound that no federation can be expected to pass."""

    def __init__(self, head: str) -> None:
        self._head = head
        self.weights: Sequence[float] = schema().heads[head].start()

    def offer(self, project: str, backlog: Backlog) -> Backlog:  # noqa: ARG002
        rows: Sequence[Ripe] = backlog.waiting.get(self._head, ())
        if rows:
            self.weights = learn_shared(self._head, self.weights, rows)
        return backlog._replace(waiting={})


MODES = {"federated": Federation, "local": Alone, "pooled": Pool}


def keyed_by(project: str) -> Callable[..., str]:
    """A stand-in for a project's own key."""

    def keyed(*parts: str) -> str:
        return blake2b("\0".join((project, *parts)).encode(), digest_size=16).hexdigest()

    return keyed
