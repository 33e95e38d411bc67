"""Which jobs run for long: seen from outside, look by look, since a job that is stuck does not tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dbjobq.attempt.outcome import failed
from dbjobq.attempt.run import OVERRUN
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_LONG
from dbjobq.jobs.registry import registered
from dbjobq.runtime.slot import Whereabouts
from dbjobq.storage.values import Claim, Outcome

__all__ = ["LongJobs", "failed_on_loop", "overrun"]

LONG: Final = 300.0
"""Seconds after which a job without a timeout is reported; then after twice as many, and so on."""
OVERTIME: Final = 1.0
"""Seconds beyond its timeout in which the loop may still end a job itself."""

_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Seen:
    """A job that runs, and since when it was seen to: it may have begun at any time since the look before."""

    since: float
    report_at: float
    stuck_at: float
    overdue_at: float


class LongJobs:
    """Follows the jobs that run. They are few: none is noticed that has come and gone between two looks.

    Args:
        stuck_after: Seconds after which a job without a timeout is taken for stuck; infinity for never.
        stack: Tells where a job stands.
    """

    def __init__(self, stuck_after: float, stack: Callable[[Whereabouts], str]) -> None:
        self._stuck_after, self._stack = stuck_after, stack
        self._seen: dict[Claim, _Seen] = {}

    def follow(self, places: list[Whereabouts], moment: float) -> None:
        """Follow the jobs that run at this moment, and report those that run for long without a timeout to end them."""
        before, self._seen = self._seen, {}
        for place in places:
            seen = self._seen[place.claim] = before.get(place.claim) or self._first_seen(place.claim, moment)
            if moment >= seen.report_at:
                seen.report_at += seen.report_at - seen.since
                emit(JOB_LONG, place.claim, seconds=round(moment - seen.since, 1), stack=self._stack(place))

    def stuck(self, moment: float) -> list[Claim]:
        """Return the jobs that run for so long that they may never end."""
        return [claim for claim, seen in self._seen.items() if moment >= seen.stuck_at]

    def overdue(self, moment: float) -> list[Claim]:
        """Return the jobs that should have been ended by now, at their timeouts."""
        return [claim for claim, seen in self._seen.items() if moment >= seen.overdue_at]

    def overdue_for(self, claim: Claim, moment: float) -> float:
        """Return the seconds since a job should have been ended; below zero if it need not have been."""
        return moment - self._seen[claim].overdue_at

    def _first_seen(self, claim: Claim, moment: float) -> _Seen:
        timeout = _timeout(claim)
        if timeout is None:
            return _Seen(moment, moment + LONG, moment + self._stuck_after, _NEVER)
        return _Seen(moment, _NEVER, _NEVER, moment + timeout + OVERTIME)


def _timeout(claim: Claim) -> float | None:
    task = registered().get(claim.type)
    return claim.timeout or (None if task is None else task.timeout)


def overrun(claim: Claim) -> Outcome:
    """Return the failure of a job that has outlived its timeout on a loop that could not end it."""
    return failed_on_loop(claim, f"{OVERRUN.format(_timeout(claim))}, and could not be ended")


def failed_on_loop(claim: Claim, said: str) -> Outcome:
    """Return the failure of a job on a loop that is blocked, as its own retry policy has it."""
    task, error = registered().get(claim.type), TimeoutError(f"{said}: something blocks the event loop")
    return failed(claim, error) if task is None else failed(claim, error, task.retry)
