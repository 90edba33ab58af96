"""What a doctor sees of our own variables: a misspelt one is no error anywhere else, it is simply not read."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from fedstep.build.vendors import OURS
from fedstep.report.diagnosis import OK, WARNING, Check
from fedstep.report.outputs import KEYS
from fedstep.report.units import count

__all__ = ["check_variables", "read_besides_options"]

MARK = "FEDSTEP_"
MOST_NAMED = 8
FILES = ("DOTENV", "SUMMARY", "FINDINGS", "COMMENT", "COMMENT_TOKEN", "CODE_QUALITY")  # where results go
TOKENS = ("ID_TOKEN", "JENKINS_TOKEN")
COMPONENT = ("WITH_COMMAND", "WITH_JUNIT", "WITH_PACKAGE", "WITH_PYTHON", "WITH_SECONDS")  # GitLab's


def read_besides_options() -> frozenset[str]:
    """The variables that are no option's: about the run, files, tokens, and outputs that an earlier job handed on."""
    told = {name for names in OURS if isinstance(names, tuple) for name in names if isinstance(name, str)}
    outputs = (key.upper().replace("-", "_") for key in KEYS)
    return frozenset(told | {f"{MARK}{name}" for name in (*FILES, *TOKENS, *COMPONENT, *outputs)})


def check_variables(env: Mapping[str, str], options: Collection[str]) -> Check:
    """Which of our variables are set, no value of them; those that nothing reads, with the name that may be meant."""
    known = read_besides_options().union(options)
    found = sorted(name for name in env if name.startswith(MARK))
    unknown = [name for name in found if name not in known]
    if unknown:
        says = f"nothing reads {', '.join(_guess(name, known) for name in unknown[:MOST_NAMED])}"
        return Check("Variables", WARNING, says, "Correct the name, or unset it")
    listed = ", ".join(found[:MOST_NAMED]) + (f" and {len(found) - MOST_NAMED} more" if found[MOST_NAMED:] else "")
    return Check("Variables", OK, f"{count(len(found), 'variable')} set: {listed}" if found else "none of ours is set")


def _guess(name: str, known: Collection[str]) -> str:
    alike = get_close_matches(name.removeprefix(MARK), [each.removeprefix(MARK) for each in known], 1, 0.7)
    return f"{name} ({MARK}{alike[0]}?)" if alike else name
