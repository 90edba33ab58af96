"""`fedstep explain TEST`: the same numbers as `predict`, a page that opens offline, and no guess at what was meant."""

import json
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from playwright import sync_api as browser

from tests.helpers.cli import forty_tests, junit

TEST = "shop.test_cart#test_7"  # failed in every third build


class TestExplanation:
    def test_a_test_is_explained_with_the_numbers_of_predict(self, experienced):
        flaky = json.loads(experienced.run("predict", "--format", "json").out)["flaky"]
        predicted = next(risk for risk in flaky if risk["test"] == TEST)
        ran = experienced.run("explain", TEST, "--json")
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)
        assert found["test"] == TEST
        assert found["probability"] == predicted["probability"]
        assert (found["runs_known"], found["failures"]) == (predicted["runs"], predicted["failures"])
        assert "".join(run["outcome"] for run in found["runs"]) == predicted["last_outcomes"]
        assert [one["feature"] for one in found["private"]] == ["this test", "its class"]
        text = experienced.run("explain", "test_7").out
        assert f"Test          {TEST}\n" in text
        assert "\nRuns          F..F..F..F..  oldest first\n" in text
        assert "all together" in text
        assert "What would change it" in text

    def test_the_page_is_written_where_it_is_asked_for(self, experienced):
        ran = experienced.run("explain", "test_7", "--html", "why.html")
        assert ran.code == 0
        assert "wrote why.html" in ran.err
        page = (experienced.root / "why.html").read_text()
        assert page.startswith("<!doctype html>")
        assert 'class="outcomes"' in page
        refused = experienced.run("explain", "test_7", "--html", "nowhere/why.html")
        assert refused.code == 2
        assert "nowhere/why.html" in refused.err

    def test_an_ambiguous_or_unknown_name_lists_what_it_could_be(self, experienced):
        ran = experienced.run("explain", "test_1x")
        assert (ran.code, ran.out) == (2, "")
        assert "no test of the history is called test_1x" in ran.err
        assert "shop.test_cart#test_1" in ran.err
        ran = experienced.run("explain", "shop.test_cart")
        assert (ran.code, ran.out) == (2, "")
        assert "means 40 tests" in ran.err
        assert ran.err.count("shop.test_cart#") == 8

    def test_renamed_test_is_found_by_its_former_name(self, experienced):
        """A renamed test is found by its former name and has its former runs."""
        (experienced.root / "report.xml").write_text(
            junit(forty_tests(12)).replace("shop.test_cart", "store.test_cart")
        )
        assert experienced.run("train", "--junit", "report.xml").code == 0
        ran = experienced.run("explain", TEST, "--json")
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)
        assert (found["test"], found["former"]) == ("store.test_cart#test_7", TEST)
        assert len(found["runs"]) == found["runs_known"] == 13


class TestBoundary:
    @pytest.mark.parametrize("arguments", [("explain", "test_7"), ("explain", "test_7", "--json")])
    def test_without_a_history_it_says_what_to_do(self, fresh, arguments):
        ran = fresh.run(*arguments)
        assert (ran.code, ran.out) == (4, "")
        assert "no test of this project is known yet" in ran.err
        assert "fedstep train" in ran.err
        assert not fresh.history.exists()

    def test_loads_no_numpy_or_http_library_and_writes_nothing(self, experienced):
        """It loads neither numpy nor an HTTP library and writes nothing."""
        before = {path: path.read_bytes() for path in experienced.history.rglob("*") if path.is_file()}
        ran = experienced.run("explain", "test_7", python=("-X", "importtime"))
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.err.splitlines() if "|" in line}
        assert "click" in loaded, "the list was read"
        assert loaded.isdisjoint({"numpy", "scipy", "sklearn", "requests", "urllib3"})
        assert {path: path.read_bytes() for path in experienced.history.rglob("*") if path.is_file()} == before


class TestPage:
    def test_the_page_looks_right_in_a_browser_and_asks_for_nothing(self, experienced, tmp_path):
        """Light and narrow, dark and wide: nothing overflows, nothing is fetched, every bar has an area."""
        chromium = Path("/usr/bin/chromium")  # `make tools` installs it
        experienced.run("explain", "test_7", "--html", str(tmp_path / "why.html"))
        with browser.sync_playwright() as player:
            shown = player.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
            looks: tuple[tuple[Literal["light", "dark"], int], ...] = (("light", 390), ("dark", 1100))
            for scheme, width in looks:
                page = shown.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                asked: list[browser.Request] = []
                page.on("request", partial(list.append, asked))
                page.goto(f"file://{tmp_path / 'why.html'}")
                assert len(asked) == 1
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                boxes = page.eval_on_selector_all(
                    ".outcomes rect", "all => all.map(one => one.getBoundingClientRect().width)"
                )
                assert min(boxes) > 1
            shown.close()
