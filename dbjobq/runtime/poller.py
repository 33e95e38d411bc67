"""Claims, starts and waits: one coroutine, one connection, one exchange with the database after the other.

What was finished while the last exchange was under way goes out with the next, together with the next claim: under load
a few hundred jobs share one transaction and one flush to disk, and at rest a result goes out at once. With a full batch
in hand the next exchange goes out before the slots begin with it, so the database and the jobs work at the same time.
Runs no jobs (executor.py), and does not decide when to sleep (rest.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import CLAIMS_RECOVERED, WORKER_LEASE_LOST
from dbjobq.hooks import tell_claimed
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.outage import Outage
from dbjobq.runtime.pace import BATCH, UNSTARTED
from dbjobq.runtime.rest import Rest
from dbjobq.runtime.trust import TrustWindow, now
from dbjobq.service import Service
from dbjobq.storage.values import Claim, Exchange, Outcome
from dbjobq.storage.worker_port import Session

__all__ = ["Poller"]

PROGRESS_EVERY: Final = 1.0
"""Seconds between looks at what running jobs say of their progress."""
HAND_BACK: Final = 1.0
"""Seconds before the end of the time for stopping at which what still runs is handed back (at most a tenth of it)."""
GRACE: Final = 2.0
"""Seconds that the last results get to be written when that time is over."""


class Poller(Service):
    """The service that talks to the database.

    Args:
        config: The worker's settings.
        session: Its exchange with the database, open.
        executor: Where claims go and outcomes come from.
        lease: What claims prolong.
        alarm: What ends a wait.
        beat_soon: Has the lease prolonged over another connection.
    """

    name = "poller"

    def __init__(  # noqa: PLR0913, PLR0917 - what it works with
        self,
        config: WorkerConfig,
        session: Session,
        executor: Executor,
        lease: TrustWindow,
        alarm: Alarm,
        beat_soon: Callable[[], None],
    ) -> None:
        self._session, self._executor = session, executor
        self._lease, self._alarm, self._beat_soon = lease, alarm, beat_soon
        self._rest, self._outage = Rest(config.poll_interval, config.max_poll_interval), Outage()
        self._shutdown_timeout = config.shutdown_timeout
        self._unsent: list[Outcome] = []
        self._claimed_at = 0.0
        self._stop_by: float | None = None
        self._lapsed = False

    # What others tell.

    def wake(self) -> None:
        """There may be work: look now, and as often as at first. On the worker's loop."""
        self._rest.wake()
        self._alarm.ring()

    def stop(self, *, hasten: bool = False) -> None:
        """Claim no more from the next look on; `run` returns when what runs has ended, or has been handed back.

        From any thread: whoever stands in for a loop that is blocked must know it, too.

        Args:
            hasten: Hand it back now.
        """
        seconds = self._shutdown_timeout
        by = now() + (0.0 if hasten else max(seconds - HAND_BACK, seconds * 0.9))
        self._stop_by = by if self._stop_by is None else min(self._stop_by, by)

    def drain(self) -> None:
        """Claim no more, as after `stop`, but let what runs take as long as it likes. From any thread."""
        if self._stop_by is None:
            self._stop_by = float("inf")

    def lapse(self) -> None:
        """The lease was over, and jobs were ended for it: they are not this worker's any more, whoever gets them."""
        self._lapsed = True
        self._alarm.ring()

    @property
    def stop_by(self) -> float | None:
        """When what runs is handed back; None before `stop`. From any thread."""
        return self._stop_by

    def unsent(self) -> list[Outcome]:
        """Return the outcomes that the database does not have, as far as is known; from any thread."""
        return list(self._unsent)

    # The loop.

    async def run(self) -> None:
        """Work until `stop`, and until nothing is held. Raises ConfigError or SchemaError if the database refuses."""
        self._rest.begin()
        while True:
            if self._lapsed or (self._executor.buffer.holding and not self._lease.alive()):
                await self._begin_anew()
            outcomes = self._unsent = self._unsent + self._executor.outcomes.take()
            if self._stop_by is not None:
                outcomes = self._unsent = outcomes + self._wind_down()
                if (not self._unsent and self._executor.buffer.settled) or now() > self._stop_by + GRACE:
                    return
            if now() >= self._outage.reconcile_at:
                await self._reconcile()
            asleep = self._stop_by is not None or self._rest.asleep(now())
            want = 0 if asleep else self._executor.buffer.wants()
            progress = self._executor.progress.take()
            if not (outcomes or want or progress):
                await self._alarm.wait(self._pause())
                continue
            try:
                await self._exchange(outcomes, want, progress)
            except StorageUnavailable as error:
                await self._recover(error)
            else:
                self._outage.at_work()

    async def _exchange(self, outcomes: list[Outcome], want: int, progress: dict[Claim, str]) -> None:
        sent_at = now()
        if want:
            self._rest.looks()
        beat = self._beat() if want else None
        promote, rush = bool(want) and sent_at >= self._rest.due_at, self._rest.rushed(sent_at)
        exchange = Exchange(outcomes, want, beat, promote, progress, rush, space=self._executor.buffer.space)
        answer = await self._session.step(exchange)
        self._unsent = []
        self._executor.outcomes.answered(outcomes, answer)
        tell_claimed(answer.claims)
        self._rest.note_due(answer.next_due, asked=promote)
        self._rest.put_off(outcomes, sent_at)
        if want:
            self._rest.looked(len(answer.claims), full=len(answer.claims) == want)
        if answer.claims:
            if beat is not None:
                self._lease.renewed(sent_at, self._lease.life)
            self._claimed_at = now()
            await self._start(answer.claims)
        elif want:
            await self._doze()

    def _beat(self) -> float | None:
        """Return by how many seconds a claim is to prolong the lease; None if there is no need, or another does.

        The exchange of a worker that holds anything may have results with it, or wake others: its commit may wait for a
        standby, and have the worker's row locked meanwhile, on which the heartbeat would wait.
        """
        if not self._lease.wants_beat():
            return None
        if self._lease.alive() and (self._executor.buffer.holding or self._unsent):
            self._beat_soon()
            return None
        return self._lease.ttl

    async def _start(self, claims: list[Claim]) -> None:
        """Have claims started, as many as there is room for; the rest goes back.

        Where one of them may be the death of this worker, or of another job with it, that is written before any starts.
        With a full batch in hand they start while the next exchange is under way.
        """
        room = 0 if self._lapsed else self._executor.buffer.room(claims)
        self._release(back := claims[room:])
        if back and any(claim.fragile for claim in claims):
            await self._exchange(self._unsent, 0, {})
        self._executor.buffer.add(claims[:room])
        if room < BATCH:
            await asyncio.sleep(0)  # let the slots begin before the next look at what they need

    async def _doze(self) -> None:
        """Nothing is there. Have enqueues notify from now on, look once more if one may have slipped by, then sleep."""
        if self._rest.rushed(now()):
            self._rest.look_again()
            return
        idle = await self._session.idle()
        if not idle.registered:
            self.lapse()
        self._rest.fall_asleep(idle)

    def _pause(self) -> float | None:
        """Return how long there will be nothing to do, unless the bell rings."""
        buffer = self._executor.buffer
        if self._stop_by is not None:
            left = self._stop_by - now()
            return max(min(left, PROGRESS_EVERY) if buffer.busy else left, UNSTARTED)
        if buffer.waiting or buffer.busy:
            buffer.share()
            if self._give_back_unstarted():
                return 0.0
            if buffer.waiting:
                return UNSTARTED
            if not buffer.idle or buffer.full:
                return PROGRESS_EVERY
        wait = min(self._rest.ends_at(), self._outage.reconcile_at) - now()
        return max(0.0, min(wait, PROGRESS_EVERY) if buffer.busy else wait)

    def _give_back_unstarted(self) -> bool:
        """Return to the queue what was claimed ahead and is not started: somebody else may be idle."""
        buffer = self._executor.buffer
        if not buffer.waiting or buffer.idle or now() - self._claimed_at < UNSTARTED:
            return False
        buffer.pace.stuck()
        self._release(buffer.take_back())
        return True

    def _release(self, claims: list[Claim]) -> None:
        self._unsent += [Outcome(claim, "release") for claim in claims]

    # Ends.

    def _wind_down(self) -> list[Outcome]:
        """Give back what is not started, and, when the time is over, what has not ended."""
        back = self._executor.buffer.take_back()
        over = self._stop_by is not None and now() >= self._stop_by
        ended = self._executor.endings.hand_back() if over else []
        back += self._executor.buffer.take_back()
        return ended + [Outcome(claim, "release") for claim in back]

    async def _begin_anew(self) -> None:
        """The lease is over: others may have what this worker holds. Start none of it, and register as a new worker.

        What is not started goes back if it is still ours; what runs may still be completed if nobody took it. What was
        ended is charged an attempt by whoever rescues it from the worker that this one no longer is.
        """
        self._lapsed = False
        emit(WORKER_LEASE_LOST, worker=self._session.worker_id)
        self._release(self._executor.buffer.take_back())
        self._session.forget()
        sent_at = now()
        try:
            await self._session.close()
            await self._session.open()
        except StorageUnavailable as error:
            await self._recover(error)
        self._lease.begin(sent_at)  # of the new worker, which holds nothing yet

    async def _reconcile(self) -> None:
        """Give back what a claim took whose reply was lost: nobody here knows of it, and heartbeats would keep it."""
        keep = [*self._executor.held(), *(outcome.claim for outcome in self._unsent)]
        try:
            released = await self._session.release(keep)
        except StorageUnavailable as error:
            await self._recover(error)
            return
        self._outage.reconciled(again_after=self._lease.ttl)
        if released:
            emit(CLAIMS_RECOVERED, jobs=released)

    async def _recover(self, error: StorageUnavailable) -> None:
        """Reconnect; what was not written stays in memory, and is sent again.

        Where the server can be reached, and refuses what is asked, that a new connection can be made says nothing: it
        is over when something was done.
        """
        self._outage.lost(error)
        await self._session.close()
        await asyncio.sleep(self._outage.pause())
        sent_at = now()
        try:
            same = await self._session.open()
        except StorageUnavailable as still:
            self._outage.goes_on(still)
            return
        if not same:
            emit(WORKER_LEASE_LOST, worker=self._session.worker_id)
            self._release(self._executor.buffer.take_back())
            self._lease.begin(sent_at)
        if not error.answered:
            self._outage.over()
        self._outage.connected()
        self.wake()
