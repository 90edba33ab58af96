"""What leader and helper say to each other: a proposal of updates to be summed, an answer with the sums of their pads.

Pure. Both are JSON; each is signed with the secret that the two share, the answer together with the proposal.
"""

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedstep.errors import WireError
from fedstep.federation.shares import MOST_SUMMED

__all__ = [
    "LATEST_HEARD",
    "Answer",
    "Pads",
    "Part",
    "Proposal",
    "Residues",
    "one_each",
    "pack_answer",
    "pack_proposal",
    "signature",
    "unpack_answer",
    "unpack_proposal",
]

Residues = NDArray[np.uint64]  # numbers modulo 2^64

ROUNDS = 1 << 31  # what a database's integers hold
LATEST_HEARD = ROUNDS // 2  # as many are left to a leader that believed it; at one a second either half lasts 34 years
REMEDY = "Both aggregators need the same version of fedstep."
HEAD, ID = re.compile("[a-z][a-z0-9-]{0,31}"), re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Part:
    """The updates proposed for the sum of one head: their ids, each with the pair that its halves have.

    `trial` is the snapshot that all of them scored; -1: they need not have one, and the sum of the scores stays away.
    """

    head: str
    trial: int
    pairs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One round: at most one part a head."""

    number: int
    schema: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Pads:
    """The updates that were released for a head, and the sum of their pads modulo 2^64."""

    head: str
    ids: tuple[str, ...]
    total: Residues


@dataclass(frozen=True, slots=True)
class Answer:
    """The helper's word on a round. A head that it has too few projects for is not in it."""

    number: int
    parts: tuple[Pads, ...]


def one_each(ids: Iterable[str], projects: Mapping[str, str]) -> tuple[str, ...]:
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
    parts = [{"head": p.head, "trial": p.trial, "pairs": dict(sorted(p.pairs.items()))} for p in proposal.parts]
    return json.dumps({"round": proposal.number, "schema": proposal.schema, "parts": parts}).encode()


def unpack_proposal(body: bytes) -> Proposal:
    """The proposal in these bytes. Raises WireError."""
    try:
        found = json.loads(body)
        parts = tuple(Part(p["head"], p["trial"], p["pairs"]) for p in found["parts"])
        proposal = Proposal(found["round"], found["schema"], parts)
        _check(proposal)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WireError("the proposal cannot be read", REMEDY) from error
    return proposal


def pack_answer(answer: Answer) -> bytes:
    """Its bytes; equal answers give equal bytes."""
    parts = [
        {"head": p.head, "ids": list(p.ids), "total": b64encode(p.total.astype("<u8").tobytes()).decode()}
        for p in answer.parts
    ]
    return json.dumps({"round": answer.number, "parts": parts}).encode()


def unpack_answer(body: bytes, proposal: Proposal, sizes: Mapping[str, int]) -> Answer:
    """The answer to a proposal in these bytes; `sizes` counts the coordinates of each head. Raises WireError."""
    asked = {part.head: part for part in proposal.parts}
    try:
        found = json.loads(body)
        parts = tuple(_pads(entry, asked, sizes) for entry in found["parts"])
        if found["round"] != proposal.number or len({part.head for part in parts}) < len(parts):
            raise ValueError("another round, or a head twice")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WireError("the helper's answer is none to this proposal", REMEDY) from error
    return Answer(proposal.number, parts)


def signature(secret: str, proposal: bytes, answer: bytes = b"") -> str:
    """HMAC-SHA256 in hex: of a proposal, or of an answer to it."""
    message = b"answer" + sha256(proposal).digest() + answer if answer else b"proposal" + proposal
    return hmac.new(secret.encode(), message, sha256).hexdigest()


def _check(proposal: Proposal) -> None:
    """ValueError or TypeError for a proposal that none of ours would make."""
    heads = [part.head for part in proposal.parts]
    ids = [number for part in proposal.parts for number in part.pairs]
    words = [*ids, *(pair for part in proposal.parts for pair in part.pairs.values())]
    if type(proposal.number) is not int or not 0 < proposal.number < ROUNDS or not isinstance(proposal.schema, str):
        raise ValueError("no number of a round, or no schema")
    if not heads or len(set(heads)) < len(heads) or not all(map(HEAD.fullmatch, heads)):
        raise ValueError("no head, one twice, or one of no name")
    if not all(map(ID.fullmatch, words)) or any(not 0 < len(part.pairs) <= MOST_SUMMED for part in proposal.parts):
        raise ValueError("an id that is none, or too many")
    if any(type(part.trial) is not int or not -1 <= part.trial < 1 << 31 for part in proposal.parts):
        raise ValueError("a trial that is none")


def _pads(entry: Mapping[str, object], asked: Mapping[str, Part], sizes: Mapping[str, int]) -> Pads:
    """One part of an answer. Raises ValueError, TypeError or LookupError for one that was not asked for."""
    part, ids, total = asked[str(entry["head"])], entry["ids"], b64decode(str(entry["total"]), validate=True)
    if not isinstance(ids, list) or not ids or len(set(ids)) < len(ids) or not part.pairs.keys() >= set(ids):
        raise ValueError("other updates than were proposed")
    if len(total) != 8 * (sizes[part.head] + (part.trial >= 0)):
        raise ValueError("a sum of another length")
    return Pads(part.head, tuple(ids), np.frombuffer(total, "<u8").astype(np.uint64))
