"""The books of a leader and a helper in one process, and small updates that are split between them."""

from array import array
from pathlib import Path
from random import Random

from fedstep.federation.messages import SchemaShape, TrialScore, Update, little_endian_bytes
from fedstep.federation.secagg.shares import split_update
from fedstep.federation.update_builder import clip_update
from fedstep.model.linear import zeros
from fedstep.server.aggregation.fedbuff import AggregationRules
from fedstep.server.aggregation.step import advance_by_sums
from fedstep.server.gate import Gate
from fedstep.server.mode import BufferPolicy
from fedstep.server.secagg.helper import HelperStore, offer_of_seed
from fedstep.server.secagg.leader import LeaderStore
from fedstep.server.secagg.rounds import choose_parts, unpack_proposal, unpack_reply
from fedstep.server.secagg.share_store import ShareOffer
from fedstep.server.storage.store import Store

SIZES = {"flaky": 4, "triage": 2}
OURS = SchemaShape("a" * 16, SIZES)
RULES = {"flaky": AggregationRules(clip=0.5), "triage": AggregationRules(clip=1.0)}
BOUNDS = {name: rules.clip for name, rules in RULES.items()}
AT_ONCE = BufferPolicy(updates=1, seconds=3600.0)
FEWEST = 3
STALENESS = 10


def seed_of(number: int) -> bytes:
    return Random(number).randbytes(32)


def drawn(number: int, tasks: tuple[str, ...] = ("flaky",), base: int = 0, trial: int = -1, score: float = 0.0):
    dice = Random(number)
    deltas = {
        task: clip_update(array("f", [dice.gauss(0, 1) for _ in range(SIZES[task])]), BOUNDS[task]) for task in tasks
    }
    scores = dict.fromkeys(tasks, TrialScore(trial, score)) if trial >= 0 else {}
    name = f"{number:032x}"
    return Update("a" * 16, base, name, name, dict.fromkeys(tasks, 8), deltas, scores)


def offers(update: Update, project: str = "") -> tuple[ShareOffer, ShareOffer]:
    """What leader and helper keep of an update."""
    masked, seeded = split_update(update, BOUNDS, seed_of(int(update.id, 16)))
    whose = project or update.project, "owner"
    vectors = {task: little_endian_bytes(vector) for task, vector in masked.vectors.items()}
    first = ShareOffer(update.id, *whose, masked.pair, masked.trials, vectors, update.base)
    return first, offer_of_seed(seeded, *whose)


class Pair:
    """A leader's and a helper's book, without what is between them."""

    def __init__(self, folder: Path, gate: Gate | None = None, schema: str = OURS.digest) -> None:
        self.urls, self.gate = [f"sqlite:///{folder / name}.db" for name in ("leader", "helper")], gate
        self.store = Store(self.urls[0], SchemaShape(schema, SIZES))
        self.store.start({name: zeros(size) for name, size in SIZES.items()}, 0.0)
        self.leader, self.helper = LeaderStore(self.urls[0], schema), HelperStore(self.urls[1], schema)

    def close(self) -> None:
        for book in (self.store, self.leader, self.helper):
            book.close()

    def keep(self, *updates: Update, project: str = "") -> None:
        halves = [offers(update, project) for update in updates]
        self.leader.keep([first for first, _ in halves], 1.0)
        self.helper.keep([second for _, second in halves], 1.0)

    def plan(self, fewest: int = FEWEST) -> bytes:
        def choose(waiting, current):
            trials = {name: trial.version for name, trial in current.trials.items()}
            return choose_parts(waiting, current.candidate.version, trials, 9.0, AT_ONCE, fewest)

        return self.leader.plan(choose, STALENESS)

    def settle(self, body: bytes, answer: bytes, fewest: int = FEWEST):
        proposal = unpack_proposal(body)

        def step(state, sums, evidence):
            return advance_by_sums(state, sums, evidence, RULES, self.gate)

        return self.leader.settle(proposal, unpack_reply(answer, proposal, SIZES), step, fewest, 9.0)

    def aggregate(self):
        body = self.plan()
        return self.settle(body, self.helper.answer(unpack_proposal(body), FEWEST, SIZES))
