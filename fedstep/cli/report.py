"""Commands that show a project to people: its page, a digest, badges, and accepted changes of time."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

import fedstep
from fedstep.cli.options import HISTORY, PART, FormatChoice, option, parse_since
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import InputError, MissingExtra, UsageError

if TYPE_CHECKING:
    from fedstep.history.summary import Summary
    from fedstep.pipeline.context import RunContext
    from fedstep.report.explanation import TestExplanation
    from fedstep.report.project_page import Insights, ValueOfSharing
    from fedstep.types import Unavailable

FIRST_WORD, NEXT_WORD = 1.0, 5.0  # seconds until progress is said
MOST_TESTS = 10  # explained on pages of their own in a folder
POLICY = "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data:"


@click.command()
@option("html", metavar="PATH", default="", help="Write the page to this file, or with pages of tests to a folder.")
@option("serve", is_flag=True, help="Show the page on this machine until interrupted.")
@option("port", type=click.IntRange(0, 65535), default=8808, help="Port of --serve; 0: a free one.")
@option("value", is_flag=True, help="Replay the history with and without the shared model, to see what it gains here.")
@HISTORY
@PART
def report(html: str, serve: bool, port: int, value: bool, history: str, part: str) -> int:
    """Show the project on one page: build times, flaky and slow tests, and how good the predictions were.

    \b
    Example: fedstep report --html fedstep-report/
    """
    context = fedstep.Project.discover(history=history, part=part).context()
    if serve:
        return _serve(context, port)
    view = _read_view(context, _replay(context) if value else None)
    insights = view.insights
    echo_warnings(*insights.warnings)
    from fedstep.report.project_page import summarize_page, value_text

    if html:
        for path in _write_page(view, html):
            echo_warnings(f"wrote {path}")
    echo_result(f"{summarize_page(insights)}\n{value_text(insights.value) if value else ''}")
    return 0


@click.command()
@option("since", metavar="AGE", default="7d", help="Start: 7d, 2w or a day, 2030-12-31.")
@option(
    "format",
    parameter="output_format",
    type=FormatChoice(["text", "markdown", "slack"]),
    default="markdown",
    help="Output format; slack: JSON for an incoming webhook.",
)
@HISTORY
@PART
def digest(since: str, output_format: str, history: str, part: str) -> int:
    """Print what changed: new and mended flaky tests, slower tests, what they cost, and what to do first.

    Nothing is printed if nothing changed.

    \b
    Example: fedstep digest --since 7d --format slack
    """
    from fedstep.report.digest import digest_markdown, digest_slack, digest_text, make_digest

    context = fedstep.Project.discover(history=history, part=part).context()
    moment = parse_since(since, context.now)
    insights = _read_view(context).insights
    echo_warnings(*insights.warnings)
    render = {"text": digest_text, "markdown": digest_markdown, "slack": digest_slack}[output_format]
    echo_result(render(make_digest(insights, moment)))
    return 0


@click.command()
@click.argument("kind", type=click.Choice(["time", "flaky", "green"]))
@option("json", parameter="as_json", is_flag=True, help="Print the JSON of a shields.io endpoint instead of SVG.")
@HISTORY
@PART
def badge(kind: str, as_json: bool, history: str, part: str) -> int:
    """Print a badge: the usual build time, the number of flaky tests, or the share of builds that passed.

    \b
    Example: fedstep badge flaky > flaky.svg
    """
    from fedstep.report.badge import badge_json, badge_svg, make_badge

    made = make_badge(kind, _read_view(fedstep.Project.discover(history=history, part=part).context()).insights)
    echo_result(badge_json(made) if as_json else badge_svg(made))
    return 0


@click.command()
@click.argument("subject", metavar="[TEST|JOB]", default="")
@option("note", metavar="TEXT", default="", help="Why it is accepted.")
@HISTORY
@PART
def ack(subject: str, note: str, history: str, part: str) -> int:
    """Accept that a test or a job became slower, in .fedstep-acks.toml; without a name list what can be accepted.

    \b
    Example: fedstep ack CartTest#totals --note 'checks a bigger cart'
    """
    from fedstep.diagnostics.explain import matches
    from fedstep.ingest.mutes import ACKS_FILE, Acknowledgement, add_acknowledgement
    from fedstep.report.units import visible
    from fedstep.report.wording import describe_change, name_subject

    context = fedstep.Project.discover(history=history, part=part).context()
    changes = [finding.change for finding in _read_view(context).insights.open_changes()]
    if not subject:
        lines = [f"{visible(name_subject(change))}: {describe_change(change)}" for change in changes]
        echo_result("".join(f"{line}\n" for line in lines) or "nothing became slower\n")
        return 0
    matching = matches(subject, [name_subject(change) for change in changes])
    if len(matching) != 1:
        names = ", ".join(visible(name_subject(change), 80) for change in changes[:8]) or "none"
        problem = "means several changes" if matching else "is no test or job that became slower"
        raise UsageError(f"{visible(subject)} {problem}", f"Open: {names}")
    change = next(change for change in changes if name_subject(change) == matching[0])
    today = date.fromtimestamp(context.now).isoformat()
    add_acknowledgement(context.root, Acknowledgement(change.subject, today, note))
    echo_result(f"accepted in {ACKS_FILE}: {visible(matching[0])}, {describe_change(change)}. Commit the file\n")
    return 0


class _View(NamedTuple):
    """A project as it is shown: its history, which is read once, and what was computed of it."""

    context: "RunContext"
    summary: "Summary"
    insights: "Insights"

    def explain(self, tests: Sequence[str]) -> "Mapping[str, TestExplanation]":
        """Return the explanations of these tests."""
        from fedstep.diagnostics.explain import explain_tests

        return explain_tests(self.context.store, self.summary, tests, self.context.now)


def _read_view(context: "RunContext", value: "tuple[ValueOfSharing, ...] | Unavailable | None" = None) -> _View:
    from fedstep.diagnostics.insights import load_history, project_insights
    from fedstep.pipeline.context import open_history

    context, (problems, warnings) = open_history(context)
    history = load_history(context.store, _Progress())
    insights = project_insights(context, history, value)
    warnings = (*map(str, problems), *warnings, *insights.warnings)
    return _View(context, history.summary, replace(insights, warnings=warnings))


class _Progress:
    """Says how many past builds are read, every few seconds: without caches a large history takes half a minute."""

    def __init__(self) -> None:
        self._next = time.monotonic() + FIRST_WORD

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + NEXT_WORD
        echo_warnings(f"{done:,} of {total:,} past builds read: their cache is missing. fedstep train makes it again")


def _replay(context: "RunContext") -> "tuple[ValueOfSharing, ...] | Unavailable":
    from fedstep.federation.model_cache import load_model

    try:
        from fedstep.diagnostics.sharing_value import value_of_sharing
    except ImportError as error:
        raise MissingExtra("the replay needs scikit-learn", "Run: pip install 'fedstep[train]'") from error
    return value_of_sharing(context.store, load_model(context.store).model.production)


def _write_page(view: _View, output_path: str) -> list[str]:
    """Write the page to a file, or to a folder with style, script and pages of tests; return the paths to name."""
    is_file = Path(output_path).suffix.lower() in (".html", ".htm") and not Path(output_path).is_dir()
    files = {"": _render(view.insights)} if is_file else _folder_files(view)
    try:
        for name, text in files.items():
            path = Path(output_path) / name if name else Path(output_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"cannot write {output_path}: {error.strerror}", "Give --html another file or folder"
        ) from error
    return [output_path if is_file else str(Path(output_path) / "index.html")]


def _folder_files(view: _View) -> Mapping[str, str]:
    from fedstep.report.html import explanation_html
    from fedstep.report.project_page import TEST_STYLE, most_expensive_tests, project_assets, with_links

    tests = most_expensive_tests(view.insights)[:MOST_TESTS]
    pages = {test: f"tests/{_page_name(test)}.html" for test in tests}
    linked = with_links(view.insights, pages)
    explained = {
        pages[test]: explanation_html(explanation, view.insights.host, f"../{TEST_STYLE}")
        for test, explanation in view.explain(tests).items()
    }
    return {"index.html": _render(linked, "fedstep.css", "fedstep.js"), **project_assets(), **explained}


def _page_name(test: str) -> str:
    """Return the name of a test's page, which contains nothing of the test's name."""
    return blake2b(test.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def _render(insights: "Insights", stylesheet: str = "", script: str = "") -> str:
    from fedstep.report.project_page import project_html

    try:
        return project_html(insights, stylesheet, script)
    except ImportError as error:
        raise MissingExtra(
            "the page needs vl-convert, which draws its charts", "Run: pip install 'fedstep[report]'"
        ) from error


def _serve(context: "RunContext", port: int) -> int:
    """Show the page on the loopback interface until interrupted; it is made anew for each request."""
    from fedstep.report.project_page import most_expensive_tests, project_assets, with_links

    assets = project_assets()

    def page(path: str) -> tuple[str, str] | None:
        """Return type and text of a path, None for one that does not exist."""
        if path.lstrip("/") in assets:
            name = path.lstrip("/")
            return ("text/css" if name.endswith(".css") else "text/javascript"), assets[name]
        view = _read_view(context)
        insights = view.insights
        pages = {test: f"/tests/{_page_name(test)}.html" for test in most_expensive_tests(insights)}
        if path == "/":
            return "text/html", _render(with_links(insights, pages), "/fedstep.css", "/fedstep.js")
        test = next((test for test, page_path in pages.items() if page_path == path), None)
        if test is None:
            return None
        from fedstep.report.html import explanation_html

        return "text/html", explanation_html(view.explain((test,))[test], insights.host)

    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(page))
    echo_warnings(f"the page is at http://127.0.0.1:{server.server_port}/, end with Ctrl-C")
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0


def _handler(page: Callable[[str], tuple[str, str] | None]) -> type[BaseHTTPRequestHandler]:
    """Return the handler of requests. It answers only to names of this machine: no other site can read the page."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "fedstep", ""

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            content = page(self.path.partition("?")[0]) if host in ("127.0.0.1", "localhost", "[::1]") else None
            kind, text = content or ("text/plain", "not found\n")
            body = text.encode("utf-8", "backslashreplace")
            self.send_response(200 if content else 404)
            for name, value in {
                "Content-Type": f"{kind}; charset=utf-8",
                "Content-Length": str(len(body)),
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing: the terminal shows only the address."""

    return Handler
