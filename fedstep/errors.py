"""The exception tree: every failure that fedstep expects, with the exit code that `--strict` uses.

FedstepError
├── UsageError            2  an option, key or argument is wrong
├── InputError            3  reports, git or CI variables cannot be used
├── HistoryError          4  the history cannot be read or written
├── AggregatorError       5  the aggregator
│   ├── AggregatorUnreachable   no answer inside the time allowed
│   └── UpdateRefused           the aggregator answered and does not accept this update
│       ├── ContributionNotDue  it accepts no more from this project for now; nothing is wrong
│       │   └── PrivacyBudgetExhausted  it accepts no more from this project, ever
│       └── SchemaMismatch      it uses another feature schema
├── WireError             5  bytes that are not what they should be
└── MissingExtra          6  an optional part of fedstep is not installed
"""

import zlib

# What decoding raises for content that is cut, damaged or written by somebody else.
MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError),
    zlib.error,
)


class FedstepError(Exception):
    """An expected failure. `str(error)` names the culprit, `error.remedy` says what to do about it."""

    exit_code = 1

    def __init__(self, culprit: str, remedy: str = "") -> None:
        super().__init__(culprit)
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.args[0]}. {self.remedy}".rstrip(" ") if self.remedy else str(self.args[0])


class UsageError(FedstepError):
    """An option, a configuration key or an argument is wrong."""

    exit_code = 2


class InputError(FedstepError):
    """Reports, git or the CI's variables cannot be used."""

    exit_code = 3


class HistoryError(FedstepError):
    """The project's history cannot be read or written."""

    exit_code = 4


class AggregatorError(FedstepError):
    """The exchange with the aggregator did not happen."""

    exit_code = 5


class AggregatorUnreachable(AggregatorError):
    """No usable answer inside the time allowed: worth another try later."""


class UpdateRefused(AggregatorError):
    """The aggregator answered that it does not want this update; sending it again is pointless."""


class ContributionNotDue(UpdateRefused):
    """An aggregator with differential privacy accepts nothing more of this project for now; no action is needed."""


class PrivacyBudgetExhausted(ContributionNotDue):
    """The project has spent its privacy budget: it still predicts, and contributes no longer."""


class SchemaMismatch(UpdateRefused):
    """The aggregator uses another feature schema than this version of fedstep."""


class WireError(FedstepError):
    """Bytes from a network, a cache or an artifact are not what they claim to be."""

    exit_code = 5


class MissingExtra(FedstepError):
    """An optional part of fedstep is needed and not installed."""

    exit_code = 6
