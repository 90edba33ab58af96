"""What the helper releases: the sum of the pads of a set of updates, each of them once and for ever."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from fedstep.errors import WireError
from fedstep.federation.halves import Seeded
from fedstep.federation.shares import head_seeds, pair_of
from fedstep.server.database import emptied_log
from fedstep.server.rounds import Answer, Pads, Part, Proposal, one_each, pack_answer, pack_proposal
from fedstep.server.share_book import HalfOffer, ShareBook, now_waiting
from fedstep.server.share_tables import halves, rounds
from fedstep.server.shared_sums import summed_pads

__all__ = ["HelperBook", "seed_offer"]


def seed_offer(half: Seeded, project: str, owner: str) -> HalfOffer:
    """What is kept of a half: not its seed, which would open heads that were released while others wait."""
    return HalfOffer(half.id, project, owner, pair_of(half.seed), half.trials, head_seeds(half))


class HelperBook(ShareBook):
    """The seeds of single heads, and the rounds that they were released in."""

    def answer(self, proposal: Proposal, fewest: int, sizes: Mapping[str, int]) -> bytes:
        """The bytes of the answer, on disk when this returns; the same ones whenever the same proposal comes again.

        Of each part as many updates as are here, of one project each, with the pair and the trial that the leader
        names; nothing of it where they are fewer than `fewest`. Raises WireError for another proposal under a number
        that is used, or one below it: what is released is final. Its seeds are then nowhere in the files.
        """
        body = pack_proposal(proposal)
        with self._engine.begin() as connection:
            known = connection.execute(select(rounds).where(rounds.c.number == proposal.number)).one_or_none()
            if known and known.proposal == body and known.answer:
                return bytes(known.answer)
            newest = connection.scalar(select(func.max(rounds.c.number))) or 0
            if proposal.number <= newest:
                raise WireError(f"round {proposal.number} is over", f"The next one is {newest + 1}.")
            parts = (self._released(connection, proposal.number, part, fewest, sizes) for part in proposal.parts)
            answer = pack_answer(Answer(proposal.number, tuple(pads for pads in parts if pads)))
            row = {"number": proposal.number, "proposal": body, "answer": answer, "settled": True}
            connection.execute(delete(rounds))  # the newest says what is over
            connection.execute(insert(rounds), row)
        emptied_log(self._engine)
        return answer

    def newest_round(self) -> int:
        """The number of the last round; 0 before the first."""
        with self._reader.begin() as connection:
            return connection.scalar(select(func.max(rounds.c.number))) or 0

    def _released(
        self, connection: Connection, number: int, part: Part, fewest: int, sizes: Mapping[str, int]
    ) -> Pads | None:
        seeds = self._seeds(connection, part)
        if len(seeds) < fewest:
            return None
        total = summed_pads(seeds.values(), sizes[part.head] + (part.trial >= 0))
        which = halves.c.id.in_(list(seeds)) & (halves.c.head == part.head)
        connection.execute(update(halves).where(which).values(round=number, body=None))
        return Pads(part.head, tuple(seeds), total)

    def _seeds(self, connection: Connection, part: Part) -> Mapping[str, bytes]:
        """The seeds of the proposed updates that may be released, by id; of each project the one proposed first."""
        which = halves.c.id.in_(list(part.pairs)) & (halves.c.head == part.head)
        found: dict[str, Row[Any]] = {
            row.id: row
            for row in connection.execute(select(halves).where(now_waiting(self._schema), which))
            if row.pair == part.pairs[row.id] and part.trial in (-1, row.trial)
        }
        projects = {key: row.project for key, row in found.items()}
        return {key: bytes(found[key].body) for key in one_each(filter(found.__contains__, part.pairs), projects)}
