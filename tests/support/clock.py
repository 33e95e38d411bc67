"""A wall clock that is wrong, for a process of its own: patched before anything that reads it is imported."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["shift"]


def shift(seconds: float) -> None:
    """Put every wall clock of Python off by so many seconds; `uuid7` with them. Monotonic clocks stay."""
    right_time, right_ns, right_clock = time.time, time.time_ns, time.clock_gettime
    wall = time.CLOCK_REALTIME

    def wrong_time() -> float:
        return right_time() + seconds

    def wrong_ns() -> int:
        return right_ns() + int(seconds * 1e9)

    def wrong_clock(clock: int) -> float:
        return right_clock(clock) + (seconds if clock == wall else 0)

    class WrongDatetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Self:
            return super().now(tz) + dt.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.now(dt.UTC).replace(tzinfo=None)

    time.time, time.time_ns, time.clock_gettime = wrong_time, wrong_ns, wrong_clock
    dt.datetime = WrongDatetime  # type: ignore[misc]
    _shift_ids(wrong_ns)


def _shift_ids(clock: Callable[[], int]) -> None:
    """`uuid_utils` reads a clock of its own; the standard library's `uuid7`, from 3.14, reads `time`."""
    try:
        import uuid_utils
    except ImportError:
        return
    right = uuid_utils.uuid7

    def wrong(*, nanoseconds: int | None = None) -> uuid_utils.UUID:
        return right(nanoseconds=clock() if nanoseconds is None else nanoseconds)

    uuid_utils.uuid7 = wrong
