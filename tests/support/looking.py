"""Jobs as the queue has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.waiting import ended

if TYPE_CHECKING:
    from dbjobq import Job, JobQueue

__all__ = ["error_of", "get", "result_of"]


def get(queue: JobQueue, job_id: str) -> Job:
    """Return a job that is there."""
    found = queue.get_job(job_id)
    assert found is not None
    return found


def error_of(queue: JobQueue, job_id: str) -> str:
    """Return what a job's last failure says; empty if there was none."""
    return get(queue, job_id).error or ""


def result_of(queue: JobQueue, job_id: str, timeout: float = 10.0) -> Any:
    """Wait until a job is completed, and return its result."""
    ended(queue, [job_id], timeout=timeout)
    return get(queue, job_id).result
