"""The events that a process's main thread waits for: signals, and reports of other threads."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

__all__ = ["Events"]

T = TypeVar("T")

WAIT_SLICE: Final = 0.25
"""Seconds of one wait. A signal that comes just before a wait does not end it: its handler runs after the wait."""


class Events(Generic[T]):
    """Events in the order in which they came."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T] = SimpleQueue()  # the only kind of queue that a signal handler may put to
        self.put: Final = self._queue.put

    def get(self, timeout: float = float("inf")) -> T | None:
        """Wait for the next event; None if none came for `timeout` seconds."""
        by = time.monotonic() + timeout
        while True:
            left = by - time.monotonic()
            try:
                return self._queue.get(timeout=max(0.0, min(left, WAIT_SLICE)))
            except Empty:
                if left <= WAIT_SLICE:
                    return None
