"""How this checkout stands: its history, model and outbox, and what it may still contribute to its aggregator."""

import os
from datetime import UTC, datetime

from fedstep.errors import HistoryError
from fedstep.federation.kept import Kept, kept_model
from fedstep.federation.turn import Turns, read_turns
from fedstep.history.home import Home
from fedstep.looking.keeping import check_folder, check_model, check_outbox
from fedstep.report.diagnosis import OK, PROBLEM, Check, Diagnosis
from fedstep.report.units import count

__all__ = ["check_privacy", "standing"]


def standing(home: Home, now: float) -> Diagnosis:
    """History, model, outbox, privacy; nobody is asked."""
    folder = check_folder(home)
    if folder.state == PROBLEM or not os.path.lexists(home.folder):
        return Diagnosis((folder,))
    try:
        kept = kept_model(home)
        builds = Check("Builds", OK, f"{count(len(home.log.files()), 'build')} recorded")
        turns = read_turns(home, kept.url)
        return Diagnosis(
            (folder, builds, check_model(kept, now, kept.url), check_outbox(home, kept.url), check_privacy(kept, turns))
        )
    except HistoryError as error:
        return Diagnosis((folder, Check("Builds", PROBLEM, str(error.args[0]), error.remedy)))


def check_privacy(kept: Kept, turns: Turns) -> Check:
    """What the aggregator promises, and how much of the budget is left."""
    if not kept.url:
        return Check("Privacy", OK, "nothing is sent: no aggregator was ever asked")
    promise = kept.model.promise
    if not promise.releases:
        return Check("Privacy", OK, "no differential privacy: an update is sent whenever a batch is full")
    says = (
        f"differential privacy, epsilon {promise.epsilon:g} at delta {promise.delta:g}: "
        f"{turns.made} of {count(promise.releases, 'contribution')} made, one in {promise.days:g} days"
    )
    if turns.over or turns.made >= promise.releases:
        return Check("Privacy", OK, f"{says}; the budget is spent: this project predicts and contributes no longer")
    last = f"; the last on {datetime.fromtimestamp(turns.last, UTC):%Y-%m-%d}" if turns.made else ""
    return Check("Privacy", OK, f"{says}{last}")
