"""Order, select and divide the collected tests of a pytest session, as `fedstep order`, `select` and `shard` do."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest

from fedstep.report.units import visible

PATIENCE = 60.0  # seconds; 5,000 tests take less than one
WISHES = ("confidence", "share", "time")


class Wishes(NamedTuple):
    """The options of a session."""

    order: bool
    select: str  # "confidence=0.95", "share=0.2" or "time=10m"; "" for all
    shard: str  # "2/4"; "" for all
    plan: str


class ItemOrder:
    """The hook of one process of the session; under xdist each worker does the same with the same tests."""

    def __init__(self, config: pytest.Config, wishes: Wishes) -> None:
        self.folder, self.wishes = str(config.rootpath), wishes
        self.notes: list[str] = []
        self.emptied = False

    @pytest.hookimpl(trylast=True)  # after pytest-randomly
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Divide, then select, then order the tests."""
        if not items:
            return
        kept = list(items)
        if self.wishes.shard:
            kept = _picked(kept, self._shard(kept))
        if self.wishes.select and kept:
            kept = _picked(kept, self._chosen(("select", *_select_options(self.wishes.select)), kept))
        if self.wishes.order and kept:
            places = {name: place for place, name in enumerate(self._chosen(("order",), kept))}
            kept.sort(key=lambda item: places.get(item.nodeid, len(places)))
        self.emptied = not kept
        remaining = set(map(id, kept))
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in remaining])
        items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Let a machine pass to which no test was given: pytest itself calls that a failure."""
        if self.emptied and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
            self.notes.append("no test is to run here")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report what `fedstep` said about the selection."""
        if self.notes:
            terminalreporter.section("fedstep")
            for note in dict.fromkeys(self.notes):
                terminalreporter.write_line(visible(note, 500))

    def _shard(self, items: Sequence[pytest.Item]) -> Sequence[str]:
        """Return the names of this machine's tests. Raise UsageError on failure: another machine relies on it."""
        index, _, total = self.wishes.shard.partition("/")
        plan = ("--plan", self.wishes.plan) if self.wishes.plan else ()
        ran = self._run(("shard", "--index", index, "--total", total, *plan), items)
        if ran.returncode:
            raise pytest.UsageError(f"--fedstep-shard {self.wishes.shard}: {ran.stderr.strip()}")
        self.notes += ran.stderr.splitlines()
        return ran.stdout.splitlines()

    def _chosen(self, command: Sequence[str], items: Sequence[pytest.Item]) -> Sequence[str]:
        """Return what the command prints, or all tests where it fails."""
        everything = [item.nodeid for item in items]
        try:
            ran = self._run((*command, "--for", "list", "--format", "text"), items)
        except (OSError, subprocess.SubprocessError) as error:
            self.notes.append(f"all tests run: {type(error).__name__}: {error}")
            return everything
        self.notes += ran.stderr.splitlines()
        if ran.returncode or not ran.stdout.strip():
            self.notes.append(f"all tests run: fedstep {command[0]} ended with {ran.returncode}")
            return everything
        return ran.stdout.splitlines()

    def _run(self, command: Sequence[str], items: Iterable[pytest.Item]) -> "subprocess.CompletedProcess[str]":
        with tempfile.TemporaryDirectory(prefix="fedstep-") as scratch:
            names = os.path.join(scratch, "names.txt")
            with open(names, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{item.nodeid}\n" for item in items)
            return subprocess.run(
                (sys.executable, "-P", "-m", "fedstep", *command, "--names", names),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="surrogateescape",
                timeout=PATIENCE,
            )


def _picked(items: Sequence[pytest.Item], names: Iterable[str]) -> list[pytest.Item]:
    """Return the items of these names, in the order of the items; one whose name no line can hold is kept."""
    chosen = set(names)
    return [item for item in items if item.nodeid.strip() in chosen or not _is_line(item.nodeid)]


def _is_line(name: str) -> bool:
    return len(name.splitlines()) == 1


def _select_options(wish: str) -> tuple[str, str]:
    """Return the option of `confidence=0.95`. Raise UsageError for other words."""
    name, _, value = wish.partition("=")
    if name not in WISHES or not value:
        raise pytest.UsageError(f"--fedstep-select {wish}: give confidence=0.95, share=0.2 or time=10m")
    return (f"--{name}", value)
