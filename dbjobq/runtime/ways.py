"""The ways to run a job other than to await it in its slot: in a transaction, in a process of its own, on a thread."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from dbjobq.attempt.call import Caller
from dbjobq.attempt.run import arun, run, within
from dbjobq.attempt.settled import awaited
from dbjobq.jobs.registry import JobType
from dbjobq.runtime.processes.pool import Processes
from dbjobq.runtime.progress import Progress
from dbjobq.runtime.slot import Slot
from dbjobq.runtime.threads import Chunk
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Ways"]


class Ways:
    """Runs jobs that need more than to be awaited.

    Args:
        storage: For transactions.
        calls: Calls the jobs' functions.
        processes: For jobs that run in processes of their own.
        progress: Takes what those say.
    """

    def __init__(self, storage: BaseStorage, calls: Caller, processes: Processes, progress: Progress) -> None:
        self._storage, self._calls, self._processes, self._progress = storage, calls, processes, progress

    def in_thread(self, claim: Claim, task: JobType, chunk: Chunk) -> Outcome | None:
        """Run a `def` job; called in its thread. None if how it ended is written already."""
        return run(self._storage, claim, task, self._calls.of(task), chunk)

    async def apart(
        self,
        claim: Claim,
        task: JobType,
        timeout: float | None,  # noqa: ASYNC109 - the job's own
        slot: Slot,
    ) -> Outcome | None:
        """Run a job in a process of its own, or an `async def` in its transaction; None if that has written its end."""
        if task.executor == "process":
            return await self._processes.run(claim, task, timeout, slot, partial(self._progress.say, claim))
        called = self._calls.of(task)

        async def call(claim: Claim, connection: Any, slot: Slot) -> Any:
            slot.connection = connection
            return await within(timeout, awaited(called(claim, connection, slot), task))

        try:
            return await arun(self._storage, claim, task, call, slot)
        finally:
            slot.connection = None

    def kill(self, claims: Collection[Claim]) -> None:
        """End the processes of these jobs, as far as they have any. From any thread."""
        self._processes.kill(claims)

    async def close(self) -> None:
        """End all processes."""
        await self._processes.close()
