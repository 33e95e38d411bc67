"""Behind PgBouncer in transaction mode, the real one: everything but listening works through it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from psycopg_pool import ConnectionPool

from dbjobq import AsyncJobQueue, ConfigError, JobContext, JobQueue, PostgresStorage, Worker, job
from dbjobq.doctor import examine
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.waiting import until
from tests.worker.conftest import Events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed"),
]


@job(name="pgbouncer.short", max_retries=2, retry=0.05)
async def short(ctx: JobContext, number: int) -> int:
    if number % 100 == 7 and ctx.job.attempts == 0:
        raise ValueError("the first time")
    return number


@job(name="pgbouncer.transactional", transactional=True)
def transactional(ctx: JobContext) -> None:
    ctx.connection.execute("select 1")


@job(name="pgbouncer.long", transactional=True)
def long(ctx: JobContext) -> None:
    ctx.connection.execute("select 1")
    time.sleep(3)


@pytest.fixture
def settings() -> str:
    """More lines for the pooler's settings."""
    return ""


@pytest.fixture
def bouncer(settings: str) -> Iterator[PgBouncer]:
    with EmbeddedPostgres(tcp=True) as server, TemporaryDirectory() as home:
        migrate(server.dsn(tcp=True))
        bouncer = PgBouncer(server.dsn(tcp=True), Path(home), settings)
        yield bouncer
        bouncer.stop()


def work_through(queue: JobQueue, jobs: int) -> None:
    """Enqueue in every way there is, and wait until three workers have done it all."""
    before = queue.count("completed")
    queue.enqueue_many(short, ({"number": n} for n in range(jobs)))
    queue.options(unique_key="once").enqueue(short, 1)
    queue.options(delay=0.2).enqueue(short, 2)
    queue.enqueue(transactional)
    until(lambda: queue.count("pending") + queue.count("running") == 0, what="the queue's end")
    assert queue.count("completed") - before == jobs + 3


def test_workers_behind_a_pooler_work_and_are_woken_through_a_direct_connection(
    bouncer: PgBouncer, events: Events
) -> None:
    with PostgresStorage(bouncer.dsn, listen_conninfo=bouncer.direct) as storage:
        queue = JobQueue(storage)
        workers = [Worker(queue, poll_interval=200, max_poll_interval=600, concurrency=n) for n in (5, 1, 1)]
        with workers[0], workers[1], workers[2]:
            work_through(queue, 1000)
            since = time.monotonic()
            last = queue.enqueue(short, number=1)
            until(lambda: (job := queue.get_job(last)) is not None and job.status == "completed")
            assert time.monotonic() - since < 100  # before a poll
    assert not events.of("listener.deaf")


def test_without_a_direct_connection_polling_does_it_and_each_worker_says_so(
    bouncer: PgBouncer, events: Events
) -> None:
    with PostgresStorage(bouncer.dsn, listen_conninfo=bouncer.dsn) as storage:
        queue = JobQueue(storage)
        with Worker(queue, 0.1, 0.5, concurrency=5), Worker(queue, 0.1, 0.5):
            work_through(queue, 1000)
            until(lambda: len(events.of("listener.deaf")) == 2)


def test_a_restart_of_the_pooler_is_survived(bouncer: PgBouncer) -> None:
    with PostgresStorage(bouncer.dsn, listen_conninfo=bouncer.direct) as storage:
        queue = JobQueue(storage)
        with Worker(queue, concurrency=5), Worker(queue):
            work_through(queue, 100)
            bouncer.stop()
            bouncer.start()
            work_through(queue, 100)


@pytest.mark.parametrize(("listen", "severity"), [("pooled", "warning"), ("direct", "ok")])
def test_the_doctor_tells_a_pooler_and_whether_workers_are_woken(
    bouncer: PgBouncer, listen: str, severity: str
) -> None:
    listen_conninfo = bouncer.dsn if listen == "pooled" else bouncer.direct
    with PostgresStorage(bouncer.dsn, listen_conninfo=listen_conninfo) as storage:
        (finding,) = (f for f in examine(storage) if f.check == "pooler")
    assert finding.severity == severity
    assert finding.found.startswith("the DSN leads through a pooler")


def test_a_pooler_that_dbjobq_is_not_told_of_is_critical(bouncer: PgBouncer) -> None:
    with PostgresStorage(bouncer.dsn) as storage:
        (finding,) = (f for f in examine(storage) if f.check == "pooler")
    assert finding.severity == "critical"
    assert "--listen-dsn" in finding.advice


def test_jobs_that_hold_all_of_the_poolers_connections_do_not_cost_their_worker_its_lease(bouncer: PgBouncer) -> None:
    with PostgresStorage(bouncer.dsn, listen_conninfo=bouncer.direct) as storage:
        queue = JobQueue(storage)
        for _ in range(6):  # twice as many as there are connections
            queue.enqueue(long)
        with Worker(queue, concurrency=6, lease=2.0), Worker(queue, lease=2.0):
            until(lambda: queue.count("completed") == 6, what="the end of all jobs")
        assert {job.attempts for job in queue.list_jobs()} == {0}


# A pooler that dbjobq is not told of. What one connection prepares there, others find under the same name: at worst
# they execute it.

IGNORANT = pytest.mark.parametrize("settings", ["", "ignore_startup_parameters = options"])


def produce(queue: JobQueue) -> None:
    """Make several kinds of calls, more often than psycopg waits before it prepares a statement."""
    for n in range(20):
        job_id = queue.enqueue(short, number=n)
        queue.options(unique_key=job_id).enqueue(short, number=n)
        assert queue.get_job(job_id) is not None
        assert queue.cancel(job_id)
        assert queue.dequeue() is not None


@IGNORANT
def test_producers_work_through_a_pooler_that_dbjobq_is_not_told_of(bouncer: PgBouncer) -> None:
    async def aproduce(storage: PostgresStorage) -> None:
        async with AsyncJobQueue(storage) as queue:
            await asyncio.gather(*(queue.enqueue(short, number=n) for n in range(50)))
            await asyncio.gather(*(queue.options(delay=60).enqueue(short, number=n) for n in range(50)))

    with PostgresStorage(bouncer.dsn) as one, PostgresStorage(bouncer.dsn) as two:
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(produce, JobQueue(storage)) for storage in (one, two) * 4]:
                done.result()
        asyncio.run(aproduce(one))
        stats = JobQueue(two).stats()
        assert (stats["total"], stats["cancelled"]) == (420, 160)


@IGNORANT
def test_a_worker_refuses_a_pooler_that_dbjobq_is_not_told_of_and_says_what_to_do(
    bouncer: PgBouncer, events: Events
) -> None:
    with PostgresStorage(bouncer.dsn) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        worker._worker_thread.join(60)
        assert not worker._worker_thread.is_alive()
    assert isinstance(worker.error, ConfigError)
    assert "listen_conninfo" in str(worker.error)
    assert len(events.of("worker.failed")) == 1


@pytest.mark.parametrize("given", ["pool", "connection"])
def test_a_pool_or_connection_of_the_users_own_that_prepares_behind_a_pooler_is_a_config_error(
    bouncer: PgBouncer, given: str
) -> None:
    with PostgresStorage(bouncer.direct) as plain, ConnectionPool(bouncer.dsn, min_size=4, open=True) as pool:
        queue = JobQueue(PostgresStorage(pool)) if given == "pool" else JobQueue(plain)

        def enqueue() -> None:
            for n in range(30):
                if given == "pool":
                    queue.enqueue(short, number=n)
                    continue
                with pool.connection() as connection:
                    queue.options(connection=connection).enqueue(short, number=n)

        with ThreadPoolExecutor(4) as threads:
            failures = [error for done in [threads.submit(enqueue) for _ in range(4)] if (error := done.exception())]
    assert {type(error) for error in failures} == {ConfigError}
    assert all("prepare_threshold=None" in str(error) for error in failures)
