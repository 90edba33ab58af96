"""What a study of differential privacy found, for a terminal and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite

from tests.studies.private import PrivateStudy


def private_text(studies: Sequence[PrivateStudy]) -> str:
    """A line for each way of learning, then what the noise took from the better of the others."""
    plan = studies[-1].plan
    best, noised = max(study.auc for study in studies[:-1]), studies[-1]
    lines = [
        f"flaky tests without a history, {plan.participants} projects with {plan.releases} contributions each, "
        f"{len(noised.projects)} recorded projects held out in turn",
        *(f"  {_name(study):<42} auc {study.auc:.3f}" for study in studies),
        f"  loss of auc {best - noised.auc:.3f}, noise {noised.noise:.2f} times the bound of a project",
    ]
    return "".join(f"{line}\n" for line in lines)


def private_json(studies: Sequence[PrivateStudy]) -> str:
    """All figures."""
    return json.dumps([_plain(study) for study in studies], indent=2) + "\n"


def _name(study: PrivateStudy) -> str:
    if not study.plan.epsilon:
        return "without differential privacy"
    if not isfinite(study.plan.epsilon):
        return "with its bounds, without noise"
    return f"epsilon {study.plan.epsilon:g}, delta {study.plan.delta:g}"


def _plain(study: PrivateStudy) -> dict[str, object]:
    """JSON has no infinity: where there is no noise there is no epsilon."""
    plan = {name: value for name, value in asdict(study.plan).items() if name != "epsilon" or isfinite(value)}
    return {**plan, "auc": study.auc, "noise": study.noise, "projects": dict(study.projects)}
