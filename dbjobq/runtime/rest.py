"""Decides when a worker that found nothing looks again: after a pause, or when something is due or heard of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dbjobq.runtime.backoff import PollBackoff, Rush
from dbjobq.runtime.trust import now
from dbjobq.storage.values import Idle, Outcome

__all__ = ["Rest"]

LATER: Final = ("retry", "unknown")
"""The events that put a job off."""
UNKNOWN_LATER: Final = 1.0
"""The least seconds that a job of an unknown type is put off."""


class Rest:
    """The sleep of one worker. Used on its event loop.

    Args:
        first: Seconds between the first looks that find nothing.
        longest: Seconds that no pause between looks exceeds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._pauses = first, longest
        self._backoff, self._rush = PollBackoff(first, longest), Rush()
        self._told = False
        self._until = 0.0
        self.due_at = float("inf")
        """When a delayed job is due, or one that was put off; infinity if none is known."""

    def begin(self) -> None:
        """Begin with the pauses of a worker that has just started, whatever it has heard while it did."""
        self._backoff = PollBackoff(*self._pauses)

    def wake(self) -> None:
        """Look now, and then as often as at first: there may be work."""
        self._told = True
        self._backoff.reset()

    def asleep(self, moment: float) -> bool:
        """Tell whether there is no reason to look."""
        return not self._told and moment < self._until and moment < self.due_at

    def ends_at(self) -> float:
        """Return when there is a reason to look, if none is heard of before."""
        return min(self._until, self.due_at)

    def looks(self) -> None:
        """Forget what was heard of: a claim that is sent now finds it. One that is heard of later, it may not find."""
        self._told = False

    def rushed(self, moment: float) -> bool:
        """Tell whether jobs come so fast that the next look finds some."""
        return self._rush.on(moment)

    def looked(self, jobs: int, *, full: bool) -> None:
        """Note how many jobs a claim has found, and whether that is all that it asked for."""
        self._rush.found(now(), jobs, full=full)
        if jobs:
            self._backoff.reset()
            self._until = 0.0

    def look_again(self) -> None:
        """Stay awake in a rush of jobs: the next one will be there sooner than a notification of it."""
        self._until = now() + self._rush.LOOK_AGAIN

    def fall_asleep(self, idle: Idle) -> None:
        """Sleep, unless something was heard of meanwhile.

        Args:
            idle: The storage's answer: producers notify from now on.
        """
        self.note_due(idle.next_due, asked=True)
        if not self._told:
            self._until = now() + (self._backoff.next() if idle.look_in is None else idle.look_in)

    def note_due(self, seconds: float | None, *, asked: bool) -> None:
        """Note when the next delayed job is due.

        Args:
            seconds: From now; None if there is none, or nobody has looked.
            asked: Whether somebody has.
        """
        if seconds is not None:
            self.due_at = now() + seconds
        elif asked:
            self.due_at = float("inf")

    def put_off(self, outcomes: Iterable[Outcome], sent_at: float) -> None:
        """Note when the first of the jobs is due that were put off with these outcomes."""
        delays = [o.delay if o.event == "retry" else UNKNOWN_LATER for o in outcomes if o.event in LATER]
        self.due_at = min([self.due_at, *(sent_at + delay for delay in delays)])
