"""Check the history folder: whether it is usable, what it contains, and what waits to be sent."""

import os
from datetime import UTC, datetime
from pathlib import Path

from fedstep.errors import HistoryError
from fedstep.federation.messages import PrivacyGuarantee
from fedstep.federation.model_cache import CachedModel, load_model, load_terms
from fedstep.federation.outbox import DAMAGED, SUFFIX
from fedstep.federation.sync import ContributionLog, load_contributions
from fedstep.history.project_store import ProjectStore, list_folder, remove
from fedstep.history.summary import LoadedSummary, load_summary
from fedstep.report.units import count, size, span
from fedstep.report.wording import describe_selections
from fedstep.results import OK, PROBLEM, WARNING, Diagnosis, DiagnosticCheck
from fedstep.schema.schema import schema

OLD_MODEL = 30 * 86_400  # seconds


def check_folder(store: ProjectStore) -> DiagnosticCheck:
    """Check whether the folder exists, is writable and has a usable key."""
    if not os.path.lexists(store.folder):
        above = Path(store.folder).parent
        if not os.access(above, os.W_OK):
            return DiagnosticCheck(
                "History", PROBLEM, f"{store.folder} cannot be made", "Point --history at another folder"
            )
        return DiagnosticCheck(
            "History", WARNING, f"{store.folder} is not there yet", "fedstep train after your tests makes it"
        )
    try:
        if store.read("key"):
            store.key()
        files = list_folder(store.folder)
        store.write(".doctor", b"")
        remove(store.path(".doctor"))
    except HistoryError as error:
        return DiagnosticCheck("History", PROBLEM, str(error.args[0]), error.remedy)
    taken = sum(path.stat().st_size for path in Path(store.folder).rglob("*") if path.is_file())
    return DiagnosticCheck(
        "History", OK, f"{store.folder}: {size(taken)} in {count(len(files), 'entry', 'entries')}, writable"
    )


def check_builds(remembered: LoadedSummary, in_ci: bool) -> DiagnosticCheck:
    """Check how much of the project's past is known."""
    summary = remembered.summary
    says = f"{count(summary.count, 'build')} and {count(len(summary.tests), 'test')} known"
    if remembered.warnings:
        more = f" ({len(remembered.warnings) - 1} more)" if len(remembered.warnings) > 1 else ""
        return DiagnosticCheck(
            "Builds", WARNING, f"{says}; {remembered.warnings[0]}{more}", "Delete the files that it names"
        )
    if summary.count:
        return DiagnosticCheck("Builds", OK, says)
    kept = "Keep the history folder from build to build: a cache, or the workspace"
    learn = "fedstep train --junit GLOB after each build, or fedstep backfill FOLDER"
    return DiagnosticCheck(
        "Builds", WARNING, f"{says}; times are predicted from the second build on", kept if in_ci else learn
    )


def check_model(kept: CachedModel, now: float, url: str) -> DiagnosticCheck:
    """Which model answers, and whether it is of this schema."""
    ours = f"feature schema {schema().digest}"
    if kept.warning:
        return DiagnosticCheck("Model", PROBLEM, f"{kept.warning}; {ours}", f"fedstep pull --aggregator {url or 'URL'}")
    if not kept.url:
        return DiagnosticCheck("Model", OK, f"the starter model, shipped with fedstep; {ours}")
    age = max(0.0, now - kept.fetched_at)
    says = f"production {kept.model.production_version} from {kept.url}, pulled {span(age)} ago; {ours}"
    old = age > OLD_MODEL
    return DiagnosticCheck(
        "Model", WARNING if old else OK, says, f"fedstep pull --aggregator {kept.url}" if old else ""
    )


def check_outbox(store: ProjectStore, url: str) -> DiagnosticCheck:
    """Check which updates wait to be sent."""
    names = list_folder(store.outbox)
    waiting = sum(name.endswith(SUFFIX) for name in names)
    damaged = sum(name.endswith(DAMAGED) for name in names)
    says = f"{count(waiting, 'update')} waiting" + (f", {damaged:,} damaged and set aside" if damaged else "")
    fix = f"fedstep push --aggregator {url or 'URL'}" if waiting else f"rm {store.outbox}/*{DAMAGED}" if damaged else ""
    return DiagnosticCheck("Outbox", WARNING if waiting or damaged else OK, says, fix)


def standing(store: ProjectStore, now: float) -> Diagnosis:
    """History, model, outbox, privacy; nobody is asked."""
    folder = check_folder(store)
    if folder.state == PROBLEM or not os.path.lexists(store.folder):
        return Diagnosis((folder,))
    try:
        kept = load_model(store)
        builds = DiagnosticCheck("Builds", OK, f"{count(len(store.log.files()), 'build')} recorded")
        tally = load_summary(store).summary.selections
        selections = [DiagnosticCheck("Selection", OK, text) for text in describe_selections(tally)]
        url, promise = load_terms(store)
        privacy = check_privacy(url, promise, load_contributions(store, url))
        return Diagnosis((folder, builds, *selections, check_model(kept, now, url), check_outbox(store, url), privacy))
    except HistoryError as error:
        return Diagnosis((folder, DiagnosticCheck("Builds", PROBLEM, str(error.args[0]), error.remedy)))


def check_privacy(url: str, promise: PrivacyGuarantee, turns: ContributionLog) -> DiagnosticCheck:
    """Check the privacy that the aggregator promises and how much of the budget is left."""
    if not url:
        return DiagnosticCheck("Privacy", OK, "nothing is sent: no aggregator was ever asked")
    if not promise.releases:
        return DiagnosticCheck("Privacy", OK, "no differential privacy: an update is sent whenever a batch is full")
    says = (
        f"differential privacy, epsilon {promise.epsilon:g} at delta {promise.delta:g}: "
        f"{turns.made} of {count(promise.releases, 'contribution')} made, one in {promise.days:g} days"
    )
    if turns.over or turns.made >= promise.releases:
        return DiagnosticCheck(
            "Privacy", OK, f"{says}; the budget is spent: this project predicts and contributes no longer"
        )
    last = f"; the last on {datetime.fromtimestamp(turns.last, UTC):%Y-%m-%d}" if turns.made else ""
    return DiagnosticCheck("Privacy", OK, f"{says}{last}")
