"""Findings as JSON for other programs: stable keys in snake_case, ASCII only, null for what is not known."""

import json
from collections.abc import Iterable
from math import isfinite

from fedstep.build.record import Absent, Duration
from fedstep.model.linear import Reason
from fedstep.report.findings import (
    Exchange,
    FailureVerdict,
    Interval,
    ModelUsed,
    MutedFailure,
    Prediction,
    Reading,
    Risk,
    TestRisk,
    Training,
    Triage,
)
from fedstep.report.headline import headline
from fedstep.report.reasons import causes

__all__ = ["prediction_json", "training_json", "triage_json"]

Json = dict[str, object]


def prediction_json(prediction: Prediction) -> str:
    """One object; lines end with a newline."""
    return _written(
        {
            "status": prediction.status,
            "headline": headline(prediction),
            "duration": _interval(prediction.duration),
            "failure_risk": _risk(prediction.risk),
            "flaky": [_test(risk) for risk in prediction.flaky],
            "model": _model(prediction.model),
            "base": prediction.base,
            "builds_known": prediction.builds_known,
            "tests_known": prediction.tests_known,
            "warnings": list(prediction.warnings),
        }
    )


def triage_json(triage: Triage) -> str:
    """One object; lines end with a newline."""
    return _written(
        {
            "status": triage.status,
            "headline": headline(triage),
            "incident": triage.incident,
            "incident_reason": triage.incident_reason,
            "failures": [_failure(failure) for failure in triage.failures],
            "muted": [_muted(muted) for muted in triage.muted],
            "model": _model(triage.model),
            "reports": _reading(triage.reading),
            "warnings": list(triage.warnings),
        }
    )


def training_json(training: Training) -> str:
    """One object; lines end with a newline."""
    rows = training.rows
    return _written(
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
            "muted": [_muted(muted) for muted in training.muted],
            "flakiest": [_test(risk) for risk in training.flakiest],
            "model": _model(training.model),
            "reports": _reading(training.reading),
            "rows": {
                "scored": rows.scored,
                "ripened": rows.ripened,
                "learned": rows.learned,
                "waiting": rows.waiting,
            },
            "exchange": _exchange(training.exchange),
            "warnings": list(training.warnings),
        }
    )


def _interval(expected: Interval | Absent) -> Json:
    if isinstance(expected, Absent):
        return {"seconds": None, "reason": expected.reason}
    return {
        "seconds": _rounded(expected.seconds, 3),
        "low": _rounded(expected.low, 3),
        "high": _rounded(expected.high, 3),
        "source": expected.source,
        "jenkins_seconds": _rounded(expected.jenkins_seconds, 3),
        "reasons": _reasons(expected.reasons, "build"),
    }


def _risk(risk: Risk | Absent) -> Json:
    if isinstance(risk, Absent):
        return {"probability": None, "reason": risk.reason}
    return {"probability": _rounded(risk.probability), "reasons": _reasons(risk.reasons, "build")}


def _test(risk: TestRisk) -> Json:
    return {
        "test": risk.test,
        "probability": _rounded(risk.probability),
        "reasons": _reasons(risk.reasons),
        "runs": risk.runs,
        "failures": risk.failures,
        "flips": risk.flips,
        "last_outcomes": risk.last_outcomes,
        "file": risk.file,
        "line": risk.line,
    }


def _failure(failure: FailureVerdict) -> Json:
    return {
        "test": failure.test,
        "flaky_probability": _rounded(failure.flaky_probability),
        "verdict": failure.verdict,
        "reasons": _reasons(failure.reasons),
        "failure_type": failure.failure_type,
        "file": failure.file,
        "line": failure.line,
    }


def _muted(muted: MutedFailure) -> Json:
    return {**_failure(muted.failure), "owner": muted.owner, "reason": muted.reason, "until": muted.until}


def _reasons(reasons: Iterable[Reason], subject: str = "test") -> list[Json]:
    return [
        {"says": f"{cause.phrase} {cause.word}".strip(), "contribution": _rounded(cause.contribution)}
        for cause in causes(reasons, subject)
    ]


def _model(model: ModelUsed) -> Json:
    return {
        "kind": model.kind,
        "version": model.version,
        "age_seconds": _rounded(model.age_seconds, 0),
        "url": model.url,
    }


def _reading(reading: Reading) -> Json:
    dropped = [{"source": drop.source, "reason": drop.reason, "kept": drop.kept} for drop in reading.dropped]
    return {"files": reading.files, "tests": reading.tests, "dropped": dropped}


def _duration(duration: Duration | Absent) -> Json:
    if isinstance(duration, Absent):
        return {"seconds": None, "reason": duration.reason}
    return {"seconds": _rounded(duration.seconds, 3), "source": duration.source}


def _exchange(exchange: Exchange | Absent) -> Json:
    if isinstance(exchange, Absent):
        return {"url": None, "reason": exchange.reason}
    return {
        "url": exchange.url,
        "sent": [{"bytes": update.size, "rows": dict(update.rows)} for update in exchange.sent],
        "unsent": exchange.unsent,
        "withheld": exchange.withheld or None,
        "head": {"before": exchange.head_before, "after": exchange.head_after},
        "production": {"before": exchange.production_before, "after": exchange.production_after},
    }


def _rounded(number: float | Absent, digits: int = 4) -> float | None:
    """JSON has no NaN: what is not a finite number is null."""
    return round(number, digits) if not isinstance(number, Absent) and isfinite(number) else None


def _written(value: Json) -> str:
    """A log reader obeys `##[` wherever it stands; "#" occurs in strings only, where JSON may escape it."""
    text = json.dumps(_whole(value), indent=2, allow_nan=False)
    return text.replace("##", "#\\u0023") + "\n"


def _whole(value: object) -> object:
    """The same value with lone surrogates, which no UTF-8 can carry, as visible escapes."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
    return value
