"""The rate at which jobs end at the moment."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

__all__ = ["Rate"]

RATE_OVER: Final = 1.0
"""Seconds over which the rate is taken."""


class Rate:
    """Counts the jobs that have ended within the last second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int) -> float:
        """Take note that `done` jobs have ended by now, and return the jobs a second."""
        now = time.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_OVER:
            self._seen.popleft()
        (since, before) = self._seen[0]
        return (done - before) / (now - since) if now > since else 0.0
