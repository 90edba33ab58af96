"""Kills the aggregator at random moments under load, starts it again on its store, and accounts for every receipt.

python -m tests.benchmarks.soak [KILLS [SEED]]
"""

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from subprocess import Popen, TimeoutExpired

from tests.benchmarks.accounts import accounts, served_as_stored
from tests.benchmarks.senders import Senders
from tests.benchmarks.server import address, started

SENDERS = 6
LONGEST_LIFE = 1.2  # seconds from the first receipts to the kill
LEAST = 5  # receipts in a life, however slow the machine, before the time to the kill begins to run
YOUNG = 0.15  # the share of lives that end while the process still starts, or just listens


@dataclass(frozen=True)
class Found:
    """What a soak saw. `wrong` has a line for everything that must never happen."""

    kills: int
    acknowledged: int
    unanswered: int
    repeats: int
    versions: int
    wrong: tuple[str, ...]


def soak(folder: Path, kills: int, seed: int, say: Callable[[str], None] = lambda _line: None) -> Found:
    """So many kills of `fedstep serve` under load, then a last life that answers whatever is still open."""
    dice, senders = Random(seed), Senders(SENDERS, seed)
    store, log = f"sqlite:///{folder / 'a.db'}", folder / "log"
    options = ("--store", store, "--buffer-size", "7", "--max-wait", "0.5", "--log-level", "warning")
    senders.start()
    logs = []
    for life in range(kills):
        process = started(log, *options)
        try:
            _live(process, log, senders, dice)
        finally:
            process.kill()
            senders.url = ""
        process.wait(20)
        logs.append(log.read_text())
        say(f"kill {life + 1}: {len(senders.receipts)} acknowledged")
    process = started(log, *options)
    try:
        senders.url = address(process, log)
        senders.finish(60.0)
        wrong = [*senders.wrong, *served_as_stored(store, senders.url)]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    wrong += [] if process.returncode == 0 else [f"SIGTERM ended it with {process.returncode}"]
    wrong += _crashes([*logs, log.read_text()])
    books = accounts(store, senders.sent, senders.receipts)
    return Found(
        kills,
        len(senders.receipts),
        senders.unanswered,
        senders.repeats,
        books.versions,
        (*wrong, *books.wrong),
    )


def _live(process: "Popen[bytes]", log: Path, senders: Senders, dice: Random) -> None:
    """One life, to the moment of the kill."""
    if dice.random() < YOUNG:
        with suppress(TimeoutExpired):
            process.wait(dice.uniform(0.0, LONGEST_LIFE))
        return
    before = len(senders.receipts)
    senders.url = address(process, log)
    end = time.monotonic() + 30
    while len(senders.receipts) < before + LEAST and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(dice.uniform(0.0, LONGEST_LIFE))


def _crashes(logs: list[str]) -> Iterator[str]:
    return (
        f"the log of life {life} has a traceback: {text[-300:]}"
        for life, text in enumerate(logs)
        if "Traceback" in text
    )


def main() -> None:
    """Prints what happened; exit code 1 where something was wrong."""
    kills, seed = map(int, (*sys.argv[1:], *("100", "1")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), kills, seed, print)
    print(
        f"{found.kills} kills: {found.acknowledged} updates acknowledged, each counted once, "
        f"{found.versions} versions; {found.unanswered} requests without an answer, {found.repeats} repeats"
    )
    for line in found.wrong:
        print(f"WRONG: {line}")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
