"""When a failed job runs again: a job type's retry policy, and two exceptions that decide it from inside. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from dbjobq.checks import check_delay, check_number
from dbjobq.errors import NotSupported

__all__ = ["DEFAULT_RETRY", "Discard", "Retry", "RetryPolicy"]


class Retry(Exception):  # noqa: N818 - an instruction, not an error
    """Raise `Retry` in a job to end this attempt and run the job again later, if retries are left.

    Args:
        after: Seconds (or a timedelta) until the next attempt; None asks the job type's policy.
        reason: Stored as the attempt's error.
    """

    def __init__(self, after: float | timedelta | None = None, reason: str = "retry requested") -> None:
        super().__init__(reason)
        self.after = None if after is None else check_delay(after, "after")


class Discard(Exception):  # noqa: N818 - an instruction, not an error
    """Raise `Discard` in a job to fail the job for good, however many retries are left.

    Args:
        reason: Stored as the job's error.
    """

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long a job waits before each retry, and which exceptions are worth one.

    The wait before the n-th retry is `base * factor ** (n - 1)` seconds, at most `max_delay`, plus up to
    `jitter` of itself, so that jobs which failed together do not come back together.
    """

    base: float = 2.0
    """Seconds before the first retry."""
    factor: float = 2.0
    """By which each wait is multiplied for the next; 1.0 keeps it constant."""
    max_delay: float = 3600.0
    """The longest wait in seconds, before jitter."""
    jitter: float = 0.1
    """A share of the delay: 0.1 adds up to ten per cent."""
    on: type[BaseException] | tuple[type[BaseException], ...] = BaseException
    """Exceptions worth a retry; any other fails the job at once."""
    never: type[BaseException] | tuple[type[BaseException], ...] = ()
    """Exceptions not worth a retry, though `on` covers them."""

    def __post_init__(self) -> None:
        for name, value, low in (
            ("base", self.base, 0.0),
            ("factor", self.factor, 1.0),
            ("max_delay", self.max_delay, 0.0),
            ("jitter", self.jitter, 0.0),
        ):
            check_number(value, name, low)
        for name, classes in (("on", self.on), ("never", self.never)):
            for given in classes if isinstance(classes, tuple) else (classes,):
                if not (isinstance(given, type) and issubclass(given, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
                    raise TypeError(f"{name}={classes!r}: must be an exception class, or a tuple of them")

    def delay(self, retry: int, chance: float) -> float:
        """Return the seconds to wait before a retry.

        Args:
            retry: Which retry this is, from 1.
            chance: A random number from [0, 1), drawn by the caller.
        """
        try:
            wait = min(self.base * self.factor ** (retry - 1), self.max_delay)
        except OverflowError:
            wait = self.max_delay
        return wait * (1 + self.jitter * chance)

    def worth(self, error: BaseException) -> bool:
        """Tell whether an attempt that ended with `error` may be repeated."""
        if isinstance(error, Discard | NotSupported):  # a storage cannot do it the next time either
            return False
        return isinstance(error, Retry) or (isinstance(error, self.on) and not isinstance(error, self.never))


DEFAULT_RETRY: Final = RetryPolicy()
"""Waits of 2, 4, 8 … seconds, at most an hour, plus up to ten per cent."""
