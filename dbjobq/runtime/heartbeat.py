"""Keeps what this worker has claimed: a heartbeat from a thread and a connection of its own.

So that no handler that blocks the event loop, and no slow query on it, makes the worker look dead. The same thread asks
which running jobs were lost (cancelled, or given away), stands in for a loop that is blocked (watch.py), and takes jobs
back from workers that are gone: every worker does, without a leader. While the worker holds nothing it writes nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from dbjobq.errors import DBJobQError
from dbjobq.runtime.lease import Lease, now
from dbjobq.runtime.watch import Watch
from dbjobq.storage.base import Pulse
from dbjobq.storage.values import Claim
from dbjobq.telemetry import worker_log

__all__ = ["Heartbeat"]

BEAT: Final = 0.14
"""The pause between heartbeats: four may be lost."""
PROBE: Final = 0.25
"""The pause between looks for dead workers: with a lease's `TTL`, and half a beat until it is noticed, less than it."""
DEAF_EVERY: Final = 0.4
"""Seconds between looks for cancelled jobs while no notice can tell of them (contract §4: within a second)."""
LOOK: Final = 0.5
"""Seconds between looks at the event loop and at what runs, at most."""


class Heartbeat:
    """The thread. It only reads what the worker holds, and reports by callbacks, which must be safe to call from it.

    Args:
        pulse: Its connection.
        lease: What it prolongs.
        held: What the worker holds, running jobs first; and how many of them run.
        listening: Whether notices tell of cancelled jobs, whatever process they were cancelled in.
        on_lapsed: The lease is over: nothing that is held may be started.
        on_lost: These running jobs are no longer held.
        watch: Says what is to be written while the loop is blocked; and when there is nothing left to live for.
    """

    def __init__(  # noqa: PLR0913 - what it reads and whom it tells
        self,
        pulse: Pulse,
        lease: Lease,
        *,
        seconds: float,
        held: Callable[[], tuple[list[Claim], bool]],
        listening: Callable[[], bool],
        on_lapsed: Callable[[], None],
        on_lost: Callable[[list[Claim]], None],
        watch: Watch,
    ) -> None:
        self._pulse, self._lease, self._seconds = pulse, lease, seconds
        self._held, self._listening = held, listening
        self._on_lapsed, self._on_lost, self._watch = on_lapsed, on_lost, watch
        self._bell, self._stopping = threading.Event(), False
        self._ran: set[Claim] = set()
        self._doubted: SimpleQueue[str] = SimpleQueue()
        self._troubled = False
        self._beat_at = self._looked_at = float("-inf")
        self._probe_at = now() + random.random() * seconds * PROBE  # noqa: S311 - spread, not secrecy
        self._thread = threading.Thread(target=self._run, name="dbjobq-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within a second even if its connection is stuck."""
        self._stopping = True
        self._bell.set()
        self._thread.join(0.5)
        if self._thread.is_alive():
            self._pulse.cut()
            self._thread.join(0.5)

    def alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    def doubt(self, job_id: str) -> None:
        """Ask at once whether this job is still held: somebody says that it was cancelled. From any thread."""
        self._doubted.put(job_id)
        self._bell.set()

    def _run(self) -> None:
        try:
            while not (self._stopping or self._watch.over):
                try:
                    self._work(self._sleep())
                    self._troubled = False
                except DBJobQError as error:
                    self._report(error)
                except Exception:
                    worker_log.exception("heartbeat.broken")
        finally:
            self._pulse.close()

    def _sleep(self) -> float:
        """Sleep until the next look; return by how many seconds it became too long."""
        pause = min(self._pause(), LOOK)
        until = now() + pause
        self._bell.wait(pause)
        self._bell.clear()
        return now() - until

    def _work(self, late: float) -> None:
        outcomes = self._watch.look(late)
        if now() >= self._beat_at:
            self._beat_at = self._next(BEAT)
            self._beat()
        if outcomes:
            self._watch.wrote(outcomes, self._pulse.finish(outcomes))
        if (keep := self._watch.keeps()) is not None:
            released = self._pulse.take_over(keep)
            self._watch.took_over()
            if released:
                worker_log.warning("claims.recovered", extra={"jobs": released})
        if now() >= self._looked_at + self._pause() or not self._doubted.empty():
            self._looked_at = now()
            self._look_for_lost()
        if now() >= self._probe_at:
            self._probe_at = self._next(PROBE)
            self._rescue()

    def _next(self, share: float) -> float:
        return now() + self._seconds * share * (0.8 + 0.2 * random.random())  # noqa: S311 - spread, not secrecy

    def _pause(self) -> float:
        usual = self._seconds * BEAT / 2
        return usual if self._listening() else min(usual, DEAF_EVERY)

    def _beat(self) -> None:
        running, holding = self._held()
        if not (running or holding):
            return
        sent_at = now()
        if self._pulse.beat(self._lease.ttl):
            self._lease.renewed(sent_at)
        else:
            self._lease.lapse()
            self._on_lapsed()

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

    def _rescue(self) -> None:
        for job in self._pulse.rescue():
            fields = {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempt": job.attempts + 1}
            worker_log.warning("job.dead" if job.dead else "job.rescued", extra=fields)

    def _report(self, error: DBJobQError) -> None:
        if not self._troubled:
            worker_log.warning("heartbeat.failing", extra={"error": str(error)})
        self._troubled = True
