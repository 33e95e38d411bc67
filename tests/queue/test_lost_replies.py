"""Calls by hand whose reply is lost: they are made again, and say what they did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage, StorageUnavailable
from tests.queue import jobs
from tests.storage.database import Database
from tests.support.faultproxy import FaultProxy, proxied

ANSWERS: Final = 6
"""More than any of the calls waits for."""


@pytest.fixture
def proxy(dsn: str) -> Iterator[FaultProxy]:
    proxy, _ = proxied(dsn)
    with proxy:
        yield proxy


@pytest.fixture
def storage(dsn: str, proxy: FaultProxy) -> Iterator[PostgresStorage]:
    """Leads through the proxy."""
    way: dict[str, Any] = {"host": "127.0.0.1", "port": proxy.port, "sslmode": "disable", "gssencmode": "disable"}
    with PostgresStorage(make_conninfo(dsn, **way), timeout=30) as storage:
        yield storage


@pytest.fixture
def beside(dsn: str) -> Iterator[JobQueue]:
    """A queue that no fault meets."""
    with PostgresStorage(dsn) as storage:
        yield JobQueue(storage)


def test_cancel_and_retry_say_what_they_did(proxy: FaultProxy, queue: JobQueue, beside: JobQueue) -> None:
    for after in range(ANSWERS):
        job_id = beside.enqueue(jobs.anything)
        for call, status in ((queue.cancel, "cancelled"), (queue.retry, "pending")):
            assert queue.get_job(job_id) is not None
            proxy.lose_replies(after)
            assert call(job_id) is True
            proxy.spare()
            found = beside.get_job(job_id)
            assert found is not None
            assert found.status == status


def test_cancel_and_retry_say_what_others_did(proxy: FaultProxy, queue: JobQueue, beside: JobQueue) -> None:
    """The lost reply was that there is nothing to do."""
    job_id = beside.enqueue(jobs.anything)
    for before, call in ((beside.cancel, queue.cancel), (beside.retry, queue.retry)):
        before(job_id)
        for after in range(2):
            assert queue.get_job(job_id) is not None
            proxy.lose_replies(after)
            assert call(job_id) is False
            proxy.spare()


def test_a_job_that_was_dequeued_is_not_held_by_nobody(
    proxy: FaultProxy, queue: JobQueue, beside: JobQueue, database: Database
) -> None:
    for after in range(ANSWERS):
        job_id = beside.enqueue(jobs.anything, n=after)
        beside.enqueue(jobs.anything, n="next")
        assert queue.get_job(job_id) is not None
        proxy.lose_replies(after)
        job = queue.dequeue()
        proxy.spare()
        assert job is not None
        assert (job.id, job.data, job.attempts) == (job_id, {"n": after}, 0)
        assert beside.get_job(job_id) == job
        assert database.rows("select job_id::text from dbjobq.lease") == [(job_id,)]
        queue.complete(job)
        following = beside.dequeue()
        assert following is not None
        beside.complete(following)


def test_complete_and_fail_say_what_they_did(proxy: FaultProxy, queue: JobQueue, beside: JobQueue) -> None:
    ends: list[tuple[Callable[..., None], tuple[object, ...], int, str]] = [
        (queue.complete, (), 3, "completed"),
        (queue.complete, ({"a": 1},), 3, "completed"),
        (queue.fail, ("x",), 3, "pending"),
        (queue.fail, ("x",), 0, "failed"),
    ]
    for end, more, retries, status in ends:
        for after in range(2):
            job_id = beside.enqueue(jobs.anything, max_retries=retries)
            job = queue.dequeue()
            assert job is not None
            proxy.lose_replies(after)
            end(job, *more)
            proxy.spare()
            found = beside.get_job(job_id)
            assert found is not None
            assert found.status == status


def test_every_call_ends_in_time(dsn: str) -> None:
    """Somebody holds a lock on all that there is."""
    with PostgresStorage(dsn, timeout=0.3) as storage, psycopg.connect(dsn) as other:
        queue = JobQueue(storage)
        one, two, three = (queue.enqueue(jobs.anything) for _ in range(3))
        job = queue.dequeue()
        assert job is not None
        queue.cancel(two)
        calls: list[Callable[[], object]] = [
            lambda: queue.complete(job),
            lambda: queue.fail(job, "x"),
            queue.dequeue,
            lambda: queue.cancel(three),
            lambda: queue.retry(two),
            lambda: queue.get_job(one),
            lambda: queue.get_progress(one),
            queue.list_jobs,
            queue.stats,
            queue.count,
            storage.check().run,
            lambda: queue.options(queue="new").enqueue(jobs.anything),
        ]
        tables = "job, ready, scheduled, lease, done, failure, unique_key, worker, queue, schema_version"
        other.execute(f"lock table {', '.join(f'dbjobq.{name}' for name in tables.split(', '))}".encode())
        for call in calls:
            with pytest.raises(StorageUnavailable, match=r"within 0\.3 s"):
                call()
