"""Paths are told by their names as `--junit` finds them on the disk."""

import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.git import compile_globs
from fedstep.ingest.junit import expand
from fedstep.types import Dropped

FILES = (
    "a.xml",
    ".hidden.xml",
    "build/a.xml",
    "build/unit/TEST-a.xml",
    "build/.cache/a.xml",
    ".out/TEST-b.xml",
    "a/b/c",
)
PARTS = st.sampled_from(["**", "*", "***", "a", "build", "unit", ".out", ".*", "*.xml", "TEST-*.xml", "[ab]*", "?"])
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(tree: Path, pattern: str, here: str) -> set[str]:
    """The files that the pattern matches from a folder of the tree, on the disk."""
    hits = (hit for hit in expand([pattern], tree / here) if not isinstance(hit, Dropped))
    return {os.path.relpath(tree / here / name, tree) for name, _ in hits}


class TestGlobs:
    @given(st.builds("".join, st.tuples(st.sampled_from(["", "./"]), PATTERNS)), st.sampled_from(["", "build", "a/b"]))
    def test_a_path_is_meant_by_the_globs_that_find_it(self, tree: Path, pattern: str, here: str) -> None:
        means = compile_globs([pattern], str(tree / here), str(tree))
        assert set(filter(means, FILES)) == found(tree, pattern, here)

    def test_absolute_and_parent_paths_are_understood(self) -> None:
        """Whole paths, and those that lead out of the root and back, are understood."""
        means = partial(compile_globs, here="/shop/api", root="/shop")
        assert means(["/shop/build/*.xml"])("build/a.xml")
        assert means(["../build/*.xml"])("build/a.xml")
        assert not means(["../../other/*.xml"])("other/a.xml")
        assert not means([])("a.xml")
