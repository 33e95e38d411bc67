"""A duty: what any worker does for all of them, from time to time and in small pieces.

There is no leader. Every worker has every duty, at moments that chance spreads, so that what a worker leaves is done by
the next. No advisory lock is a duty's turn: anybody who may connect could take that lock, and switch the duty off for
all. A duty's statement takes the rows that it works on with `for update skip locked`: two that are sent at once take
different ones, and where only one may work at a time, the row that both want is the turn.

A duty works in a thread and over a connection of its own, never in the thread that beats (law: nothing that can wait
for a lock, a disk or many rows stands between two heartbeats). The connection is there only while there is something to
do. Whether there is may be asked over the heartbeat's connection, if that is answered at once.

To add a duty: a file here with a subclass of `Duty`, its statement in `storage/sql/`, and its name in `DUTIES`
(`dbjobq/worker.py`).
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from dbjobq.service import ThreadService
from dbjobq.storage.worker_port import Pulse

__all__ = ["Ask", "Duty", "DutyService"]

Ask = Callable[[Callable[[Pulse], None]], None]
"""Has a question asked over a connection on which nothing waits; from any thread."""


class Duty(ABC):
    """One kind of work for all workers, and how often it is due.

    One object may serve several workers: a duty has no state of its own.
    """

    name: ClassVar[str]
    """The name of the duty, and of the service that does it (`service.py`)."""

    @abstractmethod
    def every(self, lease: float) -> float:
        """Return the seconds between two turns of one worker, at most.

        Args:
            lease: The worker's, in seconds.
        """

    def is_needed(self, pulse: Pulse) -> bool:
        """Tell whether there is anything to do. Asked over the heartbeat's connection: read little, wait for nobody."""
        del pulse
        return True

    @abstractmethod
    def once(self, pulse: Pulse) -> int:
        """Do one piece of it, which nobody waits long for; return how much that was: 0 if nothing was left."""


class DutyService(ThreadService):
    """The service that does one duty in one worker.

    Args:
        duty: What is done.
        pulse: A connection for the time that this takes.
        ask: Asks whether there is anything to do.
        lease: The worker's, in seconds.
        over: Tells whether the worker has nothing left to live for.
    """

    def __init__(self, duty: Duty, pulse: Pulse, ask: Ask, *, lease: float, over: Callable[[], bool]) -> None:
        super().__init__(duty.name, pulse, over)
        self._duty, self._pulse, self._ask = duty, pulse, ask
        self._every = duty.every(lease)
        self._needed = False
        self._turn_at = time.monotonic() + self._every * random.random()  # noqa: S311 - spread, not secrecy

    def _pause(self) -> float:
        return max(0.0, self._turn_at - time.monotonic())

    def _work(self) -> None:
        if time.monotonic() >= self._turn_at:
            self._turn_at = time.monotonic() + self._every * (0.8 + 0.2 * random.random())  # noqa: S311 - as above
            self._ask(self._find_out)
        if self._needed:
            self._needed = False
            try:
                while not self._stopping and self._duty.once(self._pulse):
                    pass
            finally:
                self._pulse.close()

    def _find_out(self, pulse: Pulse) -> None:
        """Ask whether there is anything to do; called in the heartbeat's thread."""
        if self._duty.is_needed(pulse):
            self._needed = True
            self.ring()
