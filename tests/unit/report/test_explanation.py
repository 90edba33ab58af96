"""Explanations as text, JSON and a page: names are harmless text, the page fetches and runs nothing."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.explanation import (
    ExplainedFeature,
    SeenRun,
    TestExplanation,
    WhatIf,
    explanation_text,
)
from fedstep.report.html import explanation_html
from fedstep.report.json import explanation_json
from fedstep.report.units import columns, visible
from fedstep.results import ModelUsed
from fedstep.types import Unavailable

VOID = {"meta", "br", "wbr"}
DAY = 86_400.0


class Page(HTMLParser):
    """Tags, attribute names, the text, and whether every tag is closed where it must be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def runs(name: str) -> tuple[SeenRun, ...]:
    """A pass, a flip of each metal, a failure in an incident, one without a time, a skip."""
    return (
        SeenRun(1 * DAY, "p", 0.2, "-", name, name, ""),
        SeenRun(2 * DAY, "k", 0.3, "g", name, name, name),
        SeenRun(3 * DAY, "f", 0.25, "s", name, name, name),
        SeenRun(4 * DAY, "f", 0.25, "-", name, name, name, incident=True),
        SeenRun(5 * DAY, "p", math.nan, "-", name, name, ""),
        SeenRun(6 * DAY, "s", math.nan, "-", name, name, ""),
    )


def explained(name: str = "shop.CartTest#sums") -> TestExplanation:
    return TestExplanation(
        test=name,
        probability=0.34,
        raw=0.41,
        threshold=0.05,
        horizon=20,
        recently=True,
        slope=0.9,
        offset=-0.1,
        contributions=(
            ExplainedFeature("flip-rate-20", "0.1", 0.85, -0.02),
            ExplainedFeature("source=sleep", "yes", 0.41, 0.0),
            ExplainedFeature("runs", "30", -0.5, 0.0),
            ExplainedFeature("bias", "1", 0.0, 0.001),
        ),
        private=(ExplainedFeature("this test", "", 0.0, 0.3), ExplainedFeature("its class", "", 0.0, 0.0)),
        changes=(WhatIf("after 12 more passes", 0.04, False), WhatIf("after one failure", 0.5, True)),
        runs=runs(name),
        runs_known=5,
        failures=3,
        flips=2,
        typical_seconds=0.24,
        model=ModelUsed("production", 42, 60.0, name),
    )


class TestText:
    def test_the_text_says_what_is_known(self) -> None:
        text = explanation_text(explained())
        assert "34 % that it flips in its next 20 runs; 41 % before its calibration and bounds" in text
        assert "5 runs, 3 failures, 2 flips; takes about 0.24 s" in text
        assert "\nRuns          .~FF.-  oldest first\n               gs\n" in text
        assert "+0.83    +0.85    -0.02  flipped in 10 % of its last 20 runs (flip-rate-20)" in text
        assert "+0.30             +0.30  this test, known here alone" in text
        assert "    4 %  after 12 more passes  no longer likely\n" in text
        assert "after one failure  then likely" not in text, "it is likely already"
        assert "incident" in text

    def test_the_numbers_of_the_text_add_up(self) -> None:
        text = explanation_text(explained())
        assert "+1.04                    all together: 41 %" in text
        assert "+0.84                    calibration makes it 0.90 × +1.04 -0.10: 70 %" in text
        assert "-0.66                    its past counts in full, the rest within bounds: 34 %" in text
        assert "+0.00                    1 other together" in text

    def test_a_step_that_changes_nothing_is_left_out(self) -> None:
        """A calibration by 1 × +0 told 68 % and 83 % on one line: the bounds had made the difference."""
        plain = replace(explained(), slope=1.0, offset=0.0, probability=1 / (1 + math.exp(-1.041)))
        text = explanation_text(plain)
        assert "calibration makes it" not in text
        assert "within bounds" not in text

    def test_where_nothing_changes_the_verdict_it_is_said_so(self) -> None:
        stuck = replace(explained(), changes=(WhatIf("after 20 more passes", 0.3, True),))
        for page in (explanation_text(stuck), explanation_html(stuck)):
            assert "None of these alone changes whether it is likely to flake." in page
        assert "None of these alone" not in explanation_text(explained())

    def test_a_hostile_name_is_one_harmless_line(self, hostile: str) -> None:
        plain, text = explanation_text(explained()), explanation_text(explained(hostile))
        assert text.replace("\n", "").isprintable()
        assert max(map(columns, text.splitlines())) <= 100
        assert "##[" not in text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
        assert plain.splitlines()[-1] == text.splitlines()[-1]


class TestPage:
    def test_a_hostile_name_is_text_of_the_page(self, hostile: str) -> None:
        page, ordinary = Page(explanation_html(explained(hostile or "x"))), Page(explanation_html(explained()))
        assert [tag for tag in page.tags if tag != "wbr"] == [tag for tag in ordinary.tags if tag != "wbr"]
        assert visible(hostile).replace(" ", "") in page.text.replace(" ", "")
        assert not page.open

    @settings(max_examples=30, deadline=None)
    @given(st.one_of(st.text(st.characters(codec=None), min_size=1), st.text("<>&\"'/=a \n;#", min_size=1)))
    def test_any_name_is_text_of_the_page(self, name: str) -> None:
        page = Page(explanation_html(explained(name)))
        assert visible(name).replace(" ", "") in page.text.replace(" ", "")
        assert page.text.replace("\n", "").isprintable()

    def test_the_page_is_self_contained(self) -> None:
        html = explanation_html(explained())
        page = Page(html)
        assert not {"script", "link", "img", "iframe", "object", "base", "form", "use", "image"} & set(page.tags)
        assert not {"src", "href", "srcset", "action", "xlink:href"} & page.attributes
        assert not any(name.startswith("on") for name in page.attributes)
        assert "url(" not in html
        assert "@import" not in html
        assert "prefers-color-scheme: dark" in html

    def test_the_page_draws_a_bar_a_run_and_a_dot_a_time(self) -> None:
        html = explanation_html(explained())
        strip = html.partition('<svg class="outcomes" viewBox')[2].partition("</svg>")[0]
        kinds = ("passed", "flaked", "failed", "skipped", "gold", "silver")
        assert [strip.count(f'class="{kind}"') for kind in kinds] == [2, 1, 2, 1, 1, 1]
        assert "1970-01-03 00:00: failed and passed, gold flip" in strip
        plot = html.partition('aria-label="times of the test"')[2].partition("</svg>")[0]
        assert plot.count("h0") == 4, "two runs have no time"

    def test_a_test_without_runs_or_times_is_a_page(self) -> None:
        bare = replace(explained(), runs=(), changes=(), typical_seconds=Unavailable("no report gave a time"))
        assert "no report gave a time" in Page(explanation_html(bare)).text
        untimed = replace(explained(), runs=runs("x")[4:])
        assert "No report gave a time" in Page(explanation_html(untimed)).text
        assert "Runs" not in explanation_text(bare)


class TestJson:
    def test_the_json_has_what_the_text_has(self, hostile: str) -> None:
        found = json.loads(explanation_json(explained(hostile)))
        assert (found["probability"], found["probability_before_calibration"], found["named"]) == (0.34, 0.41, True)
        assert [run["metal"] for run in found["runs"]] == [None, "gold", "silver", None, None, None]
        assert found["runs"][4]["seconds"] is None
        assert found["contributions"][0]["says"] == "flipped in 10 % of its last 20 runs"
        assert found["changes"][0] == {"says": "after 12 more passes", "probability": 0.04, "named": False}
        assert "##[" not in explanation_json(explained(hostile))

    @pytest.mark.parametrize("recently", [True, False])
    def test_absent_test_is_left_out_of_predictions(self, recently: bool) -> None:
        """A test that did not run lately is left out of predictions."""
        text = explanation_text(replace(explained(), recently=recently))
        assert ("it did not run lately" in " ".join(text.split())) is not recently
