"""The two queues' common base: checks a call at the edge, and describes it to the storage as a `Request`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from dbjobq.attempt.outcome import failed, failed_with
from dbjobq.checks import check_delay, check_integer, check_name, check_seconds
from dbjobq.codec.json import as_arguments, dump_arguments
from dbjobq.errors import LeaseLost
from dbjobq.hooks import tell_enqueueing
from dbjobq.ids import JobIds, new_id
from dbjobq.jobs.registry import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    JobType,
    registered,
    task_of,
)
from dbjobq.jobs.retry import DEFAULT_RETRY
from dbjobq.models import STATUSES, Job, Status
from dbjobq.queue.options import EnqueueOptions, Options
from dbjobq.storage.base import BaseStorage, JobFilter, Request
from dbjobq.storage.postgres_storage import PostgresStorage
from dbjobq.storage.values import Claim, NewJob, Outcome, QueueStats

__all__ = ["Function", "QueueBase", "check_status", "counted", "job_filter", "waiting_or_running"]

Function: TypeAlias = Callable[..., Any]

LONGEST_NAME: Final = 500
LONGEST_LEASE: Final = 366 * 86400.0


class _Usual(NamedTuple):
    """Defaults for a job that is enqueued under a name not registered in this process."""

    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    max_retries: int = DEFAULT_MAX_RETRIES


_USUAL: Final = _Usual()


class QueueBase:
    """Base of the sync and the async queue: each method checks a call and describes it as a `Request`."""

    def __init__(self, storage: BaseStorage | str | None = None, options: Options = Options()) -> None:  # noqa: B008 - frozen
        if storage is None or isinstance(storage, str):
            storage = PostgresStorage(storage)
        if not isinstance(storage, BaseStorage):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            raise TypeError(f"storage={storage!r}: must be a storage, such as PostgresStorage(dsn), or a DSN")
        self.storage: BaseStorage = storage
        self._options = options

    def _job(self, what: Function | str, options: Options, data: str, task: JobType | None) -> NewJob:
        usual = _USUAL if task is None else task
        return NewJob(
            id=options.id or new_id(),
            type=task.name if task is not None else check_name(what, "the job's name", LONGEST_NAME),
            data=data,
            queue=usual.queue if options.queue is None else options.queue,
            priority=usual.priority if options.priority is None else options.priority,
            max_retries=usual.max_retries if options.max_retries is None else options.max_retries,
            timeout=options.timeout,
            execute_at=options.execute_at,
            delay=options.delay or None,
            unique_key=options.unique_key,
            own_id=options.id is not None,
            notify=options.notify is not False,
        )

    def _enqueue(
        self, what: Function | str, options: Options, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Request[str]:
        task = _task(what)
        try:
            if task is not None and callable(what):
                keywords = task.bind(arguments, keywords)
            elif arguments:
                raise TypeError(f"{what!r} is a name: its arguments go by name, too")
            data = dump_arguments(keywords)
        except TypeError as error:
            if hint := _meant_as_options(keywords, task):
                raise TypeError(f"{error}. {hint}") from None
            raise
        if options.connection is not None:
            self.storage.require("connection")
        tell_enqueueing(job := self._job(what, options, data, task))
        return self.storage.enqueue(job, options.connection)

    def _enqueue_many(
        self, what: Function | str, options: Options, jobs: Iterable[Mapping[str, Any]]
    ) -> Request[JobIds]:
        if options.unique_key is not None or options.id is not None:
            raise ValueError("unique_key and id are one job's: enqueue_many cannot take them")
        task = _task(what)
        tell_enqueueing(like := self._job(what, options, "", task))
        rows = _rows(jobs, task if callable(what) else None)
        if options.connection is None:
            return self.storage.enqueue_many(like, rows)
        self.storage.require("connection")
        # All rows are checked before the first is sent: the transaction is the caller's, who may go on after an error.
        return self.storage.enqueue_many(like, list(rows), options.connection)

    def _dequeue(self, queue: str, lease: float) -> Request[Claim | None]:
        seconds = check_seconds(lease, "lease", above_zero=True)
        if seconds > LONGEST_LEASE:
            raise ValueError(f"lease={lease}: must be at most a year")
        return self.storage.dequeue(check_name(queue, "queue"), seconds)

    def _dequeued(self, claim: Claim | None) -> Job | Outcome | None:
        """Return the claimed job; its failure if somebody wrote its row by hand so that it cannot be read."""
        if claim is None:
            return None
        try:
            job = claim.job(self.storage.dequeuer)
            as_arguments(job.data)
        except (TypeError, ValueError, RecursionError) as error:
            return failed(claim, error)
        self.storage.remember(claim)
        return job

    def _finish(self, outcome: Outcome) -> Request[set[str]]:
        return self.storage.finish([outcome])

    def _ended(self, claim: Claim, accepted: set[str]) -> None:
        self.storage.forget_claim(claim)
        if claim.id not in accepted:
            raise LeaseLost(claim.id)

    def _retry(self, job_id: str, delay: float) -> Request[bool]:
        return self.storage.retry(job_id, check_delay(delay, "delay_seconds"))

    def _list(
        self, status: str | None, limit: int | None, queue: str | None, job_type: str | None
    ) -> Request[list[Job]]:
        limit = None if limit is None else check_integer(limit, "limit", 0, 2**63 - 1)
        return self.storage.list_jobs(limit, **job_filter(status, queue, job_type))

    def _failure(self, job: Job | str, error: object) -> Outcome:
        claim = self.storage.claim_of(job)
        task = registered().get(claim.type)
        policy = task.retry if task is not None else DEFAULT_RETRY
        if isinstance(error, BaseException):
            return failed(claim, error, policy)
        return failed_with(claim, str(error), policy)


def job_filter(status: str | None, queue: str | None, job_type: str | None) -> JobFilter:
    """Return the filter for these values, checked. Raises TypeError or ValueError."""
    return {
        "status": check_status(status),
        "queue": None if queue is None else check_name(queue, "queue"),
        "type": None if job_type is None else check_name(job_type, "type", LONGEST_NAME),
    }


def _task(what: Function | str) -> JobType | None:
    if isinstance(what, str):
        return registered().get(what)
    if not callable(what):
        raise TypeError(f"{what!r}: must be a function or the name of one")
    return task_of(what)


def _meant_as_options(keywords: Mapping[str, Any], task: JobType | None) -> str | None:
    """Return a hint for arguments that have the names of options and are not the function's own; None without any."""
    named = [name for name in EnqueueOptions.__annotations__ if name in keywords and not (task and name in task.known)]
    if not named:
        return None
    given = ", ".join(f"{name}=…" for name in named)
    return f"Options go before: queue.options({given}).enqueue(…)"


def _rows(jobs: Iterable[Mapping[str, Any]], task: JobType | None) -> Iterator[str]:
    for number, keywords in enumerate(jobs):
        if not isinstance(keywords, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            raise TypeError(f"job {number}: must be a mapping of the function's arguments, not {keywords!r}")
        if (task is None or task.any_keyword) and not all(isinstance(name, str) for name in keywords):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise TypeError(f"job {number}: its arguments' names must be strings, not {list(keywords)!r}")
        try:
            yield dump_arguments(keywords if task is None else task.bind((), keywords))
        except (TypeError, ValueError) as error:
            raise type(error)(f"job {number}: {error}") from None


def check_status(status: str | None) -> Status | None:
    """Return `status` if there is such a status. Raises TypeError or ValueError."""
    if status is None:
        return None
    for known in STATUSES:
        if status == known:
            return known
    if not isinstance(status, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise TypeError(f"status={status!r}: must be a string, one of {', '.join(STATUSES)}")
    raise ValueError(f"status={status!r}: must be one of {', '.join(STATUSES)}")


def counted(stats: Mapping[Status, int]) -> dict[str, int]:
    """Return the counts by status, with their sum as `total`."""
    return {**{str(status): jobs for status, jobs in stats.items()}, "total": sum(stats.values())}


def waiting_or_running(queues: Iterable[QueueStats], status: Status) -> int:
    """Count jobs that have not ended, from the queues' figures."""
    return sum(q.running if status == "running" else q.ready + q.scheduled for q in queues)
