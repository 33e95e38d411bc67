"""What others do at the same moment, and what takes too long: the connection is well, and nothing is reconnected."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, StorageUnavailable
from tests.queue.jobs import anything
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.storage.database import Database

WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
BACKENDS = """
    select array_agg(pid) from pg_stat_activity where application_name = 'kept' and datname = current_database()
"""


@pytest.fixture
def ended(plain: JobQueue) -> str:
    """A job that was cancelled."""
    job_id = plain.enqueue(anything)
    plain.cancel(job_id)
    return job_id


@contextmanager
def held(dsn: str) -> Generator[Callable[[], None]]:
    """Change the ended job in a transaction; yields what commits it."""
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.done set finished_at = now()")
        yield connection.commit
        connection.rollback()


def retried(address: str, job_id: str, kind: str) -> bool:
    with PostgresStorage(address) as storage:
        if kind == "sync":
            return JobQueue(storage).retry(job_id)

        async def main() -> bool:
            async with AsyncJobQueue(storage) as queue:
                return await queue.retry(job_id)

        return asyncio.run(main())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_conflict_on_a_connection_of_ours_is_tried_once_more(
    dsn: str, ended: str, database: Database, kind: str
) -> None:
    address = make_conninfo(dsn, options="-c default_transaction_isolation=serializable")
    with ThreadPoolExecutor() as threads, held(dsn) as commit:
        revived = threads.submit(retried, address, ended, kind)
        until(lambda: database.value(WAITING), what="a conflict")
        commit()
        assert revived.result(60)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("timeout", ["statement_timeout", "lock_timeout"])
def test_a_statement_that_was_cancelled_says_so_and_is_not_sent_again(
    dsn: str, ended: str, kind: str, timeout: str
) -> None:
    address = make_conninfo(dsn, options=f"-c {timeout}=200ms")
    said = f"gave up the statement: .* due to {timeout.replace('_', ' ')}"
    with held(dsn), pytest.raises(StorageUnavailable, match=said):
        retried(address, ended, kind)


def test_a_connection_that_is_well_is_kept(dsn: str, ended: str, database: Database) -> None:
    address = make_conninfo(dsn, options="-c lock_timeout=500ms", application_name="kept")
    with PostgresStorage(address, max_size=1) as storage:
        queue = JobQueue(storage)
        queue.count()
        before = database.value(BACKENDS)
        with held(dsn), pytest.raises(StorageUnavailable):
            queue.retry(ended)
        assert queue.retry(ended)
        assert database.value(BACKENDS) == before
