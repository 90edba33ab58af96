"""Many rows as a few columns: a backlog of thousands is read and written at every build, and JSON numbers are slow."""

import sys
import zlib
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from math import isnan
from typing import Any

from fedstep.build.record import NO_SECONDS
from fedstep.history.entry import Row

__all__ = ["pack_rows", "unpack_rows"]

LARGEST = 1 << 28  # bytes of one column, unpacked


def pack_rows(rows: Sequence[Row]) -> dict[str, object]:
    """The rows as JSON values: names as they are, coordinates and values as compressed little-endian numbers."""
    return {
        "subjects": [row.subject for row in rows],
        "runs": [row.run for row in rows],
        "private": [row.private for row in rows],
        "targets": [None if isnan(row.target) else row.target for row in rows],
        "sizes": [len(row.indices) for row in rows],
        "indices": _pack(array("I", chain.from_iterable(row.indices for row in rows))),
        "values": _pack(array("d", chain.from_iterable(row.values for row in rows))),
    }


def unpack_rows(columns: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of `pack_rows`, exactly. ValueError, KeyError, TypeError or zlib.error for anything else."""
    indices, values = _unpack("I", columns["indices"]), _unpack("d", columns["values"])
    ends = list(accumulate(columns["sizes"], initial=0))
    if not len(indices) == len(values) == ends[-1]:
        raise ValueError("the columns have different lengths")
    targets = (NO_SECONDS if target is None else float(target) for target in columns["targets"])
    named = zip(columns["subjects"], columns["runs"], pairwise(ends), columns["private"], targets, strict=True)
    return tuple(
        Row(str(subject), int(run), tuple(indices[start:end]), tuple(values[start:end]), tuple(private), target)
        for subject, run, (start, end), private, target in named
    )


def _pack(numbers: "array[Any]") -> str:
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(zlib.compress(numbers.tobytes(), 1)).decode()


def _unpack(code: str, text: str) -> "array[Any]":
    numbers = array(code)
    numbers.frombytes(zlib.decompressobj().decompress(b64decode(text), LARGEST))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
