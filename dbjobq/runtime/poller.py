"""Claims, starts and waits: one coroutine, one connection, one exchange with the database after the other.

What was finished while the last exchange was under way goes out with the next, together with the next claim: under load
a few hundred jobs share one transaction and one flush to disk, and at rest a result goes out at once. With a full batch
in hand the next exchange goes out before the slots begin with it, so the database and the jobs work at the same time.
Decides what to claim and when to sleep; runs nothing itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import Event, emit
from dbjobq.events.names import (
    CLAIMS_RECOVERED,
    DATABASE_LOST,
    DATABASE_REFUSES,
    DATABASE_RESTORED,
    DATABASE_UNAVAILABLE,
    JOB_REFUSED,
    WORKER_LEASE_LOST,
)
from dbjobq.hooks import tell_claimed, tell_ended
from dbjobq.runtime.backoff import PollBackoff, ReconnectBackoff, Rush
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.pace import BATCH, UNSTARTED
from dbjobq.runtime.trust import Lease, now
from dbjobq.service import Service
from dbjobq.storage.values import Claim, Exchange, Outcome
from dbjobq.storage.worker_port import Session

__all__ = ["Poller"]

PROGRESS_EVERY: Final = 1.0
"""Seconds between looks at what running jobs say of their progress."""
HAND_BACK: Final = 1.0
"""Seconds before the end of the time for stopping at which what still runs is handed back (at most a tenth of it)."""
LATER: Final = ("retry", "unknown")
"""The events that put a job off; for `unknown` that is a second at least."""
GRACE: Final = 2.0
"""Seconds that the last results get to be written when that time is over."""

TROUBLES: Final = 10
"""The most lines about one outage."""


class Poller(Service):
    """The service that talks to the database.

    The poller is the only service to return by itself: when the worker was told to stop, and holds nothing.

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
        lease: Lease,
        alarm: Alarm,
        beat_soon: Callable[[], None],
    ) -> None:
        self._config, self._session, self._executor = config, session, executor
        self._lease, self._alarm, self._beat_soon = lease, alarm, beat_soon
        self._backoff = PollBackoff(config.poll_interval, config.max_poll_interval)
        self._reconnect, self._rush = ReconnectBackoff(), Rush()
        self._unsent: list[Outcome] = []
        self._told = False
        self._asleep_until = 0.0
        self._due_at = float("inf")
        self._claimed_at = 0.0
        self._troubles = set[str]()
        self._stop_by: float | None = None
        self._reconcile_at = float("inf")
        self._reconciled = False
        self._lapsed = False

    # What others tell.

    def wake(self) -> None:
        """There may be work: look now, and as often as at first. On the worker's loop."""
        self._told = True
        self._backoff.reset()
        self._alarm.ring()

    def stop(self, *, hasten: bool = False) -> None:
        """Claim no more from the next look on; `run` returns when what runs has ended, or has been handed back.

        From any thread: whoever stands in for a loop that is blocked must know it, too.

        Args:
            hasten: Hand it back now.
        """
        seconds = self._config.shutdown_timeout
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
        """Work until `stop`. Raises ConfigError or SchemaError if the database will not have this worker any more."""
        self._backoff = PollBackoff(self._config.poll_interval, self._config.max_poll_interval)
        while True:
            if self._lapsed or (self._executor.holding and not self._lease.alive()):
                await self._begin_anew()
            outcomes = self._unsent = self._unsent + self._executor.take_outcomes()
            if self._stop_by is not None:
                outcomes = self._unsent = outcomes + self._wind_down()
                if self._drained() or now() > self._stop_by + GRACE:
                    return
            if now() >= self._reconcile_at:
                await self._reconcile()
            want = self._want() if self._stop_by is None else 0
            progress = self._executor.progress.take()
            if not (outcomes or want or progress):
                await self._alarm.wait(self._pause())
                continue
            try:
                await self._exchange(outcomes, want, progress)
            except StorageUnavailable as error:
                await self._recover(error)
            else:
                self._restored()
                self._reconnect.reset()

    async def _exchange(self, outcomes: list[Outcome], want: int, progress: dict[Claim, str]) -> None:
        sent_at = now()
        self._told = self._told and not want
        beat = self._beat() if want else None
        promote, rush = bool(want) and sent_at >= self._due_at, self._rush.on(sent_at)
        answer = await self._session.step(
            Exchange(outcomes, want, beat, promote, progress, rush, space=self._executor.space)
        )
        self._unsent = []
        tell_ended(outcomes, answer.refused, answer.gave_up)
        tell_claimed(answer.claims)
        for outcome in answer.refused:
            emit(JOB_REFUSED, outcome.claim, quietly=outcome.claim.id in answer.cancelled)
        for outcome in answer.gave_up:
            self._executor.log(outcome._replace(event="fail"))
        self._note_due(answer.next_due, asked=promote)
        later = [
            outcome.delay if outcome.event == "retry" else PROGRESS_EVERY
            for outcome in outcomes
            if outcome.event in LATER
        ]
        self._due_at = min([self._due_at, *(sent_at + delay for delay in later)])
        if want:
            self._rush.found(now(), len(answer.claims), full=len(answer.claims) == want)
        if answer.claims:
            if beat is not None:
                self._lease.renewed(sent_at, self._lease.life)
            self._backoff.reset()
            self._asleep_until = 0.0
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
        if self._lease.alive() and (self._executor.holding or self._unsent):
            self._beat_soon()
            return None
        return self._lease.ttl

    async def _start(self, claims: list[Claim]) -> None:
        """Have claims started, as many as there is room for; the rest goes back.

        Where one of them may be the death of this worker, or of another job with it, that is written before any starts.
        With a full batch in hand they start while the next exchange is under way.
        """
        room = 0 if self._lapsed else self._executor.room(claims)
        back = claims[room:]
        self._release(back)
        if back and any(claim.fragile for claim in claims):
            await self._exchange(self._unsent, 0, {})
        self._executor.add(claims[:room])
        if room < BATCH:
            await asyncio.sleep(0)  # let the slots begin before the next look at what they need

    async def _doze(self) -> None:
        """Nothing is there. Have enqueues notify from now on, look once more if one may have slipped by, then sleep.

        In a rush of jobs the next one will be there sooner than a notification of it: look again instead.
        """
        if self._rush.on(now()):
            self._asleep_until = now() + self._rush.LOOK_AGAIN
            return
        idle = await self._session.idle()
        if not idle.registered:
            self.lapse()
        self._due_at = float("inf")
        self._note_due(idle.next_due, asked=True)
        if not self._told:
            self._asleep_until = now() + (self._backoff.next() if idle.look_in is None else idle.look_in)

    def _note_due(self, seconds: float | None, *, asked: bool) -> None:
        if seconds is not None:
            self._due_at = now() + seconds
        elif asked:
            self._due_at = float("inf")

    def _want(self) -> int:
        """Return how many jobs to claim now; none while asleep."""
        moment = now()
        asleep = not self._told and moment < self._asleep_until and moment < self._due_at
        return 0 if asleep else self._executor.wants()

    def _pause(self) -> float | None:
        """Return how long there will be nothing to do, unless the bell rings."""
        moment = now()
        if self._stop_by is not None:
            left = self._stop_by - moment
            return max(min(left, PROGRESS_EVERY) if self._executor.busy else left, UNSTARTED)
        if self._executor.waiting or self._executor.busy:
            self._executor.share()
            if self._give_back_unstarted():
                return 0.0
            if self._executor.waiting:
                return UNSTARTED
            return self._until(moment) if self._executor.idle and not self._executor.full else PROGRESS_EVERY
        return self._until(moment)

    def _until(self, moment: float) -> float:
        wait = min(self._asleep_until, self._due_at, self._reconcile_at) - moment
        return max(0.0, min(wait, PROGRESS_EVERY) if self._executor.busy else wait)

    def _give_back_unstarted(self) -> bool:
        """Return to the queue what was claimed ahead and is not started: somebody else may be idle."""
        if not self._executor.waiting or self._executor.idle or now() - self._claimed_at < UNSTARTED:
            return False
        self._executor.pace.stuck()
        self._release(self._executor.take_back())
        return True

    def _release(self, claims: list[Claim]) -> None:
        self._unsent += [Outcome(claim, "release") for claim in claims]

    # Ends.

    def _wind_down(self) -> list[Outcome]:
        """Give back what is not started, and, when the time is over, what has not ended."""
        ended: list[Outcome] = []
        back = self._executor.take_back()
        if self._stop_by is not None and now() >= self._stop_by:
            ended = self._executor.hand_back()
            back += self._executor.take_back()
        return ended + [Outcome(claim, "release") for claim in back]

    def _drained(self) -> bool:
        return not self._unsent and self._executor.settled

    async def _begin_anew(self) -> None:
        """The lease is over: others may have what this worker holds. Start none of it, and register as a new worker.

        What is not started goes back if it is still ours; what runs may still be completed if nobody took it. What was
        ended is charged an attempt by whoever rescues it from the worker that this one no longer is.
        """
        self._lapsed = False
        emit(WORKER_LEASE_LOST, worker=self._session.worker_id)
        self._release(self._executor.take_back())
        self._session.forget()
        sent_at = now()
        try:
            await self._session.close()
            await self._session.open()
        except StorageUnavailable as error:
            await self._recover(error)
        self._lease.begin(sent_at)  # of the new worker, which holds nothing yet

    async def _reconcile(self) -> None:
        """Give back what a claim took whose reply was lost: nobody here knows of it, and heartbeats would keep it.

        Once at once, and once more when even a claim that the server came to late must have ended.
        """
        keep = [*self._executor.held(), *(outcome.claim for outcome in self._unsent)]
        again = self._reconcile_at + self._lease.ttl
        try:
            released = await self._session.release(keep)
        except StorageUnavailable as error:
            await self._recover(error)
            return
        self._reconcile_at = float("inf") if self._reconciled else again
        self._reconciled = not self._reconciled
        if released:
            emit(CLAIMS_RECOVERED, jobs=released)

    async def _recover(self, error: StorageUnavailable) -> None:
        """Reconnect; what was not written stays in memory, and is sent again.

        What is in the way may become another thing: each is logged once. Where the server can be reached, and refuses
        what is asked, that a new connection can be made says nothing: it is over when something was done.
        """
        if error.answered or not self._troubles:
            self._trouble(DATABASE_REFUSES if error.answered else DATABASE_LOST, error)
        await self._session.close()
        await asyncio.sleep(self._reconnect.next(random.random()))  # noqa: S311 - spread, not secrecy
        sent_at = now()
        try:
            same = await self._session.open()
        except StorageUnavailable as still:
            self._trouble(DATABASE_UNAVAILABLE, still)
            return
        if not same:
            emit(WORKER_LEASE_LOST, worker=self._session.worker_id)
            self._release(self._executor.take_back())
            self._lease.begin(sent_at)
        if not error.answered:
            self._restored()
        self._reconcile_at, self._reconciled = now(), False
        self.wake()

    def _trouble(self, event: Event, error: StorageUnavailable) -> None:
        if str(error) not in self._troubles and len(self._troubles) < TROUBLES:
            emit(event, error=str(error))
            self._troubles.add(str(error))

    def _restored(self) -> None:
        if self._troubles:
            emit(DATABASE_RESTORED)
            self._troubles = set[str]()
