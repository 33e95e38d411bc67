"""`JobQueue` and `AsyncJobQueue`: check the call, ask the storage. One logic; they differ only in how they wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Self, Unpack

from dbjobq.attempt.by_hand import AttemptByHand
from dbjobq.attempt.outcome import completed
from dbjobq.ids import JobIds
from dbjobq.models import Job
from dbjobq.queue.base import Function, QueueBase, check_status, counted, waiting_or_running
from dbjobq.queue.options import EnqueueOptions
from dbjobq.queue.typed import AsyncWithOptions, WithOptions
from dbjobq.storage.values import Outcome

__all__ = ["AsyncJobQueue", "AsyncWithOptions", "JobQueue", "WithOptions"]


class JobQueue(QueueBase):
    """A queue for threads and plain code. Safe to share between threads.

    Args:
        storage: Where the jobs are: a storage; a DSN of PostgreSQL; or nothing, which is `PostgresStorage()`, the
            database that the environment names (`DBJOBQ_DSN`, `DATABASE_URL`, `PG*`).

    Every method that asks the storage may raise StorageUnavailable (it did not answer; the call may be repeated),
    SchemaError (run `dbjobq migrate`) and ConfigError (a wrong DSN).
    """

    def options(self, **options: Unpack[EnqueueOptions]) -> WithOptions:
        """Return this queue with options for the jobs that are enqueued through it.

        Args:
            **options: `queue`; `delay` (seconds or a timedelta) or `execute_at` (naive is local time); `priority`;
                `max_retries`; `timeout` (seconds); `unique_key` (while a pending or running job has it, enqueueing
                returns that job's id; a job that is retried when its key has gone to another runs without one); `id` (a
                UUID of your own: enqueueing it again changes nothing); `connection` (yours, in whose transaction the
                job is written: a deadlock or a timeout there is raised as the driver has it, and the transaction is
                yours to repeat); `notify` (False wakes no worker: a sleeping worker finds the job by its next poll;
                for transactions that you end by `PREPARE TRANSACTION` yourself).

        Raises:
            TypeError: An option is unknown or has the wrong type.
            ValueError: It is out of range.
        """
        return WithOptions(self.storage, self._options.updated(options))

    def enqueue(
        self,
        function: Function | str,
        /,
        *positional: Any,
        max_retries: int | None = None,
        priority: int | None = None,
        execute_at: datetime | None = None,
        **arguments: Any,
    ) -> str:
        """Write a job; it is durable when this returns.

        Args:
            function: The function to run, or its name.
            *positional: The function's own arguments in their order; stored by name. Not where a name is enqueued.
            max_retries: How often to try again after a failure.
            priority: Higher runs first.
            execute_at: The job starts not before this time, by the database's clock; naive is local time. For "in an
                hour" say `options(delay=3600)`, which does not depend on this machine's clock.
            **arguments: The function's own arguments, checked against its signature. They are stored as JSON: a tuple
                arrives as a list, and a dict with a key that is not a string is refused.

        Returns:
            The job's id.

        Raises:
            TypeError: An argument is missing, unknown, or not JSON. The message names it, and says `options(…)` if it
                has the name of an option. Nothing is stored.
            ValueError: An option is out of range, or the arguments are too large. Nothing is stored.
        """
        given = {"max_retries": max_retries, "priority": priority, "execute_at": execute_at}
        return self._enqueue(function, self._options.updated(given), positional, arguments).run()

    def enqueue_many(
        self,
        function: Function | str,
        jobs: Iterable[Mapping[str, Any]],
        /,
        *,
        max_retries: int | None = None,
        priority: int | None = None,
        execute_at: datetime | None = None,
    ) -> JobIds:
        """Write any number of jobs in one transaction, by COPY, reading `jobs` as they are sent.

        Args:
            function: The function to run, or its name.
            jobs: The arguments of each job, by name.
            max_retries: As in `enqueue`, for all of them.
            priority: As in `enqueue`.
            execute_at: As in `enqueue`.

        Returns:
            The jobs' ids, in order: a sequence of constant size, however many there are.

        Raises:
            TypeError: A job's arguments are wrong. The message says which job's. Nothing is stored.
            ValueError: An option or a job's size is out of range. Nothing is stored.
        """
        given = {"max_retries": max_retries, "priority": priority, "execute_at": execute_at}
        return self._enqueue_many(function, self._options.updated(given), jobs).run()

    def dequeue(self, queue: str = "default", lease: float = 300.0) -> Job | None:
        """Claim the next due job, to be worked on by hand and ended with `complete`, `fail` or `execute_job`.

        Args:
            queue: The queue's name.
            lease: Seconds for which the job is yours. Afterwards it goes to another worker, which costs an attempt.
        """
        while isinstance(found := self._dequeued(self._dequeue(queue, lease).run()), Outcome):
            self._finish(found).run()
        return found

    def complete(self, job: Job | str, result: Any = None) -> None:
        """End a job that `dequeue` returned.

        Args:
            job: The job that `dequeue` returned, or its id, which stands for the claim that this process holds.
            result: The result to keep, as JSON: a tuple becomes a list.

        Raises:
            LeaseLost: The job is not held any more, or not by this process. Nothing was written.
        """
        outcome = completed(self.storage.claim_of(job), result)
        self._ended(outcome.claim, self._finish(outcome).run())

    def fail(self, job: Job | str, error: str | BaseException) -> None:
        """End an attempt as failed: the job is tried again after its retry delay while `attempts < max_retries`.

        Raises:
            LeaseLost: The job is not held any more, or not by this process. Nothing was written.
        """
        outcome = self._failure(job, error)
        self._ended(outcome.claim, self._finish(outcome).run())

    def execute_job(self, job: Job) -> None:
        """Run a job that `dequeue` returned, here and now, and record its outcome, failure included.

        An `async def` runs on an event loop of its own, and is cancelled when its timeout is over. A `def` runs in this
        thread, also with `executor="process"`, and cannot be interrupted. Progress (`ctx.progress`) is not kept, and no
        heartbeat renews the lease. Not for use on a running event loop.

        A job whose type is unknown in this process is put off, as a worker puts it off; that costs no attempt.

        Raises:
            LeaseLost: The job took longer than its lease. The outcome was not written.
        """
        claim = self.storage.claim_of(job)
        outcome = AttemptByHand(self.storage, claim, job, queue=self, aqueue=AsyncJobQueue(self.storage)).run()
        self._ended(claim, {claim.id} if outcome is None else self._finish(outcome).run())

    def retry(self, job_id: str, delay_seconds: float = 0) -> bool:
        """Put a failed or cancelled job back to pending, its attempts counted from 0.

        The job takes its unique key again. If another job has that key by now, this one goes on without a key.

        Args:
            job_id: The job's id.
            delay_seconds: Seconds until the job is due.

        Returns:
            False if the job is neither failed nor cancelled.

        Raises:
            JobNotFound: There is no such job.
        """
        return self._retry(job_id, delay_seconds).run()

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is pending or running. A running job's function is told, and its result is refused.

        Returns:
            False if the job had ended already.

        Raises:
            JobNotFound: There is no such job.
        """
        return self.storage.cancel(job_id).run()

    def get_job(self, job_id: str) -> Job | None:
        """Return a job; None if there is none."""
        return self.storage.get_job(job_id).run()

    def get_progress(self, job_id: str) -> dict[str, Any] | None:
        """Return what a running job last said with `ctx.progress`: `done`, `total` and `message`; None if nothing."""
        return self.storage.get_progress(job_id).run()

    def list_jobs(
        self,
        status: str | None = None,
        limit: int | None = None,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 - the field's name
    ) -> list[Job]:
        """Return jobs, newest first.

        Args:
            status: Only jobs in this status; all by default. ValueError if there is no such status.
            limit: How many jobs at most.
            queue: Only jobs of this queue.
            type: Only jobs of this type.
        """
        return self._list(status, limit, queue, type).run()

    def get_pending_jobs(self) -> list[Job]:
        """Return the jobs that wait, newest first."""
        return self.list_jobs("pending")

    def get_running_jobs(self) -> list[Job]:
        """Return the jobs that run, newest first."""
        return self.list_jobs("running")

    def get_completed_jobs(self, limit: int | None = None) -> list[Job]:
        """Return the jobs that are completed, newest first."""
        return self.list_jobs("completed", limit)

    def get_failed_jobs(self) -> list[Job]:
        """Return the dead letters: failed, with no retry left. Newest first."""
        return self.list_jobs("failed")

    def count(self, status: str | None = None) -> int:
        """Count the jobs in one status, or all. Ended jobs are counted row by row, however many there are."""
        known = check_status(status)
        if known in {"pending", "running"}:
            return waiting_or_running(self.storage.queue_stats().run(), known)
        return self.stats()[known or "total"]

    def stats(self) -> dict[str, int]:
        """Count the jobs in each status, with their sum as `total`."""
        return counted(self.storage.stats().run())

    def close(self) -> None:
        """Close the storage's connections."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncJobQueue(QueueBase):
    """A queue for event loops: `JobQueue`'s methods, awaited."""

    def options(self, **options: Unpack[EnqueueOptions]) -> AsyncWithOptions:
        """See `JobQueue.options`."""
        return AsyncWithOptions(self.storage, self._options.updated(options))

    async def enqueue(
        self,
        function: Function | str,
        /,
        *positional: Any,
        max_retries: int | None = None,
        priority: int | None = None,
        execute_at: datetime | None = None,
        **arguments: Any,
    ) -> str:
        """See `JobQueue.enqueue`."""
        given = {"max_retries": max_retries, "priority": priority, "execute_at": execute_at}
        return await self._enqueue(function, self._options.updated(given), positional, arguments).arun()

    async def enqueue_many(
        self,
        function: Function | str,
        jobs: Iterable[Mapping[str, Any]],
        /,
        *,
        max_retries: int | None = None,
        priority: int | None = None,
        execute_at: datetime | None = None,
    ) -> JobIds:
        """See `JobQueue.enqueue_many`."""
        given = {"max_retries": max_retries, "priority": priority, "execute_at": execute_at}
        return await self._enqueue_many(function, self._options.updated(given), jobs).arun()

    async def dequeue(self, queue: str = "default", lease: float = 300.0) -> Job | None:
        """See `JobQueue.dequeue`."""
        while isinstance(found := self._dequeued(await self._dequeue(queue, lease).arun()), Outcome):
            await self._finish(found).arun()
        return found

    async def complete(self, job: Job | str, result: Any = None) -> None:
        """See `JobQueue.complete`."""
        outcome = completed(self.storage.claim_of(job), result)
        self._ended(outcome.claim, await self._finish(outcome).arun())

    async def fail(self, job: Job | str, error: str | BaseException) -> None:
        """See `JobQueue.fail`."""
        outcome = self._failure(job, error)
        self._ended(outcome.claim, await self._finish(outcome).arun())

    async def execute_job(self, job: Job) -> None:
        """See `JobQueue.execute_job`; here a `def` runs on a thread."""
        claim = self.storage.claim_of(job)
        attempt = AttemptByHand(self.storage, claim, job, queue=JobQueue(self.storage), aqueue=self)
        outcome = await attempt.arun()
        self._ended(claim, {claim.id} if outcome is None else await self._finish(outcome).arun())

    async def retry(self, job_id: str, delay_seconds: float = 0) -> bool:
        """See `JobQueue.retry`."""
        return await self._retry(job_id, delay_seconds).arun()

    async def cancel(self, job_id: str) -> bool:
        """See `JobQueue.cancel`."""
        return await self.storage.cancel(job_id).arun()

    async def get_job(self, job_id: str) -> Job | None:
        """See `JobQueue.get_job`."""
        return await self.storage.get_job(job_id).arun()

    async def get_progress(self, job_id: str) -> dict[str, Any] | None:
        """See `JobQueue.get_progress`."""
        return await self.storage.get_progress(job_id).arun()

    async def list_jobs(
        self,
        status: str | None = None,
        limit: int | None = None,
        *,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002 - the field's name
    ) -> list[Job]:
        """See `JobQueue.list_jobs`."""
        return await self._list(status, limit, queue, type).arun()

    async def get_pending_jobs(self) -> list[Job]:
        """See `JobQueue.get_pending_jobs`."""
        return await self.list_jobs("pending")

    async def get_running_jobs(self) -> list[Job]:
        """See `JobQueue.get_running_jobs`."""
        return await self.list_jobs("running")

    async def get_completed_jobs(self, limit: int | None = None) -> list[Job]:
        """See `JobQueue.get_completed_jobs`."""
        return await self.list_jobs("completed", limit)

    async def get_failed_jobs(self) -> list[Job]:
        """See `JobQueue.get_failed_jobs`."""
        return await self.list_jobs("failed")

    async def count(self, status: str | None = None) -> int:
        """See `JobQueue.count`."""
        known = check_status(status)
        if known in {"pending", "running"}:
            return waiting_or_running(await self.storage.queue_stats().arun(), known)
        return (await self.stats())[known or "total"]

    async def stats(self) -> dict[str, int]:
        """See `JobQueue.stats`."""
        return counted(await self.storage.stats().arun())

    async def close(self) -> None:
        """Close this event loop's connections."""
        await self.storage.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
