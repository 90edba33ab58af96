"""A history for people and for programs."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from fedstep.build.record import Absent
from fedstep.history.overview import Overview, Travel
from fedstep.report.markup import code, page, table

__all__ = ["overview_json", "overview_markdown", "overview_text"]

LABEL = 14
MOST_STREAMS = 10
SHORT = 12  # hex digits of a commit


def overview_text(seen: Overview, travel: Travel | Absent) -> str:
    """A line for each fact."""
    return "".join(f"{label:<{LABEL}}{_printable(text)}\n" for label, text in _lines(seen, travel))


def overview_markdown(seen: Overview, travel: Travel | Absent) -> str:
    """The same for a step summary."""
    return page("## fedstep: history", table(("", ""), [(label, code(text)) for label, text in _lines(seen, travel)]))


def overview_json(seen: Overview, travel: Travel | Absent) -> str:
    """One object; times are seconds since the epoch, what is not known is null."""
    fields = {**seen._asdict(), "streams": [{"stream": name, "builds": count} for name, count in seen.streams]}
    fields["ref"] = None if isinstance(travel, Absent) else {k: _known(v) for k, v in travel._asdict().items()}
    return json.dumps({name: _known(value) for name, value in fields.items()}, indent=1) + "\n"


def _lines(seen: Overview, travel: Travel | Absent) -> Iterator[tuple[str, str]]:
    yield "History", seen.folder
    yield "Builds", f"{seen.builds}, {seen.unlearned} not learned yet" if seen.unlearned else str(seen.builds)
    if not isinstance(seen.first, Absent) and not isinstance(seen.last, Absent):
        yield "Ended", f"from {_moment(seen.first)} to {_moment(seen.last)} UTC"
    yield "Tests", str(seen.tests)
    for number, (stream, count) in enumerate(seen.streams[:MOST_STREAMS]):
        yield "" if number else "Streams", f"{count:>4}  {stream}"
    yield (
        "Size",
        f"{_megabytes(seen.record_bytes)} in records, {_megabytes(seen.all_bytes)} with what is made from them",
    )
    yield "Generation", seen.generation
    if seen.pruned_up_to:
        yield "Pruned", f"up to builds that ended {_moment(int(seen.pruned_up_to[:14]) / 1000)} UTC"
    if not isinstance(travel, Absent):
        yield from _ref_lines(travel)


def _ref_lines(travel: Travel) -> Iterator[tuple[str, str]]:
    yield "Ref", travel.ref
    here = travel.local[:SHORT] or "not there"
    yield "This clone", f"{here}, {travel.unpublished} of its builds not in it" if travel.unpublished else here
    if not travel.remote_name:
        yield "Remote", "none"
    elif isinstance(travel.remote, Absent):
        yield travel.remote_name, travel.remote.reason
    else:
        yield travel.remote_name, (travel.remote[:SHORT] or "not there") + _compared(travel)
    if travel.fetched_at:
        yield "Fetched", f"{_moment(travel.fetched_at)} UTC"


def _compared(travel: Travel) -> str:
    return ", the same" if travel.remote and travel.remote == travel.local else ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _known(value: object) -> object:
    return None if isinstance(value, Absent) else value


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
