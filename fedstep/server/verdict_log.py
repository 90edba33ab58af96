"""The log of verdicts: one line for each trial that ended."""

import logging
from collections.abc import Iterable

from fedstep.server.records import Decision

__all__ = ["log_verdicts"]

log = logging.getLogger("fedstep.server")


def log_verdicts(decisions: Iterable[Decision]) -> None:
    """One line a verdict. To be called once they are on disk: a fold that fails comes to them again."""
    for decision in decisions:
        trial, verdict = decision.trial, decision.verdict
        figures = verdict.figures()
        fields = {"head": trial.head, "trial": trial.version, "outcome": verdict.outcome, **figures}
        said = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("trial of %s %d: %s (%s)", trial.head, trial.version, verdict.outcome, said, extra={"fields": fields})
