"""What is acknowledged is on disk, whatever `synchronous_commit` role and database have, and no less than they have."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, job, schema
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.storage.postgres.worker.session import PostgresSession
from tests.storage.database import Database
from tests.storage.workers import run, worker
from tests.support.crash import crash

LAZY: Final = {"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off"}
"""Nothing is flushed before somebody asks for it, and only this module writes."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with EmbeddedPostgres(settings=LAZY) as server:
        schema.migrate(server.dsn())
        yield server.dsn()


@pytest.fixture
def dsn(server: str) -> str:
    with Database(server) as database:
        database.rows("truncate dbjobq.job, dbjobq.ready, dbjobq.scheduled, dbjobq.lease, dbjobq.done, dbjobq.failure")
    return server


@job(name="durable.transactional", transactional=True)
def transactional() -> None: ...


def set_level(dsn: str, level: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        connection.execute(sql.SQL("alter database {} set synchronous_commit = {}").format(name, sql.Literal(level)))


def is_flushed(database: Database) -> bool:
    """Whether all that was written is on disk."""
    return bool(database.value("select pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()"))


def claimed(queue: JobQueue) -> Any:
    queue.enqueue("f", max_retries=0)
    return queue.dequeue()


def within(queue: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        queue.options(connection=connection).enqueue("f")


def many_within(queue: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        queue.options(connection=connection).enqueue_many("f", [{}])


async def amany(queue: AsyncJobQueue) -> None:
    await asyncio.gather(*(queue.enqueue("f", n=n) for n in range(5)))
    await queue.close()


Made = Callable[[JobQueue, str], Callable[[], object]]

CALLS: Final[dict[str, Made]] = {
    "enqueue": lambda queue, _: lambda: queue.enqueue("f"),
    "delayed": lambda queue, _: lambda: queue.options(delay=60).enqueue("f"),
    "unique": lambda queue, _: lambda: queue.options(unique_key="k").enqueue("f"),
    "many": lambda queue, _: lambda: queue.enqueue_many("f", [{}, {}]),
    "within": lambda queue, dsn: lambda: within(queue, dsn),
    "many within": lambda queue, dsn: lambda: many_within(queue, dsn),
    "on a loop": lambda queue, _: lambda: asyncio.run(amany(AsyncJobQueue(queue.storage))),
    "cancel": lambda queue, _: partial(queue.cancel, queue.enqueue("f")),
    "retry": lambda queue, _: partial(queue.retry, _cancelled(queue)),
    "complete": lambda queue, _: partial(queue.complete, claimed(queue)),
    "fail": lambda queue, _: partial(queue.fail, claimed(queue), error="x"),
    "transactional": lambda queue, _: partial(queue.execute_job, _transactional(queue)),
}


def _cancelled(queue: JobQueue) -> str:
    job_id = queue.enqueue("f")
    queue.cancel(job_id)
    return job_id


def _transactional(queue: JobQueue) -> Any:
    queue.enqueue(transactional)
    return queue.dequeue()


@pytest.mark.parametrize("call", CALLS)
def test_what_is_acknowledged_is_on_disk(dsn: str, call: str) -> None:
    with PostgresStorage(dsn) as storage, Database(dsn) as database:
        for _ in range(3):  # the first may wake a sleeping WAL writer
            is_flushed(database)
            CALLS[call](JobQueue(storage), dsn)()
            assert is_flushed(database)


def test_a_storage_that_is_not_to_be_durable_leaves_it_to_the_server(dsn: str) -> None:
    with PostgresStorage(dsn, durable=False) as storage, Database(dsn) as database:
        seen: set[bool] = set()
        for _ in range(5):
            JobQueue(storage).enqueue("f")
            seen.add(is_flushed(database))
        assert False in seen
        recipe = storage.recipe()
        assert recipe is not None
        assert recipe.arguments["durable"] is False


LEVELS: Final = {"off": "on", "local": "on", "on": "on", "remote_write": "remote_write", "remote_apply": "remote_apply"}
"""What role and database may have, and what a transaction with something to acknowledge then has."""


def shown(connection: psycopg.Connection[Any]) -> str:
    ((level,),) = connection.execute("show synchronous_commit").fetchall()
    return str(level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_callers_transaction_is_raised_and_never_lowered(dsn: str, level: str) -> None:
    """Its end acknowledges the job; what the caller does before and after on this connection is not concerned."""
    with PostgresStorage(dsn) as storage, psycopg.connect(dsn, options=f"-c synchronous_commit={level}") as connection:
        inside = JobQueue(storage).options(connection=connection)
        calls: list[Callable[[], object]] = [
            lambda: inside.enqueue("f"),
            lambda: inside.enqueue_many("f", [{}]),
            lambda: inside.options(delay=1).enqueue("f"),
        ]
        for call in calls:
            assert shown(connection) == level
            call()
            assert shown(connection) == LEVELS[level]
            connection.rollback()
        assert shown(connection) == level


def test_a_callers_transaction_is_left_alone_if_the_storage_is_not_durable(dsn: str) -> None:
    options = "-c synchronous_commit=off"
    with PostgresStorage(dsn, durable=False) as storage, psycopg.connect(dsn, options=options) as connection:
        JobQueue(storage).options(connection=connection).enqueue("f")
        assert shown(connection) == "off"
        connection.rollback()


@pytest.mark.parametrize("told", [False, True], ids=["direct", "pooled"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_workers_results_are_raised_and_never_lowered_and_its_claims_wait_for_nobody(
    dsn: str, level: str, told: bool
) -> None:
    own = make_conninfo(dsn, options=f"-c synchronous_commit={level}")
    if told:  # as a pooler's server connections have it
        set_level(dsn, level)
        own = dsn

    async def main() -> None:
        with PostgresStorage(own, listen_conninfo=dsn if told else None) as storage:
            async with worker(storage) as session:
                assert isinstance(session, PostgresSession)
                with session._asking() as link:
                    for said, expected in zip(link.commit, ("off", LEVELS[level]), strict=True):
                        async with link.connection.transaction():
                            await link.connection.execute(said or b"select")
                            shown = await link.connection.execute("show synchronous_commit")
                            assert await shown.fetchone() == (expected,)

    try:
        run(main())
    finally:
        set_level(dsn, "off")


def test_a_crash_takes_back_nothing_that_was_acknowledged(dsn: str) -> None:
    with PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        ids = [queue.enqueue("f") for _ in range(4)]
        queue.cancel(ids[0])
        done = queue.dequeue()
        assert done is not None
        queue.complete(done)
        ids += queue.enqueue_many("f", [{}])
        crash(dsn)
        assert [job.status for job in queue.list_jobs()][::-1] == ["cancelled", "completed", *["pending"] * 3]
