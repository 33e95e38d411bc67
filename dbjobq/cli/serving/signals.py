"""What a process's main thread waits for: signals, and what other threads report."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

__all__ = ["Events"]

T = TypeVar("T")

SLICE: Final = 0.25
"""Seconds. A signal that comes in the instant before a wait does not end it: its handler would run after the wait."""


class Events(Generic[T]):
    """Events in the order in which they came."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T] = SimpleQueue()  # the one queue that a signal handler may put to
        self.put: Final = self._queue.put

    def get(self, timeout: float = float("inf")) -> T | None:
        """Wait for the next one; None if none came for `timeout` seconds."""
        by = time.monotonic() + timeout
        while True:
            left = by - time.monotonic()
            try:
                return self._queue.get(timeout=max(0.0, min(left, SLICE)))
            except Empty:
                if left <= SLICE:
                    return None
