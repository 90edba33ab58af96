"""Report words in Markdown files that the project's style advises against.

Run as `python -m tests.prose [--strict] PATH...`. Code is not read, nor what stands between `<!-- prose: off -->` and
`<!-- prose: on -->`. Without `--strict` the exit code is 0.

Proselint, which `make prose` runs first, knows worn phrases but cannot be given words of a project. Vale could, but its
wheel downloads the program at the first run, so that it would not work without internet.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Finding", "find_words", "main"]

# Pattern and advice. Patterns are matched without regard to case, and as whole words.
RULES: tuple[tuple[str, str], ...] = (
    # Metaphors
    ("doors?", "name the check: authentication, rate limit, validation"),
    ("doorkeepers?", "authenticator"),
    ("purses?", "budget"),
    ("crowds?", "projects, contributors"),
    ("corridors?|houses?|rooms?", "package, module, layer"),
    ("lies|lied|liars?|lying", "reports false values, sends false values"),
    ("mends?|mended|mending", "repair, fix"),
    ("shouts?|shouting", "dominate"),
    ("riddles?", "unknown encoding"),
    ("veil(?:s|ed)?", "suppress"),
    ("twins?", "duplicate, pair"),
    ("manners|polite(?:ly)?", "respects rate limits"),
    ("travels?|travelled", "is sent, is copied"),
    ("wakes?|asleep", "starts, idle"),
    # Literary or ambiguous sentences
    ("whoever", "anyone who"),
    (r"(?<=[.!?] )who (?!is\b|are\b|may\b|can\b)\w+", "anyone who"),
    ("lets? go of", "delete, release"),
    ("of ours|of yours", "our, your, their"),
    ("all else|what else", "everything else"),
    ("tells? of|told of|tells? much", "reveal"),
    ("make no sense|makes no sense", "is invalid"),
    (r"\bhe (?:knows|sees|has|can|gets)\b", "the attacker, they"),
    (r"once an? (?:second|minute|hour|day|week)", "once per ..."),
    # Words of the glossary's table of old words
    ("folds?|folded|folding", "aggregation, aggregate"),
    ("(?-i:[Hh]eads?)", "task (its model), candidate (the newest model)"),
    ("votes?", "evaluation"),
    ("snapshots?", "version on trial"),
    ("halves", "shares"),
)
COMPILED = tuple(
    (re.compile(rf"(?<![\w/-])(?:{pattern})(?![\w/-])", re.IGNORECASE), advice) for pattern, advice in RULES
)
OFF, ON = "<!-- prose: off -->", "<!-- prose: on -->"
FENCE = re.compile(r"^\s*(```|~~~)")
CODE = re.compile(r"`[^`]*`|\]\([^)]*\)|https?://\S+|<!--.*?-->")


class Finding(NamedTuple):
    """A word in a file, with the advice of its rule."""

    path: Path
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        """Return the finding as editors expect it: file, line, message."""
        return f"{self.path}:{self.line}: {self.word!r}: {self.advice}"


def find_words(path: Path, text: str) -> Iterator[Finding]:
    """Yield the words of a Markdown text that match a rule, in order, without those in code and in link targets."""
    in_code = is_off = False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            in_code = not in_code
        elif line.strip() in (OFF, ON):
            is_off = line.strip() == OFF
        elif not in_code and not is_off:
            prose = CODE.sub(lambda code: " " * len(code.group()), line)
            for pattern, advice in COMPILED:
                for match in pattern.finditer(prose):
                    yield Finding(path, number, match.group(), advice)


def markdown_files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the Markdown files among paths and below folders. A file that does not exist is left out."""
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.md")) if path.is_dir() else [path] if path.exists() else []


def main(arguments: Sequence[str]) -> int:
    """Print all findings and their number; return 1 with `--strict` if there are any."""
    strict = "--strict" in arguments
    paths = [argument for argument in arguments if argument != "--strict"]
    findings = [f for path in markdown_files(paths) for f in find_words(path, path.read_text(encoding="utf-8"))]
    for finding in findings:
        print(finding)
    print(f"{len(findings)} words to reconsider")
    return int(strict and bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
