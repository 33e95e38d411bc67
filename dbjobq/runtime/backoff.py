"""How long to wait: before the next poll, in a rush of jobs, and before the next attempt to connect. Pure."""

from __future__ import annotations

import math

__all__ = ["PollBackoff", "ReconnectBackoff", "Rush"]


class PollBackoff:
    """The waits between polls: doubling while nothing comes, from the beginning when something did.

    Args:
        first: Seconds; the wait when the queue has just run dry.
        longest: Seconds; no wait exceeds it.

    >>> waits = PollBackoff(1.0, 60.0)
    >>> [waits.next() for _ in range(7)]
    [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    >>> waits.reset()
    >>> [waits.next() for _ in range(3)]
    [1.0, 2.0, 4.0]
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = min(first * 2, longest)  # the queue was empty from the beginning: the first wait is behind us

    def reset(self) -> None:
        """A job was found, or announced: the next wait is the first again."""
        self._next = self._first

    def next(self) -> float:
        """Return the wait after one more look that found nothing."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait


class Rush:
    """Whether this worker need not be told of new jobs, since it looks again soon (docs/decisions/0004).

    Because there are more than it can take: so it was with the last `FULL` looks. Or because they come so thick that
    looking costs less than being told of each: the count of the jobs found, which halves every `HALF` seconds, is that
    of the last 70 ms in a steady stream.
    """

    FULL = 3
    HALF = 0.05
    MANY = 35
    """Some 500 jobs a second."""
    LOOK_AGAIN = 0.005
    """Seconds to wait in a rush when there is nothing."""

    def __init__(self) -> None:
        self._count, self._at = 0.0, 0.0
        self._full = 0

    def found(self, now: float, jobs: int, *, full: bool) -> None:
        """So many jobs were found, perhaps as many as were looked for."""
        self._count, self._at = self._left(now) + jobs, now
        self._full = self._full + 1 if full else 0

    def on(self, now: float) -> bool:
        """Tell whether it lasts."""
        return self._full >= self.FULL or self._left(now) >= self.MANY

    def _left(self, now: float) -> float:
        return self._count * math.pow(0.5, min((now - self._at) / self.HALF, 100.0))


class ReconnectBackoff:
    """The waits between attempts to connect: doubling from 0.1 to 5 seconds, shortened by up to half at random.

    So that a hundred workers do not come back to a restarted server in the same instant.
    """

    def __init__(self, first: float = 0.1, longest: float = 5.0) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def reset(self) -> None:
        """A connection was made."""
        self._next = self._first

    def next(self, chance: float) -> float:
        """Return the next wait in seconds; `chance` is a random number from [0, 1)."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait * (1 - chance / 2)
