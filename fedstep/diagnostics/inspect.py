"""Proof for one report: none of its strings occurs in an update, except words of the public list."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedstep.errors import HistoryError, WireError
from fedstep.federation.messages import (
    LARGEST_MESSAGE,
    Model,
    Tensors,
    Vector,
    deflate,
    norm,
    pack,
    pack_update,
    unpack,
    unpack_update,
    update_words,
)
from fedstep.federation.model_cache import load_model
from fedstep.federation.outbox import KEPT_BODIES, load_last_sent, read_audit
from fedstep.files import read_bounded
from fedstep.history.project_store import ProjectStore
from fedstep.ingest.junit import ReportFile, expand, read_reports
from fedstep.ingest.xml import (
    DamagedDocument,
    RejectedDocument,
    Repairs,
    Tokenizer,
    convert_to_utf8,
    read_blocks,
    repair,
)
from fedstep.report.inspection import (
    AuditRecord,
    Coefficient,
    InspectedField,
    InspectedTask,
    InspectedToken,
    InspectedUpdate,
    Inspection,
    Leak,
    LeakProof,
    PastUpdate,
)
from fedstep.schema.schema import Task, schema, sub_words
from fedstep.types import Dropped, Unavailable

LETTERS = re.compile(r"[^\W\d_]{4,}")
IDENTIFIER = re.compile(r"[\w$]{4,}")
PATH = re.compile(r"[\w$][\w$./\\-]{2,}[\w$]")
FEWEST = 4  # letters; shorter words occur by chance
LONG = 8  # characters that are no letters
HASHES = ("id", "project", "schema")


class ReportStrings(NamedTuple):
    """All distinct strings of some reports to search for, and how many were left out and why."""

    wanted: frozenset[str] = frozenset()
    listed: int = 0
    short: int = 0


def prove(body: bytes, files: Iterable[ReportFile | Dropped]) -> LeakProof:
    """Check whether a string of these reports occurs in the update's unpacked bytes, in upper or lower case.

    The signature of a failure, which is a hash of its message and stack, counts as a string of its report. A log is
    searched for as well: it is no XML, and read as plain text.
    """
    unread: list[Dropped] = []
    read, files = 0, tuple(files)
    texts = {run.signature for run in read_reports(files).tests if run.signature}
    for file in files:
        if isinstance(file, Dropped):
            unread.append(file)
        else:
            read += _read(file, texts, unread)
    strings = strings_of(texts)
    return LeakProof(read, len(strings.wanted), strings.listed, strings.short, leaks_in(body, strings), tuple(unread))


def strings_of(texts: Iterable[str]) -> ReportStrings:
    """Return each text, its lines, its identifiers and their parts of four or more letters, without public words."""
    strings = {string for text in texts for string in _pieces(text)}
    every = {string.lower(): string for string in sorted(strings, reverse=True)}  # one of those that differ in case
    public = _public_words()
    others = [string for small, string in every.items() if small not in public]
    wanted = frozenset(filter(_is_worth, others))
    return ReportStrings(wanted, len(every) - len(others), len(others) - len(wanted))


def leaks_in(body: bytes, strings: ReportStrings) -> tuple[Leak, ...]:
    """Return the strings that occur in these bytes more often than in an empty update."""
    tensors = unpack(body)
    real, blank = _haystack(body, tensors), _haystack(*_blank(tensors))
    needles = {string: string.lower().encode("utf-8", "backslashreplace") for string in strings.wanted}
    leaks = sorted(string for string, needle in needles.items() if needle in real)
    return tuple(
        Leak(string, _place(string.lower(), tensors))
        for string in leaks
        if real.count(needles[string]) > blank.count(needles[string])
    )


def _read(file: ReportFile, texts: set[str], unread: list[Dropped]) -> bool:
    """Add the texts of the file; a file that is not well-formed XML is also read as plain text, and noted."""
    source, opener = file
    try:
        with opener() as stream:
            try:
                texts.update(_xml_texts(stream))
            except (DamagedDocument, RejectedDocument) as error:
                stream.seek(0)
                texts.update(_plain_texts(stream))
                unread.append(Dropped(source, f"no XML to its end ({error}); read as plain text", kept=True))
    except OSError as error:
        unread.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return False
    return True


def _xml_texts(stream: BinaryIO) -> set[str]:
    """Return every attribute value, text and comment."""
    texts: set[str] = set()
    has_root = False
    tokenizer = Tokenizer()
    tokenizer.join_text()

    def start(_name: str, attributes: dict[str, str]) -> None:
        nonlocal has_root
        has_root = True
        texts.update(attributes.values())

    tokenizer.set_handlers(start, None)
    tokenizer.set_text_handler(texts.add)
    tokenizer.set_comment_handler(texts.add)
    repairs = Repairs()
    chunks = repair(convert_to_utf8(read_blocks(stream), repairs), repairs)
    for _ in tokenizer.read(chunks, repairs, lambda: has_root):
        pass
    return texts


def _plain_texts(stream: BinaryIO) -> Iterator[str]:
    return (re.sub(r"<\S*|[=\"'>]", " ", line.decode("utf-8", "replace")) for line in stream)


def _pieces(text: str) -> Iterator[str]:
    if stripped := text.strip():
        yield stripped
        yield from filter(None, map(str.strip, stripped.splitlines()))
        yield from PATH.findall(stripped)
        yield from IDENTIFIER.findall(stripped)
        yield from LETTERS.findall(stripped)
        yield from (word for word in sub_words((stripped,)) if len(word) >= FEWEST)


def _is_worth(string: str) -> bool:
    return len(string) >= LONG or sum(map(str.isalpha, string)) >= FEWEST


def _public_words() -> frozenset[str]:
    return frozenset((*schema().words("name").index, *schema().words("source").index))


def _blank(tensors: Tensors) -> tuple[bytes, Tensors]:
    """Return the message with the same constants of the format, but no data of its sender."""
    words = {name: value if name in ("format", "schema") else "" for name, value in tensors.words.items()}
    vectors = {name: type(vector)("f", bytes(4 * len(vector))) for name, vector in tensors.vectors.items()}
    return pack(words, vectors), Tensors(words, vectors)


def _haystack(body: bytes, tensors: Tensors) -> bytes:
    """Return the bytes and the metadata without JSON escapes, in lower case."""
    plain = "\n".join(f"{name}\n{value}" for name, value in tensors.words.items())
    return b"\n".join((body.lower(), plain.lower().encode("utf-8", "backslashreplace")))


def _place(needle: str, tensors: Tensors) -> str:
    for name, value in tensors.words.items():
        if needle in value.lower():
            chance = ", whose digits a-f make words by chance" if name in HASHES else ""
            return f"in the metadata {name}{chance}"
    return "in its name of a task or field" if any(needle in name for name in tensors.vectors) else "in the numbers"


WITHOUT_SKLEARN = "scikit-learn is not installed, which makes the next update. Run: pip install 'fedstep[train]'"


class ChosenUpdate(NamedTuple):
    """The bytes of one update, their origin (outbox, rows, sent), and a sentence about it."""

    body: bytes
    origin: str
    note: str


def next_update(store: ProjectStore) -> ChosenUpdate | Unavailable:
    """Return the oldest update of the outbox, else the one that the waiting examples would make. Writes nothing."""
    waiting = waiting_updates(store)
    if waiting:
        more = f"; {len(waiting) - 1} more behind it" if len(waiting) > 1 else ""
        return ChosenUpdate(waiting[0], "outbox", f"it waits in the outbox{more}{_noise(load_model(store).model)}")
    if not store.read("key"):
        return Unavailable("no build of this project is known yet. Run fedstep train after your tests")
    return _from_examples(store)


def last_update(store: ProjectStore) -> ChosenUpdate | Unavailable:
    """Return the last acknowledged update, in the bytes that were sent."""
    body = load_last_sent(store)
    if not body and read_audit(store).sent:
        return Unavailable(
            "its bytes are on the machine that sent it. Run fedstep inspect --audit for what is known here"
        )
    if not body:
        return Unavailable("no update was ever sent from this history")
    try:
        unpack_update(body)
    except WireError:
        return Unavailable("the last update was sent as two shares, each of them noise alone")
    return ChosenUpdate(body, "sent", "as it was sent")


def waiting_updates(store: ProjectStore) -> tuple[bytes, ...]:
    """Return the updates of the outbox, oldest first. Unlike `Outbox.waiting`, leave damaged files alone."""
    try:
        with os.scandir(store.outbox) as entries:
            by_time = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries)
    except OSError:
        return ()
    bodies = (_update(path) for _, path in by_time if path.endswith(".safetensors"))
    return tuple(filter(None, bodies))


def _update(path: str) -> bytes:
    try:
        body = read_bounded(path, LARGEST_MESSAGE)
        unpack_update(body)
    except (OSError, WireError):
        return b""
    return body


def _from_examples(store: ProjectStore) -> ChosenUpdate | Unavailable:
    try:
        from fedstep.federation.update_builder import make_update
        from fedstep.model.training import learn_new_records
    except ImportError:
        return Unavailable(WITHOUT_SKLEARN)
    kept = load_model(store)
    try:
        update, _ = make_update(
            learn_new_records(store, kept.model.production).state.backlog, kept.model, store.keyed_hash
        )
    except HistoryError as error:
        return Unavailable(str(error))
    if isinstance(update, Unavailable):
        return update
    when = "the next fedstep train" if kept.url else "a fedstep train with --aggregator"
    note = f"made from the examples that wait, as {when} would; nothing is written{_noise(kept.model)}"
    return ChosenUpdate(pack_update(update), "rows", note)


def _noise(model: Model) -> str:
    """Describe the noise added to the numbers shown before they are sent in two shares."""
    if not model.noise:
        return ""
    return f"; as it is split it gets noise: {model.noise:g} of a task's bound in a sum of {model.shares}"


MEANINGS = {
    "format": "kind of the message",
    "schema": "digest of the public list of features",
    "base": "version of the model it was learned from",
    "id": "keyed hash of its examples; repeats count once",
    "project": "pseudonym: a keyed hash, one a history",
}
ROUNDED = "examples, rounded down to a power of two"
BY_TASK = {"examples": ROUNDED, "rows": ROUNDED, "trial": "version on trial that they scored"}


def inspection_of(store: ProjectStore, last: bool, token: InspectedToken, globs: Sequence[str]) -> Inspection:
    """Inspect the next update, else the last one sent (first with `last`); search it for the reports of `globs`.

    Nothing is written.
    """
    chosen, warnings = _chosen(store, last)
    if isinstance(chosen, Unavailable):
        return Inspection(
            chosen, token, proof=LeakProof() if globs else Unavailable("no report was named"), warnings=warnings
        )
    return Inspection(
        update=seen_update(chosen.body, chosen.origin, chosen.note),
        token=token,
        headers=headers_of(chosen.body, token.kind != "none"),
        proof=prove(chosen.body, expand(globs, Path.cwd())) if globs else Unavailable("no report was named"),
        warnings=warnings,
    )


def _chosen(store: ProjectStore, last: bool) -> tuple[ChosenUpdate | Unavailable, tuple[str, ...]]:
    update = Unavailable("") if last else next_update(store)
    if isinstance(update, ChosenUpdate):
        return update, ()
    sent = last_update(store)
    if isinstance(sent, ChosenUpdate):
        return sent, (update.reason,) if update.reason else ()
    return Unavailable("; ".join(filter(None, (update.reason, sent.reason)))), ()


def seen_update(body: bytes, origin: str, note: str = "") -> InspectedUpdate:
    """Decode an update. Raises WireError for bytes that are not safetensors."""
    tensors, known = unpack(body), update_words(body).words
    fields = tuple(InspectedField(name, value, _meaning(name)) for name, value in tensors.words.items())
    named = schema().tasks if known.get("schema") == schema().digest else {}  # those of another schema moved
    tasks = tuple(
        _task(name, vector, known.get(f"examples.{name}", ""), known.get(f"trial.{name}", ""), named.get(name))
        for name, vector in sorted(tensors.vectors.items())
    )
    packed = min(len(body), len(deflate(body)))
    return InspectedUpdate(origin, note, len(body), packed, sha256(body).hexdigest(), fields, tasks)


def headers_of(body: bytes, token: bool) -> tuple[InspectedField, ...]:
    """Return the headers that fedstep sets on the request of this update; the HTTP library adds its own."""
    packed = len(deflate(body)) < len(body)
    update_id = unpack(body).words.get("id", "")
    return (
        InspectedField("Accept", "application/json", "asks for the receipt as JSON"),
        InspectedField("Content-Type", "application/octet-stream", "constant"),
        *((InspectedField("Content-Encoding", "gzip", "constant"),) if packed else ()),
        InspectedField("Idempotency-Key", update_id, "the id again"),
        *((InspectedField("Authorization", "Bearer …", "the token, see there"),) if token else ()),
    )


def past_updates(store: ProjectStore) -> AuditRecord:
    """Return every update sent from this history. Raises HistoryError where its record cannot be read."""
    audit = read_audit(store)
    sent = (PastUpdate(**{**update._asdict(), "rows": tuple(update.rows.items())}) for update in audit.sent)
    return AuditRecord(tuple(sent), audit.damaged, KEPT_BODIES)


def _meaning(name: str) -> str:
    return BY_TASK.get(name.partition(".")[0], "") or MEANINGS.get(name, "not known to this page")


def _task(name: str, vector: Vector, rows: str, trial: str, known: Task | None) -> InspectedTask:
    """Describe one vector. For a version on trial, the last coordinate is not a change but the version's result."""
    changes = vector[:-1] if trial else vector
    names = (*_names(name, len(changes), known), f"loss of version {trial} on trial, less production's")
    moved = [Coefficient(names[index], value) for index, value in enumerate(vector) if value]
    moved.sort(key=lambda coefficient: (-abs(coefficient.value), coefficient.name))
    bound = known.clip if known else 0.0
    return InspectedTask(name, int(rows or 0), len(vector), norm(changes), bound, tuple(moved))


def _names(task: str, size: int, known: Task | None) -> Sequence[str]:
    """Return the names of the coordinates, with a number for each that the schema does not name."""
    named = known.names() if known else ()
    return (*named[:size], *(f"{task}[{index}]" for index in range(len(named), size)))
