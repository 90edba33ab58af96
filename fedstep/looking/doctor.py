"""Everything that a build will need, looked at in the order in which it needs it."""

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fedstep.build.record import Absent
from fedstep.errors import HistoryError
from fedstep.federation.exchange import Aggregator
from fedstep.federation.kept import Kept, kept_model
from fedstep.history.home import Home
from fedstep.history.memory import Remembered, recall
from fedstep.history.summary import Summary
from fedstep.looking.aggregator import check_aggregator, check_token
from fedstep.looking.job import check_ci, check_git, check_reports, check_start
from fedstep.looking.keeping import check_builds, check_folder, check_model, check_outbox
from fedstep.looking.machine import check_disk, check_packages, check_proxies
from fedstep.looking.token import seen_token
from fedstep.looking.variables import check_variables
from fedstep.report.diagnosis import OK, PROBLEM, Check, Diagnosis
from fedstep.workplace import Workplace, in_ci

__all__ = ["diagnose"]


def diagnose(
    place: Workplace,
    globs: Sequence[str],
    aggregator: Aggregator | Absent,
    secret: str,
    mark: float | None,
    env: Mapping[str, str],
    options: Collection[str],
) -> Diagnosis:
    """All checks. The history is read and, but for a file that comes and goes, not written.

    `aggregator` is asked twice at most and its helper once, within its patience; `mark` is when `fedstep predict` said
    that the job began; `options` are the variables that give one.
    """
    url = "" if isinstance(aggregator, Absent) else aggregator.url
    with ThreadPoolExecutor(1) as waiting:  # for the network, while the rest is looked at
        exchange = waiting.submit(_exchange, aggregator, secret, place.now)
        here = (
            *check_packages(in_ci(place.ci)),
            check_variables(env, options),
            check_ci(place.ci),
            check_start(place.ci, mark, place.now),
            check_git(place.root, place.ci, globs),
            check_reports(globs, place.root),
            *_history(place, url),
            check_disk(os.path.abspath(place.home.folder)),
            check_proxies(env, url),
        )
    return Diagnosis((*here, *exchange.result()))


def _history(place: Workplace, url: str) -> tuple[Check, ...]:
    folder = check_folder(place.home)
    try:
        remembered, kept = _known(place.home, folder)
        builds = check_builds(remembered, in_ci(place.ci))
        return (folder, builds, check_model(kept, place.now, url), check_outbox(place.home, url))
    except HistoryError as error:
        return (folder, *(() if folder.state == PROBLEM else (Check("Builds", PROBLEM, error.args[0], error.remedy),)))


def _known(home: Home, folder: Check) -> tuple[Remembered, Kept]:
    """What the history holds; nothing where there is none yet."""
    if not os.path.lexists(home.folder) and folder.state != PROBLEM:
        return Remembered(Summary()), kept_model(home)
    return recall(home), kept_model(home)


def _exchange(aggregator: Aggregator | Absent, secret: str, now: float) -> tuple[Check, ...]:
    token = seen_token(secret)
    if isinstance(aggregator, Absent):
        return (Check("Aggregator", OK, "none is configured: this project's own history is used"),)
    return (check_token(token, secret, now), *check_aggregator(aggregator, token))
