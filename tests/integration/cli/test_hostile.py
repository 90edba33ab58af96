"""Test names come from the code under test: no sink obeys them."""

import html
import re

import pytest
from markdown_it import MarkdownIt

from tests.helpers.cli import parse_github_output

ESC = "\x1b"
NAMES = (
    "::set-output name=status::pwned",
    "a\n::error file=x,line=1::pwned",
    "a\r\n::add-mask::a",
    "  ::stop-commands::x",
    "##[error]pwned",
    "##vso[task.setvariable variable=x]pwned",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    f"{ESC}[31mred{ESC}]0;title\x07",
    "status=pwned",
    "status<<EOF\npwned\nEOF",
    "| pipe | `tick` ``two`` | [link](javascript:alert(1)) ![i](http://x/y.png)",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "$(touch pwned) `touch pwned` ; touch pwned",
    "@everyone #1 https://example.org/x",
    "%0A::error::pwned",
    "‮\u200b\x00\x08",
)
KEYS = {
    *("status", "eta-seconds", "eta-low", "eta-high", "failure-risk", "flaky-count", "flaky-tests"),
    *("failures-flaky", "failures-real", "failures-unsure", "failures-muted", "failures-forgiven", "failures"),
    *("verdict", "cause", "slower-tests", "build-time-change", "model-version"),
}


@pytest.fixture
def hostile(experienced, github):
    """A job on GitHub Actions whose report is the enemy's: names, classes, files, messages and failure types."""

    def quoted(text: str) -> str:
        kept = "".join(letter for letter in text if letter in "\t\n\r" or letter >= " ")
        written = html.escape(kept).replace("\n", "&#10;").replace("\r", "&#13;")
        return "".join("\\x1b" if letter == "\x1b" else letter for letter in written)

    place = github(experienced)
    raw = "".join(
        f'<testcase classname="{quoted(name)}" name="{quoted(name)}" file="{quoted(name)}" line="3" time="0.1">'
        f'<failure type="{quoted(name)}" message="{quoted(name)}">{quoted(name)}</failure></testcase>'
        for name in NAMES
    )
    passing = "".join(f'<testcase classname="ok" name="t{number}"/>' for number in range(60))
    document = f"<testsuite>{raw}{passing}</testsuite>"
    # Raw escape characters are not XML; the reader repairs such files, so they do arrive.
    document = document.replace("\\x1b", ESC)
    (place.root / "report.xml").write_text(document, encoding="utf-8")
    return place


OURS = re.compile(r"::(?:warning|notice) [^:]*::(.*)")


def obeyed(line: str) -> bool:
    """Whether the runner takes the line for a command: two colons after blanks, or the old form anywhere."""
    return line.lstrip().startswith("::") or "##[" in line or "##vso[" in line


def assert_ours_alone(text: str) -> None:
    """No line is obeyed but fedstep's own warnings, and what these quote is not obeyed within them."""
    for line in re.split(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text):
        ours = OURS.fullmatch(line)
        assert not obeyed(ours[1] if ours else line), line


def rendered(markdown: str) -> tuple[set[str], set[str]]:
    """The elements of the rendered page, and where its images and links point to (drawings inside the page aside)."""
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    tags = re.findall(r"<([a-z0-9]+)([^>]*)>", page)
    targets = {target for _, rest in tags for target in re.findall(r"(?:src|href|on\w+)\s*=\s*\"?([^\"\s>]*)", rest)}
    return {tag for tag, _ in tags}, {target for target in targets if not target.startswith("data:image/")}


class TestNames:
    @pytest.mark.parametrize("style", ["text", "json", "markdown"])
    @pytest.mark.parametrize("command", ["triage", "train"])
    def test_no_hostile_name_reaches_an_output_unescaped(self, tmp_path, hostile, without_sklearn, command, style):
        """No hostile name reaches the runner, the terminal or the summary."""
        place = without_sklearn(hostile) if style != "text" else hostile
        ran = place.run(command, "--junit", "report.xml", "--format", style)
        assert ran.code == 0
        assert len(re.findall("pwned", ran.out)) > 3, "the names are shown, harmless"

        written = re.split(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", ran.out + ran.err)
        commands = [line for line in written if obeyed(line)]
        assert [line for line in commands if not line.startswith("::warning ")] == []
        assert 0 < len(commands) <= 10
        assert not any(obeyed(line) for line in re.split(r"[\n\r]", ran.out)), "stdout is the result alone"
        for line in commands:
            properties, _, message = line.removeprefix("::warning ").partition("::")
            assert {word.partition("=")[0] for word in properties.split(",")} <= {"file", "line", "title"}
            assert not obeyed(message)

        for text in (ran.out, ran.err):
            assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", text) == []

        told = parse_github_output((tmp_path / "output").read_text())
        assert set(told) == KEYS
        assert told["status"] in ("local", "degraded")
        assert all("\n" not in value and value.isascii() for value in told.values())
        assert not set("$`;|&<>()'") & set("".join(told.values()))

        summary = (tmp_path / "summary").read_text(encoding="utf-8")
        assert "pwned" in summary
        elements, links = rendered(summary)
        assert elements.isdisjoint({"script", "a"}), "no element and no link of theirs"
        assert links == set()
        assert ESC not in summary
        assert not any(obeyed(line) for line in summary.splitlines())
        assert not (place.root / "pwned").exists()

    def test_the_delimiter_of_the_outputs_is_another_each_time(self, tmp_path, experienced, github):
        place = github(experienced)
        for _ in range(2):
            assert place.run("predict").code == 0
        delimiters = re.findall(r"^status<<(\S+)$", (tmp_path / "output").read_text(), re.M)
        assert len(set(delimiters)) == 2
        assert all(len(delimiter) >= 16 for delimiter in delimiters)

    def test_a_hostile_branch_and_file_name_do_no_more(self, experienced, github):
        place = github(experienced).with_env(GITHUB_REF_NAME="::error::pwned\n::error::x", GITHUB_JOB="a\n::error::b")
        (place.root / "::error::pwned\n::error::x.py").write_text("x = 1\n")
        ran = place.run("predict")
        assert ran.code == 0
        assert_ours_alone(ran.out + ran.err)
        missing = place.run("triage", "--junit", "::error::x\n::error::y")
        assert missing.code == 0
        assert_ours_alone(missing.out + missing.err)

    @pytest.mark.parametrize("command", ["verdict", "quarantine"])
    def test_a_verdict_and_the_quarantine_obey_no_name(self, tmp_path, hostile, command: str):
        """Names as a person copies them from a report: in what is forgiven, listed, suggested and refused."""
        for name in NAMES[:9]:
            added = hostile.run("quarantine", "add", name.replace("\0", ""), "--owner", name, "--reason", name)
            assert_ours_alone(added.out + added.err)
        words = (("list",), ("suggest",), ("remove", NAMES[8]))
        if command == "verdict":
            runs = [hostile.run("verdict", "--junit", "report.xml", "--format", style) for style in ("text", "json")]
        else:
            runs = [hostile.run("quarantine", *each) for each in words]
        for ran in runs:
            assert_ours_alone(ran.out + ran.err)
            assert ESC not in ran.out + ran.err
        assert_ours_alone((tmp_path / "summary").read_text(encoding="utf-8") if command == "verdict" else "")

    def test_gitlabs_outputs_are_one_plain_line_each(self, tmp_path, hostile):
        place = hostile.with_env(FEDSTEP_DOTENV=str(tmp_path / "dotenv"))
        assert place.run("triage", "--junit", "report.xml").code == 0
        lines = (tmp_path / "dotenv").read_text().splitlines()
        assert all(re.fullmatch(r"FEDSTEP_[A-Z_]+=[ -~]*", line) for line in lines)
        assert "FEDSTEP_STATUS=local" in lines
