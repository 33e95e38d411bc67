"""The loggers, and which job a line is about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

__all__ = ["Named", "job_fields", "job_log", "name_job", "running_here", "schema_log", "worker_log"]

worker_log: Final = logging.getLogger("dbjobq.worker")
"""What a worker does: started, stopped, reconnecting (INFO and above), each job (DEBUG)."""

job_log: Final = logging.getLogger("dbjobq.job")
"""The parent of `JobContext.logger`: what handlers say."""

schema_log: Final = logging.getLogger("dbjobq.schema")
"""What a migration waits for."""


class Named(Protocol):
    """What a log line says of a job."""

    @property
    def id(self) -> str:
        """The job's id."""
        ...

    @property
    def type(self) -> str:
        """Its type's name."""
        ...

    @property
    def queue(self) -> str:
        """Its queue."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts have failed."""
        ...


def job_fields(job: Named, **more: Any) -> dict[str, Any]:
    """Return the `extra` of a log line about one job: id, type, queue, and the attempt that runs."""
    fields = {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempt": job.attempts + 1}
    return fields | more


running_here: Final[ContextVar[Callable[[], Named | None] | None]] = ContextVar("dbjobq_running_here", default=None)
"""Tells which job runs in this context. Set once for each slot and thread of a worker: nothing is done for a job."""


def name_job(record: logging.LogRecord) -> bool:
    """Add to a line which job has logged it, by whatever logger; as a filter of a handler.

    A task that a job has left behind counts as part of what its slot runs next.
    """
    here = running_here.get()
    if here is not None and not hasattr(record, "job_id") and (job := here()) is not None:
        vars(record).update(job_fields(job))
    return True
