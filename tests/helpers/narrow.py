"""Values of several types narrowed to the one that a test expects: another one fails where it is asked for."""

from typing import TypeVar

__all__ = ["expect", "present"]

T = TypeVar("T")


def expect(kind: type[T], value: object) -> T:
    """Return the value, which is of this type."""
    assert isinstance(value, kind), value
    return value


def present(value: T | None) -> T:
    """Return the value, which is not None."""
    assert value is not None
    return value
