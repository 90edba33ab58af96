"""Was this test in it? A classifier that has seen shadow updates of other projects, with and without a row.

Shadow models: Shokri, Stronati, Song and Shmatikov, "Membership inference attacks against machine learning models",
IEEE S&P 2017.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from fedstep.model.labels import LabelledExample
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import AttackScene, Real, presence, word_columns
from tests.studies.attacks.view import CURVE, PROTECTIONS, Protection, View, fitting, views
from tests.studies.attacks.words import SMALLEST, usual_words

CANDIDATES = 20  # of each kind in a view


def attack_membership(scene: AttackScene) -> Iterator[Finding]:
    """AUC of "in" against "of the same project, and not in"; guessing is a half."""
    for protection in fitting((*PROTECTIONS, *CURVE), scene):
        yield membership_finding("membership", protection, scene)


def membership_finding(attack: str, protection: Protection, scene: AttackScene) -> Finding:
    """Trained on the attacker's own members, tried on the attacked ones; no project is in both."""
    usual = usual_words(scene.own)
    shadows = _candidates(views(protection, scene.own, scene, f"{attack} shadow"), usual)
    signs, truth = _candidates(views(protection, scene.attacked, scene, attack), usual)
    learner = GradientBoostingClassifier(n_estimators=60, max_depth=3, subsample=0.5, random_state=scene.seed)
    said = learner.fit(*shadows).predict_proba(signs)[:, 1]
    return Finding(attack, "AUC", protection.name, float(roc_auc_score(truth, said)), 0.5)


def _candidates(seen: Sequence[View], usual: Real) -> tuple[Real, Real]:
    """The signs of each candidate, and whether it is in."""
    signs, truth = [], []
    for view in seen:
        inside, outside = view.rows[:CANDIDATES], view.members[0].rest[:CANDIDATES]
        signs.append(signs_of(view, (*inside, *outside), usual))
        truth += [1.0] * len(inside) + [0.0] * len(outside)
    return np.concatenate(signs), np.array(truth)


def signs_of(view: View, rows: Sequence[LabelledExample], usual: Real) -> Real:
    """What speaks for each row: which of its words moved, how far the least did, how the view points along it."""
    moved, table = view.vector[word_columns()], presence(rows)
    rarity = -np.log(np.maximum(usual, 0.01))
    size = np.maximum(1, table.sum(axis=1))
    scale = float(np.abs(moved).mean()) or 1.0
    least = [float(np.abs(moved[row]).min(initial=np.inf)) / scale for row in table]
    there = table * (np.abs(moved) > SMALLEST)
    along = table @ moved / size**0.5 / scale
    rare = table @ (rarity * moved) / size**0.5 / scale
    shares = there.sum(axis=1) / size, there @ rarity / np.maximum(1e-9, table @ rarity)
    whole = [float(view.vector[list(one.example.indices)] @ np.array(one.example.values)) / scale for one in rows]
    columns = (*shares, np.minimum(least, 1e6), along, np.abs(along), rare, whole, table.sum(axis=1))
    return np.column_stack(columns).astype(np.float64)
