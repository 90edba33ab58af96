"""Options of `serve` that promise differential privacy."""

from typing import Any

import click

from fedstep.commands.options import Given, option, together

__all__ = ["PROMISING", "promising"]

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
    """The settings that these options mean, by name; no promise without an epsilon."""
    from fedstep.federation.wire import Promise

    if given["privacy_epsilon"] is None:
        return {}
    names = ("privacy_epsilon", "privacy_delta", "privacy_releases", "privacy_days")
    return {"promise": Promise(*(given[name] for name in names))}
