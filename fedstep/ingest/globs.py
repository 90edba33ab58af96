"""Which paths globs mean, told by the paths alone: the disk may hold a million files."""

import os
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase


def compile_globs(globs: Iterable[str], here: str, root: str) -> Callable[[str], bool]:
    """Whether a path, from `root` with "/" between folders, is one that a glob means from the folder `here`.

    As `junit.expand` reads globs: `**` is any folders, and what begins with a dot is named with its dot.

    >>> compile_globs(("build/**/TEST-*.xml",), "/shop/api", "/shop")("api/build/unit/TEST-cart.xml")
    True
    """
    wanted = [_parts(os.path.join(here, pattern), root) for pattern in globs]
    return lambda path: any(_may_mean(pattern, path) and _means(pattern, path.split("/")) for pattern in wanted)


def _parts(pattern: str, root: str) -> Sequence[str]:
    try:
        return os.path.relpath(pattern, root).split(os.sep)
    except ValueError:  # on another drive of Windows, where no file of the root is
        return ()


def _may_mean(pattern: Sequence[str], path: str) -> bool:
    """Whether the last part fits, which it hardly ever does: there may be a million paths."""
    return bool(pattern) and (pattern[-1] == "**" or fnmatchcase(path.rpartition("/")[2], pattern[-1]))


def _means(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    first, *rest = pattern
    seen = first.startswith(".") or not path[0].startswith(".")
    if first == "**":
        return _means(rest, path) or (seen and (_means(pattern, path[1:]) or (not rest and len(path) == 1)))
    return seen and fnmatchcase(path[0], first) and _means(rest, path[1:])
