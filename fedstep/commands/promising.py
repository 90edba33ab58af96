"""Options of `serve` that promise differential privacy."""

from typing import Any

import click

from fedstep.commands.options import Given, given_names, option, together
from fedstep.errors import UsageError

__all__ = ["PROMISING", "promising"]

TERMS = "privacy_delta", "privacy_releases", "privacy_days"
RANGE = click.FloatRange(0, min_open=True)

PROMISING = together(
    option("privacy-epsilon", type=RANGE, help="Differential privacy: what a project reveals in its life; 8."),
    option("privacy-delta", type=RANGE, default=1e-6, show_default=True, help="The chance that it reveals more."),
    option(
        "privacy-releases",
        type=click.IntRange(1),
        default=52,
        show_default=True,
        help="Batches a project contributes in its life.",
    ),
    option("privacy-days", type=RANGE, default=7.0, show_default=True, help="Days in which it contributes one."),
)


def promising(given: Given) -> dict[str, Any]:
    """The settings that these options mean, by name; none without an epsilon. Raises UsageError for terms alone."""
    from fedstep.federation.wire import Promise

    if given["privacy_epsilon"] is None:
        _check_silence()
        return {}
    return {"promise": Promise(*(given[name] for name in ("privacy_epsilon", *TERMS)))}


def _check_silence() -> None:
    """Raises UsageError where somebody gave terms of a promise: without an epsilon there is none."""
    idle = given_names(*TERMS)
    if idle:
        raise UsageError(
            f"without --privacy-epsilon nothing is promised, and {', '.join(idle)} would do nothing",
            "Give --privacy-epsilon, or leave these out, in the environment and in files, too.",
        )
