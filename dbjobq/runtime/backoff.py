"""Waiting times: before the next poll, in a rush of jobs, and before the next attempt to connect. Pure."""

from __future__ import annotations

import math

__all__ = ["PollBackoff", "ReconnectBackoff", "Rush"]


class PollBackoff:
    """The waits between polls: each is twice the last while no job comes; after a job they begin again.

    Args:
        first: Seconds of the wait when the queue has just run dry.
        longest: Seconds that no wait exceeds.

    >>> waits = PollBackoff(1.0, 60.0)
    >>> [waits.next() for _ in range(7)]
    [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    >>> waits.reset()
    >>> [waits.next() for _ in range(3)]
    [1.0, 2.0, 4.0]
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = min(first * 2, longest)  # a queue that is empty from the beginning counts as one wait already

    def reset(self) -> None:
        """Begin again with the first wait, since a job was found or announced."""
        self._next = self._first

    def next(self) -> float:
        """Return the wait after one more poll that found nothing."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait


class Rush:
    """Tells whether enqueues need not notify this worker, since it claims again soon anyway (docs/decisions/0004).

    Either there are more jobs than it can take: the last `FULL` claims were full. Or jobs come so fast that claiming
    costs less than being notified of each: a count of found jobs, which halves every `HALF` seconds, is high. In a
    steady stream the count is that of the last 70 ms.
    """

    FULL = 3
    HALF = 0.05
    MANY = 35
    """The count from which it is a rush: some 500 jobs a second."""
    LOOK_AGAIN = 0.005
    """Seconds to wait in a rush when no job is there."""

    def __init__(self) -> None:
        self._count, self._at = 0.0, 0.0
        self._full = 0

    def found(self, now: float, jobs: int, *, full: bool) -> None:
        """Count the jobs of one claim; `full` says whether it brought as many as it asked for."""
        self._count, self._at = self._left(now) + jobs, now
        self._full = self._full + 1 if full else 0

    def on(self, now: float) -> bool:
        """Tell whether there is a rush."""
        return self._full >= self.FULL or self._left(now) >= self.MANY

    def _left(self, now: float) -> float:
        return self._count * math.pow(0.5, min((now - self._at) / self.HALF, 100.0))


class ReconnectBackoff:
    """The waits between attempts to connect: they double from 0.1 to 5 seconds, shortened by up to half at random.

    The chance keeps a hundred workers from coming back to a restarted server in the same instant.
    """

    def __init__(self, first: float = 0.1, longest: float = 5.0) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def reset(self) -> None:
        """Begin again with the first wait, since a connection was made."""
        self._next = self._first

    def next(self, chance: float) -> float:
        """Return the next wait in seconds; `chance` is a random number from [0, 1)."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait * (1 - chance / 2)
