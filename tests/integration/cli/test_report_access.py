"""The page of a project in Chromium: axe-core finds nothing serious, and it is whole under Jenkins' policy."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, sync_playwright

from tests.helpers.project_history import write_history
from tests.integration.cli.test_report import run

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full
CHROMIUM = Path("/usr/bin/chromium")  # `make tools` installs it
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]
JENKINS_POLICY = "sandbox; default-src 'none'; img-src 'self'; style-src 'self';"  # Jenkins, "Configuring CSP"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as a file, and with pages of tests as a folder."""
    folder = tmp_path_factory.mktemp("shop")
    write_history(folder)
    for place in ("page.html", "site/"):
        ran = run(folder, "report", "--html", place)
        assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.fail("Chromium is missing, so the page was not looked at. Run: make tools (apt-get install chromium)")
    with sync_playwright() as player:
        shown = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield shown
        shown.close()


@pytest.fixture
def under_jenkins(site: Path) -> Iterator[str]:
    """The address of the folder, served with the policy of Jenkins."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", JENKINS_POLICY)
            super().end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def show(browser: Browser, url: str, scheme: str = "light", width: int = 1280) -> "Page":
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.goto(url)
    return page


class TestAccess:
    @pytest.mark.parametrize(("scheme", "width"), LOOKS)
    @pytest.mark.parametrize("place", ["page.html", "site/index.html"])
    def test_axe_finds_nothing_serious(self, site: Path, browser: Browser, place: str, scheme: str, width: int) -> None:
        page = show(browser, f"file://{site / place}", scheme, width)
        for details in page.query_selector_all("summary"):
            details.click()
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in found]
        assert [one for one in serious if one[1] in ("serious", "critical")] == []

    @pytest.mark.parametrize(("scheme", "width"), LOOKS)
    def test_nothing_overflows(self, site: Path, browser: Browser, scheme: str, width: int) -> None:
        page = show(browser, f"file://{site / 'page.html'}", scheme, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_tables_sort_by_keyboard_and_filter(self, site: Path, browser: Browser) -> None:
        page = show(browser, f"file://{site / 'page.html'}")
        page.focus("#slow-table th button")
        page.keyboard.press("Enter")
        assert page.get_attribute("#slow-table th", "aria-sort") == "descending"
        page.fill("input[aria-controls=slow-table]", "case_16")
        assert page.locator("#slow-table tbody tr:visible").count() == 1

    def test_names_of_tests_run_nothing(self, site: Path, browser: Browser) -> None:
        page = browser.new_page()
        dialogs: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.goto(f"file://{site / 'site/index.html'}")
        assert dialogs == []
        assert page.locator("img").count() == 0

    def test_the_page_is_whole_under_the_policy_of_jenkins(self, browser: Browser, under_jenkins: str) -> None:
        """Scripts are refused there; style sheet, charts and tables are not."""
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
        page.goto(f"{under_jenkins}/index.html")
        assert [text for text in refused if "style" in text.lower()] == []
        chart = page.locator(".chart .wide svg").first.bounding_box()
        assert chart is not None
        assert chart["width"] > 600
        assert page.locator("#flaky-table tbody tr").count() > 0
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "10px"

    def test_without_scripts_no_control_is_shown_that_does_nothing(self, browser: Browser, under_jenkins: str) -> None:
        """Tables stay in the order of the page: nothing offers to sort or filter them."""
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{under_jenkins}/index.html")
        assert page.locator("th button").count() == 0
        assert page.locator(".filter:visible").count() == 0
        assert page.locator("#slow-table tbody tr:visible").count() > 10
        page.locator("details summary").first.click()
        assert page.locator("details[open] table").first.is_visible()

    @pytest.mark.parametrize("width", [1280, 390])
    def test_pages_of_tests_are_whole_there_too(self, browser: Browser, under_jenkins: str, width: int) -> None:
        """They are reached by a link, have a style sheet of their own, and no style that is refused."""
        page = browser.new_page(viewport={"width": width, "height": 900})
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
        page.goto(f"{under_jenkins}/index.html")
        page.locator("#flaky-table a[href^=tests]").first.click()
        page.wait_for_url("**/tests/*.html")
        assert [text for text in refused if "style" in text.lower()] == []
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") == "10px"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        label, chart = page.locator(".times text").last.bounding_box(), page.locator(".strip").bounding_box()
        assert label is not None
        assert chart is not None
        assert label["x"] + label["width"] <= chart["x"]
