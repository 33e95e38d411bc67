"""What a process remembers of the database is checked by the statement that uses it: the database may be put back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, LiteralString

import psycopg
import pytest

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, Worker, job
from dbjobq.models import Job
from tests.storage.database import Database
from tests.storage.workers import BEAT, claim, ended, exchange, rescue, run, worker
from tests.support.waiting import until

PUT_BACK: Final[dict[str, LiteralString]] = {
    "another's number": "update dbjobq.queue set name = 'other' where name = 'mine';"
    "update dbjobq.queue set name = 'mine' where name = 'theirs';"
    "update dbjobq.queue set name = 'theirs' where name = 'other'",
    "deleted": "delete from dbjobq.queue where name = 'mine'",
    "truncated": "truncate dbjobq.queue restart identity",
}


@job(name="remembered.work")
def work() -> None: ...


def within(queue: JobQueue, dsn: str, isolation: psycopg.IsolationLevel, *, many: bool = False) -> str:
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = isolation
        connection.execute("select count(*) from dbjobq.queue")  # the snapshot of a transaction that keeps it
        mine = queue.options(queue="mine", connection=connection)
        return next(iter(mine.enqueue_many("f", [{}]))) if many else mine.enqueue("f")


def in_a_group(storage: PostgresStorage) -> str:
    async def main() -> str:
        async with AsyncJobQueue(storage) as queue:
            return (await asyncio.gather(*(queue.options(queue="mine").enqueue("f") for _ in range(5))))[4]

    return asyncio.run(main())


READ_COMMITTED, REPEATABLE_READ = psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ
WAYS: dict[str, Callable[[JobQueue, PostgresStorage, str], str]] = {
    "prepared": lambda queue, _storage, _dsn: [queue.options(queue="mine").enqueue("f") for _ in range(9)][-1],
    "checked": lambda queue, _storage, _dsn: queue.options(queue="mine", unique_key="k").enqueue("f"),
    "bulk": lambda queue, _storage, _dsn: next(iter(queue.options(queue="mine").enqueue_many("f", [{}]))),
    "group": lambda _, storage, __: in_a_group(storage),
    "within": lambda queue, _, dsn: within(queue, dsn, READ_COMMITTED),
    "within, an old snapshot": lambda queue, _, dsn: within(queue, dsn, REPEATABLE_READ),
    "bulk within, an old snapshot": lambda queue, _, dsn: within(queue, dsn, REPEATABLE_READ, many=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("put_back", PUT_BACK)
def test_a_producer_files_jobs_where_it_says(dsn: str, database: Database, put_back: str, way: str) -> None:
    with PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        for name in ("theirs", "mine"):
            for _ in range(7):  # so that the connection has prepared it
                queue.options(queue=name).enqueue("f")
        database.rows(PUT_BACK[put_back])
        job_id = WAYS[way](queue, storage, dsn)
    found = database.rows("select name from dbjobq.ready join dbjobq.queue on id = queue where job_id = %s", job_id)
    assert found == [("mine",)]
    assert database.value("select queue from dbjobq.jobs where id = %s", job_id) == "mine"


GONE: Final[dict[str, LiteralString]] = {
    "deleted": "delete from dbjobq.worker where name = 'w1'",
    "another's": "update dbjobq.worker set name = 'other' where name = 'w1'",
}


@pytest.mark.parametrize("gone", GONE)
def test_a_worker_under_a_number_that_is_not_its_own_takes_nothing_and_is_told(
    queue: JobQueue, database: Database, gone: str
) -> None:
    async def main() -> None:
        async with worker(queue.storage) as session:
            (held,) = await claim(session, 1)
            database.rows(GONE[gone])
            assert await claim(session) == []
            assert not (await session.idle()).registered
            assert await session.release() == []  # what stands under that number is not its own
            pulse = session.pulse()
            assert not pulse.beat(BEAT)
            pulse.close()
            await session.close()
            assert not await session.open()
            assert len(await claim(session)) == 1
            assert (await session.idle()).registered
            assert (await exchange(session, [ended(held)])).refused == []  # nobody has taken it meanwhile

    queue.enqueue_many("f", [{}, {}])
    run(main())


def test_a_job_is_rescued_from_a_worker_that_has_no_row(queue: JobQueue, database: Database) -> None:
    async def main() -> None:
        async with worker(queue.storage) as session:
            assert await claim(session)
            assert rescue(queue.storage) == []
            database.rows("delete from dbjobq.worker")
            assert len(rescue(queue.storage)) == 1

    queue.enqueue("f")
    run(main())


def test_what_stands_under_a_number_that_is_given_again_is_rescued(queue: JobQueue, database: Database) -> None:
    async def main() -> None:
        async with worker(queue.storage) as session:
            assert await claim(session)
        database.rows("truncate dbjobq.worker restart identity")
        async with worker(queue.storage, "w2"):
            assert database.rows("select worker.id = lease.worker from dbjobq.worker, dbjobq.lease") == [(True,)]
            assert len(rescue(queue.storage)) == 1

    queue.enqueue("f")
    run(main())


@pytest.mark.parametrize("statement", ["delete from dbjobq.worker", "truncate dbjobq.worker restart identity"])
def test_a_living_worker_registers_anew(
    queue: JobQueue, database: Database, statement: LiteralString, caplog: pytest.LogCaptureFixture
) -> None:
    with Worker(queue, 0.02, 0.05, lease=5.0):
        first = queue.enqueue(work)
        until(lambda: done(queue, first))
        database.rows(statement)
        second = queue.enqueue(work)
        until(lambda: done(queue, second))
        assert database.value("select count(*) from dbjobq.worker") == 1
    assert [record.getMessage() for record in caplog.records].count("worker.lease_lost") == 1


def done(queue: JobQueue, job_id: str) -> bool:
    found: Job | None = queue.get_job(job_id)
    return found is not None and found.status == "completed"


@pytest.mark.parametrize("what", ["queue", "worker"])
def test_dequeue_finds_its_queue_and_itself_again(queue: JobQueue, database: Database, what: str) -> None:
    queue.options(queue="theirs").enqueue("f", n=1)
    queue.options(queue="mine").enqueue("f", n=2)
    assert queue.dequeue("mine") is not None
    if what == "queue":
        database.rows(PUT_BACK["another's number"])
    else:
        database.rows("delete from dbjobq.worker")
    queue.options(queue="mine").enqueue("f", n=3)
    found = queue.dequeue("mine")
    assert found is not None
    assert found.queue == "mine"
    assert found.worker_id == queue.storage.dequeuer
    names = "select worker.name from dbjobq.lease join dbjobq.worker on worker.id = lease.worker where job_id = %s"
    assert database.rows(names, found.id) == [(queue.storage.dequeuer,)]
