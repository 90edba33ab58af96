"""Match paths against globs without reading the disk, which may have a million files."""

import os
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase


def compile_globs(globs: Iterable[str], here: str, root: str) -> Callable[[str], bool]:
    """Return a function that tells whether a path relative to `root` matches a glob relative to the folder `here`.

    Globs mean what they mean to `junit.expand`: `**` is any folders, and a leading dot has to be written.

    >>> compile_globs(("build/**/TEST-*.xml",), "/shop/api", "/shop")("api/build/unit/TEST-cart.xml")
    True
    """
    wanted = [_parts(os.path.join(here, pattern), root) for pattern in globs]
    return lambda path: any(_may_match(pattern, path) and _matches(pattern, path.split("/")) for pattern in wanted)


def _parts(pattern: str, root: str) -> Sequence[str]:
    try:
        return os.path.relpath(pattern, root).split(os.sep)
    except ValueError:  # on another drive of Windows, where no file of the root is
        return ()


def _may_match(pattern: Sequence[str], path: str) -> bool:
    """Tell whether the last part matches, which is quick to check and rarely true."""
    return bool(pattern) and (pattern[-1] == "**" or fnmatchcase(path.rpartition("/")[2], pattern[-1]))


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    first, *rest = pattern
    dot_allowed = first.startswith(".") or not path[0].startswith(".")
    if first == "**":
        return _matches(rest, path) or (dot_allowed and (_matches(pattern, path[1:]) or (not rest and len(path) == 1)))
    return dot_allowed and fnmatchcase(path[0], first) and _matches(rest, path[1:])
