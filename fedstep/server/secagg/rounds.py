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

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import MALFORMED, UsageError, WireError
from fedstep.federation.secagg.shares import LEVELS, MAX_SUMMED, MAX_WEIGHT, derive_pad
from fedstep.federation.trust import split_address
from fedstep.server.aggregation.vectors import norm, staleness_weight
from fedstep.server.identity import SHORTEST_TOKEN, is_loopback
from fedstep.server.mode import BufferPolicy, BufferStatus, is_due

Residues = NDArray[np.uint64]  # numbers modulo 2^64

ROUNDS = 1 << 31  # what a database's integers hold
LATEST_HEARD = ROUNDS // 2  # as many are left to a leader that believed it; at one a second either half lasts 34 years
REMEDY = "Both aggregators need the same version of fedstep."
TASK, ID = re.compile("[a-z][a-z0-9-]{0,31}"), re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RoundPart:
    """The updates proposed for the sum of one task: their ids, each with the pair id that its two shares have.

    `trial` is the version on trial that all of them scored; -1: they need not have one, and the sum has no scores.
    """

    task: str
    trial: int
    pairs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One round: at most one part per task."""

    round_number: int
    schema: str
    parts: tuple[RoundPart, ...]


@dataclass(frozen=True, slots=True)
class MaskSum:
    """The updates that were released for a task, and the sum of their masks modulo 2^64."""

    task: str
    ids: tuple[str, ...]
    total: Residues


@dataclass(frozen=True, slots=True)
class RoundReply:
    """The helper's reply to a proposal, without the tasks for which it has too few projects."""

    round_number: int
    parts: tuple[MaskSum, ...]


def first_per_project(ids: Iterable[str], projects: Mapping[str, str]) -> tuple[str, ...]:
    """Return the first id of each project, in the order they come."""
    seen: set[str] = set()
    first = []
    for update_id in ids:
        project = projects[update_id]
        if project not in seen:
            seen.add(project)
            first.append(update_id)
    return tuple(first)


def pack_proposal(proposal: Proposal) -> bytes:
    """Return the bytes of a proposal; equal proposals give equal bytes."""
    parts = [{"task": p.task, "trial": p.trial, "pairs": dict(sorted(p.pairs.items()))} for p in proposal.parts]
    return json.dumps({"round": proposal.round_number, "schema": proposal.schema, "parts": parts}).encode()


def unpack_proposal(body: bytes) -> Proposal:
    """Parse a proposal. Raise WireError."""
    try:
        fields = json.loads(body)
        parts = tuple(RoundPart(task_of(p), p["trial"], p["pairs"]) for p in fields["parts"])
        proposal = Proposal(fields["round"], fields["schema"], parts)
        _check(proposal)
    except MALFORMED as error:
        raise WireError("the proposal cannot be read", REMEDY) from error
    return proposal


def task_of(part: Mapping[str, object]) -> str:
    """Return the task of one part of a proposal or an answer; stored ones of earlier versions name it `head`."""
    return str(part["task"] if "task" in part else part["head"])


def pack_reply(reply: RoundReply) -> bytes:
    """Return the bytes of a reply; equal replies give equal bytes."""
    parts = [
        {"task": p.task, "ids": list(p.ids), "total": b64encode(p.total.astype("<u8").tobytes()).decode()}
        for p in reply.parts
    ]
    return json.dumps({"round": reply.round_number, "parts": parts}).encode()


def unpack_reply(body: bytes, proposal: Proposal, sizes: Mapping[str, int]) -> RoundReply:
    """Parse the reply to a proposal; `sizes` has the number of coordinates of each task. Raise WireError."""
    asked = {part.task: part for part in proposal.parts}
    try:
        fields = json.loads(body)
        parts = tuple(_parse_mask_sum(entry, asked, sizes) for entry in fields["parts"])
        if fields["round"] != proposal.round_number or len({part.task for part in parts}) < len(parts):
            raise ValueError("another round, or a task twice")
    except MALFORMED as error:
        raise WireError("the helper's answer is none to this proposal", REMEDY) from error
    return RoundReply(proposal.round_number, parts)


def sign(secret: str, proposal: bytes, reply: bytes = b"") -> str:
    """Return the HMAC-SHA256 in hex of a proposal, or of a reply to it."""
    message = b"answer" + sha256(proposal).digest() + reply if reply else b"proposal" + proposal
    return hmac.new(secret.encode(), message, sha256).hexdigest()


def _check(proposal: Proposal) -> None:
    """Raise ValueError or TypeError for a proposal that no leader makes."""
    tasks = [part.task for part in proposal.parts]
    ids = [update_id for part in proposal.parts for update_id in part.pairs]
    words = [*ids, *(pair for part in proposal.parts for pair in part.pairs.values())]
    if (
        type(proposal.round_number) is not int
        or not 0 < proposal.round_number < ROUNDS
        or not isinstance(proposal.schema, str)
    ):
        raise ValueError("no number of a round, or no schema")
    if not tasks or len(set(tasks)) < len(tasks) or not all(map(TASK.fullmatch, tasks)):
        raise ValueError("no task, one twice, or one of no name")
    if not all(map(ID.fullmatch, words)) or any(not 0 < len(part.pairs) <= MAX_SUMMED for part in proposal.parts):
        raise ValueError("an id that is none, or too many")
    if any(type(part.trial) is not int or not -1 <= part.trial < 1 << 31 for part in proposal.parts):
        raise ValueError("a trial that is none")


def _parse_mask_sum(entry: Mapping[str, object], asked: Mapping[str, RoundPart], sizes: Mapping[str, int]) -> MaskSum:
    """Parse one part of a reply. Raise ValueError, TypeError or LookupError for one that was not asked for."""
    part, ids, total = asked[task_of(entry)], entry["ids"], b64decode(str(entry["total"]), validate=True)
    if not isinstance(ids, list) or not ids or len(set(ids)) < len(ids) or not part.pairs.keys() >= set(ids):
        raise ValueError("other updates than were proposed")
    if len(total) != 8 * (sizes[part.task] + (part.trial >= 0)):
        raise ValueError("a sum of another length")
    return MaskSum(part.task, tuple(ids), np.frombuffer(total, "<u8").astype(np.uint64))


@dataclass(frozen=True, slots=True)
class PendingShare:
    """A share of one task that was not released; `missed` counts rounds for which the helper lacked the other share."""

    id: str
    task: str
    project: str
    base: int
    trial: int
    pair: str
    received: float
    missed: int = 0


def choose_parts(
    pending: Iterable[PendingShare],
    candidate: int,
    trials: Mapping[str, int],
    now: float,
    policy: BufferPolicy,
    fewest: int,
) -> tuple[RoundPart, ...]:
    """Return the parts of the next proposal: for each task that is due, one update of each project.

    All updates of a sum have one weight: otherwise a coordinate that only one project moved would reveal by its
    divisors how stale, and so whose, the update is. Updates of one class of staleness are summed, fresh ones first;
    staler classes join where there are too few.
    """
    by_task: dict[str, list[PendingShare]] = defaultdict(list)
    for share in sorted(pending, key=lambda share: (share.missed, share.received, share.id)):
        by_task[share.task].append(share)
    parts = (
        _choose_part(name, shares, candidate, trials.get(name, -1), now, policy, fewest)
        for name, shares in sorted(by_task.items())
    )
    return tuple(part for part in parts if part)


def weight(base: int, candidate: int) -> int:
    """Return the public weight of a delta learned from `base`: 64 / sqrt(1 + staleness), in classes.

    Each class has twice the staleness of the one before: 0, 1 to 2, 3 to 6, and so on.

    >>> [weight(9 - staleness, 9) for staleness in range(5)]
    [64, 45, 45, 32, 32]
    """
    return round(MAX_WEIGHT * staleness_weight((1 << (1 + max(0, candidate - base)).bit_length() - 1) - 1))


def _choose_part(
    name: str,
    shares: Sequence[PendingShare],
    newest: int,
    trial: int,
    now: float,
    policy: BufferPolicy,
    fewest: int,
) -> RoundPart | None:
    """Return the updates of one task to propose: those that scored the version on trial, else those that did not."""
    scored = [share for share in shares if share.trial == trial >= 0]
    others = [share for share in shares if share.trial != trial or trial < 0]
    for group, version in ((scored, trial), (others, -1), (shares, -1)):
        pairs = {share.id: share.pair for share in _same_weight(group, newest, fewest)}
        oldest = min((share.received for share in group), default=now)
        status = BufferStatus(len(group), len({share.project for share in group}), oldest)
        if pairs and is_due(status, now, policy):
            return RoundPart(name, version, pairs)
    return None


def _same_weight(group: Sequence[PendingShare], newest: int, fewest: int) -> tuple[PendingShare, ...]:
    """Return one update per project, at least `fewest`, from as few classes of staleness as possible; else none."""
    by_id = {share.id: share for share in group}
    projects = {share.id: share.project for share in group}
    for least in sorted({weight(share.base, newest) for share in group}, reverse=True):
        ids = first_per_project((share.id for share in group if weight(share.base, newest) >= least), projects)
        if len(ids) >= fewest:
            return tuple(by_id[update_id] for update_id in ids[:MAX_SUMMED])
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
    parts = split_address(url)
    if not parts or not (parts.scheme == "https" or is_loopback(parts.hostname or "")):
        raise UsageError(
            "--role leader needs as --peer the https:// URL of its helper", "http:// is for a helper on this machine."
        )


FAR = 8.0  # standard deviations by which the length of the noise may exceed its mean


def sum_vectors(vectors: Iterable[bytes], size: int) -> Residues:
    """Return the sum of little-endian vectors of `size` numbers, modulo 2^64."""
    total = np.zeros(size, np.uint64)
    for vector in vectors:
        total += np.frombuffer(vector, "<u8")[:size]
    return total


def sum_masks(seeds: Iterable[bytes], size: int) -> Residues:
    """Return the sum of the masks of `size` numbers that these seeds of one task give, modulo 2^64."""
    return sum_vectors((derive_pad(seed, size) for seed in seeds), size)


def unmask_sum(masked: Residues, masks: Residues, updates: int, size: int, deviation: int = 0) -> NDArray[np.int64]:
    """Return the sum of so many updates in steps of the grid, with its sign; its first `size` numbers are the delta.

    `deviation` is that of the noise of each update. Raise WireError for a sum that updates within their bounds cannot
    have: some sender or the helper is dishonest, and nothing of it is used.
    """
    if updates > MAX_SUMMED:
        raise WireError(f"a sum of {updates} updates could overflow", f"At most {MAX_SUMMED} are summed.")
    steps: NDArray[np.int64] = (masked + masks).view(np.int64)
    numbers = steps.astype(np.float64)
    beyond = np.abs(numbers[size:]).max(initial=0.0) > updates * LEVELS
    if beyond or norm(numbers[:size]) > max_length(updates, size, deviation):
        raise WireError(
            "the sum is not one of updates within their bounds",
            "A sender or the helper is dishonest, or --noise is lower than it was.",
        )
    return steps


def max_length(updates: int, size: int, deviation: int) -> float:
    """Return the largest L2 norm, in steps of the grid, of the sum of so many deltas of `size` numbers.

    Noise makes a sum longer than this with a probability of exp(-32) (Laurent and Massart 2000, lemma 1).
    """
    most = updates * (LEVELS + 0.5 * sqrt(size))  # the length of a delta, and of what rounding to the grid adds
    return most + deviation * sqrt(updates) * (sqrt(size) + FAR)
