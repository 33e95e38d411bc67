"""How a handler is called: its arguments, its context, and, for a transactional job, its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from dbjobq.attempt import completed, failed
from dbjobq.context import JobContext
from dbjobq.errors import StorageUnavailable
from dbjobq.queue import AsyncJobQueue, JobQueue
from dbjobq.registry import Task
from dbjobq.runtime.threads import Chunk
from dbjobq.serialize import load_arguments
from dbjobq.storage.base import BaseStorage, Claim, Outcome
from dbjobq.telemetry import job_fields, worker_log
from dbjobq.transactional import HandlerFailed, Refused, ain_transaction, in_transaction

__all__ = ["OVERRUN", "Handlers", "Place", "within"]

OVERRUN: Final = "the attempt took longer than its timeout of {} s"


class Place(Protocol):
    """Where a job runs: the slot or the chunk that whoever cancels it looks at."""

    context: JobContext | None


class Handlers:
    """Calls handlers, on the loop and in threads.

    Args:
        storage: For their contexts' queues, and for transactions.
        worker_id: For `Job.worker_id`.
    """

    def __init__(self, storage: BaseStorage, worker_id: str) -> None:
        self._storage, self._worker_id = storage, worker_id
        self._queue, self._aqueue = JobQueue(storage), AsyncJobQueue(storage)
        self._progress: dict[Claim, str] = {}

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

    async def ain_transaction(
        self,
        claim: Claim,
        task: Task,
        timeout: float | None,  # noqa: ASYNC109 - the job's own
        place: Place,
    ) -> Outcome | None:
        """Run a transactional `async def` job.

        Returns:
            Its outcome if it failed; None if what is to be written has been written.
        """

        async def call(connection: Any) -> Any:
            arguments = load_arguments(claim.data)
            if task.context is not None:
                arguments[task.context] = place.context = self.acontext(claim, connection)
            called = task.function(**arguments)
            return await (called if timeout is None else within(timeout, called))

        try:
            await ain_transaction(self._storage, claim, call)
        except (HandlerFailed, Refused, StorageUnavailable) as error:
            return self._uncommitted(claim, task, error)
        return None

    @staticmethod
    def _uncommitted(claim: Claim, task: Task, error: Exception) -> Outcome | None:
        if isinstance(error, HandlerFailed):
            return failed(claim, error.error, task.retry)
        if isinstance(error, Refused):
            worker_log.warning("job.refused", extra=job_fields(claim))
            return None
        worker_log.warning("transaction.failed", extra=job_fields(claim, error=str(error)))
        return Outcome(claim, "release")  # not the job's fault, so not at its charge

    def run(self, claim: Claim, task: Task, chunk: Chunk) -> Outcome | None:
        """Run a `def` job in its thread.

        Returns:
            Its outcome; None if that is written already, or is not this worker's to write.
        """
        try:
            if task.transactional:
                in_transaction(self._storage, claim, lambda connection: self._call(claim, task, chunk, connection))
                return None
            result = self._call(claim, task, chunk, None)
            return Outcome(claim, "complete") if result is None else completed(claim, result)
        except (HandlerFailed, Refused, StorageUnavailable) as error:
            if task.transactional:
                return self._uncommitted(claim, task, error)
            return failed(claim, error, task.retry)
        except BaseException as error:
            return failed(claim, error, task.retry)

    def _call(self, claim: Claim, task: Task, chunk: Chunk, connection: Any) -> Any:
        arguments = load_arguments(claim.data)
        if task.context is not None:
            arguments[task.context] = chunk.context = self._context(claim, self._queue, connection)
        return task.function(**arguments)


async def within(seconds: float, call: Coroutine[Any, Any, Any]) -> Any:
    """Await a handler's call for so long. Raises TimeoutError, which says so, after cancelling it."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(OVERRUN.format(seconds)) from error
        raise
