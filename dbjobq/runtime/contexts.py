"""The contexts of a worker's jobs: with its queue, and a way to tell of progress."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dbjobq.attempt.call import Contexts
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.registry import JobType
from dbjobq.queue.queues import AsyncJobQueue, JobQueue
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim

__all__ = ["contexts_of"]


def contexts_of(storage: BaseStorage | None, worker_id: str, on_progress: Callable[[Claim, str], None]) -> Contexts:
    """Return a function that makes the contexts of one worker's jobs.

    Args:
        storage: The storage of `ctx.queue`; None if it cannot be reached from this process.
        worker_id: The worker's name, for `ctx.job.worker_id`.
        on_progress: Called with a job's claim and its progress, as JSON text.
    """
    queue, aqueue = (None, None) if storage is None else (JobQueue(storage), AsyncJobQueue(storage))

    def of(task: JobType) -> Callable[[Claim, Any], JobContext]:
        mine = aqueue if task.awaits_queue else queue

        def context(claim: Claim, connection: Any) -> JobContext:
            return JobContext(partial(claim.job, worker_id), mine, connection, partial(on_progress, claim))

        return context

    return of
