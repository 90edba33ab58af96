"""Render an inspection for a terminal: an update, its contents and headers, and the record of earlier ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from fedstep.report.text import WIDTH, join_lines, labelled_lines, pad, wrap
from fedstep.report.units import columns, count, size, visible
from fedstep.report.wording import ReasonPhrase, format_batches, rank_causes
from fedstep.results import FeatureContribution
from fedstep.types import Dropped, Unavailable


@dataclass(frozen=True, slots=True)
class InspectedField:
    """A named value of the metadata or of a token, and what it is. `identifies`: what it points at, "" for nothing.

    `fate`, of a claim: what an aggregator does with it: kept, checked, ignored; "" where that is its own choice.
    """

    name: str
    value: str
    meaning: str
    identifies: str = ""
    fate: str = ""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One coordinate of a delta that is not zero."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class InspectedTask:
    """One vector of an update. `clip` bounds its L2 `norm`; 0 for a vector that the schema does not know."""

    name: str
    rows: int  # the bucketed count that it names; 0 where it names none
    size: int  # coordinates
    norm: float
    clip: float
    coefficients: tuple[Coefficient, ...]  # the largest first


@dataclass(frozen=True, slots=True)
class InspectedUpdate:
    """One update, byte for byte. `origin`: outbox, rows, sent."""

    origin: str
    note: str
    size: int  # bytes
    packed: int  # bytes as they go over the wire, compressed
    sha256: str
    fields: tuple[InspectedField, ...]
    tasks: tuple[InspectedTask, ...]


@dataclass(frozen=True, slots=True)
class InspectedToken:
    """The token of the request. `kind`: none, static, jwt. The signature of a jwt is in no field."""

    kind: str
    size: int = 0  # characters
    shown: str = ""  # of a static token its first characters
    fields: tuple[InspectedField, ...] = ()
    note: str = ""  # its origin, when it was not configured


@dataclass(frozen=True, slots=True)
class Leak:
    """A string of a report that occurs in an update, and where."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class LeakProof:
    """The result of a search for strings of reports in the bytes of an update."""

    files: int = 0
    strings: int = 0  # distinct ones looked for
    listed: int = 0  # left out: words of the public list
    short: int = 0  # left out: fewer than four letters and eight characters
    leaks: tuple[Leak, ...] = ()
    unread: tuple[Dropped, ...] = ()

    @property
    def holds(self) -> bool:
        """Return whether strings were searched for, every file could be read, and nothing was found."""
        return bool(self.strings) and not self.leaks and not any(not drop.kept for drop in self.unread)


@dataclass(frozen=True, slots=True)
class Inspection:
    """The whole inspection; `update` is absent where none is waiting and none was sent."""

    update: InspectedUpdate | Unavailable
    token: InspectedToken
    headers: tuple[InspectedField, ...] = ()
    proof: LeakProof | Unavailable = field(default_factory=lambda: Unavailable("no report was named"))
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PastUpdate:
    """One update that left for one host, and the last HTTP status that came back; 0 where none did."""

    hour: str  # of the first attempt, UTC
    sha256: str
    size: int  # bytes, unpacked
    rows: tuple[tuple[str, int], ...]  # bucketed counts, by task
    base: str
    schema: str
    host: str
    answer: int


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Everything ever sent from this history, oldest first, and how many lines of the record cannot be read."""

    sent: tuple[PastUpdate, ...] = ()
    damaged: int = 0
    kept: int = 0  # number of the newest updates whose bytes are kept


MOST = 10  # coefficients a task
MOST_LEAKS = 20
NAMES, MEANINGS = 24, 58  # columns at which the values of fields begin, and their meanings
PHRASES = 47
ORIGINS = {"outbox": "the next one", "rows": "the next one", "sent": "the last one sent"}


def inspection_text(inspection: Inspection, all_of_it: bool = False) -> str:
    """Return the inspection as text; lines end with a newline. `all_of_it` shows every coefficient."""
    seen = inspection.update
    if isinstance(seen, Unavailable):
        return join_lines((*labelled_lines("Update", f"none: {visible(seen.reason, 300)}"), *_token(inspection.token)))
    return join_lines(
        (
            *_summary(seen),
            *_fields("Metadata", seen.fields),
            *_tasks(seen, all_of_it),
            *_token(inspection.token),
            *_fields("Headers of the request", inspection.headers),
            *wrap("and what any HTTP client sends: host, length, its own name and version; your IP address.", 2),
            *_proof(inspection.proof),
        )
    )


def record_text(record: AuditRecord) -> str:
    """Return every update sent, oldest first; lines end with a newline."""
    if not record.sent:
        return join_lines(labelled_lines("Ever sent", "nothing, as far as this history knows"))
    total = sum(update.size for update in record.sent)
    lines = [*labelled_lines("Ever sent", f"{count(len(record.sent), 'update')}, {size(total)} before compression"), ""]
    lines.append(f"{'hour (UTC)':<19}{'sha256':<18}{'size':>8}  {'base':>6}  {'answer':<9}host")
    return join_lines((*lines, *chain.from_iterable(map(_describe_sent, record.sent)), *_describe_damaged(record)))


def proof_words(proof: LeakProof) -> str:
    """Describe what was searched for and what was found."""
    looked = f"{count(proof.strings, 'string')} of {count(proof.files, 'report')} looked for"
    left_out = f"{proof.listed:,} words of the public list and {proof.short:,} short strings left out"
    if not proof.strings:
        return f"nothing is shown: no string was looked for ({left_out})"
    leak_count = f"{len(proof.leaks):,} found" if proof.leaks else "none occurs in the update's bytes"
    return f"{looked}, {leak_count} ({left_out})"


def _summary(seen: InspectedUpdate) -> Iterator[str]:
    yield from labelled_lines("Update", f"{ORIGINS[seen.origin]}: {seen.note}")
    yield from labelled_lines("Size", f"{seen.size:,} bytes, {seen.packed:,} compressed as they are sent")
    yield from labelled_lines("SHA-256", seen.sha256)


def _fields(title: str, fields: Iterable[InspectedField]) -> Iterator[str]:
    yield from ("", title)
    for inspected in fields:
        value = visible(inspected.value, WIDTH - NAMES) or "(empty)"
        line = f"  {pad(visible(inspected.name, NAMES - 3), NAMES - 2)}{value}"
        explained = f"tells {inspected.identifies}" if inspected.identifies else inspected.meaning
        meaning = f"{explained}; {inspected.fate}" if inspected.fate else explained
        if columns(line) < MEANINGS and MEANINGS + columns(meaning) <= WIDTH:
            yield pad(line, MEANINGS) + meaning
        else:
            yield from (line, *wrap(meaning, NAMES))


def _tasks(seen: InspectedUpdate, all_of_it: bool) -> Iterator[str]:
    moved = sum(len(task.coefficients) for task in seen.tasks)
    yield from ("", f"Changes of coefficients: {moved:,} of {sum(task.size for task in seen.tasks):,} are not zero")
    for task in seen.tasks:
        yield from _task(task, all_of_it)


def _task(task: InspectedTask, all_of_it: bool) -> Iterator[str]:
    bound = f", of at most {task.clip:g}" if task.clip else ""
    rows = f" from {task.rows}+ examples" if task.rows else ""
    moved = f"{len(task.coefficients):,} of {task.size:,}, length {task.norm:.3g}{bound}"
    yield f"  {visible(task.name, 40)}{rows}: {moved}"
    largest = task.coefficients if all_of_it else task.coefficients[:MOST]
    subject = "build" if task.name.startswith("build") else "test"
    for coefficient in largest:
        line = f"    {coefficient.value:+.6f}  {pad(visible(coefficient.name, 40), PHRASES - 17)}"
        yield f"{line}  {_phrase(coefficient.name, subject, WIDTH - 2 - columns(line))}"
    left = len(task.coefficients) - len(largest)
    if left:
        yield f"    and {left:,} smaller (--all)"


def _phrase(feature: str, subject: str, most: int) -> str:
    """Return the feature in words, or "" where it only has a name."""
    reason = next(iter(rank_causes((FeatureContribution(feature, 1.0),), subject)), ReasonPhrase("", "", 0.0))
    return visible(f"{reason.phrase} {reason.word}".strip(), most) if reason.phrase else ""


def _token(token: InspectedToken) -> Iterator[str]:
    if token.kind == "none":
        yield from ("", *labelled_lines("Token", f"none is configured: the request names no sender{token.note}"))
    elif token.kind == "static":
        meaning = "a secret that says nothing beyond itself: whoever gave it out knows whose it is"
        yield from ("", *labelled_lines("Token", f"{visible(token.shown, 10)} ({token.size} characters), {meaning}"))
    else:
        names = [inspected.name for inspected in token.fields if inspected.identifies and inspected.value]
        title = f"Token: a JWT of {token.size:,} characters, decoded and not verified{token.note}"
        yield from _fields(title, token.fields)
        yield from wrap(f"These tell where an update is from: {visible(', '.join(names) or 'none', 300)}.", 2)
        yield from wrap(_fate(token), 2)
        yield from wrap("Its signature is sent and not shown. A static token in FEDSTEP_TOKEN tells none of it.", 2)


def _fate(token: InspectedToken) -> str:
    kept = [inspected.name for inspected in token.fields if inspected.fate == "kept"]
    if not kept:
        return "Which of them an aggregator keeps, as project and owner, is named where it is started (--oidc)."
    return (
        f"An aggregator keeps {' and '.join(kept)}. It looks at what is marked as checked once; the rest it receives "
        "and ignores. One that is not ours could keep all of it."
    )


def _proof(proof: LeakProof | Unavailable) -> Iterator[str]:
    if isinstance(proof, Unavailable):
        return
    yield from ("", *labelled_lines("Against", proof_words(proof)))
    for leak in proof.leaks[:MOST_LEAKS]:
        yield from wrap(f"{visible(leak.text, 70)}: {leak.place}", 4)
    if len(proof.leaks) > MOST_LEAKS:
        yield f"    and {len(proof.leaks) - MOST_LEAKS:,} more"
    for drop in proof.unread:
        yield from wrap(f"{visible(drop.source, 60)}: {visible(drop.reason, 100)}", 4)


def _describe_damaged(record: AuditRecord) -> Iterator[str]:
    if record.damaged:
        yield from ("", f"{count(record.damaged, 'line')} of the record cannot be read.")


def _describe_sent(past: PastUpdate) -> Iterator[str]:
    answer = {0: "none", 202: "accepted"}.get(past.answer, str(past.answer))
    rows = format_batches(past.rows) or "no examples"
    facts = f"{visible(past.hour, 17):<19}{visible(past.sha256[:16], 16):<18}{past.size:>8,}"
    yield f"{facts}  {visible(past.base, 6):>6}  {answer:<9}{visible(past.host, 30)}"
    yield from wrap(visible(rows, 160), 19)
