"""Options of `serve` for one of two aggregators that each hold half of every update."""

from math import isnan
from typing import Any

import click

from fedstep.commands.options import Given, given_names, option, together
from fedstep.errors import UsageError
from fedstep.federation.bounds import MOST_NOISE, NOISE

__all__ = ["SHARING", "sharing"]

SHARING = together(
    option(
        "role",
        type=click.Choice(["alone", "leader", "helper"]),
        default="alone",
        show_default=True,
        help="One of two that share updates between them.",
    ),
    option("peer", metavar="URL", default="", help="Of a leader: its helper."),
    option("peer-token", metavar="TOKEN", default="", help="The same for both; keep it in FEDSTEP_PEER_TOKEN."),
    option("fewest", type=click.IntRange(2), default=5, show_default=True, help="Projects in a sum, at least."),
    option(
        "noise",
        type=click.FloatRange(0, MOST_NOISE),
        default=NOISE,
        show_default=True,
        help="In such a sum, in units of a head's bound.",
    ),
)


def sharing(given: Given) -> dict[str, Any]:
    """The settings that these options mean, by name. Raises UsageError for noise that nobody would add."""
    if given["role"] != "leader" and given_names("noise"):
        raise UsageError(
            f"--role {given['role']} has no noise, and --noise would do nothing",
            "Give it to the leader, or leave it out, in the environment and in files, too.",
        )
    if isnan(given["noise"]):
        raise UsageError("--noise is not a number", f"Give one from 0 to {MOST_NOISE:g}.")
    plain = {name: given[name] for name in ("role", "peer", "fewest", "noise")}
    return plain | {"peer_token": given["peer_token"].strip()}
