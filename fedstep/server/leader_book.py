"""What the leader plans and settles: a round is on disk before the helper hears of it, and its version with its end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import Connection, delete, func, insert, select, update

from fedstep.errors import WireError
from fedstep.federation.shares import HEAVIEST, LEVELS
from fedstep.server.choosing import Waiting, weight
from fedstep.server.chronicle import Chronicle
from fedstep.server.database import alone
from fedstep.server.forgetting import forget
from fedstep.server.gate_sums import Release
from fedstep.server.ledger import Ledger
from fedstep.server.records import Current, Made, Version
from fedstep.server.rounds import Answer, Pads, Part, Proposal, pack_proposal, unpack_proposal
from fedstep.server.share_book import ShareBook, now_waiting
from fedstep.server.share_tables import halves, releases, rounds, told_of
from fedstep.server.shared_sums import HeadSum, Standing, lifted, summed
from fedstep.server.store import FOLDING
from fedstep.server.verdict_log import log_verdicts

__all__ = ["LeaderBook", "Settled"]

NONE: Mapping[str, int] = MappingProxyType({})
Choose = Callable[[tuple[Waiting, ...], Current], tuple[Part, ...]]
Step = Callable[[Standing, Mapping[str, HeadSum]], Made]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a round led to: a version, where anything was released; and why sums of it were thrown away."""

    version: Version | None = None
    updates: int = 0
    spoiled: tuple[str, ...] = ()


class LeaderBook(ShareBook):
    """The masked updates, and the rounds that they are summed in."""

    def newest(self) -> int:
        """The number of the newest version."""
        with self._reader.begin() as connection:
            return Chronicle(connection, self._schema).number()

    def forget(self, project: str, owner: str) -> int:
        """As other books do, and what the store has of times before shares."""
        plain = forget(self._engine, project, owner)
        return plain.updates + super().forget(project, owner)

    def planned(self, choose: Choose, staleness: int, least: int = 0) -> bytes:
        """The proposal that is not settled, else a new one; b"" where there is nothing to propose.

        A new one is of updates with at most this staleness, and has a number above `least`: what the helper says that
        it has heard already. It takes the place of one of another schema: no helper answers that any more. One process
        at a time.
        """
        with self._reader.begin() as connection:
            waits = connection.scalar(select(rounds.c.proposal).where(~rounds.c.settled))
            if waits and unpack_proposal(waits).schema == self._schema:
                return bytes(waits)
            current = Chronicle(connection, self._schema).current()
            parts = choose(self._waiting(connection, current.head.version - staleness), current)
        if not parts:
            return b""
        with self._engine.begin() as connection:
            number = max(least, connection.scalar(select(func.max(rounds.c.number))) or 0) + 1
            body = pack_proposal(Proposal(number, self._schema, parts))
            connection.execute(delete(rounds))  # the newest number is all that is needed of them
            connection.execute(insert(rounds), {"number": number, "proposal": body, "settled": False})
        return body

    def give_up(self, number: int) -> None:
        """Ends a round that the helper will never answer; what it proposed waits for another."""
        with self._engine.begin() as connection:
            connection.execute(update(rounds).where(rounds.c.number == number).values(settled=True))

    def settle(
        self,
        proposal: Proposal,
        answer: Answer,
        step: Step,
        fewest: int,
        now: float,
        deviations: Mapping[str, int] = NONE,
    ) -> Settled:
        """Adds up what the helper released and writes the version that `step` makes of it, all in one transaction.

        `deviations` are by head those of each update's noise, in steps of the grid.
        """
        with self._engine.begin() as connection:
            alone(connection, FOLDING)
            mine = rounds.c.number == proposal.number
            if not connection.execute(update(rounds).where(mine, ~rounds.c.settled).values(settled=True)).rowcount:
                return Settled()
            chronicle = Chronicle(connection, self._schema)
            current = chronicle.current()
            trials = {part.head: part.trial for part in proposal.parts}
            sums, spoiled = {}, []
            for pads in answer.parts:
                try:
                    noise = deviations.get(pads.head, 0)
                    sums[pads.head] = self._sum(connection, pads, trials[pads.head], current, fewest, noise)
                except WireError as error:
                    spoiled.append(f"{pads.head}: {error}")
                self._mark(connection, pads, proposal.number)
            self._miss(connection, proposal, answer)
            if not sums:
                return Settled(spoiled=tuple(spoiled))
            self._note(connection, proposal.number, sums, trials)
            made = step(self._standing(connection, current, chronicle.unused(), now), sums)
            folded = len({number for pads in answer.parts for number in pads.ids})
            chronicle.add(made.version, parent=current.head.version, folded=folded)
            self._end(connection, made)
        log_verdicts(made.decisions)
        return Settled(made.version, folded, tuple(spoiled))

    def _sum(
        self, connection: Connection, pads: Pads, trial: int, current: Current, fewest: int, deviation: int
    ) -> HeadSum:
        """Raises WireError where fewer projects than `fewest` were released, or the sum is none of honest updates."""
        which = now_waiting(self._schema) & halves.c.id.in_(pads.ids) & (halves.c.head == pads.head)
        rows = connection.execute(
            select(halves.c.owner, halves.c.project, halves.c.base, halves.c.body).where(which)
        ).all()
        if len(rows) < len(pads.ids) or len({row.project for row in rows}) < max(fewest, len(rows)):
            raise WireError("the helper released the updates of too few projects", "Nothing of it is used.")
        size = len(current.head.vectors[pads.head])
        steps = lifted(summed((row.body for row in rows), len(pads.total)), pads.total, len(rows), size, deviation)
        scored = trial >= 0 and pads.head in current.trials and current.trials[pads.head].version == trial
        release = Release(len(rows), float(steps[size]) / LEVELS) if scored else Release(0, 0.0)
        weights = (weight(row.base, current.head.version) for row in rows)
        senders = [(row.owner, row.project) for row in rows]
        return HeadSum(steps[:size], min(weights) / HEAVIEST / LEVELS, release, senders)

    def _mark(self, connection: Connection, pads: Pads, number: int) -> None:
        which = halves.c.id.in_(pads.ids) & (halves.c.head == pads.head)
        connection.execute(update(halves).where(which).values(round=number, body=None))

    def _miss(self, connection: Connection, proposal: Proposal, answer: Answer) -> None:
        released = {pads.head: set(pads.ids) for pads in answer.parts}
        for part in proposal.parts:
            left = part.pairs.keys() - released.get(part.head, set())
            which = halves.c.id.in_(left) & (halves.c.head == part.head)
            connection.execute(update(halves).where(which).values(missed=halves.c.missed + 1))

    def _note(
        self, connection: Connection, number: int, sums: Mapping[str, HeadSum], trials: Mapping[str, int]
    ) -> None:
        for head, found in sums.items():
            if found.release.votes:
                row = {"round": number, "head": head, "schema": self._schema, "trial": trials[head]}
                told = {"votes": found.release.votes, "total": found.release.total}
                connection.execute(insert(releases), row | told)

    def _standing(self, connection: Connection, current: Current, number: int, now: float) -> Standing:
        ledger = Ledger(connection, self._schema)
        trials = current.trials.items()
        told = {name: told_of(connection, self._schema, name, trial.version) for name, trial in trials}
        return Standing(current, number, told, ledger.spent(), ledger.refolded(), now)

    def _end(self, connection: Connection, made: Made) -> None:
        ledger = Ledger(connection, self._schema)
        ledger.begin(made.trials)
        ledger.end(made.decisions, made.version)
        for decision in made.decisions:
            which = (releases.c.head == decision.trial.head) & (releases.c.trial == decision.trial.version)
            connection.execute(delete(releases).where(which))
