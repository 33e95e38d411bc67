"""`JobContext`: a running function gets one in the parameter that is annotated with it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic

from dbjobq.errors import NotSupported
from dbjobq.events.loggers import JobLogger, job_fields, job_log
from dbjobq.models import Job

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    QueueT = TypeVar("QueueT", default=Any)
    ConnectionT = TypeVar("ConnectionT", default=Any)
else:
    from typing import TypeVar

    QueueT = TypeVar("QueueT")
    ConnectionT = TypeVar("ConnectionT")

__all__ = ["JobContext"]


class JobContext(Generic[QueueT, ConnectionT]):
    """One attempt of one job, as its function sees it. Made by the worker; safe to use from the function's threads.

    Annotated `JobContext`, `ctx.queue` and `ctx.connection` have no types, since a `def` has other ones than an
    `async def`. `JobContext[JobQueue]` in a `def` and `JobContext[AsyncJobQueue]` in an `async def` have a typed
    `ctx.queue`; with a psycopg `Connection` or `AsyncConnection` as the second parameter, a typed `ctx.connection`.

    Args:
        job: The job, or a function that returns it: called when somebody asks for `job`, which most functions never do.
        queue: A `JobQueue` for a `def`, an `AsyncJobQueue` for an `async def`; None where the jobs cannot be reached.
        connection: The transaction's connection, for a transactional job.
        on_progress: Told what `progress` says, as JSON text.
    """

    __slots__ = ("_connection", "_job", "_logger", "_on_progress", "_queue", "cancelled")

    if not TYPE_CHECKING:  # so that one parameter is enough, as it is for type checkers
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(
        self,
        job: Job | Callable[[], Job],
        queue: QueueT | None,
        connection: ConnectionT | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._job = job
        self.cancelled = False
        """True once the job was cancelled, timed out or given to another worker: whatever it returns is refused."""
        self._queue = queue
        self._connection = connection
        self._on_progress = on_progress
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def job(self) -> Job:
        """The job as it was claimed: its id, type, arguments, attempts so far, times."""
        if isinstance(self._job, Job):
            return self._job
        self._job = job = self._job()
        return job

    @property
    def queue(self) -> QueueT:
        """Enqueue more with it, awaited in an `async def`.

        Raises:
            NotSupported: The job runs in a process of its own, which cannot reach a database in its worker's memory.
        """
        if self._queue is None:
            raise NotSupported(
                f"ctx.queue: {self.job.type} runs in a process of its own (executor='process'), and the jobs are in "
                "its worker's memory: use a storage that other processes can reach, such as a file"
            )
        return self._queue

    @property
    def connection(self) -> ConnectionT:
        """The psycopg connection whose transaction commits together with the job's completion.

        Raises:
            NotSupported: The job type is not `@job(transactional=True)`.
        """
        if self._connection is None:
            raise NotSupported(f"ctx.connection: {self.job.type} is not registered with @job(transactional=True)")
        return self._connection

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger, a child of `dbjobq.job`, whose lines carry the job's id, type, queue and attempt."""
        if self._logger is None:
            self._logger = JobLogger(job_log.getChild(self.job.type), job_fields(self.job))
        return self._logger

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the job is: seen in the view `jobs` and by `dbjobq jobs show` while it runs.

        Cheap enough for a loop: between two exchanges with the database only the last call is written.

        Args:
            done: How much is done, in units of your own.
            total: How much there is; None if unknown.
            message: A few words for people.
        """
        if self._on_progress is not None:
            said = {"done": _finite(done), "total": _finite(total), "message": message and message[:1000]}
            self._on_progress(json.dumps(said))


def _finite(number: float | None) -> float | None:
    """Return the number, or None for NaN and infinity: JSON has neither, and a progress bar need not fail for that."""
    return number if not isinstance(number, float) or math.isfinite(number) else None
