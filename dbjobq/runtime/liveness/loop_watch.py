"""Tells, from a thread beside an event loop, whether that comes round: it is asked for a sign of life, and gives it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final

from dbjobq.runtime.liveness.stacks import of_task, of_thread
from dbjobq.runtime.loop import LoopCalls
from dbjobq.runtime.slot import Whereabouts
from dbjobq.runtime.trust import now

__all__ = ["LoopWatch"]

BLOCKED: Final = 1.0
"""Seconds without coming round after which the loop is called blocked: a heartbeat of its own would be late by then."""


class LoopWatch:
    """Made on the loop, in its thread; then used by one other thread alone.

    Args:
        calls: How the loop is asked.
    """

    def __init__(self, calls: LoopCalls) -> None:
        self._calls, self._thread = calls, threading.get_ident()
        self._asked_at = self._answered_at = now()
        self._looks = 0
        self.was_silent_for = 0.0
        """How many seconds the last sign of life took to come."""

    def comes_round(self, moment: float) -> bool:
        """Ask the loop for a sign of life; tell whether the last one is not overdue.

        One look that finds none proves nothing, however late it is: this thread may be the first to wake after the
        whole process stood still.
        """
        if self._answered_at < self._asked_at:
            self._looks += 1
            return self._looks < 2 or moment - self._asked_at < BLOCKED
        self.was_silent_for = self._answered_at - self._asked_at
        if self._calls.call(self._answer):
            self._asked_at, self._looks = moment, 0
        return True

    def _answer(self) -> None:
        self._answered_at = now()

    def silent_for(self, moment: float) -> float:
        """Return the seconds since the loop was asked for the sign of life that it owes."""
        return moment - self._asked_at

    def on_turn(self) -> asyncio.Task[Any] | None:
        """Return the task whose turn it is on the loop."""
        return asyncio.current_task(self._calls.loop)

    def stack(self, place: Whereabouts | None = None) -> str:
        """Return where a job stands at this moment; without one, where the loop does."""
        if place is None or (place.task is not None and place.task is self.on_turn()):
            return of_thread(self._thread)
        return of_thread(place.thread) if place.task is None else of_task(place.task)
