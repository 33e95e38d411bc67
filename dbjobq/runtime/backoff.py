"""How long to wait: before the next poll, and before the next attempt to connect. Pure."""

from __future__ import annotations

__all__ = ["PollBackoff", "ReconnectBackoff"]


class PollBackoff:
    """The waits between polls (contract §5): doubling while nothing comes, from the beginning when something did.

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
