"""The documentation site: it builds without warnings, and its pages load nothing from another host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a strict build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class TestSite:
    def test_every_page_is_built(self, site: Path) -> None:
        """Each Markdown file below docs/ has an HTML page."""
        for page in (ROOT / "docs").rglob("*.md"):
            assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists(), page.name

    def test_pages_load_nothing_from_another_host(self, site: Path) -> None:
        """Fonts, scripts, style sheets and images come from the site itself."""
        for page in site.rglob("*.html"):
            assert not LOADED.findall(page.read_text(encoding="utf-8")), page.name

    def test_every_decision_is_in_the_index(self) -> None:
        """The index of the decisions lists each file with the title, date and status that it states."""
        folder = ROOT / "docs/decisions"
        index = (folder / "index.md").read_text(encoding="utf-8")
        for page in folder.glob("[0-9]*.md"):
            heading, _, state, *_ = page.read_text(encoding="utf-8").splitlines()
            named = re.fullmatch(r"# (\d{4}): (.+)", heading)
            assert named, f"{page.name}: {heading}"
            stated = re.match(r"Status: (\w+)[^.]*?.*?\. Date: (\d{4}-\d\d-\d\d)\.", state)
            assert stated, f"{page.name}: {state}"
            row = f"| [{named[1]}]({page.name}) | {named[2]} | {stated[2]} | {stated[1].lower()}"
            assert row in index, row

    def test_the_index_lists_each_decision_once_in_order(self) -> None:
        """Rows of the index and of the navigation are sorted by number, without a decision twice."""
        pages = sorted(page.name for page in (ROOT / "docs/decisions").glob("[0-9]*.md"))
        for file, link in ("docs/decisions/index.md", r"^\| \[\d{4}\]\((.+?)\)"), ("mkdocs.yml", r"decisions/(\d.+)$"):
            assert re.findall(link, (ROOT / file).read_text(encoding="utf-8"), re.M) == pages, file

    def test_the_architecture_names_modules_that_exist(self) -> None:
        """Each `package/module.py` on the architecture page is a file below fedstep/."""
        page = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`(\w+/[\w/]+\.py)`", page))
        assert len(named) > 40
        assert sorted(name for name in named if not (ROOT / "fedstep" / name).exists()) == []
