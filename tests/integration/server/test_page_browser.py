"""The page of a real process in a real browser: light, dark, wide and narrow."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright import sync_api as browsers

from fedstep.schema.schema import schema
from tests.helpers.server_page import grow, running

CHROMIUM = Path("/usr/bin/chromium")  # `make tools` installs it
LOOKS = (("light", 1100), ("dark", 1100), ("light", 390))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an aggregator with a past listens; a few updates were refused."""
    folder = tmp_path_factory.mktemp("shown")
    store = f"sqlite:///{folder / 'a.db'}"
    grow(store, schema(), until=time.time(), rounds=9)
    with running(store, folder / "log") as where:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{where}/v1/updates", b"nonsense", 5)
        yield where


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Debian's Chromium."""
    with browsers.sync_playwright() as player:
        shown = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield shown
        shown.close()


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def page(request, browser, url):
    """The page in one look, with what it said on the console and asked for."""
    scheme, width = request.param
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown.said, shown.asked, shown.wide = [], [], width
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.on("request", lambda asked: shown.asked.append(asked.url))
    shown.goto(f"{url}/")
    yield shown
    shown.close()


class TestBrowser:
    def test_requests_nothing_elsewhere_and_reports_no_errors(self, page, url):
        """Nothing is requested elsewhere, and the browser reports no errors."""
        assert set(page.asked) <= {f"{url}/", f"{url}/favicon.ico"}
        assert page.said == []

    def test_nothing_overflows_also_with_everything_open(self, page):
        page.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= page.wide
        cut = page.evaluate(
            """() => [...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, pre, svg')
        && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""
        )
        assert cut == []

    def test_tab_key_reaches_everything_to_follow_open_or_scroll(self, page):
        """Everything to follow, open or scroll is reached with the Tab key."""
        page.evaluate("document.querySelector('details').open = true")
        wanted = page.locator("a, summary, .scroll").count()
        seen = []
        for _ in range(wanted):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate(
                    """() => { const one = document.activeElement, style = getComputedStyle(one);
                const box = one.getBoundingClientRect();
                return [one.outerHTML.slice(0, 200), style.outlineStyle, box.right > 0 && box.top < innerHeight] }"""
                )
            )
        assert len({name for name, _, _ in seen}) == wanted
        assert all(outline != "none" for _, outline, _ in seen)
        assert all(visible for _, _, visible in seen)

    def test_the_verdicts_open_with_the_keyboard_alone(self, page):
        page.locator("summary").focus()
        page.keyboard.press("Enter")
        assert page.get_by_role("region", name="Verdicts").is_visible()

    def test_every_mark_of_the_charts_is_drawn_inside_its_chart(self, page):
        marks = page.evaluate(
            """() => [...document.querySelectorAll('svg.trials')].flatMap(chart => {
        const outer = chart.getBoundingClientRect();
        return [...chart.querySelectorAll('path.mark')].map(mark => {
            const box = mark.getBoundingClientRect();
            return box.width > 2 && box.left >= outer.left - 8 && box.right <= outer.right + 8
                && box.top >= outer.top - 2 && box.bottom <= outer.bottom })})"""
        )
        assert len(marks) > 8
        assert all(marks)

    def test_text_has_contrast(self, page):
        """Text has contrast: at least 4.5 to 1 (WCAG 2.2, 1.4.3) with what is behind it."""
        lowest = page.evaluate(
            """() => {
        const parse = text => text.match(/[0-9.]+/g).map(Number);
        const light = color => { const [r, g, b] = color.map(v => { v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const behind = one => { for (; one; one = one.parentElement) {
            const color = parse(getComputedStyle(one).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color.slice(0, 3) } return [255, 255, 255] };
        return Math.min(...[...document.querySelectorAll('h1,h2,h3,p,a,th,td,dt,dd,li,summary,caption,code,svg text')]
            .map(one => { const style = getComputedStyle(one);
                const ink = parse(one.closest('svg') ? style.fill : style.color).slice(0, 3);
                const [high, low] = [light(ink), light(behind(one))].sort((a, b) => b - a);
                return (high + 0.05) / (low + 0.05) })) }"""
        )
        assert lowest >= 4.5
