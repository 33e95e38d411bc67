"""Waiting for something to be so, with a deadline: what the tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from dbjobq import Job, JobQueue

__all__ = ["ended", "failed_once", "heard", "lasting", "settled", "until"]

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 60.0, what: str = "the condition") -> T:
    """Return the condition's first true value.

    Raises:
        AssertionError: It was not true within so many seconds; says what it was last.
    """
    by = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < by, f"{what} was not met within {timeout} s: {value!r}"
        time.sleep(0.005)
    return value


def lasting(condition: Callable[[], object], seconds: float, what: str = "the condition") -> None:
    """Check that something stays true for a while."""
    by = time.monotonic() + seconds
    while time.monotonic() < by:
        assert condition(), f"{what} did not last {seconds} s"
        time.sleep(0.01)


def ended(queue: JobQueue, ids: Iterable[str], status: str = "completed", timeout: float = 60.0) -> None:
    """Wait until these jobs have a status."""
    wanted = set(ids)

    def missing() -> list[str]:
        if len(wanted) > 100 and queue.count(status) < len(wanted):  # a list of thousands is not for a loop
            return ["some"]
        return sorted(wanted - {job.id for job in queue.list_jobs(status)})

    by = time.monotonic() + timeout
    while left := missing():
        if time.monotonic() > by:
            left = sorted(wanted - {job.id for job in queue.list_jobs(status)})
            states = [(job.status, job.attempts, (job.error or "")[:300]) for i in left if (job := queue.get_job(i))]
            raise AssertionError(f"{len(left)} of {len(wanted)} jobs not {status} after {timeout} s: {states[:5]}")
        time.sleep(0.01)


def failed_once(queue: JobQueue, job_id: str, timeout: float = 60.0) -> Job:
    """Wait until a job's first attempt has failed; return the job."""

    def found() -> Job | None:
        job = queue.get_job(job_id)
        return job if job is not None and job.status != "running" and job.attempts == 1 else None

    job = until(found, timeout, f"the failure of {job_id}")
    assert job is not None
    return job


def settled(queue: JobQueue, timeout: float = 60.0) -> None:
    """Wait until no job is pending or running."""

    def left() -> int:
        stats = queue.stats()  # one statement: a job that moves meanwhile is not missed
        return stats["pending"] + stats["running"]

    until(lambda: not left(), timeout, "the end of all jobs")


async def heard(event: threading.Event) -> None:
    """Wait in a coroutine for a thread's event; leaves nothing behind when it is cancelled."""
    while not event.is_set():  # noqa: ASYNC110 - the event is another thread's
        await asyncio.sleep(0.01)
