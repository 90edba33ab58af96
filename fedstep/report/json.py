"""Findings as JSON for other programs: stable keys in snake_case, ASCII only, null for what is not known."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite, isnan

from fedstep.report.explanation import METALS, ExplainedFeature, SeenRun, TestExplanation, find_phrase
from fedstep.report.inspection import AuditRecord, InspectedToken, InspectedUpdate, Inspection, LeakProof
from fedstep.report.units import count, percent, span, spread
from fedstep.report.wording import (
    count_verdicts,
    describe_company,
    describe_group,
    format_jenkins,
    name_no_failure,
    rank_causes,
)
from fedstep.results import (
    PROBLEM,
    WARNING,
    BuildVerdict,
    Diagnosis,
    Exchange,
    FailureGroup,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    MutedFailure,
    NotRun,
    Prediction,
    ReportCounts,
    Risk,
    SelectionReport,
    SlowerTest,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Duration, Unavailable


def headline(finding: Prediction | TriageReport | TrainReport) -> str:
    """Return the main result beside Jenkins' own estimate, without any name from the code under test."""
    parts: tuple[str, ...]
    match finding:
        case Prediction():
            parts = (_describe_expected(finding.duration), _risk_clause(finding.risk), _flaky(len(finding.flaky)))
        case TrainReport():
            parts = (_took(finding.duration, finding.expected), _describe_failed(finding))
        case TriageReport():
            parts = (_describe_failed(finding),)
    return ", ".join(filter(None, parts))


def _describe_expected(expected: Interval | Unavailable) -> str:
    if isinstance(expected, Unavailable):
        return "build time not known yet"
    jenkins = format_jenkins(expected)
    beside = f"; Jenkins estimate: {jenkins}" if jenkins else ""
    return f"expected {span(expected.seconds)} ({spread(expected.low, expected.high)}{beside})"


def _took(duration: Duration | Unavailable, expected: Interval | Unavailable) -> str:
    took = "" if isinstance(duration, Unavailable) else f"took {span(duration.seconds)}"
    return ", ".join(filter(None, (took, "" if isinstance(expected, Unavailable) else _describe_expected(expected))))


def _risk_clause(risk: Risk | Unavailable) -> str:
    return "" if isinstance(risk, Unavailable) else f"{percent(risk.probability)} likely to fail"


def _flaky(tests: int) -> str:
    return f"{count(tests, 'test')} likely to flake" if tests else ""


def _describe_failed(finding: TrainReport | TriageReport) -> str:
    failures: tuple[FailureVerdict, ...] = finding.failures
    if finding.incident:
        return f"{len(failures):,} failed at once: an incident"
    muted = f"{len(finding.muted):,} muted" if finding.muted else ""
    counts = ", ".join(filter(None, (count_verdicts(failures), muted)))
    return f"{len(failures) + len(finding.muted):,} failed: {counts}" if counts else name_no_failure(finding.reading)


Json = dict[str, object]


def _selection(selection: SelectionReport | None) -> Json | None:
    """Return what selections did, without names; null where tests were never selected."""
    if selection is None:
        return None
    left_out, tally = selection
    figures: Json = {name: value for name, value in tally._asdict().items() if name != "left_out"}
    rates = {"escape_rate": tally.escape_rate, "false_green_rate": tally.false_green_rate}
    return {
        "tests_left_out": len(left_out.tests) if left_out else 0,
        "saved_seconds_here": left_out.seconds if left_out else 0.0,
        "shadow": bool(left_out and left_out.shadow),
        **figures,
        **{name: None if isnan(rate) else round(rate, 4) for name, rate in rates.items()},
    }


def prediction_json(prediction: Prediction) -> str:
    """Return one JSON object; lines end with a newline."""
    return encode_object(
        {
            "status": prediction.status,
            "headline": headline(prediction),
            "duration": _interval(prediction.duration),
            "failure_risk": _risk(prediction.risk),
            "flaky": [_test(risk) for risk in prediction.flaky],
            "suspects": [_test(risk) for risk in prediction.suspects],
            "model": _model(prediction.model),
            "base": prediction.base,
            "builds_known": prediction.builds_known,
            "tests_known": prediction.tests_known,
            "warnings": list(prediction.warnings),
        }
    )


def triage_json(triage: TriageReport) -> str:
    """Return one JSON object; lines end with a newline."""
    return encode_object(
        {
            "status": triage.status,
            "headline": headline(triage),
            "incident": triage.incident,
            "incident_reason": triage.incident_reason,
            "failures": [_failure(failure) for failure in triage.failures],
            "groups": [_group(group) for group in triage.groups],
            "muted": [_muted_json(muted) for muted in triage.muted],
            "not_run": _not_run(triage.not_run),
            "cause": {"cause": triage.cause or None, "rule": triage.cause_rule},
            **({"verdict": _ruling(triage.ruling)} if triage.ruling else {}),
            "model": _model(triage.model),
            "reports": _reading(triage.reading),
            "warnings": list(triage.warnings),
        }
    )


def training_json(training: TrainReport) -> str:
    """Return one JSON object; lines end with a newline."""
    examples = training.examples
    return encode_object(
        {
            "status": training.status,
            "headline": headline(training),
            "build": training.build,
            "outcome": training.outcome.value,
            "duration": _duration(training.duration),
            "expected": _interval(training.expected),
            "incident": training.incident,
            "incident_reason": training.incident_reason,
            "failures": [_failure(failure) for failure in training.failures],
            "groups": [_group(group) for group in training.groups],
            "muted": [_muted_json(muted) for muted in training.muted],
            "not_run": _not_run(training.not_run),
            "slower": [_slow_test(slow) for slow in training.slower],
            "flakiest": [_test(risk) for risk in training.flakiest],
            "time_changes": [{**change._asdict(), "slower": change.is_slower} for change in training.changes],
            "selection": _selection(training.selection),
            "model": _model(training.model),
            "reports": _reading(training.reading),
            # Three keys of the format with one number: an example is scored and learned when its label becomes known.
            "rows": {
                "scored": examples.learned,
                "ripened": examples.learned,
                "learned": examples.learned,
                "waiting": examples.waiting,
            },
            "exchange": _exchange(training.exchange),
            "warnings": list(training.warnings),
        }
    )


def _not_run(not_run: NotRun) -> Json:
    return {"tests": list(not_run.tests), "places": list(not_run.places), "known": not_run.known}


def _slow_test(slow: SlowerTest) -> Json:
    usual = slow.usual_seconds
    return {
        "test": slow.test,
        "seconds": _round(slow.seconds, 3),
        "usual_seconds": None if isinstance(usual, Unavailable) else _round(usual, 3),
    }


def _interval(expected: Interval | Unavailable) -> Json:
    if isinstance(expected, Unavailable):
        return {"seconds": None, "reason": expected.reason}
    return {
        "seconds": _round(expected.seconds, 3),
        "low": _round(expected.low, 3),
        "high": _round(expected.high, 3),
        "source": expected.source,
        "jenkins_seconds": _round(expected.jenkins_seconds, 3),
        "reasons": _reasons(expected.reasons, "build"),
    }


def _risk(risk: Risk | Unavailable) -> Json:
    if isinstance(risk, Unavailable):
        return {"probability": None, "reason": risk.reason}
    return {"probability": _round(risk.probability), "reasons": _reasons(risk.reasons, "build")}


def _test(risk: TestRisk) -> Json:
    return {
        "test": risk.test,
        "probability": _round(risk.probability),
        "reasons": _reasons(risk.reasons),
        "runs": risk.runs,
        "failures": risk.failures,
        "flips": risk.flips,
        "last_outcomes": risk.last_outcomes,
        "file": risk.file,
        "line": risk.line,
        "also": list(risk.also),
        "together": describe_company((risk.test, *risk.also), risk.failures),
    }


def _failure(failure: FailureVerdict) -> Json:
    return {
        "test": failure.test,
        "flaky_probability": _round(failure.flaky_probability),
        "verdict": failure.verdict,
        "reasons": _reasons(failure.reasons),
        "failure_type": failure.failure_type,
        "message": failure.message,
        "kind": failure.kind,
        "runs": failure.runs,
        "is_new": failure.is_new,
        "passed_on_rerun": failure.passed_on_rerun,
        "would_change": {
            "if_a_rerun_passes": _round(failure.if_rerun_passes),
            "if_a_rerun_fails": _round(failure.if_rerun_fails),
        },
        "file": failure.file,
        "line": failure.line,
    }


def _ruling(ruling: BuildVerdict) -> Json:
    return {
        "passed": ruling.passed,
        "reasons": list(ruling.reasons),
        "counted": [failure.test for failure in ruling.counted],
        "forgiven": [{"test": failure.test, "why": why} for failure, why in ruling.forgiven],
    }


def _group(group: FailureGroup) -> Json:
    first, since = group.first, group.first.since
    return {
        "kind": group.kind,
        "says": describe_group(group),
        "verdict": first.verdict,
        "flaky_probability": _round(first.flaky_probability),
        "message": first.message,
        "tests": [failure.test for failure in group.failures],
        "failing_since": None if isinstance(since, Unavailable) else since._asdict(),
        "last_touched": first.last_touched,
    }


def _muted_json(muted: MutedFailure) -> Json:
    return {**_failure(muted.failure), "owner": muted.owner, "reason": muted.reason, "until": muted.until}


def _reasons(reasons: Iterable[FeatureContribution], subject: str = "test") -> list[Json]:
    return [
        {"says": f"{cause.phrase} {cause.word}".strip(), "contribution": _round(cause.contribution)}
        for cause in rank_causes(reasons, subject)
    ]


def _model(model: ModelUsed) -> Json:
    return {
        "kind": model.kind,
        "version": model.version,
        "age_seconds": _round(model.age_seconds, 0),
        "url": model.url,
    }


def _reading(reading: ReportCounts) -> Json:
    dropped = [{"source": drop.source, "reason": drop.reason, "kept": drop.kept} for drop in reading.dropped]
    return {"files": reading.files, "tests": reading.tests, "skipped": reading.skipped, "dropped": dropped}


def _duration(duration: Duration | Unavailable) -> Json:
    if isinstance(duration, Unavailable):
        return {"seconds": None, "reason": duration.reason}
    return {"seconds": _round(duration.seconds, 3), "source": duration.source}


def _exchange(exchange: Exchange | Unavailable) -> Json:
    if isinstance(exchange, Unavailable):
        return {"url": None, "reason": exchange.reason}
    return {
        "url": exchange.url,
        "sent": [{"bytes": update.size, "rows": dict(update.rows)} for update in exchange.sent],
        "unsent": exchange.unsent,
        "withheld": exchange.withheld or None,
        "head": {"before": exchange.candidate_before, "after": exchange.candidate_after},
        "production": {"before": exchange.production_before, "after": exchange.production_after},
    }


def _round(value: float | Unavailable, digits: int = 4) -> float | None:
    """JSON has no NaN: what is not a finite number is null."""
    return round(value, digits) if not isinstance(value, Unavailable) and isfinite(value) else None


def encode_object(value: Json) -> str:
    """Encode without `##[`, a command to log readers; "#" occurs only in strings, where JSON may escape it."""
    text = json.dumps(_whole(value), indent=2, allow_nan=False)
    return text.replace("##", "#\\u0023") + "\n"


def _whole(value: object) -> object:
    """Return the value with lone surrogates, which UTF-8 cannot encode, as visible escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
    return value


def inspection_json(inspection: Inspection) -> str:
    """Return one JSON object; lines end with a newline."""
    return encode_object(
        {
            "update": _update(inspection.update),
            "token": _token(inspection.token),
            "headers": {header.name: header.value for header in inspection.headers},
            "against": _proof(inspection.proof),
            "warnings": list(inspection.warnings),
        }
    )


def record_json(record: AuditRecord) -> str:
    """Return one JSON object; lines end with a newline."""
    sent = [{**asdict(update), "rows": dict(update.rows), "answer": update.answer or None} for update in record.sent]
    return encode_object({"sent": list(sent), "damaged_lines": record.damaged, "bytes_kept_of_the_last": record.kept})


def _update(seen: InspectedUpdate | Unavailable) -> Json:
    if isinstance(seen, Unavailable):
        return {"origin": None, "reason": seen.reason}
    return {
        "origin": seen.origin,
        "note": seen.note,
        "bytes": seen.size,
        "bytes_compressed": seen.packed,
        "sha256": seen.sha256,
        "metadata": {field.name: field.value for field in seen.fields},
        "heads": {
            task.name: {
                "rows": task.rows,
                "size": task.size,
                "norm": round(task.norm, 6),
                "clip": task.clip,
                "coefficients": {coefficient.name: coefficient.value for coefficient in task.coefficients},
            }
            for task in seen.tasks
        },
    }


def _token(token: InspectedToken) -> Json:
    return {**asdict(token), "fields": [asdict(field) for field in token.fields]}


def _proof(proof: LeakProof | Unavailable) -> Json | None:
    if isinstance(proof, Unavailable):
        return None
    return {
        "holds": proof.holds,
        "reports": proof.files,
        "strings": proof.strings,
        "left_out_listed": proof.listed,
        "left_out_short": proof.short,
        "found": [asdict(leak) for leak in proof.leaks],
        "unread": [drop._asdict() for drop in proof.unread],
    }


def explanation_json(explained: TestExplanation) -> str:
    """Return one JSON object; lines end with a newline."""
    seconds = explained.typical_seconds
    return encode_object(
        {
            "test": explained.test,
            "former": explained.former,
            "probability": round(explained.probability, 4),
            "probability_before_calibration": round(explained.raw, 4),
            "calibration": {"slope": round(explained.slope, 4), "offset": round(explained.offset, 4)},
            "named": explained.named,
            "named_from": explained.threshold,
            "horizon": explained.horizon,
            "ran_lately": explained.recently,
            "runs_known": explained.runs_known,
            "failures": explained.failures,
            "flips": explained.flips,
            "typical_seconds": None if isinstance(seconds, Unavailable) else round(seconds, 3),
            "runs": [_run(run) for run in explained.runs],
            "contributions": [_contribution(term) for term in explained.contributions],
            "private": [{"feature": term.feature, "local": round(term.local, 6)} for term in explained.private],
            "changes": [{**asdict(tried), "probability": round(tried.probability, 4)} for tried in explained.changes],
            "model": {"kind": explained.model.kind, "version": explained.model.version, "url": explained.model.url},
            "warnings": list(explained.warnings),
        }
    )


def _contribution(term: ExplainedFeature) -> Json:
    numbers = {"shared": round(term.shared, 6), "local": round(term.local, 6)}
    return {"feature": term.feature, "value": term.value, "says": find_phrase(term), **numbers}


def _run(run: SeenRun) -> Json:
    seconds = None if isnan(run.seconds) else run.seconds
    return {**asdict(run), "seconds": seconds, "metal": METALS.get(run.metal)}


def diagnosis_json(diagnosis: Diagnosis) -> str:
    """Return one JSON object; lines end with a newline."""
    return encode_object(
        {
            "problems": diagnosis.count_in(PROBLEM),
            "warnings": diagnosis.count_in(WARNING),
            "checks": [check._asdict() for check in diagnosis.checks],
        }
    )


def suggestions_json(suggestions: Sequence[tuple[str, str, str]]) -> str:
    """Return one JSON object; lines end with a newline."""
    named = [dict(zip(("action", "test", "evidence"), suggestion, strict=True)) for suggestion in suggestions]
    return encode_object({"suggestions": named})
