"""What `inspect`, `explain` and `doctor` say, as JSON for other programs: stable keys in snake_case."""

from dataclasses import asdict
from math import isnan

from fedstep.build.record import Absent
from fedstep.report.as_json import _written as written
from fedstep.report.diagnosis import PROBLEM, WARNING, Diagnosis
from fedstep.report.explain_text import phrase_of
from fedstep.report.explained import METALS, Contribution, Explained, SeenRun
from fedstep.report.inspected import Inspection, Proof, Record, SeenToken, SeenUpdate

__all__ = ["diagnosis_json", "explanation_json", "inspection_json", "record_json"]

Json = dict[str, object]


def inspection_json(inspection: Inspection) -> str:
    """One object; lines end with a newline."""
    return written(
        {
            "update": _update(inspection.update),
            "token": _token(inspection.token),
            "headers": {header.name: header.value for header in inspection.headers},
            "against": _proof(inspection.proof),
            "warnings": list(inspection.warnings),
        }
    )


def record_json(record: Record) -> str:
    """One object; lines end with a newline."""
    sent = [{**asdict(one), "rows": dict(one.rows), "answer": one.answer or None} for one in record.sent]
    return written({"sent": list(sent), "damaged_lines": record.damaged, "bytes_kept_of_the_last": record.kept})


def _update(seen: SeenUpdate | Absent) -> Json:
    if isinstance(seen, Absent):
        return {"origin": None, "reason": seen.reason}
    return {
        "origin": seen.origin,
        "note": seen.note,
        "bytes": seen.size,
        "bytes_compressed": seen.packed,
        "sha256": seen.sha256,
        "metadata": {one.name: one.value for one in seen.fields},
        "heads": {
            head.name: {
                "rows": head.rows,
                "size": head.size,
                "norm": round(head.norm, 6),
                "clip": head.clip,
                "coefficients": {one.name: one.value for one in head.coefficients},
            }
            for head in seen.heads
        },
    }


def _token(token: SeenToken) -> Json:
    return {**asdict(token), "fields": [asdict(one) for one in token.fields]}


def _proof(proof: Proof | Absent) -> Json | None:
    if isinstance(proof, Absent):
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


def explanation_json(explained: Explained) -> str:
    """One object; lines end with a newline."""
    seconds = explained.typical_seconds
    return written(
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
            "typical_seconds": None if isinstance(seconds, Absent) else round(seconds, 3),
            "runs": [_run(run) for run in explained.runs],
            "contributions": [_contribution(one) for one in explained.contributions],
            "private": [{"feature": one.feature, "local": round(one.local, 6)} for one in explained.private],
            "changes": [{**asdict(one), "probability": round(one.probability, 4)} for one in explained.changes],
            "model": {"kind": explained.model.kind, "version": explained.model.version, "url": explained.model.url},
            "warnings": list(explained.warnings),
        }
    )


def _contribution(one: Contribution) -> Json:
    numbers = {"shared": round(one.shared, 6), "local": round(one.local, 6)}
    return {"feature": one.feature, "value": one.value, "says": phrase_of(one), **numbers}


def _run(run: SeenRun) -> Json:
    seconds = None if isnan(run.seconds) else run.seconds
    return {**asdict(run), "seconds": seconds, "metal": METALS.get(run.metal)}


def diagnosis_json(diagnosis: Diagnosis) -> str:
    """One object; lines end with a newline."""
    return written(
        {
            "problems": diagnosis.count(PROBLEM),
            "warnings": diagnosis.count(WARNING),
            "checks": [asdict(check) for check in diagnosis.checks],
        }
    )
