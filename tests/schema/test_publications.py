"""Tables of ours in a publication: PostgreSQL refuses to update or delete rows that it cannot name to subscribers."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage
from dbjobq.schema import HEAD, migrate
from tests.storage.database import Database, database
from tests.storage.workers import claim, ended, exchange, rescue, worker

__all__ = ["database"]

PUBLISHED = "create publication everything for all tables"
NAMELESS = """
    select relname::text from pg_class
     where relnamespace = 'dbjobq'::regnamespace and relkind = 'r' and relreplident <> 'f'
       and not (relreplident = 'd' and exists (select from pg_index where indrelid = pg_class.oid and indisprimary))
"""


def test_each_row_of_each_table_can_be_named(database: Database) -> None:
    assert database.rows(NAMELESS) == []


async def lives(storage: PostgresStorage) -> None:
    """All that moves rows: each end, putting off, promoting, handing back, rescue, retry, cancel."""
    queue = JobQueue(storage)
    kept = queue.options(unique_key="k", max_retries=1).enqueue("f")
    for _ in range(4):
        queue.enqueue("f")
    later = queue.options(delay=3600).enqueue("f")
    async with worker(storage) as session:
        claims = await claim(session)
        assert len(claims) == 5
        failed = next(c for c in claims if c.id == kept)
        first, second, third, fourth = (c for c in claims if c.id != kept)
        outcomes = [ended(failed, "fail"), ended(first), ended(second), ended(third, "retry"), ended(fourth, "release")]
        assert (await exchange(session, outcomes)).refused == []
        assert await asyncio.to_thread(queue.retry, kept)
        assert await asyncio.to_thread(queue.cancel, later)
        assert len(await claim(session)) == 3
    with storage.connections.connection() as connection:
        connection.execute("update dbjobq.worker set expires_at = now() - interval '1 hour'")
        connection.commit()
    assert len(await asyncio.to_thread(rescue, storage)) == 3
    queue.close()


def test_jobs_go_on_where_all_tables_are_published_and_history_can_be_deleted(dsn: str, database: Database) -> None:
    database.rows(PUBLISHED)
    with PostgresStorage(dsn) as storage:
        asyncio.run(lives(storage))
    assert database.value("select count(*) from dbjobq.failure") > 0
    for table in ("failure", "done", "job"):
        database.connection.execute(f"delete from dbjobq.{table}".encode())


def test_the_migrations_mend_tables_that_are_published_already_and_can_be_undone(empty_dsn: str) -> None:
    migrate(empty_dsn, to="0001")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(PUBLISHED)
        for table in ("ready", "failure"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="replica identity"):
                connection.execute(f"delete from dbjobq.{table}".encode())
        migrate(empty_dsn)
        for table in ("ready", "failure"):
            connection.execute(f"delete from dbjobq.{table}".encode())
        migrate(empty_dsn, to="0001")
        identities = "select relreplident::text from pg_class where relname in ('ready', 'failure')"
        assert connection.execute(identities).fetchall() == [("d",), ("d",)]
    assert [step.revision for step in migrate(empty_dsn)][-1] == HEAD
