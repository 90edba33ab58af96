"""Named vectors and a few words about them as safetensors bytes, and back; nothing in the bytes is trusted.

https://github.com/huggingface/safetensors#format: 8 bytes little-endian header length, a JSON header, the numbers.
Written here, because `safetensors.serialize` orders the metadata at random: the same value would be other bytes.
"""

import json
import re
import sys
import zlib
from array import array
from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import NamedTuple, TypeAlias

from safetensors import SafetensorError, deserialize

from fedstep.errors import WireError

_GZIP = 31  # zlib's number for a gzip header and trailer around a window of 32 kB


def deflate(body: bytes) -> bytes:
    """Return the body as gzip; the same body gives the same bytes, because the header has no name and no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def inflate(body: bytes, most: int) -> bytes:
    """Return the decompressed body. Raise WireError unless it is one whole gzip member of at most `most` bytes.

    >>> inflate(deflate(b"coefficients"), 100)
    b'coefficients'
    """
    unpacker = zlib.decompressobj(_GZIP)
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise WireError("the body says gzip and is not gzip", "Send one whole gzip member.") from error
    if len(plain) > most:
        raise WireError(f"the body inflates to more than {most} bytes", "Send less.")
    if not unpacker.eof or unpacker.unused_data:
        raise WireError("the gzip body is cut off or followed by other bytes", "Send one whole gzip member.")
    return plain


LARGEST_MESSAGE = 1 << 20  # bytes of one message, compressed or not
LONGEST_HEADER = 1 << 14  # bytes; four tasks on two tracks take less than 1 kB
MOST_TENSORS = 32
MEMBERS = {"dtype", "shape", "data_offsets"}
# As we write it, and the safetensors library. Where no text in it has a brace or an escape, it ends at the first brace.
METADATA_FIRST = re.compile(rb'\{"__metadata__":(\{(?:"[^"\\{}]*":"[^"\\{}]*",?)*\}),')
REMEDY = "Delete it or fetch it again; if it was just made, both sides need the same version of fedstep."

Vector: TypeAlias = "array[float]"
Layout: TypeAlias = tuple[tuple[str, int, int], ...]


class Tensors(NamedTuple):
    """The metadata, and each vector of C floats by name."""

    words: Mapping[str, str]
    vectors: Mapping[str, Vector]


def pack(words: Mapping[str, str], vectors: Mapping[str, Vector]) -> bytes:
    """Return the safetensors bytes; equal values give equal bytes, whatever the order of the mappings.

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
    """Return the metadata and vectors. Raise WireError unless all are F32 vectors of finite numbers within limits."""
    if len(body) > LARGEST_MESSAGE:
        raise WireError(f"the message has {len(body)} bytes, more than {LARGEST_MESSAGE}", REMEDY)
    text, start = _header(body)
    usual = METADATA_FIRST.match(text)
    if usual:
        words, layout = _words(_json(usual[1])), _usual_layout(b"{" + text[usual.end() :], len(body) - start)
    else:
        header = _json(text)
        words, layout = _words(header.pop("__metadata__", {})), _layout(header, body)
    vectors = {name: _vector(body[start + first : start + end]) for name, first, end in layout}
    _check_finite(body[start + 3 :: 4], vectors)
    return Tensors(words, vectors)


def _header(body: bytes) -> tuple[bytes, int]:
    """Return the JSON header without its padding, and the offset at which the numbers start."""
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(LONGEST_HEADER, len(body) - 8):
        raise WireError("the message is cut off or is not safetensors", REMEDY)
    text = body[8 : 8 + length]
    end = text.rfind(b"}") + 1  # what fills it up is compared, not searched through
    return (text[:end] if text[end:] == b" " * (length - end) else text), 8 + length


def _json(text: bytes) -> dict[str, object]:
    try:
        header = _DECODER.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("the header of the message is not JSON without repeated keys", REMEDY) from error
    if not isinstance(header, dict):
        raise WireError("the header of the message is not a JSON object", REMEDY)
    return header


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("repeated key")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)  # `json.loads` would make one for each message


def _words(metadata: object) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WireError("the metadata of the message is not text by name", REMEDY)
    return metadata


@lru_cache(maxsize=64)  # what senders send is laid out in few ways, and to find out how takes longer than all the rest
def _usual_layout(entries: bytes, size: int) -> Layout:
    """Return what `_layout` does, for a header without its metadata and `size` bytes of numbers."""
    header = _json(entries)
    if "__metadata__" in header:
        raise WireError("the header of the message is not JSON without repeated keys", REMEDY)
    return _layout(header, len(entries).to_bytes(8, "little") + entries + bytes(size))


def _layout(header: Mapping[str, object], body: bytes) -> Layout:
    """Return the name of each vector, and the offsets of its numbers; vectors follow each other without gaps."""
    if not 0 < len(header) <= MOST_TENSORS:
        raise WireError(f"the message has {len(header)} tensors, 1 to {MOST_TENSORS} are allowed", REMEDY)
    if any(not isinstance(entry, dict) or entry.keys() != MEMBERS for entry in header.values()):
        raise WireError(f"a tensor of the message has not exactly {', '.join(sorted(MEMBERS))}", REMEDY)
    try:
        pairs = deserialize(body)  # type: ignore[no-untyped-call]  # its stub has no types
    except SafetensorError as error:
        raise WireError(f"the message is not safetensors ({str(error)[:80]!a})", REMEDY) from error
    for name, tensor in pairs:
        if tensor["dtype"] != "F32" or len(tensor["shape"]) != 1:
            raise WireError(f"the tensor {_escape(name)} is not one vector of F32", REMEDY)
    return tuple((name, *header[name]["data_offsets"]) for name, _ in pairs)  # type: ignore[index]  # looked at above


def _vector(numbers: bytes) -> Vector:
    vector = array("f")
    vector.frombytes(numbers)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _check_finite(highest: bytes, vectors: Mapping[str, Vector]) -> None:
    """Raise WireError for a number that is not finite; `highest` has the highest byte of each number.

    That byte is 0x7f or 0xff for numbers that are not finite (and for those above 2^126), so most messages need no
    closer look. A sum of at most 2^18 C floats cannot overflow a double: it is finite exactly if each of them is.
    """
    for name, vector in vectors.items() if b"\x7f" in highest or b"\xff" in highest else ():
        if not isfinite(sum(vector)):
            raise WireError(f"the tensor {_escape(name)} has a number that is not finite", REMEDY)


def _escape(name: str) -> str:
    """Return an untrusted name in a form that is safe to print."""
    return ascii(name[:40])


def _bytes(vector: Vector) -> bytes:
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = vector[:]
    swapped.byteswap()
    return swapped.tobytes()
