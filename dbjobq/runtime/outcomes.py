"""The outcomes of jobs, kept until the next exchange with the database writes it, and logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_COMPLETED, JOB_FAILED, JOB_REFUSED, JOB_RELEASED, JOB_RETRY, JOB_UNKNOWN
from dbjobq.hooks import tell_ended
from dbjobq.runtime.bell import Alarm
from dbjobq.storage.values import Answer, Claim, Outcome

__all__ = ["Outcomes"]

MANY_TYPES: Final = 1000
"""The most job types that are remembered as unknown, so that each is advised on once."""


class Outcomes:
    """The outcomes of a worker's jobs since the last exchange.

    Args:
        alarm: Rung when there is something to write.
    """

    def __init__(self, alarm: Alarm) -> None:
        self.alarm = alarm
        self.fresh: list[Outcome] = []
        """Outcomes that nobody has taken. The hot loop adds to them itself: a call for each job would cost too much."""
        self._unknown: set[str] = set()

    def take(self) -> list[Outcome]:
        """Return the outcomes since the last call; they are the caller's to write."""
        taken, self.fresh = self.fresh, []
        return taken

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, and log it."""
        self.fresh.append(outcome)
        self.alarm.ring()
        self.log(outcome)

    def release(self, claim: Claim) -> None:
        """Hand back a job that was not started."""
        self.fresh.append(Outcome(claim, "release"))
        self.alarm.ring()

    def answered(self, outcomes: Sequence[Outcome], answer: Answer) -> None:
        """Tell hooks and the log what the database has made of outcomes that were sent to it."""
        tell_ended(outcomes, answer.refused, answer.gave_up)
        for outcome in answer.refused:
            emit(JOB_REFUSED, outcome.claim, quietly=outcome.claim.id in answer.cancelled)
        for outcome in answer.gave_up:
            self.log(outcome._replace(event="fail"))

    def log(self, outcome: Outcome) -> None:
        """Log how an attempt ended; of an unknown type the first job alone at WARNING, with advice."""
        claim = outcome.claim
        if outcome.event == "complete":
            emit(JOB_COMPLETED, claim)
            return
        if outcome.event == "release":
            emit(JOB_RELEASED, claim)
            return
        error = (outcome.error or "").partition("\n")[0]
        if outcome.event == "unknown":
            emit(JOB_UNKNOWN, claim, quietly=claim.type in self._unknown, error=error)
            if len(self._unknown) >= MANY_TYPES:  # rows may name what they like
                self._unknown.clear()
            self._unknown.add(claim.type)
        elif outcome.event == "fail":
            emit(JOB_FAILED, claim, exception=outcome.exception, error=error)
        else:
            emit(JOB_RETRY, claim, error=error, delay=round(outcome.delay, 3))
