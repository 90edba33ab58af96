"""Named vectors and a few words about them as safetensors bytes, and back; nothing in the bytes is trusted.

https://github.com/huggingface/safetensors#format: 8 bytes little-endian header length, a JSON header, the numbers.
Written here, because `safetensors.serialize` orders the metadata at random: the same value would be other bytes.
"""

import json
import sys
from array import array
from collections.abc import Mapping
from math import isfinite
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from fedstep.errors import WireError

__all__ = ["LARGEST", "Tensors", "Vector", "pack", "unpack"]

LARGEST = 1 << 20  # bytes of one message, compressed or not
LONGEST_HEADER = 1 << 14  # bytes; four heads on two tracks take less than 1 kB
MOST_TENSORS = 32
MEMBERS = {"dtype", "shape", "data_offsets"}
REMEDY = "Delete it or fetch it again; if it was just made, both sides need the same version of fedstep."

Vector: TypeAlias = "array[float]"


class Tensors(NamedTuple):
    """The metadata, and each vector of C floats by name."""

    words: Mapping[str, str]
    vectors: Mapping[str, Vector]


def pack(words: Mapping[str, str], vectors: Mapping[str, Vector]) -> bytes:
    """The safetensors bytes: the same for equal values, whatever the order of the mappings.

    >>> unpack(pack({"format": "example"}, {"flaky": array("f", [0.5])})).vectors["flaky"][0]
    0.5
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(words.items()))}
    end = 0
    for name, vector in sorted(vectors.items()):
        start, end = end, end + 4 * len(vector)
        header[name] = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join((len(text).to_bytes(8, "little"), text, *(_bytes(vector) for _, vector in sorted(vectors.items()))))
    unpack(body)
    return body


def unpack(body: bytes) -> Tensors:
    """What the bytes say. WireError for any bytes that are not F32 vectors of finite numbers within the bounds.

    Stricter than safetensors itself, which reads all that is read here: vectors follow each other in the header's order
    or in any other, without a gap and without sharing a byte.
    """
    if len(body) > LARGEST:
        raise WireError(f"the message has {len(body)} bytes, more than {LARGEST}", REMEDY)
    header, begin = _header(body)
    words = _words(header.pop("__metadata__", {}))
    if not 0 < len(header) <= MOST_TENSORS:
        raise WireError(f"the message has {len(header)} tensors, 1 to {MOST_TENSORS} are allowed", REMEDY)
    places = _places(header, len(body) - begin)
    numbers = _numbers(body[begin:])
    return Tensors(words, {name: numbers[start:end] for name, start, end in places})


def _header(body: bytes) -> tuple[dict[str, object], int]:
    """The JSON of the header, and where the numbers begin."""
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(LONGEST_HEADER, len(body) - 8):
        raise WireError("the message is cut off or is not safetensors", REMEDY)
    begin = 8 + length
    end = body.rfind(b"}", 8, begin) + 1 or begin
    if body[end:begin] != b" " * (begin - end):  # the padding: JSON would walk through it, one space after the other
        end = begin
    try:
        header = _JSON.decode(body[8:end].decode())
    except (ValueError, RecursionError) as error:
        raise WireError("the header of the message is not JSON without repeated keys", REMEDY) from error
    if not isinstance(header, dict) or body[8] != ord("{"):
        raise WireError("the header of the message is not a JSON object", REMEDY)
    return header, begin


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("repeated key")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_without_repeats)


def _words(metadata: object) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WireError("the metadata of the message is not text by name", REMEDY)
    return metadata


def _places(header: Mapping[str, object], size: int) -> list[tuple[str, int, int]]:
    """The name of each vector, where it begins and ends among the numbers of `size` bytes. WireError for a gap."""
    places = sorted((_place(name, entry) for name, entry in header.items()), key=itemgetter(1, 2))
    last = 0
    for name, start, end in places:
        if start != last:
            raise WireError(f"the tensor {_shown(name)} does not begin where the one before it ends", REMEDY)
        last = end
    if 4 * last != size:
        raise WireError(f"the tensors have {4 * last} bytes, the message has {size} for them", REMEDY)
    return places


def _place(name: str, entry: object) -> tuple[str, int, int]:
    """Counted in numbers. The types are looked at: True is an int for Python, and 1.0 equals 1."""
    if isinstance(entry, dict) and entry.keys() == MEMBERS and entry["dtype"] == "F32":
        shape, offsets = entry["shape"], entry["data_offsets"]
        if isinstance(shape, list) and isinstance(offsets, list) and len(shape) == 1 and len(offsets) == 2:
            (size,), (start, end) = shape, offsets
            whole = type(size) is type(start) is type(end) is int
            if whole and start >= 0 and start % 4 == 0 and end - start == 4 * size >= 0:
                return name, start // 4, end // 4
    raise WireError(f"the tensor {_shown(name)} is not one vector of F32 in its place", REMEDY)


def _numbers(raw: bytes) -> Vector:
    """The finite C floats in these bytes, whose number is a multiple of 4."""
    numbers = array("f")
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    # Of one that is not finite the byte of sign and exponent is 0x7f or 0xff, as above 2^126: few are looked at closer.
    # A sum of at most 2^18 C floats cannot overflow a double: it is finite exactly when each of them is.
    highest = raw[3::4]
    if (b"\x7f" in highest or b"\xff" in highest) and not isfinite(sum(numbers)):
        raise WireError("the message has a number that is not finite", REMEDY)
    return numbers


def _shown(name: str) -> str:
    """A name from outside, safe to print."""
    return ascii(name[:40])


def _bytes(vector: Vector) -> bytes:
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = vector[:]
    swapped.byteswap()
    return swapped.tobytes()
