"""An inspection for a terminal: which update, what is in it, what goes with it, and the record of all before it."""

from collections.abc import Iterable, Iterator
from itertools import chain

from fedstep.build.record import Absent
from fedstep.model.linear import Reason
from fedstep.report.escape import columns, visible
from fedstep.report.inspected import Field, Inspection, PastUpdate, Proof, Record, SeenHead, SeenToken, SeenUpdate
from fedstep.report.lines import WIDTH, padded, page, row, wrapped
from fedstep.report.reasons import Cause, causes
from fedstep.report.units import count, size
from fedstep.report.wording import sent_rows

__all__ = ["inspection_text", "proof_words", "record_text"]

MOST = 10  # coefficients a head
MOST_LEAKS = 20
NAMES, MEANINGS = 24, 58  # columns at which the values of fields begin, and their meanings
PHRASES = 47
ORIGINS = {"outbox": "the next one", "rows": "the next one", "sent": "the last one sent"}


def inspection_text(inspection: Inspection, all_of_it: bool = False) -> str:
    """The inspection; lines end with a newline. `all_of_it`: every coefficient, however many."""
    seen = inspection.update
    if isinstance(seen, Absent):
        return page((*row("Update", f"none: {visible(seen.reason, 300)}"), *_token(inspection.token)))
    return page(
        (
            *_summary(seen),
            *_fields("Metadata", seen.fields),
            *_heads(seen, all_of_it),
            *_token(inspection.token),
            *_fields("Headers of the request", inspection.headers),
            *wrapped("and what any HTTP client sends: host, length, its own name and version; your IP address.", 2),
            *_proof(inspection.proof),
        )
    )


def record_text(record: Record) -> str:
    """Everything ever sent, oldest first; lines end with a newline."""
    if not record.sent:
        return page(row("Ever sent", "nothing, as far as this history knows"))
    total = sum(one.size for one in record.sent)
    lines = [*row("Ever sent", f"{count(len(record.sent), 'update')}, {size(total)} before compression"), ""]
    lines.append(f"{'hour (UTC)':<19}{'sha256':<18}{'size':>8}  {'base':>6}  {'answer':<9}host")
    return page((*lines, *chain.from_iterable(map(_sent, record.sent)), *_damaged(record)))


def proof_words(proof: Proof) -> str:
    """What was looked for and what was found."""
    looked = f"{count(proof.strings, 'string')} of {count(proof.files, 'report')} looked for"
    left_out = f"{proof.listed:,} words of the public list and {proof.short:,} short strings left out"
    if not proof.strings:
        return f"nothing is shown: no string was looked for ({left_out})"
    found = f"{len(proof.leaks):,} found" if proof.leaks else "none occurs in the update's bytes"
    return f"{looked}, {found} ({left_out})"


def _summary(seen: SeenUpdate) -> Iterator[str]:
    yield from row("Update", f"{ORIGINS[seen.origin]}: {seen.note}")
    yield from row("Size", f"{seen.size:,} bytes, {seen.packed:,} compressed as they are sent")
    yield from row("SHA-256", seen.sha256)


def _fields(title: str, fields: Iterable[Field]) -> Iterator[str]:
    yield from ("", title)
    for one in fields:
        value = visible(one.value, WIDTH - NAMES) or "(empty)"
        line = f"  {padded(visible(one.name, NAMES - 3), NAMES - 2)}{value}"
        told = f"tells {one.identifies}" if one.identifies else one.meaning
        meaning = f"{told}; {one.fate}" if one.fate else told
        if columns(line) < MEANINGS and MEANINGS + columns(meaning) <= WIDTH:
            yield padded(line, MEANINGS) + meaning
        else:
            yield from (line, *wrapped(meaning, NAMES))


def _heads(seen: SeenUpdate, all_of_it: bool) -> Iterator[str]:
    moved = sum(len(head.coefficients) for head in seen.heads)
    yield from ("", f"Changes of coefficients: {moved:,} of {sum(head.size for head in seen.heads):,} are not zero")
    for head in seen.heads:
        yield from _head(head, all_of_it)


def _head(head: SeenHead, all_of_it: bool) -> Iterator[str]:
    bound = f", of at most {head.clip:g}" if head.clip else ""
    rows = f" from {head.rows}+ rows" if head.rows else ""
    moved = f"{len(head.coefficients):,} of {head.size:,}, length {head.norm:.3g}{bound}"
    yield f"  {visible(head.name, 40)}{rows}: {moved}"
    shown = head.coefficients if all_of_it else head.coefficients[:MOST]
    subject = "build" if head.name.startswith("build") else "test"
    for one in shown:
        line = f"    {one.value:+.6f}  {padded(visible(one.name, 40), PHRASES - 17)}"
        yield f"{line}  {_phrase(one.name, subject, WIDTH - 2 - columns(line))}"
    left = len(head.coefficients) - len(shown)
    if left:
        yield f"    and {left:,} smaller (--all)"


def _phrase(feature: str, subject: str, most: int) -> str:
    """What the feature says, in words; "" where its name is all there is."""
    found = next(iter(causes((Reason(feature, 1.0),), subject)), Cause("", "", 0.0))
    return visible(f"{found.phrase} {found.word}".strip(), most) if found.phrase else ""


def _token(token: SeenToken) -> Iterator[str]:
    if token.kind == "none":
        yield from ("", *row("Token", f"none is configured: the request names no sender{token.note}"))
    elif token.kind == "static":
        told = "a secret that says nothing beyond itself: whoever gave it out knows whose it is"
        yield from ("", *row("Token", f"{visible(token.shown, 10)} ({token.size} characters), {told}"))
    else:
        names = [one.name for one in token.fields if one.identifies and one.value]
        title = f"Token: a JWT of {token.size:,} characters, decoded and not verified{token.note}"
        yield from _fields(title, token.fields)
        yield from wrapped(f"These tell where an update is from: {visible(', '.join(names) or 'none', 300)}.", 2)
        yield from wrapped(_fate(token), 2)
        yield from wrapped("Its signature is sent and not shown. A static token in FEDSTEP_TOKEN tells none of it.", 2)


def _fate(token: SeenToken) -> str:
    kept = [one.name for one in token.fields if one.fate == "kept"]
    if not kept:
        return "Which of them an aggregator keeps, as project and owner, is named where it is started (--oidc)."
    return (
        f"An aggregator keeps {' and '.join(kept)}. It looks at what is marked as checked once; the rest it receives "
        "and ignores. One that is not ours could keep all of it."
    )


def _proof(proof: Proof | Absent) -> Iterator[str]:
    if isinstance(proof, Absent):
        return
    yield from ("", *row("Against", proof_words(proof)))
    for leak in proof.leaks[:MOST_LEAKS]:
        yield from wrapped(f"{visible(leak.text, 70)}: {leak.place}", 4)
    if len(proof.leaks) > MOST_LEAKS:
        yield f"    and {len(proof.leaks) - MOST_LEAKS:,} more"
    for drop in proof.unread:
        yield from wrapped(f"{visible(drop.source, 60)}: {visible(drop.reason, 100)}", 4)


def _damaged(record: Record) -> Iterator[str]:
    if record.damaged:
        yield from ("", f"{count(record.damaged, 'line')} of the record cannot be read.")


def _sent(one: PastUpdate) -> Iterator[str]:
    answer = {0: "none", 202: "accepted"}.get(one.answer, str(one.answer))
    rows = sent_rows(one.rows) or "no rows"
    facts = f"{visible(one.hour, 17):<19}{visible(one.sha256[:16], 16):<18}{one.size:>8,}  {visible(one.base, 6):>6}"
    yield f"{facts}  {answer:<9}{visible(one.host, 30)}"
    yield from wrapped(visible(rows, 160), 19)
