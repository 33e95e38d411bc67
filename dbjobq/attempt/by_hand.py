"""One attempt of a job that `dequeue` returned, here and now, for `execute_job`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from dbjobq.attempt.call import Caller
from dbjobq.attempt.outcome import UNKNOWN_WITHIN, unknown
from dbjobq.attempt.run import arun, run, within
from dbjobq.attempt.settled import awaited
from dbjobq.errors import UnknownJobType
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.registry import JobType, find
from dbjobq.models import Job
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["AttemptByHand"]

_Await: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
"""Waits for a coroutine in a thread, and returns its result."""


class AttemptByHand:
    """One attempt in this thread, or on this event loop.

    Args:
        storage: For a transaction.
        claim: Under which the job is held.
        job: The job; its data are the arguments.
        queue: `ctx.queue` of a `def`.
        aqueue: `ctx.queue` of an `async def`.
    """

    context: JobContext | None = None
    """See `Holder`: nobody tells of a cancellation here."""

    def __init__(self, storage: BaseStorage, claim: Claim, job: Job, *, queue: Any, aqueue: Any) -> None:
        self._storage, self._claim, self._job = storage, claim, job
        self._queue, self._aqueue = queue, aqueue

    def run(self) -> Outcome | None:
        """Run the attempt in this thread, on an event loop of its own if there is something to await; see `arun`."""
        return self._run(self._alone)

    async def arun(self) -> Outcome | None:
        """Run the attempt on this event loop or, if the function is a `def`, on a thread.

        Returns:
            The attempt's outcome; None if a transaction has committed it.
        """
        found = self._find()
        if isinstance(found, Outcome):
            return found
        if found.is_async:
            return await self._arun(found)
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(self._run, lambda rest: asyncio.run_coroutine_threadsafe(rest, loop).result())

    def _run(self, wait: _Await) -> Outcome | None:
        found = self._find()
        if isinstance(found, Outcome):
            return found
        if found.is_async:
            outcome: Outcome | None = wait(self._arun(found))
            return outcome
        timeout = self._claim.timeout or found.timeout
        call = self._caller(lambda rest: wait(within(timeout, rest))).of(found)
        return run(self._storage, self._claim, found, call, self, by_hand=True)

    async def _arun(self, task: JobType) -> Outcome | None:
        call, timeout = self._caller(self._alone).of(task), self._claim.timeout or task.timeout

        async def bounded(claim: Claim, connection: Any, holder: Any) -> Any:
            return await within(timeout, awaited(call(claim, connection, holder), task))

        return await arun(self._storage, self._claim, task, bounded, self, by_hand=True)

    def _find(self) -> JobType | Outcome:
        """Return the job's type; its outcome, if no type of this process has its name."""
        try:
            return find(self._claim.type)
        except UnknownJobType as error:
            return unknown(self._claim, error, UNKNOWN_WITHIN)

    def _alone(self, rest: Coroutine[Any, Any, Any]) -> Any:
        async def alone() -> Any:
            try:
                return await rest
            finally:
                await self._storage.aclose()

        return asyncio.run(alone())

    def _caller(self, wait: _Await) -> Caller:
        return Caller(self._contexts, lambda rest, _holder: wait(rest), load=lambda _text: dict(self._job.data))

    def _contexts(self, task: JobType) -> Callable[[Claim, Any], JobContext]:
        queue = self._aqueue if task.awaits_queue else self._queue
        return lambda _claim, connection: JobContext(self._job, queue, connection)
