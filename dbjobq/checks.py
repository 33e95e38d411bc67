"""Checks of names and numbers that callers give; an error says which value is wrong, and what it must be. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

__all__ = ["INT_MAX", "check_delay", "check_integer", "check_name", "check_number", "check_seconds"]

INT_MAX: Final = 2**31 - 1
CENTURY: Final = 100 * 366 * 86400


def check_integer(value: object, what: str, low: int, high: int = INT_MAX) -> int:
    """Return `value` if it is an integer in range. Raises TypeError or ValueError, naming `what`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what}={value!r}: must be an integer, not {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{what}={value}: must be from {low} to {high}")
    return value


def check_number(value: object, what: str, low: float) -> float:
    """Return `value` if it is a finite number of at least `low`. Raises TypeError or ValueError, naming `what`."""
    number = _number(value, what, "a number")
    if not low <= number < float("inf"):
        raise ValueError(f"{what}={value}: must be {low:g} or more")
    return number


def check_seconds(value: object, what: str, *, above_zero: bool = False) -> float:
    """Return `value` as seconds if it is a number in range. Raises TypeError or ValueError, naming `what`."""
    seconds = _number(value, what, "a number of seconds")
    if not (seconds > 0 if above_zero else seconds >= 0) or seconds > CENTURY:
        raise ValueError(f"{what}={value}: must be {'above' if above_zero else 'at least'} 0 seconds, within a century")
    return float(seconds)


def check_delay(value: object, what: str) -> float:
    """Return a delay, seconds or a timedelta, as seconds. Raises TypeError or ValueError, naming `what`.

    A caller may have computed the delay until a time that was near, and is past by now: a delay of less than a second
    below zero means now. A lower one is refused, since it is not clear what was meant.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float) and -1 < value < 0:
        return 0.0
    return check_seconds(value, what)


def _number(value: object, what: str, kind: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what}={value!r}: must be {kind}, not {type(value).__name__}")
    return value


def check_name(value: object, what: str, longest: int = 200) -> str:
    """Return `value` if it can be a name (of a queue, a job type, a unique key).

    Args:
        value: The name.
        what: How errors call the value.
        longest: The most characters allowed.

    Raises:
        TypeError: The value is not a string.
        ValueError: The value is empty, too long, or holds what PostgreSQL's text cannot (NUL, lone surrogates).
    """
    if not isinstance(value, str):
        raise TypeError(f"{what}={value!r}: must be a string, not {type(value).__name__}")
    if not value or len(value) > longest:
        raise ValueError(f"{what}={value[:50]!r}: must have 1 to {longest} characters, has {len(value)}")
    if "\x00" in value or not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{what}={value!r}: holds a lone surrogate, which is no text") from None
        if "\x00" in value:
            raise ValueError(f"{what}={value!r}: holds a NUL character")
    return value
