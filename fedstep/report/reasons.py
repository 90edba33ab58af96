"""Names of features turned into phrases for people: `flip-rate-20=0.1` says how often a test changed its outcome."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import NamedTuple, TypeVar

from fedstep.model.linear import Reason
from fedstep.report.choices import CHOICES
from fedstep.report.phrases import ABSENT, NUMBERS, PRIVATE, SCOPES, WORDS

__all__ = ["Cause", "causes"]

SMALLEST = 0.005  # of the margin: rounds to 0.00 and moves no probability by half a percent
Entry = TypeVar("Entry")


class Cause(NamedTuple):
    """One phrase, the word it ends with ("" for most), and the sum of its contributions to the margin."""

    phrase: str
    word: str
    contribution: float

    @property
    def sign(self) -> str:
        """`+` for what raises the prediction, `-` for what lowers it."""
        return "+" if self.contribution > 0 else "-"


def causes(reasons: Iterable[Reason], subject: str = "test", most: int = 3) -> tuple[Cause, ...]:
    """The `most` largest causes; neighbouring knots of one number are one cause. `subject`: test or build.

    >>> causes([Reason("seconds=1", 0.5), Reason("seconds=3", 0.25)])
    (Cause(phrase='takes 1–3 s', word='', contribution=0.75),)
    """
    sums: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    for reason in reasons:
        part, _, answer = reason.feature.partition("=")
        key = reason.feature if part in WORDS or not part else part
        sums[key] = sums.get(key, 0.0) + reason.contribution
        answers.setdefault(key, []).append(answer)
    ranked = sorted(
        (key for key in sums if key != "bias" and abs(sums[key]) >= SMALLEST), key=lambda key: -abs(sums[key])
    )
    return tuple(Cause(*_phrase(key, answers[key], subject), sums[key]) for key in ranked[:most])


def _phrase(key: str, answers: list[str], subject: str) -> tuple[str, str]:
    """Phrase and word; a feature that is not known here is its own word."""
    part, _, word = key.partition("=")
    if part in WORDS and word:
        return WORDS[part], word
    if part in PRIVATE and any(answers):
        return PRIVATE[part], ""
    phrase = _choice(part, answers, subject) or _absent(part, answers, subject) or _number(part, answers, subject)
    return (phrase, "") if phrase else ("", f"{part}={'/'.join(answers)}" if any(answers) else part or key)


def _choice(part: str, answers: list[str], subject: str) -> str:
    if len(set(answers)) > 1:
        return ""  # two knots: the value lies between them
    for entry, n, whose in _entries(CHOICES, part, subject):
        template = entry.get("" if entry.keys() == {""} else answers[0], "")
        if template:
            return _joined(template, n=n, whose=whose)
    return ""


def _absent(part: str, answers: list[str], subject: str) -> str:
    entries = _entries(ABSENT, part, subject) if "absent" in answers else iter(())
    return next((_joined(template, whose=whose) for template, _, whose in entries), "")


def _number(part: str, answers: list[str], subject: str) -> str:
    values = [_float(answer) for answer in answers]
    entry = next(_entries(NUMBERS, part, subject), None)
    if entry is None or not all(map(isfinite, values)):
        return ""
    (template, write), window, whose = entry
    return _joined(template, _between(min(values), max(values), write), n=window, whose=whose)


def _entries(table: Mapping[str, Entry], part: str, subject: str) -> Iterator[tuple[Entry, str, str]]:
    """What a table says of a part, with its window and scope: `branch-rate-20` is `rate`, "20", "of this branch"."""
    stem, _, window = part.rpartition("-")
    stem, window = (stem, window) if window.isdecimal() else (part, "")
    scope, _, rest = stem.partition("-")
    if subject == "build" and scope in SCOPES and f"{rest}:build" in table:
        yield table[f"{rest}:build"], window, SCOPES[scope]
    for key in (f"{part}:{subject}", f"{stem}:{subject}", part, stem):
        if key in table:
            yield table[key], window, ""


def _joined(template: str, value: str = "", n: str = "", whose: str = "") -> str:
    return " ".join(template.format(value, n=n, whose=whose).split())


def _float(answer: str) -> float:
    try:
        return float(answer)
    except ValueError:
        return float("nan")


def _between(low: float, high: float, write: Callable[[float], str]) -> str:
    """The value between two knots: `1–3 s`, `3–10 %`, or one of them where they read the same."""
    (first, unit), (last, same) = _unit(write(low)), _unit(write(high))
    if write(low) == write(high):
        return write(low)
    return f"{first}–{last}{same}" if unit == same else f"{write(low)} – {write(high)}"


def _unit(written: str) -> tuple[str, str]:
    number, space, unit = written.partition(" ")
    return (number, space + unit) if " " not in unit else (written, "")
