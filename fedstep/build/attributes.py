"""What the attributes of a test case mean: seconds in any locale, paths, identities, the kind of a failure."""

import hashlib
import re

from fedstep.build.mend import visible
from fedstep.build.record import NO_SECONDS

__all__ = [
    "LONGEST_NAME",
    "LONGEST_TEXT",
    "LONGEST_TYPE",
    "below_root",
    "failure_word",
    "is_absolute",
    "path_pattern",
    "relative",
    "seconds",
    "tamed",
]

LONGEST_NAME, LONGEST_TYPE, LONGEST_TEXT = 1000, 100, 400
UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIME = re.compile(r"(-?\d[\d.,]*|-?[.,]\d+)([a-z]*)")
EXCEPTION = re.compile(r"[\w.$\\]*(?:Error|Exception|Failure|Failed|Timeout|Warning)\b")
THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})+")
COLOUR = re.compile(r"(?:\x1b|#x1B)\[[\d;]*m")
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def seconds(text: str) -> float:
    """The seconds that `text` means in any locale, NaN where it means none: `1,234.5`, `1.234,5`, `0,5`, `12 ms`.

    A single comma is decimal: Surefire wrote `0,005` in some locales, and thousands always with decimals.
    """
    try:
        value = float(text)
    except ValueError:
        value = _localized(text)
    return value if 0 <= value < 1e9 else NO_SECONDS


def _localized(text: str) -> float:
    compact = re.sub(r"[\s'’_]", "", text[:60].lower()).replace("\u066b", ".").replace("\u066c", ",").replace("µ", "u")
    found = TIME.fullmatch(compact)
    if not found or found[2] not in UNITS:
        return NO_SECONDS
    number = found[1]
    mark = max(".,", key=number.rfind)
    number = number.replace("," if mark == "." else ".", "")
    if number.count(mark) > 1:
        return float(number.replace(mark, "")) if THOUSANDS.fullmatch(found[1]) else NO_SECONDS
    return float(number.replace(mark, ".")) * UNITS[found[2]]


def failure_word(message: str) -> str:
    """The exception in the beginning of `message`, else its first word, at most 100 characters.

    >>> failure_word('failed on setup with "TypeError: no"')
    'TypeError'
    """
    message = COLOUR.sub("", message[:LONGEST_TEXT])
    found = EXCEPTION.search(message)
    return (found[0] if found else next(iter(message.split()), "").rstrip(":"))[:LONGEST_TYPE]


def relative(path: str, root: str) -> str:
    r"""`path` with "/" as separator, and relative to `root` where it is below it.

    >>> relative(r"D:\a\repo\src\x.py", "d:/a/repo")
    'src/x.py'
    """
    path = path.replace("\\", "/")
    path = re.sub("^file:///?(?=[A-Za-z]:|/)", "", path)
    if root and (path.startswith(f"{root}/") or (root[1:2] == ":" and path.lower().startswith(f"{root}/".lower()))):
        path = path[len(root) + 1 :]
    return path.removeprefix("./")


def path_pattern(root: str) -> re.Pattern[str]:
    """A pattern for a path below `root` in a text, in either notation of folders; to be replaced by `below_root`."""
    folders = r"[\\/]".join(map(re.escape, root.split("/")))
    return re.compile(rf"(?<![\w/.\\-]){folders}[\\/]([\w.\\/@+-]*)", re.I if root[1:2] == ":" else 0)


def below_root(path: re.Match[str]) -> str:
    """What is left of a path that `path_pattern` found, with "/" as separator."""
    return path[1].replace("\\", "/")


def is_absolute(path: str) -> bool:
    return path.startswith("/") or path[1:3] == ":/"


def tamed(test: str) -> str:
    """`test` on one line, and short: the rest of a long one becomes a hash, so that identities stay distinct."""
    test = UNPRINTABLE.sub(lambda found: visible(found[0]), test)
    if len(test) <= LONGEST_NAME:
        return test
    return f"{test[: LONGEST_NAME - 17]}~{hashlib.sha256(test.encode()).hexdigest()[:16]}"
