"""Hands `def` jobs over to threads: short ones by the chunk, so that not each of them costs a hand-over."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dbjobq.attempt.outcome import failed
from dbjobq.attempt.run import OVERRUN
from dbjobq.events.bus import emit
from dbjobq.events.names import THREAD_UNAVAILABLE
from dbjobq.jobs.registry import JobType, registered
from dbjobq.runtime.buffer import Buffer
from dbjobq.runtime.outcomes import Outcomes
from dbjobq.runtime.pace import SLICE, Means
from dbjobq.runtime.slot import Slot, Verdict, absorb
from dbjobq.runtime.threads import Chunk, Threads
from dbjobq.storage.values import Claim

__all__ = ["ThreadJobs"]

CHUNK: Final = 64
"""The most jobs in a chunk for a thread."""
SHORT: Final = 0.0005
"""Seconds below which `def` jobs go to threads by the chunk."""
THREADLESS: Final = 1.0
"""Seconds before a slot goes on for which the system had no thread."""


class ThreadJobs:
    """Runs the `def` jobs of slots on threads.

    Args:
        threads: The worker's.
        buffer: Has the jobs that may share a thread's turn with another.
        outcomes: Takes how they ended.
        abandon: Gives up a job that has not ended in time.
        closing: Whether the worker ends its slots.
    """

    def __init__(
        self,
        threads: Threads,
        buffer: Buffer,
        outcomes: Outcomes,
        abandon: Callable[[Slot, Claim, Verdict], None],
        closing: Callable[[], bool],
    ) -> None:
        self._threads, self._buffer, self._outcomes = threads, buffer, outcomes
        self._abandon, self._closing = abandon, closing
        self._in_thread = Means()

    def stop(self) -> None:
        """Let the idle threads end."""
        self._threads.stop()

    async def run(self, slot: Slot, claim: Claim, task: JobType) -> None:
        """Run a job of a slot, and short ones that follow it, on a thread; return when they have ended."""
        timeout = claim.timeout or task.timeout
        chunk = slot.chunk = Chunk(self._with_others(claim, task, timeout), asyncio.get_running_loop().create_future())
        size, since = len(chunk.claims), time.perf_counter()
        if (error := self._threads.submit(chunk)) is not None:
            await self._do_without(slot, chunk, error)
            return
        try:
            while not chunk.done.done():
                try:
                    await asyncio.wait_for(asyncio.shield(chunk.done), timeout)
                except asyncio.CancelledError:  # a function has cancelled whatever task it found
                    if self._closing() or slot.task is None:
                        raise
                    await absorb(slot.task)
        except TimeoutError:
            if chunk.take_back():  # no thread has come to it
                self._outcomes.release(claim)
            elif not chunk.abandoned and not chunk.outcomes:
                self._abandon(slot, claim, "released")
                self._outcomes.add(failed(claim, TimeoutError(OVERRUN.format(timeout)), task.retry))
        finally:
            slot.chunk, slot.verdict = None, ""
        self._outcomes.fresh += chunk.outcomes
        for outcome in chunk.outcomes:
            if outcome.event != "complete":
                self._outcomes.log(outcome)
        ran, seconds = max(1, size - len(chunk.waiting)), time.perf_counter() - since
        self._buffer.pace.took(task.name, ran, seconds)
        self._in_thread.took(task.name, ran, chunk.seconds or seconds)
        self._outcomes.alarm.ring()

    async def _do_without(self, slot: Slot, chunk: Chunk, error: RuntimeError) -> None:
        """Hand back a chunk for which the system has no thread, since jobs have left so many behind; wait a moment."""
        slot.chunk = None
        for claim in chunk.take_back():
            emit(THREAD_UNAVAILABLE, claim, error=str(error))
            self._outcomes.release(claim)
        await asyncio.sleep(THREADLESS)

    def _with_others(self, claim: Claim, task: JobType, timeout: float | None) -> deque[tuple[Claim, JobType]]:
        """Return a `def` job's claim with those that follow in the buffer, as far as they can share a thread's turn."""
        buffer, tasks, waiting = self._buffer.claims, registered(), deque([(claim, task)])
        each = self._in_thread.of(task.name)  # a slot's time has the wait for a thread and its turn in it
        if timeout is not None or each >= SHORT or claim.fragile:
            return waiting
        size = min(CHUNK, int(SLICE / max(each, 1e-6)))
        with suppress(IndexError):
            while len(waiting) < size and not (following := buffer[0]).fragile:
                other = tasks.get(following.type)
                if other is None or not other.on_thread or other.timeout is not None or following.timeout is not None:
                    break
                waiting.append((buffer.popleft(), other))
        return waiting
