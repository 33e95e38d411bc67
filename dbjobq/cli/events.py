"""What a process's main thread waits for: signals, and what other threads report."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final, Generic, TypeVar

__all__ = ["Events", "on_stop_signals"]

T = TypeVar("T")

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

SLICE: Final = 0.25
"""Seconds. A signal that comes in the instant before a wait does not end it: its handler would run after the wait."""


def on_stop_signals(call: Callable[[], None]) -> None:
    """Have SIGTERM and SIGINT make a call, in the main thread, between any two of its steps."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        call()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)


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
