"""Options of `serve` for one of two aggregators that each hold half of every update."""

from typing import Any

import click

from fedstep.commands.options import Given, option, together
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
    """The settings that these options mean, by name."""
    plain = {name: given[name] for name in ("role", "peer", "fewest", "noise")}
    return plain | {"peer_token": given["peer_token"].strip()}
