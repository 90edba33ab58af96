"""What `fedstep inspect` shows, as values: an update as it is sent, the token beside it, a proof, the audit record."""

from dataclasses import dataclass, field

from fedstep.build.record import Absent, Dropped

__all__ = [
    "Coefficient",
    "Field",
    "Inspection",
    "Leak",
    "PastUpdate",
    "Proof",
    "Record",
    "SeenHead",
    "SeenToken",
    "SeenUpdate",
]


@dataclass(frozen=True, slots=True)
class Field:
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
class SeenHead:
    """One vector of an update. `clip` bounds its L2 `norm`; 0 for a vector that the schema does not know."""

    name: str
    rows: int  # the bucketed count that it names; 0 where it names none
    size: int  # coordinates
    norm: float
    clip: float
    coefficients: tuple[Coefficient, ...]  # the largest first


@dataclass(frozen=True, slots=True)
class SeenUpdate:
    """One update, byte for byte. `origin`: outbox, rows, sent."""

    origin: str
    note: str
    size: int  # bytes
    packed: int  # bytes as they go over the wire, compressed
    sha256: str
    fields: tuple[Field, ...]
    heads: tuple[SeenHead, ...]


@dataclass(frozen=True, slots=True)
class SeenToken:
    """The token of the request. `kind`: none, static, jwt. The signature of a jwt is in no field."""

    kind: str
    size: int = 0  # characters
    shown: str = ""  # of a static token its first characters
    fields: tuple[Field, ...] = ()
    note: str = ""  # where it is from, when nobody gave it


@dataclass(frozen=True, slots=True)
class Leak:
    """A string of a report that occurs in an update, and where."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The strings of some reports, looked for in the bytes of an update."""

    files: int = 0
    strings: int = 0  # distinct ones looked for
    listed: int = 0  # left out: words of the public list
    short: int = 0  # left out: fewer than four letters and eight characters
    leaks: tuple[Leak, ...] = ()
    unread: tuple[Dropped, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether something was looked for, all of it could be read, and nothing was found."""
        return bool(self.strings) and not self.leaks and not any(not drop.kept for drop in self.unread)


@dataclass(frozen=True, slots=True)
class Inspection:
    """All of it; `update` is absent where nothing is about to be sent and nothing was."""

    update: SeenUpdate | Absent
    token: SeenToken
    headers: tuple[Field, ...] = ()
    proof: Proof | Absent = field(default_factory=lambda: Absent("no report was named"))
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PastUpdate:
    """One update that left for one host, and the last HTTP status that came back; 0 where none did."""

    hour: str  # of the first attempt, UTC
    sha256: str
    size: int  # bytes, unpacked
    rows: tuple[tuple[str, int], ...]  # bucketed counts, by head
    base: str
    schema: str
    host: str
    answer: int


@dataclass(frozen=True, slots=True)
class Record:
    """Everything ever sent from this history, oldest first, and how many lines of the record cannot be read."""

    sent: tuple[PastUpdate, ...] = ()
    damaged: int = 0
    kept: int = 0  # of so many updates, the last ones, the bytes themselves are kept
