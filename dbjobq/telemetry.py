"""Names of what is logged: one event a line, its data in `extra` (never a job's arguments)."""

from __future__ import annotations

import logging
from typing import Any, Final, Protocol

__all__ = ["job_fields", "job_log", "schema_log", "worker_log"]

worker_log: Final = logging.getLogger("dbjobq.worker")
"""What a worker does: started, stopped, reconnecting (INFO and above), each job (DEBUG)."""

job_log: Final = logging.getLogger("dbjobq.job")
"""The parent of `JobContext.logger`: what handlers say."""

schema_log: Final = logging.getLogger("dbjobq.schema")
"""What a migration waits for."""


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def attempts(self) -> int: ...


def job_fields(job: _Named, **more: Any) -> dict[str, Any]:
    """Return the `extra` of a log line about one job: id, type, queue, and the attempt that runs."""
    fields = {"job_id": job.id, "job_type": job.type, "queue": job.queue, "attempt": job.attempts + 1}
    return fields | more
