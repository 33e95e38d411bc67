"""How a handler is called: its arguments, its context, and, for a transactional job, its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from dbjobq.attempt import completed, failed
from dbjobq.context import JobContext
from dbjobq.queue import AsyncJobQueue, JobQueue
from dbjobq.registry import Task
from dbjobq.runtime.threads import Chunk
from dbjobq.serialize import load_arguments
from dbjobq.storage.base import BaseStorage, Claim, Outcome
from dbjobq.telemetry import job_fields, worker_log

__all__ = ["OVERRUN", "Handlers", "Place", "Refused", "within"]

OVERRUN: Final = "the attempt took longer than its timeout of {} s"


class Refused(Exception):  # noqa: N818 - an answer
    """A transactional job was cancelled, or given to another, before it could commit; all is rolled back."""


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
        """Run a transactional `async def` job: its writes and its completion commit together, or not at all.

        Returns:
            None: what is to be written has been written.

        Raises:
            Refused: The job was cancelled, or given to another; everything is rolled back.
        """
        async with self._storage.atransaction() as connection:
            arguments = load_arguments(claim.data)
            if task.context is not None:
                arguments[task.context] = place.context = self.acontext(claim, connection)
            call = task.function(**arguments)
            outcome = completed(claim, await (call if timeout is None else within(timeout, call)))
            if not await self._storage.finish([outcome], connection).arun():
                raise Refused
        return None

    def run(self, claim: Claim, task: Task, chunk: Chunk) -> Outcome | None:
        """Run a `def` job in its thread.

        Returns:
            Its outcome; None if that is written already, or is not this worker's to write.
        """
        try:
            if task.transactional:
                self._in_transaction(claim, task, chunk)
                return None
            result = self._call(claim, task, chunk, None)
            return Outcome(claim, "complete") if result is None else completed(claim, result)
        except Refused:
            worker_log.warning("job.refused", extra=job_fields(claim))
            return None
        except BaseException as error:
            return failed(claim, error, task.retry)

    def _in_transaction(self, claim: Claim, task: Task, chunk: Chunk) -> None:
        with self._storage.transaction() as connection:
            outcome = completed(claim, self._call(claim, task, chunk, connection))
            if chunk.abandoned or not self._storage.finish([outcome], connection).run():
                raise Refused

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
