"""Makes tests/data/hostile: `python tests/helpers/server_hostile.py`. The status that answers begins the file's name.

Files that end in .gz are sent with `Content-Encoding: gzip`. All are made for the schema FIXED, whose digest does not
change when the schema of fedstep does.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedstep.schema.schema import Categorical, Numeric, PiecewiseLinear, Schema, Task

__all__ = ["FIXED", "FOLDER", "KEY", "bodies"]

FOLDER = Path(__file__).parents[1] / "data/hostile"
KEY = "0" * 31 + "1"
OTHER = "1" * 32
DIGEST = "0123456789abcdef"
SIZES = {"build-duration": 3, "flaky": 5}


class Fixed(Schema):
    """A schema of two short tasks."""

    digest = DIGEST


FIXED = Fixed(
    (
        Task("flaky", (Numeric("bias"), PiecewiseLinear("rate", (0.0, 0.5, 1.0))), 1.0, 50, 20, 20),
        Task("build-duration", (Numeric("bias"), Categorical("event", ("push", "tag"))), 0.2, 8, 8, 0),
    )
)


def bodies() -> Mapping[str, bytes]:
    """Every body by the name of its file."""
    found: dict[str, bytes] = {}
    makers = (_bytes, _headers, _dtypes, _shapes, _offsets, _tensors, _metadata, _words, _numbers, _misfits, _gzips)
    for name, content in (pair for make in makers for pair in make()):
        assert name not in found, name
        found[name] = content
    return found


def words(**changes: object) -> dict[str, object]:
    """The words of a good update, less those that are None."""
    good = {
        "format": "fedstep-update-2",
        "schema": DIGEST,
        "base": "0",
        "id": KEY,
        "project": OTHER,
        "examples.flaky": "64",
        "examples.build-duration": "8",
    }
    changed = {name.replace("__", "-").replace("_", "."): value for name, value in changes.items()}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def tensors(sizes: Mapping[str, int] = SIZES) -> dict[str, dict[str, object]]:
    """The entries of the header for vectors of these sizes, one behind the other."""
    found: dict[str, dict[str, object]] = {}
    end = 0
    for name, size in sizes.items():
        start, end = end, end + 4 * size
        found[name] = {"dtype": "F32", "shape": [size], "data_offsets": [start, end]}
    return found


def body(header: object, numbers: bytes = bytes(32)) -> bytes:
    """safetensors of this header, which may be its text or bytes."""
    text = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else _json(header)
    return struct.pack("<Q", len(text)) + text + numbers


def good(**changes: object) -> bytes:
    """An update that is taken, but for the changes of its words."""
    return body({"__metadata__": words(**changes), **tensors()})


def one(member: str, value: object) -> bytes:
    """An update whose first tensor has this instead."""
    entries = tensors()
    entries["build-duration"][member] = value
    return body({"__metadata__": words(), **entries})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _bytes() -> Iterator[tuple[str, bytes]]:
    yield "400-empty", b""
    yield "400-one-byte", b"\x00"
    yield "400-seven-bytes", bytes(7)
    yield "400-length-alone", bytes(8)
    yield "400-length-of-everything", b"\xff" * 8 + bytes(100)
    yield "400-length-2-63", struct.pack("<Q", 1 << 63) + bytes(100)
    yield "400-length-beyond-the-end", struct.pack("<Q", 101) + b"{" + bytes(99)
    yield "400-length-big-endian", struct.pack(">Q", 2) + b"{}"
    yield "400-length-over-the-limit", struct.pack("<Q", (1 << 14) + 1) + b" " * ((1 << 14) + 9)
    yield "400-zeros", bytes(1000)
    yield "400-html", b"<!doctype html><title>Sign in</title>"
    yield "400-json", _json({"flaky": [0.1, 0.2]})
    yield "400-pickle", b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."
    yield "400-zip", b"PK\x03\x04" + bytes(60)
    yield "400-numpy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    yield "400-gzip-said-to-be-plain", gzip.compress(good(), mtime=0)
    yield "400-cut-in-the-header", good()[:60]
    yield "400-cut-in-the-numbers", good()[:-5]
    yield "400-one-byte-more", good() + b"\x00"
    yield "400-another-update-behind-it", good() * 2


def _headers() -> Iterator[tuple[str, bytes]]:
    for name, text in (
        ("null", "null"),
        ("list", "[]"),
        ("number", "1"),
        ("text", '"flaky"'),
        ("object-without-anything", "{}"),
        ("spaces", " " * 64),
        ("trailing-comma", '{"a":1,}'),
        ("two-objects", "{}{}"),
        ("not-a-number", '{"__metadata__":NaN}'),
        ("huge-number", '{"a":' + "9" * 6000 + "}"),
        ("huge-exponent", '{"a":1e999999999}'),
        ("deep-lists", "[" * 16_000),
        ("deep-objects", '{"a":' * 3_000 + "1" + "}" * 3_000),
        ("deep-tensor", '{"flaky":' + "[" * 5_000 + "]" * 5_000 + "}"),
        ("many-keys", "{" + ",".join(f'"{number}":0' for number in range(1_700)) + "}"),
        ("lone-surrogate", '{"\\ud800":1}'),
    ):
        yield f"400-header-{name}", body(text)
    yield "400-header-utf-16", body(_json(tensors()).decode().encode("utf-16"))
    yield "400-header-with-a-mark", body(b"\xef\xbb\xbf" + _json(tensors()))
    yield "400-header-bad-utf-8", body(b'{"\xc0\x80":1}')
    entry, meta = _json(tensors()["build-duration"]).decode(), _json(words()).decode()
    rest = _json(tensors()).decode()[1:]
    yield "400-twice-a-tensor", body(f'{{"__metadata__":{meta},"build-duration":{entry},{rest}')
    yield "400-twice-the-metadata", body(f'{{"__metadata__":{meta},"__metadata__":{meta},{rest}')
    yield "400-twice-a-word", body(f'{{"__metadata__":{{"base":"7",{meta[1:]},{rest}')
    yield "400-twice-a-dtype", body(f'{{"__metadata__":{meta},{rest}'.replace('"dtype"', '"dtype":"F64","dtype"', 1))
    yield (
        "400-twice-offsets",
        body(f'{{"__metadata__":{meta},{rest}'.replace('"data_offsets"', '"data_offsets":[0,0],"data_offsets"', 1)),
    )
    yield "400-twice-by-escape", body(f'{{"__metadata__":{meta},"\\u0062uild-duration":{entry},{rest}')


def _dtypes() -> Iterator[tuple[str, bytes]]:
    for dtype in ("F64", "F16", "BF16", "I32", "U32", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "f32", "F32 ", ""):
        yield (
            f"400-dtype-{dtype.strip() or 'none'}{'-lower' * dtype.islower()}{'-space' * dtype.endswith(' ')}",
            one("dtype", dtype),
        )
    for name, value in (
        ("null", None),
        ("number", 32),
        ("list", ["F32"]),
        ("object", {"F32": 1}),
        ("long", "F" * 9_000),
    ):
        yield f"400-dtype-{name}", one("dtype", value)


def _shapes() -> Iterator[tuple[str, bytes]]:
    for name, shape in (
        ("negative", [-3]),
        ("scalar", []),
        ("row", [1, 3]),
        ("column", [3, 1]),
        ("too-small", [2]),
        ("too-large", [4]),
        ("2-63", [1 << 63]),
        ("2-64", [1 << 64]),
        ("product-overflows", [1 << 32, 1 << 32]),
        ("product-overflows-to-3", [3, (1 << 64) + 1]),
        ("many-dimensions", [1] * 3_000),
        ("zero", [0]),
        ("text", ["3"]),
        ("fraction", [3.5]),
        ("truth", [True]),
        ("nested", [[3]]),
        ("number", 3),
        ("null", None),
    ):
        yield f"400-shape-{name}", one("shape", shape)


def _offsets() -> Iterator[tuple[str, bytes]]:
    for name, offsets in (
        ("negative", [-12, 0]),
        ("negative-end", [0, -12]),
        ("reversed", [12, 0]),
        ("empty", [0, 0]),
        ("beyond-the-end", [0, 4096]),
        ("2-63", [1 << 63, (1 << 63) + 12]),
        ("2-64", [(1 << 64) - 12, 1 << 64]),
        ("overlapping", [0, 16]),
        ("inside-the-other", [12, 24]),
        ("gap-before", [4, 16]),
        ("unaligned", [1, 13]),
        ("one", [0]),
        ("three", [0, 12, 12]),
        ("none", []),
        ("text", ["0", "12"]),
        ("fractions", [0.0, 12.5]),
        ("null", None),
    ):
        yield f"400-offsets-{name}", one("data_offsets", offsets)
    entries = tensors()
    del entries["flaky"]["data_offsets"]
    yield "400-offsets-missing", body({"__metadata__": words(), **entries})
    apart = tensors()
    apart["flaky"]["data_offsets"] = [16, 36]
    yield "400-offsets-gap", body({"__metadata__": words(), **apart}, bytes(36))
    same = {"build-duration": tensors({"a": 5})["a"], "flaky": tensors({"a": 5})["a"]}
    yield "400-offsets-the-same", body({"__metadata__": words(), **same}, bytes(20))


def _tensors() -> Iterator[tuple[str, bytes]]:
    yield "400-tensors-none", body({"__metadata__": words()}, b"")
    many = {f"head-{number}": 1 for number in range(33)}
    rows = {f"examples.{name}": "8" for name in many}
    meta = {**words(examples_flaky=None, examples_build__duration=None), **rows}
    yield "400-tensors-33", body({"__metadata__": meta, **tensors(many)}, bytes(4 * 33))
    for name, tensor in (
        ("empty", ""),
        ("null-byte", "fl\0aky"),
        ("path", "../../etc/passwd"),
        ("upper", "Flaky"),
        ("line", "flaky\n"),
        ("markup", "<script>"),
        ("format", "%s{0}"),
        ("right-to-left", "\u202eykalf"),
        ("long", "f" * 6_000),
        ("track", "candidate/flaky"),
        ("emoji", "\U0001f4a5"),
    ):
        meta = {**words(examples_flaky=None, examples_build__duration=None), f"examples.{tensor}": "8"}
        yield f"400-name-{name}", body({"__metadata__": meta, **tensors({tensor: 5})}, bytes(20))
    for name, value in (("number", 7), ("list", [0, 12]), ("null", None), ("text", "F32")):
        yield f"400-tensor-is-{name}", body({"__metadata__": words(), **tensors(), "build-duration": value})


def _metadata() -> Iterator[tuple[str, bytes]]:
    yield "400-metadata-missing", body(tensors())
    for name, value in (
        ("null", None),
        ("list", []),
        ("text", "fedstep-update-2"),
        ("nested", {**words(), "base": {"a": "0"}}),
        ("number", {**words(), "base": 0}),
        ("nothing", {}),
        ("huge", {**words(), "note": "x" * 15_000}),
        ("many", {**words(), **{f"k{number}": "" for number in range(900)}}),
        ("proto", {**words(), "__proto__": "x"}),
    ):
        yield f"400-metadata-{name}", body({"__metadata__": value, **tensors()})


def _words() -> Iterator[tuple[str, bytes]]:
    for name in ("format", "schema", "base", "id", "project", "examples_flaky"):
        yield f"400-without-{name.replace('_', '-')}", good(**{name: None})
    for name, changes in (
        ("format-of-a-model", {"format": "fedstep-model-2"}),
        ("format-3", {"format": "fedstep-update-3"}),
        ("schema-upper", {"schema": DIGEST.upper()}),
        ("schema-long", {"schema": DIGEST * 500}),
        ("base-negative", {"base": "-1"}),
        ("base-leading-zero", {"base": "00"}),
        ("base-exponent", {"base": "1e3"}),
        ("base-sixteen-digits", {"base": "9" * 16}),
        ("base-arabic-digit", {"base": "\u0661"}),
        ("base-with-a-line-end", {"base": "0\n"}),
        ("id-short", {"id": "1" * 31}),
        ("id-upper", {"id": "A" * 32}),
        ("id-with-a-header", {"id": f"{KEY}\r\nSet-Cookie: a=b"}),
        ("project-empty", {"project": ""}),
        ("project-sql", {"project": "'; DROP TABLE updates; --"}),
        ("project-path", {"project": "../" * 10 + "ab"}),
        ("rows-zero", {"examples_flaky": "0"}),
        ("rows-three", {"examples_flaky": "3"}),
        ("rows-a-billion", {"examples_flaky": "1073741824"}),
        ("rows-of-nobody", {"examples_other": "8"}),
        ("trial-of-nobody", {"trial_other": "1"}),
        ("trial-negative", {"trial_flaky": "-1"}),
        ("trial-empty", {"trial_flaky": ""}),
    ):
        yield f"400-{name}", good(**changes)


def _numbers() -> Iterator[tuple[str, bytes]]:
    header = {"__metadata__": words(), **tensors()}
    for name, pattern in (
        ("nan", 0x7FC00000),
        ("signalling-nan", 0x7F800001),
        ("negative-nan", 0xFFC00000),
        ("infinity", 0x7F800000),
        ("minus-infinity", 0xFF800000),
    ):
        yield f"400-{name}", body(header, bytes(28) + struct.pack("<I", pattern))
    yield "400-infinities-that-cancel", body(header, bytes(24) + struct.pack("<2f", float("inf"), float("-inf")))
    scored = {"__metadata__": words(trial_flaky="0"), **tensors()}
    for name, score in (("above", 1.0001), ("below", -2.0), ("huge", 3e38)):
        yield f"400-score-{name}", body(scored, bytes(28) + struct.pack("<f", score))


def _misfits() -> Iterator[tuple[str, bytes]]:
    header = {"__metadata__": words(), **tensors()}
    yield "409-another-schema", good(schema="f" * 16)
    yield "422-base-of-tomorrow", good(base="999999999999999")
    yield "422-longer-than-its-bound", body(header, bytes(28) + struct.pack("<f", 1.1))
    yield "422-largest-floats", body(header, struct.pack("<8f", *[3.4e38] * 8))
    for name, sizes in (
        ("too-few-coordinates", {"build-duration": 3, "flaky": 4}),
        ("too-many-coordinates", {"build-duration": 3, "flaky": 6}),
        ("no-coordinates", {"build-duration": 3, "flaky": 0}),
        ("unknown-head", {"build-duration": 3, "other": 5}),
    ):
        rows = {f"examples.{task}": "8" for task in sizes}
        meta = {**words(examples_flaky=None, examples_build__duration=None), **rows}
        yield f"422-{name}", body({"__metadata__": meta, **tensors(sizes)}, bytes(4 * sum(sizes.values())))
    score_alone = {"__metadata__": words(trial_flaky="0"), **tensors({"build-duration": 3, "flaky": 1})}
    yield "422-score-without-a-delta", body(score_alone, bytes(16))
    yield "422-no-room-for-the-score", good(trial_flaky="0")
    yield "400-another-key", good(id="2" * 32)


def _gzips() -> Iterator[tuple[str, bytes]]:
    zipped = gzip.compress(good(), mtime=0)
    yield "413-bomb-of-zeros.gz", gzip.compress(bytes(20_000_000), mtime=0)
    yield "413-bomb-of-spaces.gz", gzip.compress(body(b" " * (1 << 14), b" " * 3_000_000), mtime=0)
    yield "413-one-byte-over-the-limit.gz", gzip.compress(bytes((1 << 20) + 1), mtime=0)
    yield "400-as-large-as-the-limit.gz", gzip.compress(bytes(1 << 20), mtime=0)
    yield "400-a-bomb-in-gzip.gz", gzip.compress(gzip.compress(bytes(20_000_000), mtime=0), mtime=0)
    yield "400-no-body.gz", b""
    yield "400-nothing-in-gzip.gz", gzip.compress(b"", mtime=0)
    yield "400-plain.gz", good()
    yield "400-cut.gz", zipped[:-9]
    yield "400-without-its-trailer.gz", zipped[:-8]
    yield "400-wrong-checksum.gz", zipped[:-8] + b"\x00\x00\x00\x00" + zipped[-4:]
    yield "400-wrong-length.gz", zipped[:-4] + b"\xff\xff\xff\xff"
    yield "400-wrong-method.gz", zipped[:2] + b"\x07" + zipped[3:]
    yield "400-followed-by-bytes.gz", zipped + b"\x00"
    yield "400-two-members.gz", zipped * 2
    yield "400-zlib.gz", zlib.compress(good())
    yield "400-head-alone.gz", zipped[:10]
    yield "400-endless-name.gz", zipped[:3] + b"\x08" + zipped[4:10] + b"a" * 20_000
    yield "400-bad-block.gz", zipped[:10] + b"\xff" * 100


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for title, content in bodies().items():
        (FOLDER / title).write_bytes(content)
