"""Jobs that end from outside: cancelled, taken by others, fenced, handed back. And jobs that lose their slots."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from dbjobq.attempt.outcome import unfinished
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_CANCELLED, JOB_FENCED, JOB_STUCK, JOB_TAKEN, THREAD_ABANDONED
from dbjobq.runtime.slot import Slot, Slots, Verdict
from dbjobq.runtime.threads import Threads
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Endings"]


class Endings:
    """Ends what runs in slots and threads, or lets others have its place.

    Args:
        slots: The worker's, as many as `limit`.
        limit: How many jobs run at once, and how many more may go on without their slots.
        waiting: The claims that are not started; takes those that come back from abandoned threads.
        threads: The threads of `def` jobs.
        cut: Ends the connection of a transaction. From any thread.
        log: Logs how a job ended.
        add_slot: Puts a slot in the place of one that is relieved.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        slots: Slots,
        *,
        limit: int,
        waiting: deque[Claim],
        threads: Threads,
        cut: Callable[[object], None],
        log: Callable[[Outcome], None],
        add_slot: Callable[[], None],
    ) -> None:
        self._slots, self._limit, self._waiting, self._threads = slots, limit, waiting, threads
        self._cut, self._log, self._add_slot = cut, log, add_slot

    def relieve(self, claims: Collection[Claim]) -> None:
        """Give the slots of these long jobs to others: the jobs go on, and their results count.

        At most as many slots are replaced as there are.
        """
        left = self._limit - sum(slot.relieved for slot in self._slots)
        for slot, claim in self._slots.not_ended(claims):
            if left > 0 and not slot.relieved:
                left -= 1
                slot.relieved = True
                if slot.chunk is not None:
                    self._threads.relieve(slot.chunk)
                emit(JOB_STUCK, claim, slots_left=left)
                self._add_slot()

    def lost(self, claims: Mapping[Claim, bool]) -> None:
        """Jobs are no longer held: tell their functions, and drop what those return.

        Args:
            claims: The jobs; True for a cancelled one, False for one that another worker has.
        """
        for slot, claim in self._slots.not_ended(claims):
            cancelled = claims[claim]
            emit(JOB_CANCELLED if cancelled else JOB_TAKEN, claim)
            self.abandon(slot, claim, "cancelled" if cancelled else "taken")

    def drop(self, claims: Collection[Claim]) -> None:
        """Drop jobs whose outcomes were written in the event loop's place: tell their functions, and ignore results."""
        for slot, claim in self._slots.not_ended(set(claims)):
            self.abandon(slot, claim, "released")

    def cut_off(self, claims: Collection[Claim]) -> None:
        """End the transactions of these jobs for a blocked event loop: others would wait for them. From any thread."""
        for slot in tuple(self._slots):
            if (connection := slot.connection) is not None and slot.claim in claims:
                self._cut(connection)

    def fence(self) -> bool:
        """End running jobs, as far as possible, since the lease is over and others may start them; tell if any ran.

        A job on a thread goes on; its result counts if nobody has taken the job by the time it can be written.
        """
        fenced = False
        for slot in tuple(self._slots):
            if slot.claim is not None and not slot.verdict:
                emit(JOB_FENCED, slot.claim)
                self.abandon(slot, slot.claim, "fenced")
                fenced = True
        return fenced

    def hand_back(self) -> list[Outcome]:
        """End running jobs, as far as possible, and return the outcomes that hand them back."""
        ended: list[Outcome] = []
        for slot, claim in self._slots.not_ended():
            ended.append(unfinished(claim))
            self._log(ended[-1])
            self.abandon(slot, claim, "released")
        return ended

    def abandon(self, slot: Slot, claim: Claim, verdict: Verdict) -> None:
        """End the job of a slot as far as it can be ended; what its function returns is dropped."""
        if slot.verdict:
            return
        slot.verdict = verdict
        context = slot.context if slot.chunk is None else slot.chunk.context
        if context is not None:
            context.cancelled = True
        if slot.chunk is not None:
            self._waiting.extendleft(reversed(slot.chunk.take_back()))
            self._threads.abandon(slot.chunk)
            if not slot.chunk.done.done():
                slot.chunk.done.set_result(None)
            emit(THREAD_ABANDONED, claim, quietly=verdict == "cancelled")
        elif slot.task is not None:
            slot.task.cancel()
