"""Watches, from a thread beside it (stand_in.py), over what the event loop cannot watch itself: that it comes round.

A job that blocks the loop stops all that happens on it: no timeout ends, nothing that waits behind that job goes back,
`stop()` is not heard. So this says which job it is and where it stands, and what is to be written in the loop's place,
until it is back. Each such outcome is fenced by its claim, as the loop's own are: the second to come is refused.

Jobs that run for very long, with no timeout to end them, are reported, too, and so that their slots are not lost with
them, others get those in the end. A loop that stays blocked is replaced by another, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Literal

from dbjobq.attempt.outcome import unfinished
from dbjobq.events.bus import emit
from dbjobq.events.names import LOOP_BLOCKED, LOOP_REPLACED, LOOP_UNBLOCKED, PROCESS_STALLED
from dbjobq.hooks import tell_ended
from dbjobq.runtime.executor import Executor, Whereabouts
from dbjobq.runtime.liveness.long_jobs import LongJobs, failed_on_loop, overrun
from dbjobq.runtime.liveness.stacks import of_task, of_thread
from dbjobq.runtime.trust import now
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Watch"]

BLOCKED: Final = 1.0
"""Seconds without coming round after which the loop is called blocked: a heartbeat of its own would be late by then."""
STALLED: Final = 1.0
"""Seconds by which this thread's own sleep is too long when the whole process stood still."""
LAST: Final = 5.0
"""Seconds for handing back what is held; then it is left to the lease, which is not renewed any more."""
PATIENCE: Final = 30.0
"""Seconds beyond the timeout of a job that blocks the loop until that is given up, with all that is on it."""
NAMED: Final = 10
"""The most jobs that are named in one line."""

BEHIND: Final = "it stood on an event loop that did not come round any more"


class Watch:
    """Made on the loop; then `look` and what follows it are one thread's alone. Any may ask for `settled` and `over`.

    Args:
        executor: What it looks at.
        stop_by: When what runs is to be handed back; None if the worker is not stopping.
        unsent: The outcomes that the poller has taken, and perhaps not written.
        stuck_after: Seconds after which a job without a timeout, or a loop, is taken for stuck; infinity for never.
        replace: Lets another loop take the place of this one, which ends with what it holds; tells whether one does.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        stop_by: Callable[[], float | None],
        unsent: Callable[[], list[Outcome]],
        stuck_after: float,
        replace: Callable[[], bool],
    ) -> None:
        self._executor, self._stop_by, self._unsent = executor, stop_by, unsent
        self._stuck_after, self._replace, self._replaced = stuck_after, replace, False
        self._taken_over: Literal["", "replaced", "given up"] = ""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._jobs = LongJobs(stuck_after, self._stack)
        self._asked_at = self._answered_at = now()
        self._looks, self._told = 0, False
        self._unstarted: list[Outcome] = []
        self._giving_up = False
        self.settled: set[Claim] = set()
        """Jobs whose fate is known already, though the loop does not know."""
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the loop is blocked, and what it held is handed back, has been given up, or has ended.

        Whatever the thread that writes it is waiting for: the lease of what cannot be handed back must not be renewed.
        """
        stop_by = self._stop_by()
        return self._over or (self._told and stop_by is not None and now() >= stop_by + LAST)

    def look(self, late: float) -> list[Outcome]:
        """Look at the loop and at what runs, on it and beside it; log what is not as it should be.

        Args:
            late: Seconds by which this look comes too late.

        Returns:
            What is to be written in the place of a loop that is blocked: again and again, until it is.
        """
        moment, places = now(), self._executor.whereabouts()
        if late > STALLED:
            one, jobs = _named(place.claim for place in places)
            emit(PROCESS_STALLED, one, seconds=round(late, 1), jobs=jobs)
        self._jobs.follow(places, moment)
        self._giving_up = False
        if self._comes_round(moment):
            self.settled.clear()
            if self._stop_by() is None and (stuck := self._jobs.stuck(moment)):
                self._call(lambda: self._executor.relieve(stuck))
            return self._unstarted
        if not self._told:
            self._told = True
            (one, jobs), stack = _named(self._on_turn(places)), of_thread(self._thread)
            emit(LOOP_BLOCKED, one, seconds=round(moment - self._asked_at, 1), stack=stack, jobs=jobs)
        self._unstarted += [Outcome(claim, "release") for claim in self._executor.take_back()]
        stop_by = self._stop_by()
        self._giving_up = stop_by is not None and moment >= stop_by
        instead = self._all(places) if self._giving_up else self._instead(places, moment)
        instead = [outcome for outcome in instead if outcome.claim not in self.settled]
        claims = [outcome.claim for outcome in instead]
        self._executor.processes.kill(claims)  # others may start them
        self._executor.cut_off(claims)
        outcomes = self._unstarted + instead
        done = not outcomes and all(place.claim in self.settled for place in places)
        self._over = done and self._taken_over == "replaced"
        return outcomes

    def _instead(self, places: list[Whereabouts], moment: float) -> list[Outcome]:
        """Return the outcomes that the loop should have written by now; and the others', once it is given up."""
        if not self._replaced and self._is_lost(places, moment) and self._replace():
            self._replaced = True
            one, jobs = _named(self._on_turn(places))
            emit(LOOP_REPLACED, one, seconds=round(moment - self._asked_at, 1), jobs=jobs)
        overdue = [overrun(claim) for claim in self._jobs.overdue(moment)]
        return overdue + (self._others(places) if self._replaced else [])

    def wrote(self, outcomes: list[Outcome], accepted: set[str]) -> None:
        """Record that the outcomes which `look` returned are written, as far as they were accepted."""
        tell_ended([outcome for outcome in outcomes if outcome.claim.id in accepted])
        unstarted = {outcome.claim.id for outcome in self._unstarted}
        for outcome in outcomes:
            if outcome.claim.id in accepted - unstarted:
                self._executor.log(outcome)
        running = {place.claim for place in self._executor.whereabouts()}
        written = [o.claim for o in outcomes if o.claim.id in accepted or o.claim not in running]
        self.settled.update(written)
        self._call(lambda: self._executor.drop(written))  # so that they end if it comes back
        self._unstarted = []

    def keeps(self) -> list[Claim] | None:
        """Return what the worker still holds if the rest is to go back, that a blocked loop never heard that it has."""
        stage = "given up" if self._giving_up else "replaced" if self._replaced else ""
        if stage == self._taken_over or not self._told:
            return None
        unsent = [outcome.claim for outcome in self._unsent()]
        return [] if self._giving_up else [*self._executor.held(), *unsent]

    def took_over(self) -> None:
        """Record that `take_over` succeeded."""
        self._taken_over = "given up" if self._giving_up else "replaced"
        self._over |= self._giving_up

    # The loop.

    def _comes_round(self, moment: float) -> bool:
        """Ask the loop for a sign of life; tell whether the last one is not overdue.

        One look that finds none proves nothing, however late it is: this thread may be the first to wake after the
        whole process stood still.
        """
        if self._answered_at < self._asked_at:
            self._looks += 1
            return self._looks < 2 or moment - self._asked_at < BLOCKED
        if self._told:
            self._told = False
            emit(LOOP_UNBLOCKED, seconds=round(self._answered_at - self._asked_at, 1))
        if self._call(self._answer):
            self._asked_at, self._looks = moment, 0
        return True

    def _call(self, call: Callable[[], None]) -> bool:
        """Have the loop call; tell whether it will: it may have ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
            return True
        return False

    def _answer(self) -> None:
        self._answered_at = now()

    def _on_turn(self, places: list[Whereabouts]) -> list[Claim]:
        """Return the job whose turn it is on the loop; all that run there, if a task of none of them has it."""
        turn = asyncio.current_task(self._loop)
        on_loop = [place for place in places if place.task is not None]
        return [place.claim for place in on_loop if place.task is turn] or [place.claim for place in on_loop]

    # Jobs.

    def _stack(self, place: Whereabouts) -> str:
        if place.task is None:
            return of_thread(place.thread)
        return of_thread(self._thread) if asyncio.current_task(self._loop) is place.task else of_task(place.task)

    def _is_lost(self, places: list[Whereabouts], moment: float) -> bool:
        """Tell whether the loop has been blocked for so long that it may never come round."""
        overdue = (self._jobs.overdue_for(claim, moment) for claim in self._on_turn(places))
        return moment - self._asked_at >= self._stuck_after or any(seconds >= PATIENCE for seconds in overdue)

    def _others(self, places: list[Whereabouts]) -> list[Outcome]:
        """Return what becomes of the other jobs of a loop that is given up: they go back; what has ended counts.

        Where it cannot be told which of them it is, all are charged: it would take the next loop with it.
        """
        turn = asyncio.current_task(self._loop)
        on_loop = [place for place in places if place.task is not None]
        known = any(place.task is turn for place in on_loop)
        others = [place.claim for place in on_loop if place.task is not turn]
        back = {claim: unfinished(claim) if known else failed_on_loop(claim, BEHIND) for claim in others}
        return list((back | self._ended()).values())

    def _all(self, places: list[Whereabouts]) -> list[Outcome]:
        """Return an outcome for all that was started: what has ended as it ended, the rest handed back."""
        return list(({place.claim: unfinished(place.claim) for place in places} | self._ended()).values())

    def _ended(self) -> dict[Claim, Outcome]:
        return {outcome.claim: outcome for outcome in [*self._executor.unwritten(), *self._unsent()]}


def _named(claims: Iterable[Claim]) -> tuple[Claim | None, list[str] | None]:
    """Return the one job that an event is about; or a few words about each, if there are several."""
    named = list(claims)
    if len(named) == 1:
        return named[0], None
    return None, [f"{claim.type} {claim.id}" for claim in named[:NAMED]] or None
