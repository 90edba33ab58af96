"""How long an exchange with the aggregator may take, and when it is tried again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from random import random

from fedstep.errors import AggregatorUnreachable
from fedstep.federation.transport import Answer

__all__ = ["Patience", "ask_until"]

WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for one exchange, its retries included; the pauses between tries; the clock and the dice for both.

    `deadline` is a time of `clock`, for everything together; each pause is stretched or shortened by up to a half.
    """

    timeout: float = 10.0
    waits: tuple[float, ...] = (0.5, 1.0, 2.0)
    deadline: float = inf
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random

    def end(self) -> float:
        """The time of `clock` at which an exchange that starts now is over."""
        return min(self.clock() + self.timeout, self.deadline)


def ask_until(url: str, ask: Callable[[float], Answer], patience: Patience) -> Answer:
    """The first answer that another try would not change; `ask` gets the seconds left.

    Raises AggregatorUnreachable when the time or the tries are over first.
    """
    end = patience.end()
    trouble = AggregatorUnreachable(f"no time was left to ask {url}", "Raise --budget or --timeout.")
    for wait in (*patience.waits, inf):
        remaining = end - patience.clock()
        if remaining <= 0:
            break
        pause = wait * (0.5 + patience.random())
        try:
            answer = ask(remaining)
        except AggregatorUnreachable as error:
            trouble = error
        else:
            if answer.status not in WORTH_ANOTHER_TRY:
                return answer
            pause = max(pause, _retry_after(answer))
            trouble = _busy(url, answer)
        if patience.clock() + pause >= end:
            break
        patience.sleep(pause)
    raise trouble


def _busy(url: str, answer: Answer) -> AggregatorUnreachable:
    seconds = _retry_after(answer)
    asked = f" and asks to wait {seconds:.0f} s" if seconds else ""
    return AggregatorUnreachable(
        f"{url} answered {answer.status}{asked}",
        "The next build tries again; if it stays, look at the aggregator's log.",
    )


def _retry_after(answer: Answer) -> float:
    """The seconds the server asks for; 0 when it does not say, or says it as a date."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
