"""A round of secure aggregation: which updates are summed, the messages of leader and helper, and the sums. Pure.

Messages are JSON; each is signed with the secret that the two share, the reply together with the proposal.
"""

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import UsageError, WireError
from fedstep.federation.secagg.shares import LEVELS, MAX_SUMMED, MAX_WEIGHT, derive_pad
from fedstep.server.aggregation.policy import BufferPolicy, BufferStatus, is_due
from fedstep.server.aggregation.vectors import norm, staleness_weight
from fedstep.server.identity import SHORTEST_TOKEN, is_loopback

Residues = NDArray[np.uint64]  # numbers modulo 2^64

ROUNDS = 1 << 31  # what a database's integers hold
LATEST_HEARD = ROUNDS // 2  # as many are left to a leader that believed it; at one a second either half lasts 34 years
REMEDY = "Both aggregators need the same version of fedstep."
TASK, ID = re.compile("[a-z][a-z0-9-]{0,31}"), re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RoundPart:
    """The updates proposed for the sum of one task: their ids, each with the pair that its halves have.

    `trial` is the snapshot that all of them scored; -1: they need not have one, and the sum of the scores stays away.
    """

    task: str
    trial: int
    pairs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One round: at most one part a task."""

    number: int
    schema: str
    parts: tuple[RoundPart, ...]


@dataclass(frozen=True, slots=True)
class MaskSum:
    """The updates that were released for a task, and the sum of their pads modulo 2^64."""

    task: str
    ids: tuple[str, ...]
    total: Residues


@dataclass(frozen=True, slots=True)
class RoundReply:
    """The helper's word on a round. A task that it has too few projects for is not in it."""

    number: int
    parts: tuple[MaskSum, ...]


def first_per_project(ids: Iterable[str], projects: Mapping[str, str]) -> tuple[str, ...]:
    """The first id of each project, in the order they come."""
    seen: set[str] = set()
    chosen = []
    for number in ids:
        project = projects[number]
        if project not in seen:
            seen.add(project)
            chosen.append(number)
    return tuple(chosen)


def pack_proposal(proposal: Proposal) -> bytes:
    """Its bytes; equal proposals give equal bytes."""
    parts = [{"task": p.task, "trial": p.trial, "pairs": dict(sorted(p.pairs.items()))} for p in proposal.parts]
    return json.dumps({"round": proposal.number, "schema": proposal.schema, "parts": parts}).encode()


def unpack_proposal(body: bytes) -> Proposal:
    """The proposal in these bytes. Raises WireError."""
    try:
        found = json.loads(body)
        parts = tuple(RoundPart(task_of(p), p["trial"], p["pairs"]) for p in found["parts"])
        proposal = Proposal(found["round"], found["schema"], parts)
        _check(proposal)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WireError("the proposal cannot be read", REMEDY) from error
    return proposal


def task_of(part: Mapping[str, object]) -> str:
    """Return the task of one part of a proposal or an answer; stored ones of earlier versions name it `head`."""
    return str(part["task"] if "task" in part else part["head"])


def pack_reply(answer: RoundReply) -> bytes:
    """Its bytes; equal answers give equal bytes."""
    parts = [
        {"task": p.task, "ids": list(p.ids), "total": b64encode(p.total.astype("<u8").tobytes()).decode()}
        for p in answer.parts
    ]
    return json.dumps({"round": answer.number, "parts": parts}).encode()


def unpack_reply(body: bytes, proposal: Proposal, sizes: Mapping[str, int]) -> RoundReply:
    """The answer to a proposal in these bytes; `sizes` counts the coordinates of each task. Raises WireError."""
    asked = {part.task: part for part in proposal.parts}
    try:
        found = json.loads(body)
        parts = tuple(_pads(entry, asked, sizes) for entry in found["parts"])
        if found["round"] != proposal.number or len({part.task for part in parts}) < len(parts):
            raise ValueError("another round, or a task twice")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WireError("the helper's answer is none to this proposal", REMEDY) from error
    return RoundReply(proposal.number, parts)


def sign(secret: str, proposal: bytes, answer: bytes = b"") -> str:
    """HMAC-SHA256 in hex: of a proposal, or of an answer to it."""
    message = b"answer" + sha256(proposal).digest() + answer if answer else b"proposal" + proposal
    return hmac.new(secret.encode(), message, sha256).hexdigest()


def _check(proposal: Proposal) -> None:
    """ValueError or TypeError for a proposal that none of ours would make."""
    tasks = [part.task for part in proposal.parts]
    ids = [number for part in proposal.parts for number in part.pairs]
    words = [*ids, *(pair for part in proposal.parts for pair in part.pairs.values())]
    if type(proposal.number) is not int or not 0 < proposal.number < ROUNDS or not isinstance(proposal.schema, str):
        raise ValueError("no number of a round, or no schema")
    if not tasks or len(set(tasks)) < len(tasks) or not all(map(TASK.fullmatch, tasks)):
        raise ValueError("no task, one twice, or one of no name")
    if not all(map(ID.fullmatch, words)) or any(not 0 < len(part.pairs) <= MAX_SUMMED for part in proposal.parts):
        raise ValueError("an id that is none, or too many")
    if any(type(part.trial) is not int or not -1 <= part.trial < 1 << 31 for part in proposal.parts):
        raise ValueError("a trial that is none")


def _pads(entry: Mapping[str, object], asked: Mapping[str, RoundPart], sizes: Mapping[str, int]) -> MaskSum:
    """One part of an answer. Raises ValueError, TypeError or LookupError for one that was not asked for."""
    part, ids, total = asked[task_of(entry)], entry["ids"], b64decode(str(entry["total"]), validate=True)
    if not isinstance(ids, list) or not ids or len(set(ids)) < len(ids) or not part.pairs.keys() >= set(ids):
        raise ValueError("other updates than were proposed")
    if len(total) != 8 * (sizes[part.task] + (part.trial >= 0)):
        raise ValueError("a sum of another length")
    return MaskSum(part.task, tuple(ids), np.frombuffer(total, "<u8").astype(np.uint64))


@dataclass(frozen=True, slots=True)
class PendingShare:
    """One task of an update whose half is here and was not released; `missed` counts rounds that lacked its twin."""

    id: str
    task: str
    project: str
    base: int
    trial: int
    pair: str
    received: float
    missed: int = 0


def choose_parts(
    waiting: Iterable[PendingShare],
    task: int,
    trials: Mapping[str, int],
    now: float,
    folding: BufferPolicy,
    fewest: int,
) -> tuple[RoundPart, ...]:
    """The parts of the next proposal: for each task that is due, one update of each project.

    A sum has one weight, or a number that only one project moved would tell by its divisors how stale, and so whose, it
    is. So updates of one class of staleness are summed, fresh ones first; staler classes join where they are too few.
    """
    by_task: dict[str, list[PendingShare]] = defaultdict(list)
    for one in sorted(waiting, key=lambda one: (one.missed, one.received, one.id)):
        by_task[one.task].append(one)
    found = (
        _part(name, ours, task, trials.get(name, -1), now, folding, fewest) for name, ours in sorted(by_task.items())
    )
    return tuple(part for part in found if part)


def weight(base: int, task: int) -> int:
    """Return the public weight of a delta learned from `base`: 64 / sqrt(1 + staleness), in classes.

    Each class has twice the staleness of the one before: 0, 1 to 2, 3 to 6, and so on.

    >>> [weight(9 - staleness, 9) for staleness in range(5)]
    [64, 45, 45, 32, 32]
    """
    return round(MAX_WEIGHT * staleness_weight((1 << (1 + max(0, task - base)).bit_length() - 1) - 1))


def _part(
    name: str, ours: Sequence[PendingShare], newest: int, trial: int, now: float, folding: BufferPolicy, fewest: int
) -> RoundPart | None:
    """The updates of one task to be proposed: those that scored the snapshot on trial, else those that did not."""
    voting = [one for one in ours if one.trial == trial >= 0]
    others = [one for one in ours if one.trial != trial or trial < 0]
    for group, scored in ((voting, trial), (others, -1), (ours, -1)):
        pairs = {one.id: one.pair for one in _alike(group, newest, fewest)}
        oldest = min((one.received for one in group), default=now)
        pending = BufferStatus(len(group), len({one.project for one in group}), oldest)
        if pairs and is_due(pending, now, folding):
            return RoundPart(name, scored, pairs)
    return None


def _alike(group: Sequence[PendingShare], newest: int, fewest: int) -> tuple[PendingShare, ...]:
    """One update of each project, at least `fewest`, from as few classes of staleness as that takes; else none."""
    by_id = {one.id: one for one in group}
    projects = {one.id: one.project for one in group}
    for least in sorted({weight(one.base, newest) for one in group}, reverse=True):
        ids = first_per_project((one.id for one in group if weight(one.base, newest) >= least), projects)
        if len(ids) >= fewest:
            return tuple(by_id[number] for number in ids[:MAX_SUMMED])
    return ()


def check_secret(role: str, secret: str) -> None:
    """Raise UsageError for a secret of leader and helper that is too short."""
    if len(secret) < SHORTEST_TOKEN:
        raise UsageError(
            f"--role {role} needs FEDSTEP_PEER_TOKEN with {SHORTEST_TOKEN} characters or more",
            "Give leader and helper the same: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )


def check_helper_url(url: str) -> None:
    """Raise UsageError for a helper's URL that others could listen to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            "--role leader needs as --peer the https:// URL of its helper", "http:// is for a helper on this machine."
        )


FAR = 8.0  # standard deviations that the length of noise may be off


def sum_vectors(vectors: Iterable[bytes], size: int) -> Residues:
    """The sum of little-endian vectors of `size` numbers, modulo 2^64."""
    total = np.zeros(size, np.uint64)
    for vector in vectors:
        total += np.frombuffer(vector, "<u8")[:size]
    return total


def sum_masks(seeds: Iterable[bytes], size: int) -> Residues:
    """The sum of the first `size` numbers of the pads that these seeds of one task give."""
    return sum_vectors((derive_pad(seed, size) for seed in seeds), size)


def unmask_sum(masked: Residues, pads: Residues, updates: int, size: int, deviation: int = 0) -> NDArray[np.int64]:
    """The sum of so many updates in steps of the grid, with its sign; the first `size` numbers are those of a delta.

    `deviation` is that of the noise of each. Raises WireError for a sum that updates within their bounds do not have:
    somebody lied, and nothing of it is used.
    """
    if updates > MAX_SUMMED:
        raise WireError(f"a sum of {updates} updates could overflow", f"At most {MAX_SUMMED} are summed.")
    steps: NDArray[np.int64] = (masked + pads).view(np.int64)
    numbers = steps.astype(np.float64)
    beyond = np.abs(numbers[size:]).max(initial=0.0) > updates * LEVELS
    if beyond or norm(numbers[:size]) > max_length(updates, size, deviation):
        raise WireError(
            "the sum is not one of updates within their bounds",
            "A sender or the helper lies, or --noise is lower than it was.",
        )
    return steps


def max_length(updates: int, size: int, deviation: int) -> float:
    """The length in steps of the grid that the sum of so many deltas is not above, each of `size` numbers.

    What noise adds is above this with a chance of exp(-32) (Laurent and Massart 2000, lemma 1).
    """
    most = updates * (LEVELS + 0.5 * sqrt(size))  # the length of a delta, and of what rounding to the grid adds
    return most + deviation * sqrt(updates) * (sqrt(size) + FAR)
