"""Keeps what this worker has claimed: a heartbeat from a thread and a connection of its own.

So that no handler that blocks the event loop, and no slow query on it, makes the worker look dead. Between two beats
the same thread asks only what is answered at once: which running jobs were lost (cancelled, or given away), and whether
there are jobs of workers that are gone. Every worker takes those back, without a leader, but elsewhere (rescuer.py):
nothing here waits for a disk, a standby, the lock of NOTIFY, or many rows. While the worker holds nothing it writes
nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from dbjobq.runtime.liveness.beside import Beside
from dbjobq.runtime.liveness.loop_watch import Watch
from dbjobq.runtime.liveness.rescuer import Rescuer
from dbjobq.runtime.trust import Lease, now
from dbjobq.storage.values import Claim
from dbjobq.storage.worker_port import Pulse

__all__ = ["Heartbeat"]

BEAT: Final = 0.14
"""The pause between heartbeats, as a share of the lease: four may be lost."""
PROBE: Final = 0.25
"""The pause between looks for dead workers: with a lease's `TTL`, and half a beat until it is noticed, less than it."""
DEAF_EVERY: Final = 0.4
"""Seconds between looks for cancelled jobs while no notice can tell of them."""
LONGEST_BEAT_PAUSE: Final = 0.5
"""Seconds until the next look, at most: a heartbeat that failed is sent again by then."""


class Heartbeat(Beside):
    """The thread. It only reads what the worker holds, and reports by callbacks, which must be safe to call from it.

    Args:
        pulse: Its connection.
        lease: What it prolongs.
        rescuer: Takes back the jobs of workers that are gone.
        held: What the worker holds, running jobs first; and how many of them run.
        listening: Whether notices tell of cancelled jobs, whatever process they were cancelled in.
        on_lapsed: The lease is over: nothing that is held may be started.
        on_lost: These running jobs are no longer held; and of each, whether it was cancelled.
        watch: Says when there is nothing left to live for, and which jobs' fates are known already.
    """

    def __init__(  # noqa: PLR0913 - what it reads and whom it tells
        self,
        pulse: Pulse,
        lease: Lease,
        rescuer: Rescuer,
        *,
        seconds: float,
        held: Callable[[], tuple[list[Claim], bool]],
        listening: Callable[[], bool],
        on_lapsed: Callable[[], None],
        on_lost: Callable[[dict[Claim, bool]], None],
        watch: Watch,
    ) -> None:
        super().__init__("heartbeat", pulse, lambda: watch.over)
        self._lease, self._rescuer, self._seconds = lease, rescuer, seconds
        self._held, self._listening = held, listening
        self._on_lapsed, self._on_lost, self._watch = on_lapsed, on_lost, watch
        self._ran: set[Claim] = set()
        self._doubted: SimpleQueue[str] = SimpleQueue()
        self._wanted = False
        self._beat_at = self._looked_at = float("-inf")
        self._probe_at = now() + random.random() * seconds * PROBE  # noqa: S311 - spread, not secrecy

    def stop(self) -> None:
        """See `Beside.stop`; a rescue that is under way ends, too."""
        self._rescuer.stop()
        super().stop()

    def doubt(self, job_id: str) -> None:
        """Ask at once whether this job is still held: somebody says that it was cancelled. From any thread."""
        self._doubted.put(job_id)
        self._bell.set()

    def beat_soon(self) -> None:
        """Beat at once, whatever is held: the lease runs out sooner than it should. From any thread."""
        self._wanted = True
        self._bell.set()

    def _work(self, late: float) -> None:
        del late
        if self._wanted or now() >= self._beat_at:
            self._beat()
        if now() >= self._looked_at + self._every() or not self._doubted.empty():
            self._looked_at = now()
            self._look_for_lost()
        if now() >= self._probe_at:
            self._probe_at = self._next(PROBE)
            if self._pulse.abandoned():
                self._rescuer.begin()

    def _next(self, share: float) -> float:
        return now() + self._seconds * share * (0.8 + 0.2 * random.random())  # noqa: S311 - spread, not secrecy

    def _every(self) -> float:
        usual = self._seconds * BEAT / 2
        return usual if self._listening() else min(usual, DEAF_EVERY)

    def _pause(self) -> float:
        return min(self._every(), LONGEST_BEAT_PAUSE)

    def _beat(self) -> None:
        """Say that the worker lives, if it holds anything. One that fails is sent again at the next look."""
        running, holding = self._held()
        beat_at = self._next(BEAT)
        if self._wanted or running or holding:
            life, sent_at = self._lease.life, now()
            if self._pulse.beat(self._lease.ttl):
                self._lease.renewed(sent_at, life)
            elif self._lease.lapse(life):
                self._on_lapsed()
        self._wanted, self._beat_at = False, beat_at

    def _look_for_lost(self) -> None:
        """Ask for the jobs that ran at the last look, too, and those in doubt: others come and go unasked."""
        doubted: set[str] = set()
        while not self._doubted.empty():
            doubted.add(self._doubted.get())
        running = [claim for claim in self._held()[0] if claim not in self._watch.settled]
        asked = [claim for claim in running if claim in self._ran or claim.id in doubted]
        self._ran = set(running)
        if asked and (lost := self._pulse.lost(asked)):
            self._on_lost(lost)
            self._watch.settled.update(lost)
