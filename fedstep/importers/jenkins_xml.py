"""Jenkins' own files of a build: build.xml, junitResult.xml, and a branch's config.xml, as far as they are needed."""

from collections.abc import Callable
from typing import Any, Protocol

from fedstep.importers.base import clean_test_name, failure_kind
from fedstep.ingest.cases import MAX_NAME, parse_seconds
from fedstep.ingest.xml import (
    DamagedDocument,
    RejectedDocument,
    Repairs,
    Tokenizer,
    convert_to_utf8,
    read_blocks,
    repair,
)
from fedstep.types import Outcome, TestRun

CAUSES = (("TimerTrigger", "schedule"), ("UserIdCause", "manual"), ("SCMTrigger", "push"), ("Push", "push"))


class ElementHandler(Protocol):
    """Collects what it needs from the elements of a document; `path` is the names of the open ones."""

    def start(self, name: str, path: list[str]) -> bool: ...  # whether its text is wanted
    def end(self, name: str, path: list[str], text: str) -> None: ...


def parse(make: Callable[[], Any], path: str) -> Any:
    """The handler after the file, up to the place where it stops being XML.

    Jenkins writes XML 1.1, where control characters are allowed: what expat refuses is repaired and read again. Raises
    OSError, and ValueError for a document that is refused: it declares a DTD, or has no root.
    """
    for is_damaged in (False, True):
        handler = make()
        tokenizer = _tokenizer(handler)
        repairs = Repairs()
        with open(path, "rb") as stream:
            chunks = convert_to_utf8(read_blocks(stream), repairs)
            try:
                for _ in tokenizer.read(repair(chunks, repairs) if is_damaged else chunks, repairs):
                    pass
                return handler
            except DamagedDocument as damage:
                if damage.truncated:
                    return handler
            except RejectedDocument as rejection:
                raise ValueError(str(rejection)) from rejection
    return handler


def _tokenizer(handler: ElementHandler) -> Tokenizer:
    tokenizer = Tokenizer()
    path: list[str] = []
    texts: list[str] = []

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(path) > 1000:
            raise DamagedDocument(tokenizer.line, "more than 1,000 nested elements", truncated=True)
        path.append(name)
        texts.clear()
        tokenizer.set_text_handler(listen if handler.start(name, path) else None)

    def listen(text: str) -> None:
        if len(texts) < 20:  # the beginning: a stack trace comes in a piece a line
            texts.append(text[:MAX_NAME])

    def end(name: str) -> None:
        tokenizer.set_text_handler(None)
        handler.end(name, path, "".join(texts))
        texts.clear()
        path.pop()

    tokenizer.set_handlers(start, end)
    return tokenizer


class ElementTexts:
    """The first text of each wanted element, by its path below the root or by its name; and all element names."""

    def __init__(self, build_filter: frozenset[str]) -> None:
        self.build_filter = build_filter
        self.texts: dict[str, str] = {}
        self.names: set[str] = set()
        self.commits: dict[str, str] = {}  # by build: the git plugin notes the last build of every branch
        self._sha1 = ""

    def start(self, name: str, path: list[str]) -> bool:
        """Whether the text of this element is wanted."""
        if len(self.names) < 5000:
            self.names.add(name)
        return name in ("sha1", "hudsonBuildNumber") or bool(self._key(name, path))

    def end(self, name: str, path: list[str], text: str) -> None:
        """Keep the text, if it is the first."""
        if name == "sha1":
            self._sha1 = text.strip()
        elif name == "hudsonBuildNumber":
            self.commits.setdefault(text.strip(), self._sha1)
        if key := self._key(name, path):
            self.texts.setdefault(key, text.strip())

    def _key(self, name: str, path: list[str]) -> str:
        place = "/".join(path[1:]) if len(path) < 4 else ""
        return place if place in self.build_filter else name if f"*/{name}" in self.build_filter else ""


CASE = frozenset({"className", "testName", "duration", "skipped", "errorStackTrace", "errorDetails"})
AGAIN = {"flakyFailures", "flakyErrors", "rerunFailures", "rerunErrors"}


class JunitResultHandler:
    """The test cases of a junitResult.xml."""

    def __init__(self) -> None:
        self.runs: list[TestRun] = []
        self.suite = ""
        self.open: dict[str, str] = {}

    def start(self, name: str, path: list[str]) -> bool:
        """Whether the text of this element is wanted."""
        if name == "case":
            self.open = {}
        if len(path) > 2 and path[-2] in AGAIN:
            self.open["again"] = "yes"
        parent = path[-2] if len(path) > 1 else ""
        return (parent == "case" and name in CASE) or (parent == "suite" and name == "name")

    def end(self, name: str, path: list[str], text: str) -> None:
        """Keep the text; at the end of a case the case."""
        parent = path[-2] if len(path) > 1 else ""
        if name == "case":
            self._finish()
        elif parent == "case" and name in CASE:
            self.open[name] = text.strip()
        elif parent == "suite" and name == "name":
            self.suite = text.strip()

    def _finish(self) -> None:
        get = self.open.get
        test = f"{get('className') or self.suite}#{get('testName', '')}"
        failed, again = "errorStackTrace" in self.open or "errorDetails" in self.open, "again" in self.open
        outcome = Outcome.FAILED if failed else Outcome.PASSED
        if again:
            outcome = Outcome.CONFIRMED if failed else Outcome.FLAKED
        if get("skipped") == "true":
            outcome = Outcome.SKIPPED
        words = failure_kind(get("errorStackTrace") or get("errorDetails", "")) if failed else ""
        self.runs.append(TestRun(clean_test_name(test), outcome, parse_seconds(get("duration", "x")), words))


def find_event(causes: set[str]) -> str:
    """The event that the classes of causes tell; "" where they do not."""
    return next((event for word, event in CAUSES if any(word in cause for cause in causes)), "")
