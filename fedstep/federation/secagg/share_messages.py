"""The two messages of secure aggregation, one for each of two aggregators; each alone is uniformly random.

Both are safetensors (https://github.com/huggingface/safetensors#format) in one canonical form: others are rejected.
"""

import json
import re
import sys
from array import array
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from fedstep.errors import SchemaMismatch, WireError
from fedstep.federation.messages import LARGEST_MESSAGE, SchemaShape

MASKED_FORMAT, SEED_FORMAT = "fedstep-masked-2", "fedstep-seed-2"
SEED_BYTES = 32
MAX_HEADER_BYTES = 1 << 12  # bytes; four tasks take about 600
MAX_TASKS = 32
MAX_VERSION = (1 << 31) - 1  # what a database's integers hold
REMEDY = "Both sides need the same version of fedstep."

_NUMBER = "0|[1-9][0-9]{0,14}"
_TASK = "[a-z][a-z0-9-]{0,31}"
_WORDS = {"schema": "[0-9a-f]{16}", "id": "[0-9a-f]{32}", "project": "[0-9a-f]{32}"}

Residues: TypeAlias = "array[int]"  # type code "Q": numbers modulo 2^64


class MaskedShare(NamedTuple):
    """The leader's share: by task the quantised delta with the score as its last number, less the pad, modulo 2^64.

    `trials` has every task of the update: the version of the snapshot that its score evaluates, -1 where it has none.
    `pair` is the hash of the seed that the pads are derived from, so that shares of two splits are never combined.
    """

    schema: str
    base: int
    id: str
    project: str
    pair: str
    trials: Mapping[str, int]
    vectors: Mapping[str, Residues]


class SeedShare(NamedTuple):
    """The helper's share: the 32 bytes that all pads of one update are derived from, and the update's tasks."""

    schema: str
    id: str
    project: str
    trials: Mapping[str, int]
    seed: bytes


def pack_share(share: MaskedShare | SeedShare) -> bytes:
    """Return the bytes of either message; equal messages give equal bytes. Raise WireError for an invalid one."""
    body = _pack(share)
    if isinstance(share, MaskedShare):
        unpack_masked_share(body)
    else:
        unpack_seed_share(body)
    return body


def unpack_masked_share(body: bytes) -> MaskedShare:
    """Return the leader's share in these bytes. Raise WireError."""
    words, lengths, numbers = _read(body, MASKED_FORMAT, {**_WORDS, "base": _NUMBER, "pair": "[0-9a-f]{32}"})
    trials, vectors, start = _parse_trials(words), {}, 0
    for task in sorted(trials):
        end = start + 8 * lengths.get(task, 0)
        vectors[task] = bytes_to_residues(numbers[start:end])
        start = end
    names = words["id"], words["project"], words["pair"]
    share = MaskedShare(words["schema"], int(words["base"]), *names, trials, vectors)
    _check_form(share, body)
    return share


def unpack_seed_share(body: bytes) -> SeedShare:
    """Return the helper's share in these bytes. Raise WireError."""
    words, _, seed = _read(body, SEED_FORMAT, _WORDS)
    if len(seed) != SEED_BYTES:
        raise WireError(f"the seed has {len(seed)} bytes, not {SEED_BYTES}", REMEDY)
    share = SeedShare(words["schema"], words["id"], words["project"], _parse_trials(words), seed)
    _check_form(share, body)
    return share


def check_share(share: MaskedShare | SeedShare, local_schema: SchemaShape) -> None:
    """Raise SchemaMismatch for another schema, WireError for an unknown task, another size or an impossible version."""
    if share.schema != local_schema.digest:
        raise SchemaMismatch(
            f"the message has the feature schema {share.schema}, this side {local_schema.digest}", REMEDY
        )
    base = share.base if isinstance(share, MaskedShare) else 0
    if max([base, *share.trials.values()]) > MAX_VERSION:
        raise WireError("it was learned from, or scored, a version that there cannot be", "Run fedstep pull.")
    lengths = {task: len(vector) for task, vector in share.vectors.items()} if isinstance(share, MaskedShare) else {}
    for task in share.trials:
        wanted = local_schema.sizes.get(task, -1) + 1
        if not wanted or lengths.get(task, wanted) != wanted:
            raise WireError(f"the task {task} is unknown, or has not {wanted} coordinates", REMEDY)


def _pack(share: MaskedShare | SeedShare) -> bytes:
    words = {"schema": share.schema, "id": share.id, "project": share.project}
    words |= {f"trial.{task}": str(trial) if trial >= 0 else "none" for task, trial in share.trials.items()}
    tensors: list[tuple[str, str, int, bytes]]
    if isinstance(share, MaskedShare):
        words |= {"format": MASKED_FORMAT, "base": str(share.base), "pair": share.pair}
        tensors = [
            (task, "U64", len(vector), residues_to_bytes(vector)) for task, vector in sorted(share.vectors.items())
        ]
    else:
        words |= {"format": SEED_FORMAT}
        tensors = [("seed", "U8", len(share.seed), share.seed)]
    header: dict[str, object] = {"__metadata__": dict(sorted(words.items()))}
    start = 0
    for name, dtype, length, numbers in tensors:
        header[name] = {"dtype": dtype, "shape": [length], "data_offsets": [start, start + len(numbers)]}
        start += len(numbers)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *(numbers for *_, numbers in tensors)))


def _check_form(share: MaskedShare | SeedShare, body: bytes) -> None:
    """Raise WireError unless packing gives the same bytes: no gap, overlap, repeated key or trailing byte."""
    if _pack(share) != body:
        raise WireError("the message is not in the one form that it may have", REMEDY)


def _read(body: bytes, wanted: str, patterns: Mapping[str, str]) -> tuple[Mapping[str, str], Mapping[str, int], bytes]:
    """Return the metadata, the length of each tensor as the header claims it, and the bytes of the numbers."""
    length = int.from_bytes(body[:8], "little")
    if len(body) > LARGEST_MESSAGE or len(body) < 8 or length > min(MAX_HEADER_BYTES, len(body) - 8):
        raise WireError("the message is too large, cut off or not safetensors", REMEDY)
    try:
        header = json.loads(body[8 : 8 + length].decode("ascii"))
        words = dict(header.pop("__metadata__"))
        lengths = {name: int(entry["shape"][0]) for name, entry in header.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise WireError("the header of the message cannot be read", REMEDY) from error
    if words.pop("format", "") != wanted:
        raise WireError(f"the message is not of the format {wanted}", REMEDY)
    _check_words(words, patterns)
    return words, lengths, body[8 + length :]


def _check_words(words: Mapping[str, object], patterns: Mapping[str, str]) -> None:
    for name, value in words.items():
        pattern = patterns.get(name, "none|" + _NUMBER if re.fullmatch(f"trial[.]{_TASK}", name) else "")
        if not pattern or not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise WireError(f"the metadata {name[:40]!a} is unknown or has no valid value", REMEDY)
    tasks = len(words) - len(patterns)
    if not patterns.keys() <= words.keys() or not 0 < tasks <= MAX_TASKS:
        raise WireError("the metadata of the message is not whole, or names no task", REMEDY)


def _parse_trials(words: Mapping[str, str]) -> Mapping[str, int]:
    named = {name.removeprefix("trial."): value for name, value in words.items() if name.startswith("trial.")}
    return {task: -1 if value == "none" else int(value) for task, value in sorted(named.items())}


def bytes_to_residues(numbers: bytes) -> Residues:
    """Return the little-endian numbers of 8 bytes each in these bytes."""
    vector = array("Q")
    vector.frombytes(numbers[: len(numbers) // 8 * 8])
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def residues_to_bytes(vector: Residues) -> bytes:
    """Return the numbers as little-endian bytes, 8 each."""
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = vector[:]
    swapped.byteswap()
    return swapped.tobytes()
