"""Which failures fail a build: quarantine forgives, an added test is never forgiven, and nothing is silently green."""

import pytest

from fedstep.history.project_store import ProjectStore
from fedstep.history.summary import read_summary
from fedstep.ingest.mutes import Mute, Mutes, find_mute
from fedstep.pipeline.triage import VerdictRules, decide, separate_muted, suggest_quarantine
from fedstep.results import FailureVerdict, ModelUsed, MutedFailure, ReportCounts, TriageReport
from fedstep.types import Dropped
from tests.helpers.project_history import FLAKY, PLAIN, write_history

STRICT = VerdictRules()
RATCHET = VerdictRules(only_new_flakes=True)


def failure(
    test: str = "a#x", chance: float = 0.9, kind: str = "flake", runs: int = 40, rerun: bool = False
) -> FailureVerdict:
    return FailureVerdict(test, chance, kind=kind, runs=runs, is_new=not runs, passed_on_rerun=rerun)


def muted(one: FailureVerdict) -> MutedFailure:
    return MutedFailure(one, "ada", "#7", "2030-12-31")


def report(*failures: FailureVerdict, forgiven: tuple[FailureVerdict, ...] = (), **more: object) -> TriageReport:
    whole = TriageReport("ok", failures, ModelUsed(), ReportCounts(1, 40), quarantined=1)
    return whole._replace(muted=tuple(map(muted, forgiven)), **more)  # type: ignore[arg-type]


class TestVerdict:
    def test_only_quarantined_failures_pass(self) -> None:
        """And are told."""
        ruling = decide(report(forgiven=(failure(),)), STRICT)
        assert (ruling.passed, len(ruling.forgiven)) == (True, 1)
        assert "ada until 2030-12-31" in ruling.forgiven[0].why

    def test_any_other_failure_fails(self) -> None:
        """However likely it is a flake."""
        assert not decide(report(failure(chance=0.99)), STRICT).passed

    def test_what_would_forgive_a_known_flake_is_told(self) -> None:
        """'Nothing here looks like a regression' and 'fails: 1 failure not forgiven' left the reader to guess."""
        reasons = decide(report(failure(), failure("a#y", kind="new")), STRICT).reasons
        assert reasons == ("2 failures not forgiven (1 known to be flaky and not quarantined)",)

    def test_a_flake_above_the_asked_chance_is_forgiven(self) -> None:
        """It has to be asked for."""
        rules = VerdictRules(forgive_above=0.95)
        assert decide(report(failure(chance=0.97)), rules).passed
        assert not decide(report(failure(chance=0.9)), rules).passed

    def test_a_known_flake_that_fails_in_a_new_way_counts(self) -> None:
        """The same test may have met another bug."""
        assert not decide(report(failure(chance=0.97, kind="new-way")), VerdictRules(forgive_above=0.95)).passed

    @pytest.mark.parametrize("rules", [STRICT, RATCHET, VerdictRules(forgive_above=0.5)])
    def test_a_test_that_the_change_adds_is_never_forgiven(self, rules: VerdictRules) -> None:
        """Neither when it passed in a rerun, nor by a pattern of the mute list."""
        added, pattern = failure(chance=0.99, kind="new", runs=0, rerun=True), Mute("a#*", "ada", "#7", "2030-12-31")
        assert not decide(report(added), rules).passed
        judged = separate_muted(report(added, failure("a#y")), Mutes((pattern,)))
        assert [one.failure.test for one in judged.muted] == ["a#y"]
        assert judged.warnings == ("a#x has no history: the mute list does not count for it yet",)
        assert decide(judged, rules).counted == (added,)

    def test_the_ratchet_fails_on_new_flakes_only(self) -> None:
        """Known flakes stay forgiven while the number of flakes cannot grow."""
        assert decide(report(failure(kind="flake")), RATCHET).passed
        assert not decide(report(failure(kind="new", rerun=True)), RATCHET).passed
        assert decide(report(failure(kind="new", rerun=True)), STRICT).passed

    @pytest.mark.parametrize(
        "broken",
        [
            {"reading": ReportCounts(0, 0)},
            {"reading": ReportCounts(1, 0)},
            {"reading": ReportCounts(1, 3, (Dropped("r.xml", "not XML"),))},
            {"incident": True, "incident_reason": "61 of 80 tests failed at once"},
            {"quarantined": 51},
            {"is_incomplete": True, "cause": "infrastructure", "cause_rule": "out of memory: exit code 137"},
        ],
        ids=[
            "no report",
            "no test",
            "a damaged report",
            "an incident",
            "too many quarantined",
            "a job that was stopped",
        ],
    )
    def test_what_cannot_be_judged_is_not_green(self, broken: dict[str, object]) -> None:
        """`|| true` before it hides a test command that never ran."""
        ruling = decide(report(**broken), STRICT)  # type: ignore[arg-type]
        assert not ruling.passed
        assert ruling.reasons

    def test_the_same_report_twice_is_no_fault(self) -> None:
        """Two globs may match one file's copy."""
        copy = Dropped("b.xml", "the same bytes as a.xml, counted once", kept=True)
        assert decide(report(reading=ReportCounts(1, 3, (copy,))), STRICT).passed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ProjectStore:
    """The history of sixty builds."""
    return write_history(tmp_path_factory.mktemp("history"), 60)


class TestSuggestions:
    def test_what_flips_is_suggested_with_its_evidence(self, store: ProjectStore) -> None:
        """Two flips in the last twenty runs, not one; the test that flips most comes first."""
        found = suggest_quarantine(read_summary(store).tests, Mutes())
        assert [(one.action, one.test) for one in found][:1] == [("quarantine", FLAKY)]
        flips = int(found[0].evidence.split()[1])
        assert found[0].evidence.startswith(f"flipped {flips} times in its last 20 runs, of which ")
        assert flips >= 2
        assert not set(PLAIN) - {FLAKY} & {one.test for one in found}

    @pytest.mark.parametrize(
        ("muted", "expected"),
        [
            (FLAKY, []),
            (PLAIN[0], [("release", "passed in its last 20 runs")]),
            ("shop.cart.GoneTest#left", [("release", "no test of this name runs any more")]),
            ("shop.cart.CartTest#*", []),
        ],
        ids=["noisy", "quiet", "gone", "a pattern with a noisy test"],
    )
    def test_quiet_quarantined_tests_are_proposed_for_release(
        self, store: ProjectStore, muted: str, expected: list[tuple[str, str]]
    ) -> None:
        """And one that is quarantined is not suggested again."""
        found = suggest_quarantine(read_summary(store).tests, Mutes((Mute(muted, "ada", "#7", "2999-12-31"),)))
        assert [(one.action, one.evidence) for one in found if one.test == muted] == expected
        assert find_mute(FLAKY, Mutes((Mute(muted, "", "", ""),))) == () or FLAKY not in {one.test for one in found}
