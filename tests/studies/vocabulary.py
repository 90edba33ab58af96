"""Makes the closed vocabulary: `python -m tests.studies.vocabulary words.csv > fedstep/schema/vocabulary.txt`.

A word is in when it occurs in the test names (or the test source) of at least four unrelated public projects: three
are left when any one of them is taken away, so that no word can stand for a project.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

MINIMUM_PROJECTS = 4
MAXIMUM_LETTERS = 20  # longer ones are no words


def closed_vocabulary(counts: Iterable[dict[str, str]]) -> Iterator[str]:
    """Lines `word ns`, sorted: n where enough projects have the word in test names, s where in test source."""
    for row in sorted(counts, key=lambda row: row["word"]):
        word = row["word"]
        names, sources = (int(row[f"projects_in_test_{kind}"] or 0) for kind in ("names", "sources"))
        where = "n" * (names >= MINIMUM_PROJECTS) + "s" * (sources >= MINIMUM_PROJECTS)
        if where and word.isascii() and word.isalpha() and word.islower() and len(word) <= MAXIMUM_LETTERS:
            yield f"{word} {where}"


def main() -> None:
    with Path(sys.argv[1]).open(newline="", encoding="utf-8") as file:
        print("# made by python -m tests.studies.vocabulary; counts over about 930 public projects")
        print("\n".join(closed_vocabulary(csv.DictReader(file))))


if __name__ == "__main__":
    main()
