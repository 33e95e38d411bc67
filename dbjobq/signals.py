"""The signals that tell a program to end; a service manager may send them to every process of a service at once."""

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
    """Keep them from what this thread starts meanwhile, until that has said by `on_stop_signals` what they do to it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def on_stop_signals(call: Callable[[], None]) -> None:
    """Have SIGTERM and SIGINT make a call, in the main thread, between any two of its steps."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        call()

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
