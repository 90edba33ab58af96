"""One batch in a period: what the client makes where an aggregator promises differential privacy."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedstep.errors import ContributionNotDue, PrivacyBudgetExhausted, UpdateRefused, WireError
from fedstep.federation.client import push
from fedstep.federation.messages import (
    NO_PROMISE,
    PrivacyGuarantee,
    Update,
    pack,
    pack_model,
    pack_update,
    unpack,
    unpack_model,
)
from fedstep.federation.model_cache import CachedModel, load_starter_bytes, load_starter_model, save_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import (
    AggregatorLink,
    ContributionLog,
    load_contributions,
    mark_exhausted,
    may_contribute,
    pull_model,
    push_pending,
    record_contribution,
)
from fedstep.federation.transport import HttpResponse, RetryPolicy
from fedstep.history.project_store import ProjectStore
from fedstep.model.linear import zeros
from fedstep.pipeline.train import train
from tests.benchmarks.project import drawn_builds

URL = "https://hub.example"
ONE, OTHER = "1" * 16, "2" * 16  # lineages
WEEKLY = PrivacyGuarantee(8.0, 1e-6, 3, 7.0)
DAY = 86_400.0
THURSDAY = 7 * DAY * 2900  # a period begins: periods are counted from the epoch, which was one


@pytest.fixture
def home(tmp_path: Path) -> ProjectStore:
    made = ProjectStore(str(tmp_path / "history"))
    made.prepare()
    return made


def serving(version: int, url: str = URL, store: str = "one", lineage: str = "") -> AggregatorLink:
    """Return the link to an aggregator that serves the starter model as this version, or in another store zeros."""
    made = load_starter_model()._replace(candidate_version=version, production_version=version)
    if store != "one":
        made = made._replace(candidate={task: zeros(len(vector)) for task, vector in made.candidate.items()})
    body = pack_model(made)

    def send(_method: str, _path: str, _headers: object, _body: bytes, _timeout: float) -> HttpResponse:
        named = {"fedstep-lineage": lineage} if lineage else {}
        return HttpResponse(200, {"etag": f'"{store}-{version}"', **named}, body)

    return AggregatorLink(url, send, RetryPolicy(waits=()))


class TestLineage:
    def test_version_that_goes_back_is_said(self, home: ProjectStore):
        """Versions of an aggregator only grow: its store was emptied, or an older one was put in its place."""
        assert pull_model(home, serving(9), 1.0).warning == ""
        warning = pull_model(home, serving(3), 2.0).warning
        assert warning == f"{URL} went back from version 9 to 3: its store was replaced"
        assert pull_model(home, serving(3), 3.0).warning == ""

    def test_same_version_of_another_store_is_said(self, home: ProjectStore):
        """A store that was emptied can reach the number of the version that is known; what that contained differs."""
        pull_model(home, serving(9), 1.0)
        assert pull_model(home, serving(9), 2.0).warning == ""
        warning = pull_model(home, serving(9, store="another"), 3.0).warning
        assert warning == f"{URL} serves another version 9 than before: its store was replaced"
        assert pull_model(home, serving(9, store="another"), 4.0).warning == ""
        assert pull_model(home, serving(10), 5.0).warning == ""

    def test_newer_version_and_other_aggregator_are_no_step_back(self, home: ProjectStore):
        pull_model(home, serving(9), 1.0)
        assert pull_model(home, serving(10), 2.0).warning == ""
        assert pull_model(home, serving(2, "https://other.example"), 3.0).warning == ""

    def test_store_with_a_higher_version_is_said_once(self, home: ProjectStore):
        """Only its number was compared: a store that is ahead of the one before was taken without a word."""
        assert pull_model(home, serving(9, lineage=ONE), 1.0).warning == ""
        assert pull_model(home, serving(10, lineage=ONE), 2.0).warning == ""
        warning = pull_model(home, serving(12, lineage=OTHER), 3.0).warning
        assert warning == f"{URL} serves version 12 of another store than before: its store was replaced"
        assert pull_model(home, serving(13, lineage=OTHER), 4.0).warning == ""

    def test_same_model_of_another_store_is_said(self, home: ProjectStore):
        """Two stores that began with the starter model serve the same bytes, and 304 to who has them."""
        link = serving(0, lineage=ONE)
        pull_model(home, link, 1.0)
        unchanged = replace(link, send=lambda *_: HttpResponse(304, {"fedstep-lineage": OTHER}, b""))
        assert "version 0 of another store" in pull_model(home, unchanged, 2.0).warning
        assert pull_model(home, unchanged, 3.0).warning == ""

    def test_other_aggregators_in_between_change_nothing(self, home: ProjectStore):
        """What was known of an aggregator was that of the stored model, and so was forgotten by the next pull."""
        pull_model(home, serving(9, lineage=ONE), 1.0)
        pull_model(home, serving(9, lineage=ONE), 1.5)
        for number in range(7):
            assert pull_model(home, serving(2, f"https://{number}.example", lineage=OTHER), 2.0).warning == ""
        assert "version 12 of another store" in pull_model(home, serving(12, lineage=OTHER), 3.0).warning
        for number in range(8):
            pull_model(home, serving(2, f"https://{number}.example"), 4.0)
        assert pull_model(home, serving(3, lineage=ONE), 5.0).warning == "", "eight are remembered"

    def test_step_back_is_said_after_another_aggregator(self, home: ProjectStore):
        pull_model(home, serving(9), 1.0)
        pull_model(home, serving(2, "https://other.example"), 2.0)
        assert "from version 9 to 3" in pull_model(home, serving(3), 3.0).warning

    @pytest.mark.parametrize("lineage", ["", "A" * 16, "a" * 17])
    def test_no_valid_lineage_tells_nothing(self, home: ProjectStore, lineage: str):
        """A proxy may drop the header, and a replica of an earlier fedstep has none."""
        pull_model(home, serving(9, lineage=ONE), 1.0)
        assert pull_model(home, serving(9, lineage=lineage), 2.0).warning == ""
        assert pull_model(home, serving(9, lineage=ONE), 3.0).warning == ""
        assert "another store" in pull_model(home, serving(9, lineage=OTHER), 4.0).warning

    def test_what_an_earlier_fedstep_pulled_is_known(self, home: ProjectStore):
        """Its note has no stores; the stored model has the version."""
        pull_model(home, serving(9, lineage=ONE), 1.0)
        note = json.loads(home.read("model.json"))
        home.write("model.json", json.dumps({name: note[name] for name in ("etag", "fetched_at", "url")}).encode())
        assert "from version 9 to 3" in pull_model(home, serving(3), 2.0).warning

    @pytest.mark.parametrize("known", ["[1]", '{"a": 1}', '{"a": [1, "", 2]}', '{"a": ["", "", "2"]}', '{"a": []}'])
    def test_damaged_note_of_stores_is_none(self, home: ProjectStore, known: str):
        pull_model(home, serving(9, lineage=ONE), 1.0)
        note = json.loads(home.read("model.json")) | {"known": json.loads(known)}
        home.write("model.json", json.dumps(note).encode())
        assert pull_model(home, serving(12, lineage=OTHER), 2.0).warning == ""
        assert "another store" in pull_model(home, serving(12, lineage=ONE), 3.0).warning


def asked(at: float, promise: PrivacyGuarantee = WEEKLY, url: str = URL) -> CachedModel:
    return CachedModel(load_starter_model()._replace(promise=promise), fetched_at=at, url=url)


def update() -> bytes:
    return pack_update(Update("0" * 16, 0, "1" * 32, "2" * 32, {"flaky": 64}, {"flaky": zeros(3)}))


def refusing(name: str):
    body = f'{{"type": "urn:fedstep:problem:{name}", "detail": "no"}}'.encode()
    return lambda *_: HttpResponse(422, {}, body)


class TestPeriods:
    def test_without_a_promise_it_is_always_its_turn(self, home):
        record_contribution(home, asked(THURSDAY, NO_PROMISE))
        assert may_contribute(home, asked(THURSDAY, NO_PROMISE))
        assert load_contributions(home, URL) == ContributionLog(URL)

    def test_period_ends_with_the_calendar_not_after_seven_days(self, home):
        """A period ends with the calendar and not seven days after the last batch."""
        record_contribution(home, asked(THURSDAY + 6 * DAY))
        assert not may_contribute(home, asked(THURSDAY + 6.9 * DAY))
        assert may_contribute(home, asked(THURSDAY + 7.1 * DAY))

    def test_while_nobody_can_be_asked_nothing_more_is_made(self, home):
        """While nobody can be asked, nothing more is made: the cached model is as old as before, whatever the
        clock says.
        """
        record_contribution(home, asked(THURSDAY))
        assert not may_contribute(home, asked(THURSDAY))

    def test_after_the_last_contribution_there_is_no_turn_any_more(self, home):
        for week in range(3):
            assert may_contribute(home, asked(THURSDAY + week * 7 * DAY))
            record_contribution(home, asked(THURSDAY + week * 7 * DAY))
        assert not may_contribute(home, asked(THURSDAY + 99 * 7 * DAY))

    def test_another_aggregator_has_a_budget_of_its_own(self, home):
        mark_exhausted(home, URL)
        assert not may_contribute(home, asked(THURSDAY))
        assert may_contribute(home, asked(THURSDAY, url="https://other.example"))

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"url": "https://hub.example", "made": "x"}', b"\xff"])
    def test_a_damaged_note_is_no_note(self, home, content):
        home.write("contributed.json", content)
        assert load_contributions(home, URL) == ContributionLog(URL)


def declining(method: str, *_: object) -> HttpResponse:
    """An aggregator with a model, and no room in this project's budget."""
    body = pack_model(load_starter_model()._replace(promise=WEEKLY))
    return HttpResponse(200, {"etag": '"1"'}, body) if method == "GET" else refusing("budget-spent")()


class TestBudget:
    def test_spent_budget_and_second_batch_are_special_refusals(self):
        """A spent budget and a second batch are not refusals like others."""
        for name, kind in (
            ("budget-spent", PrivacyBudgetExhausted),
            ("already-contributed", ContributionNotDue),
            ("stale", UpdateRefused),
        ):
            with pytest.raises(kind) as raised:
                push(update(), URL, refusing(name), RetryPolicy(waits=()))
            assert type(raised.value) is kind

    def test_refusal_for_the_budget_is_kept_and_nothing_is_resent(self, home):
        """What the aggregator says of the budget is remembered, and the update is not sent again."""
        outbox = Outbox(Path(home.outbox))
        outbox.add(update())
        save_model(home, load_starter_bytes(), "", URL, THURSDAY)
        push_pending(home, AggregatorLink(URL, declining, RetryPolicy(waits=())))
        assert outbox.waiting().updates == ()
        assert load_contributions(home, URL).over

    def test_a_project_past_its_budget_trains_without_a_problem(self, home):
        """A project past its budget trains without a problem.

        It had an update waiting; the aggregator declines it, and the build is learned as ever.
        """
        Outbox(Path(home.outbox)).add(update())
        hub = AggregatorLink(URL, declining, RetryPolicy(waits=()))
        trained = train(home, next(iter(drawn_builds(30, 1))), lambda _runs: {}, hub, THURSDAY, 100)
        assert trained.problems == ()
        assert trained.status == "ok"
        assert trained.warnings == ()
        assert list(Path(home.outbox).glob("*.safetensors")) == []


class TestGuarantee:
    @pytest.mark.parametrize(
        "promise",
        [WEEKLY, PrivacyGuarantee(0.5, 1.5e-5, 1, 1e-5), PrivacyGuarantee(12.25, 0.001, 99_999, 0.5), NO_PROMISE],
    )
    def test_a_promise_comes_back_as_it_was_sent(self, promise):
        assert unpack_model(pack_model(load_starter_model()._replace(promise=promise))).promise == promise

    @pytest.mark.parametrize(
        "word", ["", "8/1e-06/52", "0/1e-06/52/7", "nan/1e-06/52/7", "8/1e-06/0/7", "8/1e-999/52/7", "8/1e-06/52/7/1"]
    )
    def test_a_promise_that_is_none_makes_the_message_no_model(self, word):
        tensors = unpack(pack_model(load_starter_model()._replace(promise=WEEKLY)))
        with pytest.raises(WireError):
            unpack_model(pack({**tensors.words, "privacy": word}, tensors.vectors))


class TestImports:
    def test_train_without_helper_loads_no_secure_aggregation(self) -> None:
        program = "import sys, fedstep.pipeline.train; print([name for name in sys.modules if 'secagg' in name])"
        process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert process.stdout.strip() == "[]"
