"""The loggers, and which job a line is about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

__all__ = ["JobLogger", "Named", "job_fields", "job_log", "name_job", "running_here", "schema_log", "worker_log"]

worker_log: Final = logging.getLogger("dbjobq.worker")
"""The logger of workers: their own steps at INFO and above, each job at DEBUG."""

job_log: Final = logging.getLogger("dbjobq.job")
"""The parent of `JobContext.logger`, for the lines of jobs."""

schema_log: Final = logging.getLogger("dbjobq.schema")
"""The logger of migrations, for the locks that they wait for."""


class Named(Protocol):
    """A job as log lines need it."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def type(self) -> str:
        """The name of the job's type."""
        ...

    @property
    def queue(self) -> str:
        """The job's queue."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts of the job have failed."""
        ...


def job_fields(job: Named, **more: Any) -> dict[str, Any]:
    """Return the `extra` of a log line about one job: id, type, queue, and the number of the running attempt."""
    fields = {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempt": job.attempts + 1}
    return fields | more


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """`JobContext.logger`: heard although a job, or a module of jobs, has called `logging.config` with its defaults."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """See `logging.Logger.isEnabledFor`."""
        self.logger.disabled = False
        return super().isEnabledFor(level)


running_here: Final[ContextVar[Callable[[], Named | None] | None]] = ContextVar("dbjobq_running_here", default=None)
"""A function that tells which job runs in this context. Set once for each slot and thread, not for each job."""


def name_job(record: logging.LogRecord) -> bool:
    """Add to a log record the job that has logged it, by whatever logger; used as a filter of a handler.

    Lines of a task that a job has left behind get the job that its slot runs next.
    """
    here = running_here.get()
    if here is not None and not hasattr(record, "job_id") and (job := here()) is not None:
        vars(record).update(job_fields(job))
    return True
