"""How this checkout stands."""

from typing import Any

import click

from fedstep.commands.options import HISTORY, PART, option
from fedstep.commands.place import place_of
from fedstep.commands.sinks import show

__all__ = ["status"]


@click.command()
@option("json", is_flag=True, help="JSON instead of text.")
@HISTORY
@PART
def status(**given: Any) -> int:
    """Say how this checkout stands: history, model and its age, what waits to be sent, privacy budget.

    \b
    Example: fedstep status
    """
    from fedstep.looking.standing import standing
    from fedstep.report.doctor_text import diagnosis_text
    from fedstep.report.look_json import diagnosis_json

    place = place_of(given)
    found = standing(place.home, place.now)
    show(diagnosis_json(found) if given["json"] else diagnosis_text(found))
    return 0
