"""A history as a commit: its files as objects, its months as folders, no parents, so that pruning really shrinks it."""

import os
from itertools import groupby
from typing import NamedTuple, TypeVar

from fedstep.build.gitobjects import TreeEntry, write_blobs, write_commit, write_trees
from fedstep.build.gitrun import Ran
from fedstep.build.gittalk import last_words
from fedstep.errors import HistoryError
from fedstep.history.files import MODEL, MODEL_NOTE, TRAVELLING
from fedstep.history.home import Home
from fedstep.history.shared import FILE, FOLDER, Shared, United, folder_name, month_of

__all__ = ["Store", "store", "without_part"]

T = TypeVar("T", str, tuple[str, ...])


class Store(NamedTuple):
    """Where the objects go, for which part, and the time that a commit bears."""

    root: str
    part: str
    now: float


def store(target: Store, home: Home, shared: Shared, united: United) -> str:
    """The commit of this history beside the other parts that are shared; the shared commit where nothing is new.

    HistoryError where git cannot store it.
    """
    oids = _blobs(target.root, home, shared, united)
    months = groupby(united.records, month_of)
    named = [(month, [TreeEntry(FILE, name, oids[name]) for name in names]) for month, names in months]
    caches = [TreeEntry(FILE, name, oids[name]) for name in TRAVELLING if name in oids]
    folders = [*named, *([("cache", caches)] if caches else [])]
    trees = _done(write_trees(target.root, [entries for _, entries in folders])) if folders else ()
    shelf = [TreeEntry(FOLDER, name, oid) for (name, _), oid in zip(folders, trees, strict=True)]
    shelf += [TreeEntry(FILE, "floor", oids["floor"])] if united.floor else []
    return _committed(target, shared, shelf, oids["key"])


def without_part(target: Store, home: Home, shared: Shared) -> str:
    """The commit of what is shared without this part; the shared commit where it is not in it."""
    (key,) = _done(write_blobs(target.root, [os.path.abspath(home.path("key"))]))
    return _committed(target, shared, [], key)


def _committed(target: Store, shared: Shared, shelf: list[TreeEntry], key: str) -> str:
    if target.part:
        own = _one_tree(target.root, folder_name(target.part), shelf)
        top, parts = [*shared.others], [*shared.parts, *own]
    else:
        top, parts = shelf, [*shared.parts]
    top += _one_tree(target.root, "parts", parts)
    (tree,) = _done(write_trees(target.root, [[*top, TreeEntry(FILE, "key", key)]]))
    return shared.commit if tree == shared.tree else _done(write_commit(target.root, tree, target.now))


def _one_tree(root: str, name: str, entries: list[TreeEntry]) -> list[TreeEntry]:
    return [TreeEntry(FOLDER, name, oid) for oid in _done(write_trees(root, [entries]))] if entries else []


def _blobs(root: str, home: Home, shared: Shared, united: United) -> dict[str, str]:
    """The object of each file that belongs into the commit, by its name there."""
    caches = [name for name, path in TRAVELLING.items() if os.path.exists(home.path(path))]
    fresh = [name for name in united.records if name not in shared.records]
    names = [*fresh, *caches, "key", *(["floor"] if united.floor else [])]
    paths = [*(f"builds/{name}" for name in fresh), *(TRAVELLING.get(name, name) for name in names[len(fresh) :])]
    oids = dict(zip(names, _done(write_blobs(root, [os.path.abspath(home.path(path)) for path in paths])), strict=True))
    if MODEL_NOTE in shared.caches and oids.get(MODEL) == shared.caches.get(MODEL):
        oids[MODEL_NOTE] = shared.caches[MODEL_NOTE]  # it says when the model was last asked for: no news
    return {**shared.records, **oids}


def _done(found: T | Ran) -> T:
    """What git has written. HistoryError where it has not."""
    if isinstance(found, Ran):
        raise HistoryError(f"git cannot store the history ({last_words(found)})", "Check the permissions of .git")
    return found
