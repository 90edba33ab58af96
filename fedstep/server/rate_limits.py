"""Limit how much a project and an owner send: token buckets in memory, per minute and per day."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from math import ceil
from typing import NamedTuple

from fedstep.server.identity import Identity

WEEK = 7 * 86_400.0  # seconds
MOST_KEYS = 100_000  # senders, about 30 MB; the one unseen for longest is dropped, and starts with full buckets again


@dataclass(frozen=True, slots=True)
class Allowance:
    """A token bucket of `most` requests, refilled within `seconds`; 0 means no limit."""

    most: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Allowances:
    """The buckets per minute and per day. A busy project has 20 builds a day, with at most one update each."""

    project: tuple[Allowance, ...] = (Allowance(60, 60.0), Allowance(2_000, 86_400.0))
    owner: tuple[Allowance, ...] = (Allowance(1_200, 60.0), Allowance(100_000, 86_400.0))

    @classmethod
    def of(cls, rates: tuple[int, int], quotas: tuple[int, int]) -> "Allowances":
        """Return the allowances for these numbers of updates per minute and per day, each (project, owner)."""
        each = [(Allowance(rate, 60.0), Allowance(quota, 86_400.0)) for rate, quota in zip(rates, quotas, strict=True)]
        return cls(*each)


class AllowanceLevel(NamedTuple):
    """What is left in each bucket at a time, in seconds of any clock, and the seconds until each has one request."""

    left: tuple[float, ...]
    at: float
    wait: float = 0.0


@dataclass(slots=True)
class AllowanceMeter:
    """The levels of all senders with the same allowances."""

    allowances: Sequence[Allowance]
    most_keys: int = MOST_KEYS
    _levels: OrderedDict[str, AllowanceLevel] = field(default_factory=OrderedDict)
    _paces: Sequence[tuple[float, float]] = ()  # per bucket: its size, and the refill per second

    def __post_init__(self) -> None:
        self._paces = [(float(each.most), each.most / each.seconds) for each in self.allowances]

    def level(self, key: str, now: float) -> AllowanceLevel:
        """Return the level of this key now."""
        last = self._levels.get(key)
        if last is None:
            return AllowanceLevel(tuple(most for most, _ in self._paces), now)
        elapsed, left, wait = max(0.0, now - last.at), [], 0.0
        for (most, pace), before in zip(self._paces, last.left, strict=True):
            level = before + elapsed * pace
            left.append(level if level < most else most)
            if level < 1.0 and most:
                wait = max(wait, (1.0 - level) / pace)
        return AllowanceLevel(tuple(left), max(now, last.at), wait)

    def take(self, key: str, level: AllowanceLevel) -> None:
        """Take one request from each bucket of this key, whose level now is `level`."""
        self._levels[key] = AllowanceLevel(tuple([left - 1.0 for left in level.left]), level.at)
        self._levels.move_to_end(key)
        if len(self._levels) > self.most_keys:
            self._levels.popitem(last=False)


@dataclass(slots=True)
class ProjectLimiter:
    """Limits how many projects an owner's token may name in `WEEK`: each of them has a part in every aggregation."""

    most: int
    _seen: OrderedDict[str, dict[str, float]] = field(default_factory=OrderedDict)

    def admit(self, owner: str, project: str, now: float) -> bool:
        """Return whether the owner may send for this project, and remember it if so."""
        seen = self._seen.setdefault(owner, {})
        self._seen.move_to_end(owner)
        if len(self._seen) > MOST_KEYS // 100:
            self._seen.popitem(last=False)
        if project not in seen and self.most and len(seen) >= self.most:
            for name in [name for name, last in seen.items() if now - last > WEEK]:
                del seen[name]
            if len(seen) >= self.most:
                return False
        seen[project] = now
        return True


def client_of(address: str) -> str:
    """Return the address that counts as one client; of IPv6 the network of 64 bits.

    Some proxies forward an address with its port, or a word.
    """
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address[:64].partition(":")[0]
    return str(parsed.ipv4_mapped or ":".join(parsed.exploded.split(":")[:4]))


class ReadLimiter:
    """Limits how much a client reads in a minute."""

    def __init__(self, most: int) -> None:
        self._meter = AllowanceMeter((Allowance(most, 60.0),))

    def take(self, address: str, now: float) -> int:
        """Take one request and return 0, or take none and return the seconds to wait."""
        key = client_of(address)
        level = self._meter.level(key, now)
        if not level.wait:
            self._meter.take(key, level)
        return ceil(level.wait)


class RateLimiter:
    """Limits senders both as project and as owner. Senders without identity are on this machine and not limited."""

    def __init__(self, allowances: Allowances) -> None:
        self._meters: Mapping[str, AllowanceMeter] = {
            "project": AllowanceMeter(allowances.project),
            "owner": AllowanceMeter(allowances.owner),
        }

    def take(self, sender: Identity, now: float) -> tuple[str, int]:
        """Take one request and return ("", 0), or take none and return what is limited and the seconds to wait."""
        levels, longest, wait = [], "", 0.0
        for name, key in (("project", sender.project), ("owner", sender.owner)):
            if key:
                meter = self._meters[name]
                level = meter.level(key, now)
                levels.append((meter, key, level))
                longest, wait = (name, level.wait) if level.wait > wait else (longest, wait)
        if longest:
            return longest, ceil(wait)
        for meter, key, level in levels:
            meter.take(key, level)
        return "", 0
