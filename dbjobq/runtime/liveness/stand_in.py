"""Stands in for an event loop that is blocked: writes in its place what the loop should have written.

A job that blocks the loop stops all that happens there: no timeout ends, nothing that waits behind that job goes back,
`stop()` is not heard. So a thread of its own looks whether the loop comes round (`loop_watch.py`), says which job
blocks it and where that stands, and writes what is to be written, until the loop is back (`states.py` says what that
is). Each such outcome is fenced by its claim, as the loop's own are: the second to come is refused. What is written
here is durable, so it waits for the disk and for standbys, and for locks. No heartbeat may wait with it.

Jobs that run for very long, with no timeout to end them, are reported, too, and so that their slots are not lost with
them, others get those in the end. A loop that stays blocked is replaced by another, in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dbjobq.events.bus import emit
from dbjobq.events.names import CLAIMS_RECOVERED, LOOP_BLOCKED, LOOP_REPLACED, LOOP_UNBLOCKED, PROCESS_STALLED
from dbjobq.hooks import tell_ended
from dbjobq.runtime.holdings import Holdings
from dbjobq.runtime.liveness.instead import blocking, instead
from dbjobq.runtime.liveness.long_jobs import LongJobs
from dbjobq.runtime.liveness.loop_watch import LoopWatch
from dbjobq.runtime.liveness.states import Fate
from dbjobq.runtime.loop import LoopCalls
from dbjobq.runtime.slot import Whereabouts
from dbjobq.runtime.trust import now
from dbjobq.service import ThreadService
from dbjobq.storage.values import Claim, Outcome
from dbjobq.storage.worker_port import Pulse

__all__ = ["StandIn"]

LOOP_CHECK_EVERY: Final = 0.5
"""Seconds between looks at the event loop and at what runs, at most."""
STALLED: Final = 1.0
"""Seconds by which this thread's own sleep is too long when the whole process stood still."""
PATIENCE: Final = 30.0
"""Seconds beyond the timeout of a job that blocks the loop until that is given up, with all that is on it."""
NAMED: Final = 10
"""The most jobs that are named in one line."""


class StandIn(ThreadService):
    """The service that acts for a blocked loop; made on the loop. While the loop comes round it has no connection.

    Args:
        pulse: Its connection.
        holdings: What it looks at.
        fate: What becomes of the loop, by the events that it finds.
        calls: How the loop is told.
        lease: The worker's, in seconds: the shorter it is, the sooner the loop is looked at again.
        stuck_after: Seconds after which a job without a timeout, or a loop, is taken for stuck; infinity for never.
        replace: Called when the loop is stuck: starts another in its place, and tells whether it did.
    """

    def __init__(  # noqa: PLR0913 - what it reads and whom it tells
        self,
        pulse: Pulse,
        holdings: Holdings,
        fate: Fate,
        calls: LoopCalls,
        *,
        lease: float,
        stuck_after: float,
        replace: Callable[[], bool],
    ) -> None:
        super().__init__("watch", pulse, fate.over)
        self._pulse, self._holdings, self._fate, self._calls = pulse, holdings, fate, calls
        self._watch = LoopWatch(calls)
        self._jobs = LongJobs(stuck_after, self._watch.stack)
        self._stuck_after, self._replace = stuck_after, replace
        self._every, self._due_at = min(lease * 0.07, LOOP_CHECK_EVERY), now()
        self._unstarted: list[Outcome] = []
        """Releases of jobs that the loop had not started: they were taken from it, and are not written yet."""

    def _pause(self) -> float:
        self._due_at = now() + self._every
        return self._every

    def _work(self) -> None:
        """Look at the loop and at what runs, on it and beside it; write what is to be written until it is."""
        moment, places = now(), self._holdings.executor.slots.whereabouts()
        if (late := moment - self._due_at) > STALLED:
            one, jobs = _named(place.claim for place in places)
            emit(PROCESS_STALLED, one, seconds=round(late, 1), jobs=jobs)
        self._jobs.follow(places, moment)
        if self._watch.comes_round(moment):
            self._hear(moment)
        else:
            self._miss(moment, places)
        self._write(moment, places)

    def _hear(self, moment: float) -> None:
        """The loop comes round: it knows what becomes of its jobs."""
        if self._fate.on("answered"):
            emit(LOOP_UNBLOCKED, seconds=round(self._watch.was_silent_for, 1))
        self._fate.settled.clear()
        if self._holdings.stop_by() is None and (stuck := self._jobs.stuck(moment)):
            self._calls.call(self._holdings.executor.endings.relieve, stuck)

    def _miss(self, moment: float, places: list[Whereabouts]) -> None:
        """The loop does not come round: take from it what is not started, and find out how bad it is."""
        if self._fate.on("silent"):
            (one, jobs), stack = _named(blocking(places, self._watch.on_turn())), self._watch.stack()
            emit(LOOP_BLOCKED, one, seconds=round(self._watch.silent_for(moment), 1), stack=stack, jobs=jobs)
        self._unstarted += [Outcome(claim, "release") for claim in self._holdings.executor.buffer.take_back()]
        stop_by = self._holdings.stop_by()
        if stop_by is not None and moment >= stop_by:
            self._fate.on("time up")
        elif self._fate.state == "blocked" and self._is_stuck(moment, places) and self._replace():
            self._fate.on("replacement")
            one, jobs = _named(blocking(places, self._watch.on_turn()))
            emit(LOOP_REPLACED, one, seconds=round(self._watch.silent_for(moment), 1), jobs=jobs)

    def _is_stuck(self, moment: float, places: list[Whereabouts]) -> bool:
        """Tell whether the loop has been blocked for so long that it may never come round."""
        overdue = (self._jobs.overdue_for(claim, moment) for claim in blocking(places, self._watch.on_turn()))
        return self._watch.silent_for(moment) >= self._stuck_after or any(late >= PATIENCE for late in overdue)

    def _write(self, moment: float, places: list[Whereabouts]) -> None:
        stance = self._fate.stance
        outcomes = [*self._unstarted, *self._ended_instead(moment, places)]
        if stance.takes_over:
            keep = self._holdings.all() if stance.keeps else []
            accepted, released = self._pulse.take_over(keep, outcomes)
            self._wrote(outcomes, accepted)
            self._fate.on("taken over")
            if released:
                emit(CLAIMS_RECOVERED, jobs=released)
        elif outcomes:
            self._wrote(outcomes, self._pulse.finish(outcomes))
        elif all(place.claim in self._fate.settled for place in places):
            self._fate.on("emptied")

    def _ended_instead(self, moment: float, places: list[Whereabouts]) -> list[Outcome]:
        """End those of the jobs that the loop should have ended, and return their outcomes: others may start them."""
        if (ends := self._fate.stance.ends) == "nothing":
            return []
        overdue, ended = self._jobs.overdue(moment), self._holdings.ended()
        ended = instead(ends, places, self._watch.on_turn(), overdue, ended)
        unsettled = {claim: outcome for claim, outcome in ended.items() if claim not in self._fate.settled}
        if unsettled:
            self._holdings.executor.ways.kill(list(unsettled))
            self._holdings.executor.endings.cut_off(list(unsettled))
        return list(unsettled.values())

    def _wrote(self, outcomes: list[Outcome], accepted: set[str]) -> None:
        """Note that outcomes are written, as far as they were accepted: the other jobs were held no more."""
        tell_ended([outcome for outcome in outcomes if outcome.claim.id in accepted])
        executor = self._holdings.executor
        unstarted = {outcome.claim.id for outcome in self._unstarted}
        for outcome in outcomes:
            if outcome.claim.id in accepted - unstarted:
                executor.outcomes.log(outcome)
        running = {place.claim for place in executor.slots.whereabouts()}
        written = [o.claim for o in outcomes if o.claim.id in accepted or o.claim not in running]
        self._fate.settled.update(written)
        self._calls.call(executor.endings.drop, written)  # so that they end if the loop comes back
        self._unstarted = []


def _named(claims: Iterable[Claim]) -> tuple[Claim | None, list[str] | None]:
    """Return the one job that an event is about; or a few words about each, if there are several."""
    named = list(claims)
    if len(named) == 1:
        return named[0], None
    return None, [f"{claim.type} {claim.id}" for claim in named[:NAMED]] or None
