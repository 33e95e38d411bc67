"""Watches, from the heartbeat's thread, over what the event loop cannot watch itself: that it comes round.

A job that blocks the loop stops all that happens on it: no timeout ends, nothing that waits behind that job goes back,
`stop()` is not heard. So this says which job it is and where it stands, and what is to be written in the loop's place,
until it is back. Each such outcome is fenced by its claim, as the loop's own are: the second to come is refused.

Jobs that run for very long, with no timeout to end them, are reported, too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from dbjobq.attempt import failed, unfinished
from dbjobq.handler import OVERRUN
from dbjobq.registry import registered
from dbjobq.runtime.executor import Executor, Whereabouts
from dbjobq.runtime.lease import now
from dbjobq.runtime.stacks import of_task, of_thread
from dbjobq.storage.values import Claim, Outcome
from dbjobq.telemetry import job_fields, worker_log

__all__ = ["Watch"]

BLOCKED: Final = 1.0
"""Seconds without coming round after which the loop is called blocked: a heartbeat of its own would be late by then."""
STALLED: Final = 1.0
"""Seconds by which this thread's own sleep is too long when the whole process stood still."""
OVERTIME: Final = 1.0
"""Seconds beyond its timeout in which the loop may still end a job itself."""
LAST: Final = 5.0
"""Seconds for handing back what is held; then it is left to the lease, which is not renewed any more."""
LONG: Final = 300.0
"""Seconds after which a job without a timeout is reported; then after twice as many, and so on."""
NAMED: Final = 10
"""The most jobs that are named in one line."""


@dataclass(slots=True)
class _Seen:
    """A job that runs, and since when it was seen to: it may have begun at any time since the look before."""

    since: float
    report_at: float
    overdue_at: float


class Watch:
    """Made on the loop; then `look` and `wrote` are the heartbeat thread's alone.

    Args:
        executor: What it looks at.
        stop_by: When what runs is to be handed back; None if the worker is not stopping.
        unsent: The outcomes that the poller has taken, and perhaps not written.
    """

    def __init__(
        self, executor: Executor, *, stop_by: Callable[[], float | None], unsent: Callable[[], list[Outcome]]
    ) -> None:
        self._executor, self._stop_by, self._unsent = executor, stop_by, unsent
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._seen: dict[Claim, _Seen] = {}
        self._asked_at = self._answered_at = now()
        self._looks, self._told = 0, False
        self._unstarted: list[Outcome] = []
        self._giving_up = False
        self.over = False
        """The worker was to stop and could not; what it held is handed back, or has been given up."""

    def look(self, late: float) -> list[Outcome]:
        """Look at the loop and at what runs, on it and beside it; log what is not as it should be.

        Args:
            late: Seconds by which this look comes too late.

        Returns:
            What is to be written in the place of a loop that is blocked: again and again, until it is.
        """
        moment, places = now(), self._executor.whereabouts()
        if late > STALLED:
            worker_log.warning("worker.stalled", extra={"seconds": round(late, 1)} | _named(p.claim for p in places))
        self._follow(places, moment)
        self._giving_up = False
        if self._comes_round(moment):
            return self._unstarted
        if not self._told:
            self._told = True
            said = {"seconds": round(moment - self._asked_at, 1), "stack": of_thread(self._thread)}
            worker_log.warning("loop.blocked", extra=said | _named(self._on_turn(places)))
        self._unstarted += [Outcome(claim, "release") for claim in self._executor.take_back()]
        stop_by = self._stop_by()
        self._giving_up = stop_by is not None and moment >= stop_by
        self.over = stop_by is not None and moment >= stop_by + LAST
        return self._unstarted + (self._all(places) if self._giving_up else self._overdue(places, moment))

    def wrote(self, outcomes: list[Outcome], accepted: set[str]) -> None:
        """What `look` returned is written, as far as it was accepted: the other jobs were held no more."""
        unstarted = {outcome.claim.id for outcome in self._unstarted}
        for outcome in outcomes:
            if outcome.claim.id in accepted - unstarted:
                self._executor.log(outcome)
        self._unstarted = []
        self.over = self._giving_up

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
            worker_log.info("loop.unblocked", extra={"seconds": round(self._answered_at - self._asked_at, 1)})
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # it has ended
            return True
        self._asked_at, self._looks = moment, 0
        return True

    def _answer(self) -> None:
        self._answered_at = now()

    def _on_turn(self, places: list[Whereabouts]) -> list[Claim]:
        """Return the job whose turn it is on the loop; all that run there, if a task of none of them has it."""
        turn = asyncio.current_task(self._loop)
        on_loop = [place for place in places if place.task is not None]
        return [place.claim for place in on_loop if place.task is turn] or [place.claim for place in on_loop]

    # Jobs.

    def _follow(self, places: list[Whereabouts], moment: float) -> None:
        before, self._seen = self._seen, {}
        for place in places:
            seen = self._seen[place.claim] = before.get(place.claim) or _first_seen(place.claim, moment)
            if moment >= seen.report_at:
                seen.report_at += seen.report_at - seen.since
                said = {"seconds": round(moment - seen.since, 1), "stack": self._stack(place)}
                worker_log.warning("job.long", extra=job_fields(place.claim, **said))

    def _stack(self, place: Whereabouts) -> str:
        if place.task is None:
            return of_thread(place.thread)
        return of_thread(self._thread) if asyncio.current_task(self._loop) is place.task else of_task(place.task)

    def _overdue(self, places: list[Whereabouts], moment: float) -> list[Outcome]:
        """Return the failures of jobs that the loop should have ended by now."""
        return [_overrun(place.claim) for place in places if moment >= self._seen[place.claim].overdue_at]

    def _all(self, places: list[Whereabouts]) -> list[Outcome]:
        """Return an outcome for all that was started: what has ended as it ended, the rest handed back."""
        ended = [*self._executor.unwritten(), *self._unsent()]
        return list(({p.claim: unfinished(p.claim) for p in places} | {o.claim: o for o in ended}).values())


def _first_seen(claim: Claim, moment: float) -> _Seen:
    timeout = _timeout(claim)
    if timeout is None:
        return _Seen(moment, moment + LONG, float("inf"))
    return _Seen(moment, float("inf"), moment + timeout + OVERTIME)


def _timeout(claim: Claim) -> float | None:
    task = registered().get(claim.type)
    return claim.timeout or (None if task is None else task.timeout)


def _overrun(claim: Claim) -> Outcome:
    task, said = registered().get(claim.type), OVERRUN.format(_timeout(claim))
    error = TimeoutError(f"{said}, and could not be ended: something blocks the event loop")
    return failed(claim, error) if task is None else failed(claim, error, task.retry)


def _named(claims: Iterable[Claim]) -> dict[str, Any]:
    """Return the fields of a log line about one job, or about several."""
    named = list(claims)
    if len(named) == 1:
        return job_fields(named[0])
    return {"jobs": [f"{claim.type} {claim.id}" for claim in named[:NAMED]]} if named else {}
