"""The page of a project as the command writes and serves it: complete, offline, and safe from names of tests."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.helpers.lifetime import bound
from tests.helpers.prefork import run_forked
from tests.helpers.project_history import FLAKY, HOSTILE, SLOW, write_history

VOID = {"meta", "link", "br", "wbr", "input", "img"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    write_history(root)
    return root


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(arguments, *run_forked(arguments, folder, os.environ, 120.0))


class Elements(HTMLParser):
    """Every element with its attributes, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


class TestFile:
    def test_one_file_holds_everything_and_fetches_nothing(self, folder: Path, tmp_path: Path) -> None:
        ran = run(folder, "report", "--html", str(tmp_path / "page.html"))
        assert ran.returncode == 0, ran.stderr
        assert "fix first: job unit py3.11" in ran.stdout
        page = Elements((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert [tag for tag, _ in page.found if tag in ("link", "img", "iframe", "object")] == []
        references = [
            value for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")
        ]
        assert all((value or "").startswith("#") for value in references)

    def test_hostile_names_are_text(self, folder: Path, tmp_path: Path) -> None:
        run(folder, "report", "--html", str(tmp_path / "page.html"))
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        page = Elements(text)
        assert [tag for tag, _ in page.found].count("script") == 1
        assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
        assert "49" not in re.findall(r"onerror.{0,80}", text)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "&lt;script&gt;" in text

    def test_a_folder_that_cannot_be_written_is_an_error(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        ran = run(folder, "report", "--html", str(tmp_path / "file" / "page.html"))
        assert ran.returncode != 0
        assert "cannot write" in ran.stderr
        assert "Traceback" not in ran.stderr


class TestFolder:
    def test_style_script_and_tests_are_files_of_their_own(self, folder: Path, tmp_path: Path) -> None:
        """Jenkins forbids inline styles and scripts: the page has none."""
        ran = run(folder, "report", "--html", f"{tmp_path / 'site'}/")
        assert ran.returncode == 0, ran.stderr
        site = tmp_path / "site"
        page = Elements((site / "index.html").read_text(encoding="utf-8"))
        assert not [tag for tag, _ in page.found if tag == "style"]
        assert not [attributes for _, attributes in page.found if "style" in attributes]
        links = {attributes["href"] for tag, attributes in page.found if tag == "a"}
        tests = {link for link in links if link and link.startswith("tests/")}
        assert tests
        assert {path.relative_to(site).as_posix() for path in site.rglob("*.html")} == {"index.html", *map(str, tests)}
        assert any(FLAKY in path.read_text(encoding="utf-8").replace("<wbr>", "") for path in site.glob("tests/*.html"))
        assert all(re.fullmatch(r"[0-9a-f]{16}\.html", path.name) for path in site.glob("tests/*"))


class TestServed:
    @pytest.fixture
    def url(self, folder: Path) -> Iterator[str]:
        command = [sys.executable, "-m", "fedstep", "report", "--serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, preexec_fn=bound)
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            yield re.findall(r"http://127\.0\.0\.1:\d+", line)[0]
        finally:
            process.terminate()
            process.wait(10)

    def test_page_and_pages_of_tests_are_served(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/", timeout=60) as answer:
            text = answer.read().decode()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        [path, *_] = re.findall(r"/tests/[0-9a-f]{16}\.html", text)
        with urllib.request.urlopen(f"{url}{path}", timeout=60) as answer:
            assert b"runs failed" in answer.read()
        with urllib.request.urlopen(f"{url}/fedstep.css", timeout=60) as answer:
            assert answer.headers["Content-Type"] == "text/css; charset=utf-8"

    def test_another_site_cannot_read_it(self, url: str) -> None:
        """A name that resolves to this machine is not this machine's name."""
        request = urllib.request.Request(f"{url}/", headers={"Host": "evil.example.org"})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(request, timeout=60)


class TestAck:
    def test_an_accepted_change_is_listed_no_more(self, folder: Path) -> None:
        assert SLOW in run(folder, "ack").stdout
        try:
            ran = run(folder, "ack", SLOW, "--note", "a bigger cart")
            assert ran.returncode == 0, ran.stderr
            assert SLOW not in run(folder, "ack").stdout
        finally:
            (folder / ".fedstep-acks.toml").unlink(missing_ok=True)

    def test_an_unknown_name_is_an_error_that_lists_the_open_ones(self, folder: Path) -> None:
        ran = run(folder, "ack", "nothing#like")
        assert ran.returncode == 2
        assert SLOW in ran.stderr


class TestHostileNames:
    def test_hostile_names_are_in_the_history(self) -> None:
        """The tests above would mean nothing without them."""
        assert "<script>" in HOSTILE[0]
