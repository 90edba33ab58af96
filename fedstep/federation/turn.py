"""Whether it is this project's turn, where an aggregator with differential privacy takes one batch in a period."""

import json
from typing import NamedTuple

from fedstep.federation.kept import Kept
from fedstep.history.files import TURNS
from fedstep.history.home import Home

__all__ = ["Turns", "budget_is_spent", "is_turn", "read_turns", "took_turn"]

DAY = 86_400.0


class Turns(NamedTuple):
    """What this history gave to the aggregator at `url`: how many batches, when the last (seconds since the epoch).

    `over`: the aggregator said that the project's budget is spent.
    """

    url: str = ""
    made: int = 0
    last: float = 0.0
    over: bool = False


def read_turns(home: Home, url: str) -> Turns:
    """What was given to this aggregator; nothing where the file tells of another one, or is damaged."""
    try:
        found = json.loads(home.read(TURNS) or b"{}")
        turns = Turns(str(found["url"]), int(found["made"]), float(found["last"]), bool(found["over"]))
    except (ValueError, KeyError, TypeError):
        return Turns(url)
    return turns if turns.url == url else Turns(url)


def is_turn(home: Home, kept: Kept) -> bool:
    """Whether an update may be made now: always where nothing is promised, else once in a period of the calendar.

    Now is when the aggregator was last asked: whoever cannot reach it need not contribute.
    """
    promise = kept.model.promise
    if not promise.releases:
        return True
    turns, period = read_turns(home, kept.url), promise.days * DAY
    if turns.over or turns.made >= promise.releases:
        return False
    return not turns.made or kept.fetched_at // period > turns.last // period


def took_turn(home: Home, kept: Kept) -> None:
    """Note that an update was made."""
    if kept.model.promise.releases:
        turns = read_turns(home, kept.url)
        _write(home, turns._replace(made=turns.made + 1, last=kept.fetched_at))


def budget_is_spent(home: Home, url: str) -> None:
    """Note that this aggregator takes nothing from the project any more."""
    _write(home, read_turns(home, url)._replace(over=True))


def _write(home: Home, turns: Turns) -> None:
    home.write(TURNS, json.dumps(turns._asdict()).encode())
