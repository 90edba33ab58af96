"""The halves of the exchange alone."""

from typing import Any

import click

from fedstep.commands.options import HELPER, HISTORY, NETWORK, PART, STRICT
from fedstep.commands.place import needed_aggregator, place_of
from fedstep.commands.sinks import exit_code, say, show
from fedstep.errors import AggregatorError, HistoryError

__all__ = ["pull", "push"]


@click.command()
@NETWORK
@HELPER
@PART
@HISTORY
@STRICT
def push(**given: Any) -> int:
    """Send the updates that wait in the outbox.

    \b
    Example: fedstep push --aggregator https://fedstep.example.org
    """
    from fedstep.federation.exchange import deliver

    place = place_of(given)
    flushed = deliver(place.home, needed_aggregator(given, place))
    problems = (*flushed.failures, *flushed.refused, *map(HistoryError, flushed.warnings))
    say(*map(str, problems))
    show(f"{len(flushed.sent)} sent, {len(flushed.refused)} refused, {flushed.waiting} waiting\n")
    return exit_code(given, problems)


@click.command()
@NETWORK
@PART
@HISTORY
@STRICT
def pull(**given: Any) -> int:
    """Fetch the newest model, if there is a newer one.

    \b
    Example: fedstep pull --aggregator https://fedstep.example.org
    """
    from fedstep.federation.exchange import refresh
    from fedstep.outlook import keep_outlook
    from fedstep.steps import forecaster_for

    place = place_of(given)
    aggregator = needed_aggregator(given, place)
    try:
        place.home.prepare()
        kept = refresh(place.home, aggregator, place.now)
        keep_outlook(place.home, kept, forecaster_for(place.home, kept))
    except (AggregatorError, HistoryError) as error:
        say(str(error))
        return exit_code(given, (error,))
    show(f"production {kept.model.production_version}, head {kept.model.head_version}\n")
    return 0
