"""Made the data of this folder, once, with the code of the commit that README.md names. Kept to show where it is from.

    python tests/data/before_renaming/make.py WORK_FOLDER

It imports modules by the names they had then, and so runs with that commit alone. Every run draws new keys and tokens.
"""

import gzip
import io
import json
import os
import random
import shutil
import sqlite3
import sys
import tarfile
import time
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path

from fedstep.features.schema import schema
from fedstep.federation.bounds import clip
from fedstep.federation.client import push
from fedstep.federation.transport import requests_send
from fedstep.federation.wire import Score, Update, pack_update, unpack_model
from tests.integration import earlier_data
from tests.integration.earlier_data import DATA, HOUR, NONE, NOW, PEER_TOKEN, PRIVACY, START, Folder, cases, ci, recorded, report, serving

PROJECTS = ("acme/web", "acme/api", "acme/app", "bolt/core", "cask/store", "dune/maps", "echo/mail", "fern/docs")


def done(place: Folder, *arguments: str, now: float | None = None, env: Mapping[str, str] = NONE) -> str:
    """Run a command that has to succeed."""
    ended = place.run(*arguments, now=now, env=env)
    print(place.root.name, *arguments[:2], "->", ended.code, ended.out.strip()[-300:].replace("\n", " | "), flush=True)
    if ended.code:
        sys.exit(ended.err)
    if ended.err.strip():
        print("   ", ended.err.strip()[-400:].replace("\n", "\n    "), flush=True)
    return ended.out


def contribute(place: Folder, seed: int, builds: range, url: str, env: dict[str, str], *options: str) -> None:
    """Pull, learn these builds, send what was learned."""
    done(place, "pull", "--aggregator", url, env=env)
    learn(place, seed, builds)
    done(place, "push", "--aggregator", url, *options, env=env)


def learn(place: Folder, seed: int, builds: range) -> None:
    folder = place.root.parent / f"{place.root.name}-recorded-{builds.start}"
    done(place, "backfill", recorded(folder, seed, builds), "--jobs", "1")


def settled(store: Path, quiet: float = 3.0) -> None:
    """Wait until the newest version stays the newest for a while."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < quiet:
        with sqlite3.connect(store) as base:
            tables = [name for (name,) in base.execute("select name from sqlite_master where type='table'")]
            newest = sum(base.execute(f"select count(*) from {name}").fetchone()[0] for name in tables)
        if newest != before:
            before, since = newest, time.monotonic()
        time.sleep(0.2)


def folders(work: Path, kind: str, count: int) -> list[Folder]:
    made = []
    for number in range(count):
        root = work / kind / f"project{number}"
        root.mkdir(parents=True)
        made.append(Folder(root))
    return made


def make_store(work: Path) -> None:
    """An aggregator with tokens: promoted, rejected and rolled back, a trial with votes, updates that wait."""
    store = work / "stores" / "store.sqlite"
    admin = Folder(store.parent)
    url_of_store = f"sqlite:///{store}"
    names = (*PROJECTS, *(f"liar{number}/one" for number in range(8)))
    tokens = [done(admin, "server", "token", "create", name, "--store", url_of_store).strip() for name in names]
    done(admin, "server", "token", "create", "gone/away", "--store", url_of_store)
    done(admin, "server", "token", "revoke", "gone/away", "--store", url_of_store)
    (DATA / "token.txt").write_text(f"{tokens[0]}\n")
    places = folders(work, "federation", len(PROJECTS))
    with serving(store.parent, "--store", url_of_store, "--buffer", "8", "--wait", "100000") as url:
        for builds in (range(24), range(24, 48)):
            for number, place in enumerate(places):
                contribute(place, number, builds, url, {"FEDSTEP_TOKEN": tokens[number]})
            settled(store)
        lie(places[0], url, tokens)
        settled(store)
    versions = done(admin, "server", "versions", "--store", url_of_store)
    assert "promoted" in versions, versions
    assert "rejected" in versions, versions
    with serving(store.parent, "--store", url_of_store, "--buffer", "8", "--wait", "100000") as url:
        done(admin, "server", "rollback", "3", "--store", url_of_store)
        time.sleep(3)
        for number, place in enumerate(places):
            contribute(place, number, range(48, 56), url, {"FEDSTEP_TOKEN": tokens[number]})
        settled(store)
        for number, place in enumerate(places[:7]):
            contribute(place, number, range(56, 64), url, {"FEDSTEP_TOKEN": tokens[number]})
        settled(store)
    done(admin, "server", "status", "--store", url_of_store)


def lie(place: Folder, url: str, tokens: list[str]) -> None:
    """Drawn updates of eight more projects, whose votes are all against the snapshots on trial: those are rejected."""
    dice, heads = random.Random(1), ("build-failure", "build-duration")
    for turn in range(4):
        done(place, "pull", "--aggregator", url, env={"FEDSTEP_TOKEN": tokens[0]})
        model = unpack_model((place.root / ".fedstep" / "model.safetensors").read_bytes())
        for number in range(8):
            deltas = {}
            for name in heads:
                drawn = array("f", (dice.gauss(0, 0.01) for _ in range(schema().heads[name].size())))
                deltas[name] = clip(drawn, schema().heads[name].clip)
            update = Update(
                schema=schema().digest,
                base=model.head_version,
                id=f"{turn:016x}{number:016x}",
                project=f"{number:032x}",
                rows=dict.fromkeys(heads, 8),
                deltas=deltas,
                scores={name: Score(model.trials[name], 0.9) for name in heads if name in model.trials},
            )
            send = requests_send(url, tokens[len(PROJECTS) + number])
            push(pack_update(update), url, send)
        time.sleep(1)


def make_shares(work: Path) -> None:
    """A leader and its helper after sums were released, with halves that wait: one at both, one at the leader alone."""
    folder = work / "stores"
    places = folders(work, "shares", 6)
    helper_store, leader_store = f"sqlite:///{folder / 'helper.sqlite'}", f"sqlite:///{folder / 'leader.sqlite'}"
    role = ("--role", "helper", "--peer-token", PEER_TOKEN, "--store", helper_store)
    with serving(folder, *role) as helper:
        options = ("--role", "leader", "--peer", helper, "--peer-token", PEER_TOKEN, "--store", leader_store)
        with serving(folder, *options, "--buffer", "6", "--wait", "100000") as url:
            for number, place in enumerate(places):
                contribute(place, number, range(40), url, {}, "--helper", helper)
            time.sleep(12)
            settled(folder / "leader.sqlite")
            for number, place in enumerate(places):  # these score the snapshots on trial
                contribute(place, number, range(40, 56), url, {}, "--helper", helper)
            time.sleep(12)
            settled(folder / "leader.sqlite")
            contribute(places[0], 0, range(56, 64), url, {}, "--helper", helper)
            done(places[1], "pull", "--aggregator", url)
            learn(places[1], 1, range(56, 64))
            # its other half is never sent: nothing listens there
            places[1].run("push", "--aggregator", url, "--helper", "http://127.0.0.1:9", "--timeout", "2", now=None)
    sent = sorted((places[1].root / ".fedstep" / "sent").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    for path in sent[:-3]:
        path.unlink()  # to keep the archive small; an older version keeps fewer of them, too
    pack("history-shares.tar.gz", places[1].root, [".fedstep"])


def make_private(work: Path) -> None:
    """An aggregator with a privacy budget after one fold, with contributions of the next period that wait."""
    store = work / "stores" / "private.sqlite"
    places = folders(work, "private", 6)
    with serving(store.parent, "--store", f"sqlite:///{store}", *PRIVACY) as url:
        for number, place in enumerate(places):
            contribute(place, number, range(8), url, {})
        time.sleep(40)
        for number, place in enumerate(places[:4]):
            contribute(place, number, range(8, 16), url, {})
    pack("history-private.tar.gz", places[0].root, [".fedstep"])


def make_history(work: Path) -> None:
    """The history of a repository: recorded builds, fifteen of `fedstep train`, and an update that was not sent."""
    root = work / "shop"
    root.mkdir()
    place = Folder(root)
    git(place, 0, "init", "-q", "-b", "main", ".")
    commit(place, 0, "shop/cart.py", "total = 0\n")
    tests = "".join(f"def test_{n}():\n    retry_wait(socket, timeout={n})\n\n" for n in range(20))
    commit(place, 1, "shop/test_cart.py", tests)
    done(place, "backfill", recorded(work / "shop-recorded", 50, range(40), renamed=False), "--jobs", "1", now=NOW)
    with serving(work, "--store", "sqlite:///lone.sqlite", "--buffer", "1", "--wait", "1", "--ungated") as url:
        for number in range(15):
            now = START + (41 + number) * HOUR
            build(place, number, now, "--history", ".fedstep", "--aggregator", url)
            time.sleep(0.5)
        later = START + 57 * HOUR
        done(place, "pull", "--aggregator", url, now=later)
        more = recorded(work / "shop-more", 50, range(60, 70))
        done(place, "backfill", more, "--jobs", "1", now=START + 71 * HOUR)
        done(place, "pull", "--aggregator", url, now=START + 72 * HOUR)
    variables = ci(899, place.git("rev-parse", "HEAD").strip(), FEDSTEP_CI_STARTED_AT=str(NOW - HOUR))
    done(place, "predict", now=NOW - HOUR + 60, env=variables)
    pack("history.tar.gz", root, [".fedstep"])


def build(place: Folder, number: int, now: float, *options: str) -> None:
    """One commit and `fedstep train` after it; after the seventh, twenty tests have another class."""
    if number == 7:
        place.git("mv", "shop/test_cart.py", "shop/test_store.py")
    commit(place, number + 2, f"shop/part{number % 3}.py", f"part = {number}\n")
    drawn = cases(50, 40 + number, renamed=number >= 7)
    report(place.root / "report.xml", drawn)
    outcome = "failed" if any(outcome == "failed" for *_, outcome, _ in drawn) else "passed"
    told = {"FEDSTEP_CI_STARTED_AT": str(now - 250 - 3 * number), "FEDSTEP_CI_OUTCOME": outcome}
    variables = ci(100 + number, place.git("rev-parse", "HEAD").strip(), **told)
    done(place, "train", "--junit", "report.xml", *options, now=now, env=variables)


def make_git_history(work: Path) -> None:
    """The same repository, with a few builds in the ref of its own."""
    root = work / "shop-git"
    shutil.copytree(work / "shop", root)
    shutil.rmtree(root / ".fedstep")
    place = Folder(root)
    for number in range(15, 21):
        build(place, number, START + (41 + number) * HOUR, "--history", "git")
    place.git("bundle", "create", "-q", str(DATA / "history-ref.bundle"), "main", "refs/fedstep/history")


def git(place: Folder, number: int, *words: str) -> None:
    date = f"{int(START) + number * 600} +0000"
    Folder(place.root, {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}).git(*words)


def commit(place: Folder, number: int, name: str, text: str) -> None:
    (place.root / name).parent.mkdir(parents=True, exist_ok=True)
    (place.root / name).write_text(text)
    git(place, number, "add", name)
    git(place, number, "commit", "-q", "-m", f"Change {name}")


def pack(archive: str, folder: Path, names: list[str]) -> None:
    """Write a tar.gz of these files whose bytes depend on theirs alone."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        paths = [path for name in names for path in (folder / name, *(folder / name).rglob("*"))]
        for path in sorted(paths):
            info = tar.gettarinfo(path, str(path.relative_to(folder)))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = int(path.stat().st_mtime)
            if path.is_file():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    (DATA / archive).write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def main(work: Path) -> None:
    steps: dict[str, Callable[[Path], None]] = {
        "history": make_history,
        "git": make_git_history,
        "store": make_store,
        "shares": make_shares,
        "private": make_private,
    }
    (work / "stores").mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or steps:
        steps[name](work)
    stores = sorted((work / "stores").glob("*.sqlite"))
    for store in stores:
        with sqlite3.connect(store) as base:
            base.execute("pragma wal_checkpoint(truncate)")
            base.execute("vacuum")
    private = f"sqlite:///{work / 'stores' / 'private.sqlite'}"
    exported = str(work / "export.jsonl.gz")
    done(Folder(work), "server", "export", exported, "--store", private)
    shutil.copy(exported, DATA / "export.jsonl.gz")
    pack("stores.tar.gz", work / "stores", [store.name for store in stores])


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
