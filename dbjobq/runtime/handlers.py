"""How a worker calls handlers: with their arguments and contexts; what is to be done with those that did not run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from dbjobq.attempt.outcome import failed
from dbjobq.attempt.run import arun, awaited, is_final, run, settled, within
from dbjobq.codec.json import load_arguments
from dbjobq.errors import LeaseLost, StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_REFUSED, TRANSACTION_FAILED
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.registry import Task
from dbjobq.queue.queues import AsyncJobQueue, JobQueue
from dbjobq.runtime.processes.pool import Processes
from dbjobq.runtime.slot import Slot
from dbjobq.runtime.threads import Chunk
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Handlers"]


class Handlers:
    """Calls handlers, on the loop, in threads and in processes.

    Args:
        storage: For their contexts' queues, and for transactions.
        worker_id: For `Job.worker_id`.
        imports: The modules that the worker was told of.
        unknown_within: For functions that a process does not find.
    """

    def __init__(self, storage: BaseStorage, worker_id: str, imports: Sequence[str], unknown_within: float) -> None:
        self._storage, self._worker_id = storage, worker_id
        self._loop = asyncio.get_running_loop()
        self._queue, self._aqueue = JobQueue(storage), AsyncJobQueue(storage)
        self._processes = Processes(storage, worker_id, imports, unknown_within)
        self._progress: dict[Claim, str] = {}

    async def close(self) -> None:
        """End the processes."""
        await self._processes.close()

    def kill(self, claims: Collection[Claim]) -> None:
        """End these jobs' processes, as far as they have any; from any thread."""
        self._processes.kill(claims)

    def acontext(self, claim: Claim, connection: Any = None) -> JobContext:
        """Return the context of an `async def` job."""
        return self._context(claim, self._aqueue, connection)

    def _context(self, claim: Claim, queue: JobQueue | AsyncJobQueue, connection: Any) -> JobContext:
        def on_progress(said: str) -> None:
            self._progress[claim] = said

        return JobContext(claim.job(self._worker_id), queue, connection, on_progress)

    def take_progress(self) -> dict[Claim, str]:
        """Return what running jobs said of themselves since the last call."""
        taken: dict[Claim, str] = {}
        with suppress(KeyError):  # one by one: threads add to it meanwhile
            while True:
                claim, said = self._progress.popitem()
                taken.setdefault(claim, said)
        return taken

    async def apart(
        self,
        claim: Claim,
        task: Task,
        timeout: float | None,  # noqa: ASYNC109 - the job's own
        slot: Slot,
    ) -> Outcome | None:
        """Run a job in a process of its own, or an `async def` in its transaction.

        Returns:
            Its outcome; None if what is to be written has been written.
        """
        if task.executor == "process":
            on_progress = partial(self._progress.__setitem__, claim)
            return await self._processes.run(claim, task, timeout, slot, on_progress)

        async def call(connection: Any) -> Any:
            slot.connection = connection
            arguments = load_arguments(claim.data)
            if task.context is not None:
                arguments[task.context] = slot.context = self.acontext(claim, connection)
            return await within(timeout, awaited(task.function(**arguments), task))

        try:
            return await arun(self._storage, claim, task, call)
        except (LeaseLost, StorageUnavailable) as error:
            return self._uncommitted(claim, task, error)
        finally:
            slot.connection = None

    def run(self, claim: Claim, task: Task, chunk: Chunk) -> Outcome | None:
        """Run a `def` job in its thread.

        Returns:
            Its outcome; None if that is written already, or is not this worker's to write.
        """
        try:
            return run(self._storage, claim, task, lambda connection: self._call(claim, task, chunk, connection))
        except BaseException as error:
            return self._uncommitted(claim, task, error)

    @staticmethod
    def _uncommitted(claim: Claim, task: Task, error: BaseException) -> Outcome | None:
        if isinstance(error, LeaseLost):
            emit(JOB_REFUSED, claim)
            return None
        if isinstance(error, StorageUnavailable):
            emit(TRANSACTION_FAILED, claim, error=str(error))
            return Outcome(claim, "release")  # not the job's fault, so not at its charge
        return failed(claim, error, task.retry)

    def _call(self, claim: Claim, task: Task, chunk: Chunk, connection: Any) -> Any:
        arguments = load_arguments(claim.data)
        if task.context is not None:
            queue = self._aqueue if task.wraps_async else self._queue
            arguments[task.context] = chunk.context = self._context(claim, queue, connection)
        result = task.function(**arguments)
        return result if is_final(result) else self._settled(result, task, chunk)

    def _settled(self, result: Any, task: Task, chunk: Chunk) -> Any:
        """Have the loop await what a `def` has returned; in its thread."""
        chunk.awaits(future := asyncio.run_coroutine_threadsafe(settled(result, task), self._loop))
        try:
            return future.result()
        finally:
            chunk.awaits(None)
