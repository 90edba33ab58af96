"""The page and the status: what they say is what the store has, and nobody's name is in it."""

import asyncio
import json
import re
from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedstep.federation.messages import deflate, pack_update, shape
from fedstep.model.linear import zeros
from fedstep.schema.schema import schema
from fedstep.server.aggregation.inputs import AggregationInput, AggregationResult
from fedstep.server.dashboard import (
    SHAPES,
    TEMPLATES,
    DashboardPage,
    DashboardReader,
    DashboardSnapshot,
    ProcessCounters,
    TrialPoint,
    figures,
    page_html,
    trials_chart,
)
from fedstep.server.gate import Gate, UpdateEvaluations
from fedstep.server.http_messages import HttpProblem
from fedstep.server.metrics import Metrics
from fedstep.server.storage.store import Store
from tests.helpers.narrow import expect
from tests.helpers.server_page import NOW, PROJECTS, grow

QUIET = ProcessCounters(0, 0, {}, {}, ())
VOID = {"meta", "br", "line", "rect", "path"}


class Read(HTMLParser):
    """Tags, attributes and the text without the style sheet; every tag has to be closed where it must be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text, self.style = "", ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " * (tag in ("th", "td", "dt", "dd"))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a store with 12 rounds of a past."""
    url = f"sqlite:///{tmp_path_factory.mktemp('grown') / 'a.db'}"
    grow(url, schema(), rounds=12)
    return url


@pytest.fixture(scope="module")
def look(grown: str) -> DashboardSnapshot:
    """One look into it."""
    overview = DashboardReader(grown, shape(schema()), Gate())
    try:
        return overview.read_snapshot(NOW)
    finally:
        overview.close()


def words(html: str) -> str:
    return " ".join(Read(html).text.split())


class TestPage:
    def test_the_page_of_a_store_without_updates_says_how_to_begin(self, open_aggregator, settings):
        with open_aggregator(settings) as house:
            answer = house.send("GET", "/", {}, b"", 5)
        text = words(answer.body.decode())
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "No update was received yet" in text
        assert "fedstep train" in text

    def test_policy_allows_the_style_sheet_of_the_page_alone(self, open_aggregator, settings):
        """The content security policy allows the style sheet of the page and nothing else."""
        with open_aggregator(settings) as house:
            answer = house.send("GET", "/", {}, b"", 5)
        page = Read(answer.body.decode())
        digest = b64encode(sha256(page.style.encode()).digest()).decode()
        directives = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert directives.pop("style-src") == f"'sha256-{digest}'"
        assert directives["default-src"] == "'none'"
        assert set(directives.values()) == {"'none'"}
        assert answer.headers["x-content-type-options"] == "nosniff"

    def test_the_page_loads_and_runs_nothing(self, look):
        html = page_html(look, QUIET, schema(), Gate())
        page = Read(html)
        assert not page.open
        assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
        assert not {"src", "srcset", "style", "action"} & {name for name, _ in page.attributes}
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert all((value or "").startswith(("#", "/")) for name, value in page.attributes if name == "href")
        assert "url(" not in page.style
        assert "@import" not in page.style

    def test_every_link_has_its_target_and_no_id_is_repeated(self, look):
        """Every link inside the page has its target, and no id is there twice."""
        page = Read(page_html(look, QUIET, schema(), Gate()))
        ids = [value for name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        links = [value or "" for name, value in page.attributes if name == "href"]
        inner = {link.removeprefix("#") for link in links if link.startswith("#")}
        assert inner <= set(ids)

    def test_the_page_names_no_project_and_no_owner(self, look):
        html = page_html(look, QUIET, schema(), Gate())
        assert not re.search("[0-9a-f]{24}", Read(html).text)
        assert "owner-" not in html
        assert f"{PROJECTS} projects of {PROJECTS} owners" in words(html)


class TestFigures:
    def test_a_look_counts_what_was_sent(self, look):
        each = [1 + (project % 3) * 2 for project in range(PROJECTS)]
        assert sum(day.updates for day in look.days) == 12 * sum(each)
        assert {day.projects for day in look.days} == {PROJECTS}
        assert look.volumes == (0, 0, 3, 6, 0)  # 12 or 36 or 60 of each
        assert look.active.projects == PROJECTS
        assert [day.date for day in look.days] == sorted(day.date for day in look.days)

    def test_open_trials_stand_as_the_gate_would_judge_them(self, grown, look):
        store = Store(grown, shape(schema()))
        seen: list[AggregationInput] = []

        def refuse(moment: AggregationInput) -> AggregationResult:
            seen.append(moment)
            raise ZeroDivisionError

        with closing(store), pytest.raises(ZeroDivisionError):
            store.aggregate(refuse, NOW)
        evidence = {task: expect(UpdateEvaluations, known) for task, known in seen[0].evidence.items()}
        counts = {task: len(known.evaluations) for task, known in evidence.items()}
        assert counts == {trial.task: trial.evaluations for trial in look.lineage.trials}
        assert counts == {task: verdict.evaluations for task, verdict in look.standing.items()}
        assert look.spent == seen[0].spent

    def test_charts_show_every_verdict_with_outcome_and_bounds(self, look):
        """Every verdict is in the charts with its outcome and its bounds."""
        text = Read(page_html(look, QUIET, schema(), Gate())).text
        assert {ended.outcome for ended in look.lineage.verdicts} >= {"promoted", "rejected", "rollback"}
        for ended in look.lineage.verdicts:
            if ended.outcome == "rollback":
                assert f"version {ended.version}: rollback" in text
            else:
                mean, low, high = (f"{ended.figures[name]:+.3f}" for name in ("mean", "low", "high"))
                assert f"version {ended.version} {ended.outcome}: {mean}, {low} to {high}" in text

    def test_words_are_those_with_the_largest_weights(self, look):
        """The words are those with the largest weights in production."""
        text = words(page_html(look, QUIET, schema(), Gate()))
        names, weights = schema().tasks["flaky"].names(), look.current.production["flaky"]
        pairs = [
            (weight, name) for name, weight in zip(names, weights, strict=True) if re.match("(name|source)=", name)
        ]
        for weight, name in (max(pairs), min(pairs)):
            assert f"{name} {weight:+.2f}" in text

    def test_refusals_clipping_and_staleness_equal_the_metrics(self, look):
        """The refusals, the clipping and the staleness are those of the metrics."""
        metrics = Metrics()
        for number in range(10):
            metrics.count_update("accepted")
            metrics.observe_update(3 if number else 0, {"flaky": number < 4})
        for name in ("stale", "stale", "repeat", "too-long"):
            metrics.count_update(name)
        found = figures(metrics.text())
        assert found == ProcessCounters(
            10, 1, {"stale": 2, "too-long": 1}, {"flaky": 0.4}, [("0 versions", 0.1), ("3 to 4 versions", 0.9)]
        )
        text = words(page_html(look, found, schema(), Gate()))
        assert "refused: stale 2 refused: too-long 1" in text
        assert "flaky 40 %" in text
        assert "3 to 4 versions old 90 %" in text
        assert figures(Metrics().text()) == QUIET

    def test_what_is_put_into_the_page_is_text(self, look):
        html = page_html(look, replace(QUIET, refused={"<script>alert(1)</script>": 1}), schema(), Gate())
        assert "<script>" not in html
        assert "<script>alert(1)</script>" in Read(html).text

    def test_without_a_gate_the_page_says_so(self, open_aggregator, settings):
        with open_aggregator(settings) as house:
            assert "runs without a gate" in words(house.send("GET", "/", {}, b"", 5).body.decode())


def watched(store: str) -> tuple[DashboardPage, list[float]]:
    """A page, and when its store was looked at."""
    looks: list[float] = []

    class Counting(DashboardReader):
        def read_snapshot(self, now: float) -> DashboardSnapshot:
            looks.append(now)
            return super().read_snapshot(now)

    return DashboardPage(Counting(store, shape(schema()), Gate()), Metrics().text, schema(), Gate(), lambda: NOW), looks


bounds = st.floats(-1, 1, width=32)
points = st.builds(
    TrialPoint, st.integers(0, 10**6), st.sampled_from([*SHAPES, "else"]), bounds, bounds, bounds, st.floats(0, 0.15)
)


class TestAccess:
    def test_private_model_hides_page_and_status_without_a_token(self, open_aggregator, settings):
        """A private model hides the page and the status from requests without a token."""
        token = "correct-horse-battery-staple"
        with open_aggregator(replace(settings, tokens=(token,), private_model=True)) as house:
            for path in ("/", "/v1/status"):
                assert house.send("GET", path, {}, b"", 5).status == 401
                assert house.send("GET", path, {"Authorization": f"Bearer {token}"}, b"", 5).status == 200

    def test_the_status_is_that_of_the_store(self, open_aggregator, settings, ours, update):
        with open_aggregator(settings) as house:
            made = update(1)
            headers = {"Idempotency-Key": made.id, "Content-Encoding": "gzip"}
            assert house.send("POST", "/v1/updates", headers, deflate(pack_update(made)), 5).status == 202
            found = json.loads(house.send("GET", "/v1/status", {}, b"", 5).body)
        assert found == {
            "schema": ours.digest,
            "candidate": 0,
            "production": 0,
            "sources": {"flaky": 0, "build-duration": 0},
            "trials": {},
            "buffer": {"updates": 1, "projects": 1},
            "active": {"projects": 1, "owners": 1},
        }

    def test_one_look_serves_all_who_ask_at_once(self, grown):
        page, looks = watched(grown)

        async def ask() -> set[int]:
            return {answer.status_code for answer in await asyncio.gather(*(page.html() for _ in range(10)))}

        assert asyncio.run(ask()) == {200}
        assert looks == [NOW]
        page.close()

    def test_a_look_is_kept_twenty_times_as_long_as_it_took(self, grown, monkeypatch):
        hands = iter([0.0, 10.0, 209.0, 211.0, 212.0])  # asked, looked; asked; asked, looked
        monkeypatch.setattr("fedstep.server.dashboard.time", SimpleNamespace(monotonic=lambda: next(hands)))
        page, looks = watched(grown)
        seen = []
        for _ in range(3):
            asyncio.run(page.status())
            seen.append(len(looks))
        assert seen == [1, 1, 2]
        page.close()

    def test_a_store_that_cannot_be_read_is_503_and_tried_again(self, tmp_path, small):
        url = f"sqlite:///{tmp_path / 'a.db'}"
        page = DashboardPage(DashboardReader(url, shape(small), None), Metrics().text, small, None, lambda: NOW)
        with pytest.raises(HttpProblem, match="503 store"):
            asyncio.run(page.status())
        store = Store(url, shape(small))
        store.start({name: zeros(size) for name, size in shape(small).sizes.items()}, NOW)
        store.close()
        assert asyncio.run(page.status())["candidate"] == 0
        page.close()

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(st.lists(points, min_size=1, max_size=8), st.floats(0.01, 1.0), st.text(max_size=20))
    def test_any_chart_is_well_formed_and_stays_inside_itself(self, some, top, label):
        some.sort(key=lambda point: point.version)
        printable = "".join(letter for letter in label if letter.isprintable())
        chart = ElementTree.fromstring(str(trials_chart(printable, some, 0.15, top)))
        drawing = chart[0]
        assert drawing.get("aria-label") == printable
        tall = float(drawing.get("height", ""))
        for element in drawing.iter():
            for name in ("x", "x1", "x2", "width"):
                text = element.get(name, "0")
                assert text == "-8" or 0 <= float(text.rstrip("%")) <= 100
            for name in ("y", "y1", "y2"):
                assert 0 <= float(element.get(name, "0")) <= tall
        assert len(drawing.findall("svg")) == len(some)

    def test_the_templates_are_in_the_package(self):
        assert {path.name for path in TEMPLATES.iterdir()} == {"page.css", "page.html"}
