"""Keeps what this worker has claimed: a heartbeat from a thread and a connection of its own.

So that no handler that blocks the event loop, and no slow query on it, makes the worker look dead. Between two beats
the same thread asks only what is answered at once: which running jobs were lost (cancelled, or given away), and what
duties want to know, such as whether there are jobs of workers that are gone. What is done about it is done elsewhere:
nothing here waits for a disk, a standby, the lock of NOTIFY, or many rows. While the worker holds nothing it writes
nothing.
"""

from __future__ import annotations

import random
from typing import Final, Protocol

from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.holdings import Holdings
from dbjobq.runtime.liveness.inbox import Inbox
from dbjobq.runtime.liveness.states import Fate
from dbjobq.runtime.loop import LoopCalls
from dbjobq.runtime.trust import TrustWindow, now
from dbjobq.service import ThreadService
from dbjobq.storage.values import Claim
from dbjobq.storage.worker_port import Pulse

__all__ = ["Ears", "Heartbeat"]

BEAT: Final = 0.14
"""The pause between heartbeats, as a share of the lease: four may be lost."""
DEAF_EVERY: Final = 0.4
"""Seconds between looks for cancelled jobs while no notice can tell of them."""
LONGEST_BEAT_PAUSE: Final = 0.5
"""Seconds until the next look, at most: a heartbeat that failed is sent again by then."""


class Ears(Protocol):
    """Whoever listens for notices."""

    @property
    def hears_others(self) -> bool:
        """Whether notices tell of cancelled jobs, whatever process they were cancelled in."""
        ...


class Heartbeat(ThreadService):
    """The service that beats. It only reads what the worker holds, and has the event loop told what it finds.

    Args:
        pulse: Its connection.
        lease: What it prolongs.
        inbox: What others want of it.
        holdings: What the worker holds.
        ears: While they hear, running jobs need not be asked about often.
        fate: Says when there is nothing left to live for, and which jobs' fates are known already.
        calls: How the loop is told.
        alarm: Rung there when the lease is over: nothing that is held may be started.
        seconds: How long the lease is.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it reads and whom it tells
        self,
        pulse: Pulse,
        lease: TrustWindow,
        inbox: Inbox,
        holdings: Holdings,
        ears: Ears,
        fate: Fate,
        calls: LoopCalls,
        alarm: Alarm,
        *,
        seconds: float,
    ) -> None:
        super().__init__("heartbeat", pulse, fate.over, inbox.bell)
        self._pulse, self._lease, self._inbox, self._seconds = pulse, lease, inbox, seconds
        self._holdings, self._ears, self._fate = holdings, ears, fate
        self._calls, self._alarm = calls, alarm
        self._ran: set[Claim] = set()
        self._beat_at = self._looked_at = float("-inf")

    def _work(self) -> None:
        if self._inbox.beat_wanted or now() >= self._beat_at:
            self._beat()
        self._look_for_lost()
        while not self._inbox.questions.empty():
            self._inbox.questions.get()(self._pulse)

    def _every(self) -> float:
        usual = self._seconds * BEAT / 2
        return usual if self._ears.hears_others else min(usual, DEAF_EVERY)

    def _pause(self) -> float:
        return min(self._every(), LONGEST_BEAT_PAUSE)

    def _beat(self) -> None:
        """Say that the worker lives, if it holds anything. One that fails is sent again at the next look."""
        beat_at = now() + self._seconds * BEAT * (0.8 + 0.2 * random.random())  # noqa: S311 - spread, not secrecy
        if self._inbox.beat_wanted or self._holdings.any or self._holdings.running():
            life, sent_at = self._lease.life, now()
            if self._pulse.beat(self._lease.ttl):
                self._lease.renewed(sent_at, life)
            elif self._lease.lapse(life):
                self._calls.call(self._alarm.ring)
        self._inbox.beat_wanted, self._beat_at = False, beat_at

    def _look_for_lost(self) -> None:
        """Ask for the jobs that ran at the last look, too, and those in doubt: others come and go unasked."""
        running = [claim for claim in self._holdings.running() if claim not in self._fate.settled]
        doubted: set[str] = set()
        while not self._inbox.doubted.empty():
            doubted.add(self._inbox.doubted.get())
        if now() < self._looked_at + self._every() and doubted.isdisjoint(claim.id for claim in running):
            return
        self._looked_at = now()
        asked = [claim for claim in running if claim in self._ran or claim.id in doubted]
        self._ran = set(running)
        if asked and (lost := self._pulse.lost(asked)):
            self._calls.call(self._holdings.executor.endings.lost, lost)
            self._fate.settled.update(lost)
