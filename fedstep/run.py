"""Each command's run: the workplace is read, the story is told, and every sink of the CI gets its text."""

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedstep.build.record import Absent, BuildOutcome, Evidence
from fedstep.errors import FedstepError, HistoryError, InputError, MissingExtra, UsageError
from fedstep.history.home import Home
from fedstep.report.findings import Prediction, Training, Triage
from fedstep.workplace import (
    Workplace,
    append,
    built_change,
    find_workplace,
    in_ci,
    read_junit,
    start_situation,
    words_of_tests,
)

__all__ = ["run_backfill", "run_demo", "run_predict", "run_pull", "run_push", "run_serve", "run_train", "run_triage"]

Given = Mapping[str, Any]
Say = Callable[..., None]
Finding = Prediction | Triage | Training


def run_predict(given: Given, say: Say) -> int:
    """Foresee the next build; in CI also remember that the job starts now."""
    from fedstep.federation.kept import kept_model
    from fedstep.report.text import prediction_text
    from fedstep.steps import foresee

    place = _place(given)
    situation = start_situation(place)
    place, problems = _readable(place)
    if in_ci(place.ci) and not place.ci.untrusted and not problems:
        problems = _mark_start(place)
    prediction, problems = foresee(place.home, situation, kept_model(place.home), problems)
    return _finish(given, place, prediction, prediction_text, problems, say)


def run_triage(given: Given, say: Say) -> int:
    """Judge the failures of a report."""
    from fedstep.build.record import Situation
    from fedstep.federation.kept import kept_model
    from fedstep.report.text import triage_text
    from fedstep.steps import judge

    place, problems = _readable(_place(given))
    reports = read_junit(place, given["junit"])
    situation = Situation(place.ci, built_change(place), place.now)
    triage, problems = judge(place.home, situation, reports, kept_model(place.home), problems)
    return _finish(given, place, triage, triage_text, problems, say)


def run_train(given: Given, say: Say) -> int:
    """Learn from the build that just ran."""
    from fedstep.report.text import training_text
    from fedstep.steps import measure, outcome_of, situated
    from fedstep.training import train

    place = _place(given)
    try:
        place.home.prepare()
        reports = read_junit(place, given["junit"])
        change = built_change(place)
        duration = measure(place.ci, place.home.started(_run_name(place)), reports, place.now)
        situation = situated(place.ci, change, duration, place.now)
        outcome = BuildOutcome(given["outcome"]) if given["outcome"] else outcome_of(place.ci, reports)
        evidence = Evidence(situation, place.now, duration, outcome, reports)
        aggregator = _aggregator(given, place)
        trained = train(place.home, evidence, words_of_tests(place.root), aggregator, place.now, given["keep"])
    except HistoryError as error:
        return _without_history(given, place, error, say)
    return _finish(given, place, trained.training, training_text, trained.problems, say)


def run_push(given: Given, say: Say) -> int:
    """Deliver the outbox."""
    from fedstep.federation.exchange import deliver

    place = _place(given)
    flushed = deliver(place.home, _needed_aggregator(given, place))
    problems = (*flushed.failures, *flushed.refused, *map(HistoryError, flushed.warnings))
    say(*map(str, problems))
    _show(f"{len(flushed.sent)} sent, {len(flushed.refused)} refused, {flushed.waiting} waiting\n")
    return _exit_code(given, problems)


def run_pull(given: Given, say: Say) -> int:
    """Refresh the kept model."""
    from fedstep.errors import AggregatorError
    from fedstep.federation.exchange import refresh
    from fedstep.outlook import keep_outlook
    from fedstep.steps import forecaster_for

    place = _place(given)
    aggregator = _needed_aggregator(given, place)
    try:
        place.home.prepare()
        kept = refresh(place.home, aggregator, place.now)
        keep_outlook(place.home, kept, forecaster_for(place.home, kept))
    except (AggregatorError, HistoryError) as error:
        say(str(error))
        return _exit_code(given, (error,))
    _show(f"production {kept.model.production_version}, head {kept.model.head_version}\n")
    return 0


def run_backfill(given: Given, say: Say) -> int:
    """Learn from a folder of recorded builds."""
    from fedstep.importers.backfill import backfill_folder

    place = _place(given)
    try:
        place.home.prepare()
        done = backfill_folder(place.home, given["folder"])
    except (HistoryError, MissingExtra) as error:
        say(str(error))
        return _exit_code(given, (error,))
    say(*done.warnings)
    counts = f"{done.recorded} builds recorded, {done.known} known already"
    _show(f"{counts}; {done.tests} test results, {done.rows} rows learned\n")
    return _exit_code(given, tuple(map(InputError, done.warnings)))


def run_serve(given: Given, say: Say) -> int:
    """Run the aggregator until it is told to stop."""
    try:
        from fedstep.server.app import serve
        from fedstep.server.buffer import Folding
        from fedstep.server.settings import Settings
    except ImportError as error:
        raise MissingExtra(f"{error.name} is not installed", "Run: pip install 'fedstep[server]'") from error
    from fedstep.federation.kept import starter_bytes

    tokens = tuple(token for token in (word.strip() for word in given["tokens"].split(",")) if token)
    folding = Folding(updates=given["buffer"], seconds=given["wait"], projects=given["projects"])
    gc.enable()  # the one command that stays
    starter = b"" if given["from_zero"] else starter_bytes()
    settings = Settings(given["host"], given["port"], given["store"], tokens, starter, folding=folding)
    serve(settings, lambda url: say(f"aggregator on {url}, Ctrl-C stops it"))
    return 0


def run_demo(given: Given, say: Say) -> int:
    """Run the demonstration federation."""
    from fedstep.simulate.demo import run

    return run(given["output"], say)


def _place(given: Given) -> Workplace:
    if given["history"] == "git":
        raise UsageError("--history git is not in this version of fedstep", "Give a folder")
    return find_workplace(given["history"], os.environ)


def _readable(place: Workplace) -> tuple[Workplace, tuple[FedstepError, ...]]:
    """The place itself; where its history cannot be read the same with an empty one, and why."""
    try:
        place.home.read("key")
        place.home.log.files()
    except HistoryError as error:
        empty = Home(f"{place.home.folder}.{os.urandom(8).hex()}")
        return place._replace(home=empty), (error,)
    return place, ()


def _mark_start(place: Workplace) -> tuple[FedstepError, ...]:
    try:
        place.home.prepare()
        place.home.mark_start(_run_name(place), place.now)
    except HistoryError as error:
        return (error,)
    return ()


def _run_name(place: Workplace) -> str:
    ci = place.ci
    return place.home.keyed("run", ci.vendor, ci.run, str(ci.attempt), ci.job, ci.cell)


def _aggregator(given: Given, place: Workplace) -> Any:
    """The aggregator, or the reason why there is none."""
    if not given["aggregator"]:
        return Absent("no aggregator is configured")
    return _needed_aggregator(given, place)


def _needed_aggregator(given: Given, place: Workplace) -> Any:
    from fedstep.federation.exchange import Aggregator
    from fedstep.federation.patience import Patience
    from fedstep.federation.transport import requests_send

    if not given["aggregator"]:
        raise UsageError("no aggregator is given", "Give one with --aggregator or FEDSTEP_AGGREGATOR")
    spent = time.time() - place.now
    patience = Patience(timeout=given["timeout"], deadline=time.monotonic() + given["budget"] - spent)
    return Aggregator(given["aggregator"], requests_send(given["aggregator"], given["token"]), patience)


def _without_history(given: Given, place: Workplace, error: HistoryError, say: Say) -> int:
    """The build cannot be kept: say so once, tell the CI that the step is degraded, and let the build go on."""
    from fedstep.report.outputs import KEYS

    say(str(error))
    _tell_ci(place, {**dict.fromkeys(KEYS, ""), "status": "degraded"}, "", "", say)
    return _exit_code(given, (error,))


def _finish(
    given: Given,
    place: Workplace,
    finding: Finding,
    as_text: Callable[..., str],
    problems: tuple[FedstepError, ...],
    say: Say,
) -> int:
    """Print the finding in the format asked for, talk, and feed what the CI reads."""
    say(*finding.warnings)
    _show(as_text(finding) if given["format"] == "text" else _rendered(finding, given["format"]))
    if in_ci(place.ci):
        from fedstep.report.outputs import outputs

        _tell_ci(place, outputs(finding), _rendered(finding, "markdown"), _annotations(finding), say)
    return _exit_code(given, problems)


def _rendered(finding: Finding, style: str) -> str:
    from fedstep.report import as_json, markdown

    sinks: Any = as_json if style == "json" else markdown
    return str(getattr(sinks, f"{type(finding).__name__.lower()}_{style}")(finding))


def _annotations(finding: Finding) -> str:
    from fedstep.report.annotations import failure_annotations

    return "" if isinstance(finding, Prediction) else failure_annotations(finding.failures)


def _tell_ci(place: Workplace, values: Mapping[str, str], summary: str, annotations: str, say: Say) -> None:
    """Outputs and summary to the files that the CI names, annotations to its log."""
    from fedstep.report.outputs import dotenv, github_output

    sinks = (
        ("GITHUB_OUTPUT", github_output(values, os.urandom(16).hex())),
        ("GITHUB_STEP_SUMMARY", summary),
        ("FEDSTEP_DOTENV", dotenv(values)),
        ("FEDSTEP_SUMMARY", summary),
    )
    for variable, text in sinks:
        if path := os.environ.get(variable):
            try:
                append(path, text)
            except InputError as error:
                say(str(error))
    if place.ci.vendor == "github" and annotations:  # the runner reads both streams; stdout is the result alone
        print(annotations, end="", file=sys.stderr, flush=True)


def _show(text: str) -> None:
    """The result on standard output; when its reader, say `head`, has left, the rest of the step still happens."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code(given: Given, problems: tuple[FedstepError, ...]) -> int:
    return problems[0].exit_code if problems and given["strict"] else 0
