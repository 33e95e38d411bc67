"""The options of an enqueue, checked at the edge. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

from dbjobq.checks import INT_MAX, check_delay, check_integer, check_name, check_seconds
from dbjobq.ids import as_uuid

__all__ = ["EnqueueOptions", "Options"]

LONGEST_KEY: Final = 500


class EnqueueOptions(TypedDict, total=False):
    """The keywords of `options(…)`: everything about a job but its function's own arguments."""

    queue: str
    delay: float | timedelta
    execute_at: datetime
    priority: int
    max_retries: int
    timeout: float
    unique_key: str
    id: str | UUID
    notify: bool
    connection: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked options; None where the job type decides."""

    queue: str | None = None
    delay: float | None = None
    execute_at: datetime | None = None
    priority: int | None = None
    max_retries: int | None = None
    timeout: float | None = None
    unique_key: str | None = None
    id: str | None = None
    notify: bool | None = None
    connection: object | None = None

    def updated(self, given: Mapping[str, Any]) -> Options:
        """Return these options with those given, each checked; None means not given."""
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return self
        if unknown := given.keys() - _CHECKS.keys():
            raise TypeError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(_CHECKS)}")
        both = replace(self, **{name: _CHECKS[name](value) for name, value in given.items()})
        if both.delay is not None and both.execute_at is not None:
            raise ValueError("delay and execute_at: give one of them, both say when the job is due")
        return both


def _check_moment(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise TypeError(f"execute_at={value!r}: must be a datetime, not {type(value).__name__}")
    if not 1970 <= value.year < 9000:  # beyond that a time zone's offset may lead out of Python's calendar
        raise ValueError(f"execute_at={value}: must be between the years 1970 and 9000")
    try:
        return value.astimezone() if value.tzinfo is None else value  # naive is local time
    except (OverflowError, ValueError, OSError) as error:
        raise ValueError(f"execute_at={value!r}: {error}") from None


def _check_notify(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"notify={value!r}: must be True or False")
    return value


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "queue": lambda value: check_name(value, "queue"),
    "delay": lambda value: check_delay(value, "delay"),
    "execute_at": _check_moment,
    "priority": lambda value: check_integer(value, "priority", -INT_MAX - 1),
    "max_retries": lambda value: check_integer(value, "max_retries", 0),
    "timeout": lambda value: check_seconds(value, "timeout", above_zero=True),
    "unique_key": lambda value: check_name(value, "unique_key", LONGEST_KEY),
    "id": as_uuid,
    "notify": _check_notify,
    "connection": lambda value: value,
}
