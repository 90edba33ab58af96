"""How offered updates are judged and kept. Each call is inside a transaction, and what it says holds once that ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, bindparam, select

from fedstep.federation.wire import Score, Update
from fedstep.server.bodies import keep
from fedstep.server.inserting import insert_rows
from fedstep.server.ledger import Ledger
from fedstep.server.spending import Purse, took_part
from fedstep.server.tables import receipts

__all__ = ["Accepted", "Intake", "Offer", "Refused"]

# made once: that takes longer than to run it
KNOWN = select(receipts).where(receipts.c.id.in_(bindparam("ids", expanding=True)))
DECLINED = {
    "budget-spent": (
        "the project has spent its privacy budget",
        "It predicts and contributes no longer.",
        (422, "budget-spent"),
    ),
    "already-contributed": (
        "the project has contributed in this period",
        "It contributes again in the next one.",
        (422, "already-contributed"),
    ),
}


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that fits: its bytes and what the store must know of it. `update`: what they say, for the next fold."""

    id: str
    project: str
    owner: str
    base: int
    body: bytes
    scores: Mapping[str, Score] = field(default_factory=dict)
    update: Update | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receipt of a stored update; `repeat` when it was stored before."""

    receipt: str
    version: int
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An update learned from a head that is too old, or not known, or of a project that may not contribute now."""

    reason: str
    remedy: str
    problem: tuple[int, str] = (422, "stale")  # its status and name


class Intake:
    """What is offered to one schema, over one connection."""

    def __init__(self, connection: Connection, schema: str, purse: Purse) -> None:
        self._connection, self._schema, self._purse = connection, schema, purse

    def take(self, offers: Sequence[Offer], head: int, staleness: int, now: float) -> tuple[Accepted | Refused, ...]:
        """An answer for each offer; `head` is the newest version. A repeat gets the old receipt.

        Raises IntegrityError where another replica keeps one of them at the same moment.
        """
        outcomes = self._receipts([offer.id for offer in offers])
        new: dict[str, Offer] = {}
        for offer in offers:
            if offer.id not in outcomes:
                outcomes[offer.id] = _judged(offer, head, staleness)
                new[offer.id] = offer
        fit = [offer for key, offer in new.items() if isinstance(outcomes[key], Accepted)]
        charged = ((offer.id, offer.project, offer.owner) for offer in fit)
        declined = took_part(self._connection, charged, self._purse, now)
        outcomes |= {key: Refused(*DECLINED[name]) for key, name in declined.items()}
        self._keep([offer for key, offer in new.items() if isinstance(outcomes[key], Accepted)], head, now)
        first = {id(offer) for offer in new.values()}
        return tuple(_as_seen(outcomes[offer.id], id(offer) not in first) for offer in offers)

    def _receipts(self, ids: Sequence[str]) -> dict[str, Accepted | Refused]:
        found = self._connection.execute(KNOWN, {"ids": ids})
        return {row.id: Accepted(row.receipt, row.version, repeat=True) for row in found}

    def _keep(self, offers: Sequence[Offer], head: int, now: float) -> None:
        if not offers:
            return
        # in the order of ids: two replicas that store the same ones wait for each other, not both for both
        named = [{"id": key, "receipt": _receipt(key), "version": head} for key in sorted(offer.id for offer in offers)]
        insert_rows(self._connection, receipts, named)
        keep(self._connection, [self._row(offer, now) for offer in offers], {offer.id: offer.body for offer in offers})
        cast = ((offer.id, offer.project, offer.owner, offer.scores) for offer in offers)
        Ledger(self._connection, self._schema).vote(cast)

    def _row(self, offer: Offer, now: float) -> Mapping[str, object]:
        return {
            "id": offer.id,
            "schema": self._schema,
            "project": offer.project,
            "owner": offer.owner,
            "base": offer.base,
            "received": now,
        }


def _judged(offer: Offer, head: int, staleness: int) -> Accepted | Refused:
    if offer.base > head:
        return Refused(f"it was learned from version {offer.base}, the newest here is {head}", "Run fedstep pull.")
    if head - offer.base > staleness:
        return Refused(f"it was learned from version {offer.base}, {head - offer.base} folds ago", "Run fedstep pull.")
    return Accepted(_receipt(offer.id), head)


def _receipt(number: str) -> str:
    return f"stored-{number}"


def _as_seen(outcome: Accepted | Refused, repeat: bool) -> Accepted | Refused:
    """The same offer twice in one batch: the second is a repeat, too."""
    return replace(outcome, repeat=True) if repeat and isinstance(outcome, Accepted) else outcome
