"""What `fedstep doctor` sees, as values."""

from dataclasses import dataclass

__all__ = ["OK", "PROBLEM", "WARNING", "Check", "Diagnosis"]

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: how it is, and the command or setting that fixes it; "" where nothing is to be done."""

    name: str
    state: str  # ok, warning, problem
    says: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in the order of a build."""

    checks: tuple[Check, ...]

    def count(self, state: str) -> int:
        """How many checks are in this state."""
        return sum(check.state == state for check in self.checks)
