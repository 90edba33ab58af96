"""The page at `/`: what the aggregator serves, tries and was sent. Rendered here, without scripts, nothing fetched."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from fedstep.errors import UsageError
from fedstep.features.schema import Schema
from fedstep.server.gate import Gate
from fedstep.server.listing import Ended
from fedstep.server.overview import VOLUMES, Look, Overview
from fedstep.server.page_chart import Point, bar, trials_chart
from fedstep.server.page_figures import Figures, figures
from fedstep.server.problems import Problem

__all__ = ["Page", "page_html"]

KEPT_SECONDS = 5.0  # one look serves everyone for so long, however many ask
RARELY, SELDOM = 20.0, 300.0  # times as long as it took, if that is longer; but not longer than so many seconds
MOST_POINTS, MOST_ROWS, MOST_WORDS = 40, 12, 12
WORDS = ("name=", "source=")  # how the coordinates begin that stand for words
TEMPLATES = Path(__file__).parent / "templates"


class Page:
    """The page and the status, from one look into the store that everyone shares."""

    def __init__(
        self,
        overview: Overview,
        exposition: Callable[[], bytes],
        ours: Schema,
        gate: Gate | None,
        clock: Callable[[], float],
    ) -> None:
        self._overview, self._exposition, self._ours, self._gate = overview, exposition, ours, gate
        self._clock, self._one = clock, asyncio.Lock()
        self._seen: tuple[Look, str] | None = None
        self._again = 0.0  # when to look again, on the monotonic clock

    async def html(self) -> Response:
        """The page. Raises Problem: 503, the store cannot be read."""
        _, text = await self._newest()
        return Response(text, 200, {"Content-Security-Policy": policy(), **_HEADERS}, "text/html")

    async def status(self) -> Mapping[str, object]:
        """What is served, on trial and waiting. Raises Problem: 503, the store cannot be read."""
        look, _ = await self._newest()
        return look.status()

    def close(self) -> None:
        """Ends the connections."""
        self._overview.close()

    async def _newest(self) -> tuple[Look, str]:
        """The look and its page, made in a thread: to look takes 35 ms and to draw 65, in which nobody else is kept.

        To look reads every update of a week. Where that takes long it is done as rarely.
        """
        async with self._one:
            began = time.monotonic()
            if self._seen is None or began >= self._again:
                self._seen = await asyncio.to_thread(self._draw)
                ended = time.monotonic()
                self._again = ended + max(KEPT_SECONDS, min(SELDOM, RARELY * (ended - began)))
            return self._seen

    def _draw(self) -> tuple[Look, str]:
        try:
            look = self._overview.look(self._clock())
        except (SQLAlchemyError, UsageError) as error:
            text = "The store cannot be read now. Try again later."
            raise Problem(503, "store", text, retry_after=10, reason=type(error).__name__) from error
        return look, page_html(look, figures(self._exposition()), self._ours, self._gate)


@dataclass(frozen=True, slots=True)
class HeadRow:
    """One head in the table, and its chart."""

    name: str
    source: int
    trial: int | None
    votes: int
    mean: float
    low: float
    high: float
    spent: float
    chart: str


def page_html(look: Look, shown: Figures, ours: Schema, gate: Gate | None) -> str:
    """The whole document. Pure."""
    heads = [_head_row(name, look, gate or Gate()) for name in ours.heads]
    busiest = max((day.updates for day in look.days), default=0) or 1
    largest = max(look.volumes, default=0) or 1
    volumes = [
        (_volume_words(least, most), count, bar(count / largest))
        for (least, most), count in zip(VOLUMES, look.volumes, strict=True)
    ]
    up, down = _words(look, ours)
    return _template().render(
        style=_style(),
        look=look,
        gate=gate,
        heads=heads,
        versions=look.lineage.versions[:MOST_ROWS],
        verdicts=look.lineage.verdicts[:MOST_ROWS],
        days=[(day, bar(day.updates / busiest)) for day in look.days],
        sent=sum(day.updates for day in look.days),
        volumes=volumes,
        figures=shown,
        clipped=[(name, share, bar(share)) for name, share in shown.clipped.items()],
        staleness=[(folds, share, bar(share)) for folds, share in shown.staleness],
        up=up,
        down=down,
        empty=not look.sent(),
    )


@cache
def policy() -> str:
    """The content security policy: nothing but this one style sheet, by its hash."""
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _head_row(name: str, look: Look, gate: Gate) -> HeadRow:
    trial = next((trial for trial in look.lineage.trials if trial.head == name), None)
    verdict = look.standing.get(name)
    mean, low, high = (verdict.mean, verdict.low, verdict.high) if verdict else (0.0, 0.0, 0.0)
    spent = look.spent.get(name, 0.0)
    points = [_point(ended) for ended in reversed(look.lineage.verdicts) if ended.head == name]
    if trial and verdict and verdict.counted:
        points.append(Point(look.current.head.version, "open", mean, low, high, spent))
    top = gate.reach * (1 + gate.liars) / (1 - gate.liars) * 1.05
    chart = trials_chart(f"trials of {name} over versions", points[-MOST_POINTS:], gate.margin, top) if points else ""
    source = look.current.head.sources[name]
    votes = verdict.counted if verdict else 0
    return HeadRow(name, source, trial.version if trial else None, votes, mean, low, high, spent, chart)


def _point(ended: Ended) -> Point:
    mean, low, high, spent = (float(ended.figures.get(key, 0.0)) for key in ("mean", "low", "high", "spent"))
    return Point(ended.version, ended.outcome, mean, low, high, spent)


def _volume_words(least: int, most: int) -> str:
    """
    >>> _volume_words(2, 5), _volume_words(101, 0)
    ('2 to 5 updates', '101 updates or more')
    """
    if not most:
        return f"{least} updates or more"
    return "1 update" if least == most else f"{least} to {most} updates"


def _words(look: Look, ours: Schema) -> tuple[Sequence[tuple[str, float, str]], Sequence[tuple[str, float, str]]]:
    """The words that raise the chance of a flake most in production, and those that lower it, each with a bar."""
    head = ours.heads.get("flaky")
    if head is None:
        return (), ()
    weights = zip(head.names(), look.current.production["flaky"], strict=True)
    known = sorted(((weight, name) for name, weight in weights if weight and name.startswith(WORDS)), reverse=True)
    largest = max((abs(weight) for weight, _ in known), default=1.0)
    rows = [(name, weight, bar(abs(weight) / largest, "up" if weight > 0 else "down")) for weight, name in known]
    up = [row for row in rows if row[1] > 0][:MOST_WORDS]
    return up, [row for row in reversed(rows) if row[1] < 0][:MOST_WORDS]


@cache
def _style() -> str:
    return (TEMPLATES / "page.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(TEMPLATES),
    )
    return environment.get_template("page.html")
