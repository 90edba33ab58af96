"""Facts about replays: the production rooms, in memory."""

import random

from fedstep.build.record import (
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    Evidence,
    Outcome,
    Reports,
    Situation,
    TestRun,
)
from fedstep.features.schema import HEAD_NAMES
from fedstep.simulate.replay import ripe_rows

FLAKY = "a.NetTest#waits"


def builds(count: int) -> list[Evidence]:
    draw = random.Random(2)
    made = []
    for number in range(count):
        runs = [TestRun(FLAKY, Outcome.FLAKED if draw.random() < 0.3 else Outcome.PASSED, 0.1)]
        runs += [TestRun(f"a.B{n}Test#works", Outcome.PASSED, 0.1) for n in range(9)]
        situation = Situation(CiRun(job="unit"), Change(f"{number}", "", "", ()), 1_760_000_000.0 + 3600 * number)
        duration = Duration(60.0 + draw.random(), "recorded")
        reports = Reports(tuple(runs))
        made.append(Evidence(situation, situation.started_at + 61, duration, BuildOutcome.PASSED, reports))
    return made


def test_rows_ripen_once_and_each_build_gives_all_heads() -> None:
    ripened = list(ripe_rows(builds(60)))
    assert [tuple(ripe) for ripe in ripened] == [HEAD_NAMES] * 60
    assert all(len(ripe["build-failure"]) == 1 for ripe in ripened)
    assert sum(len(ripe["build-duration"]) for ripe in ripened) == 59
    flaky = [one for ripe in ripened for one in ripe["flaky"]]
    assert len({(one.row.subject, one.row.run) for one in flaky}) == len(flaky)
    assert 10 <= len(flaky) <= 30
    assert {one.label for one in flaky if one.row.subject == FLAKY} == {1.0}
    assert {one.label for one in flaky if one.row.subject != FLAKY} == {0.0}


def test_a_longer_replay_begins_like_a_shorter_one() -> None:
    longer = list(ripe_rows(builds(50)))
    assert repr(longer[:30]) == repr(list(ripe_rows(builds(50)[:30])))
