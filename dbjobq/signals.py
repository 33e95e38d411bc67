"""Handlers for SIGTERM and SIGINT, which a service manager may send to every process of a service at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["STOP_SIGNALS", "held_back", "on_stop_signals"]

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_back() -> Generator[None]:
    """Block the stop signals in a child that this thread starts, until the child has called `on_stop_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def on_stop_signals(call: Callable[[], None]) -> None:
    """Have SIGTERM and SIGINT make a call in the main thread, which may come between any two of its steps."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        call()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
