"""How much one project and one owner may send: token buckets in memory, by the minute and by the day. Pure."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from fedstep.server.identity import Identity

MOST_KEYS = 100_000  # senders remembered, about 30 MB; whoever was away longest is forgotten, and starts full again


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many requests at once, and so many again in `seconds`; 0 is without limit."""

    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Allowances:
    """By the minute and by the day. A busy project has 20 builds a day, each with one update at most."""

    project: tuple[Allowance, ...] = (Allowance(60, 60.0), Allowance(2_000, 86_400.0))
    owner: tuple[Allowance, ...] = (Allowance(1_200, 60.0), Allowance(100_000, 86_400.0))

    @classmethod
    def of(cls, rates: tuple[int, int], quotas: tuple[int, int]) -> "Allowances":
        """Of a project and an owner each: updates a minute, and updates a day."""
        each = [(Allowance(rate, 60.0), Allowance(quota, 86_400.0)) for rate, quota in zip(rates, quotas, strict=True)]
        return cls(*each)


class AllowanceLevel(NamedTuple):
    """What is left of each allowance at a time, in seconds of any clock, and the seconds until there is one of each."""

    left: tuple[float, ...]
    at: float
    wait: float = 0.0


@dataclass(slots=True)
class AllowanceMeter:
    """The levels of those who share the same allowances."""

    allowances: Sequence[Allowance]
    most_keys: int = MOST_KEYS
    _levels: OrderedDict[str, AllowanceLevel] = field(default_factory=OrderedDict)
    _paces: Sequence[tuple[float, float]] = ()  # of each allowance, how much there is at most, and more a second

    def __post_init__(self) -> None:
        self._paces = [(float(one.most), one.most / one.seconds) for one in self.allowances]

    def level(self, key: str, now: float) -> AllowanceLevel:
        """What this key has now."""
        last = self._levels.get(key)
        if last is None:
            return AllowanceLevel(tuple(most for most, _ in self._paces), now)
        gone, left, wait = max(0.0, now - last.at), [], 0.0
        for (most, pace), before in zip(self._paces, last.left, strict=True):
            level = before + gone * pace
            left.append(level if level < most else most)
            if level < 1.0 and most:
                wait = max(wait, (1.0 - level) / pace)
        return AllowanceLevel(tuple(left), max(now, last.at), wait)

    def take(self, key: str, level: AllowanceLevel) -> None:
        """One less of each for this key, which has this level now."""
        self._levels[key] = AllowanceLevel(tuple([left - 1.0 for left in level.left]), level.at)
        self._levels.move_to_end(key)
        if len(self._levels) > self.most_keys:
            self._levels.popitem(last=False)


class RateLimiter:
    """Whether a sender may send one more, as project and as owner. Who is not known is on this machine: not limited."""

    def __init__(self, allowances: Allowances, most_keys: int = MOST_KEYS) -> None:
        self._meters: Mapping[str, AllowanceMeter] = {
            "project": AllowanceMeter(allowances.project, most_keys),
            "owner": AllowanceMeter(allowances.owner, most_keys),
        }

    def take(self, sender: Identity, now: float) -> tuple[str, int]:
        """Takes one and says ("", 0); or takes none, and says who sent too much and for how many seconds to wait."""
        found, longest, wait = [], "", 0.0
        for name, key in (("project", sender.project), ("owner", sender.owner)):
            if key:
                meter = self._meters[name]
                level = meter.level(key, now)
                found.append((meter, key, level))
                longest, wait = (name, level.wait) if level.wait > wait else (longest, wait)
        if longest:
            return longest, ceil(wait)
        for meter, key, level in found:
            meter.take(key, level)
        return "", 0
